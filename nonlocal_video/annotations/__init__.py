"""Segments of videos as annotation tools keep them: ELAN, BORIS, Label Studio, ActivityNet, subtitles, CSV."""
