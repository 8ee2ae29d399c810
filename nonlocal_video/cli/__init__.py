"""The command line: `nonlocal-video VERB`."""
