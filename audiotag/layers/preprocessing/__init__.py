"""Layers that turn spectrograms into the images that a network receives."""
