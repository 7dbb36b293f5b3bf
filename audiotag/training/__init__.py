"""Training: stage after stage, fold after fold; a killed run resumes."""
