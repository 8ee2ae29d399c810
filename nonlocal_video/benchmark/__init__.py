"""Benchmarks that write JSON with a description of the machine: `nonlocal-video benchmark`."""
