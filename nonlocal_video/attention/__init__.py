"""Where the network looked: attention of non-local blocks and class evidence, in the frames' own pixels and times."""
