"""Benchmarks that write JSON with the machine's description: `nonlocal-video benchmark`."""
