"""Teaching: a model from a few labelled examples, in one pass of the network."""
