"""Check what has to hold on a machine with a GPU, in one run of a few minutes: see docs/gpu.md."""
