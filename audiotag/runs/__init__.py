"""A run's directory and the trained models in it."""
