"""From a clip, or a folder of clips, to scores."""
