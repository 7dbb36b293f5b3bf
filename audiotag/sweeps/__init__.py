"""Sweeps of seeds, folds and variations, and comparisons of runs."""
