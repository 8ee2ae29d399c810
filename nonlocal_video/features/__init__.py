"""Features of the windows of many videos: tables of them, and the files that other projects read."""
