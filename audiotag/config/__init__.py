"""Experiment files: schema, components, checks and loading."""
