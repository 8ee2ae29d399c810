"""The networks: 3D ResNets, Inception-I3D, and the 2D example of the tutorial; their cards and weights files."""
