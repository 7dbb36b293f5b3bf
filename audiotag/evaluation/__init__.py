"""Metrics, thresholds and confidence intervals of a run's predictions."""
