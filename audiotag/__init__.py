"""Trains and serves audio taggers on few reliable and many noisy labels."""

__version__ = "0.1.0"
