"""Devices, and what runs a network on them."""
