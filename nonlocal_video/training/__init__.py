"""What a network is trained on: checked clips, their splits, and what the network sees of them."""
