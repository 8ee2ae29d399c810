"""Find the moments of an archive that are most like given ones."""
