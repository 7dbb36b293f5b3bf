"""Exports and submissions."""
