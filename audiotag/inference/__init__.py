"""Predictions for records, audio files and long recordings."""
