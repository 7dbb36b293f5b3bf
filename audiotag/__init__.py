"""Trains, scores and serves audio taggers on few trusted and many unreliable labels."""

__version__ = "0.1.0"
