"""Folds, out-of-fold predictions, label selection and label issues."""
