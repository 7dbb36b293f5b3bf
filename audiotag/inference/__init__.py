"""What did it hear? Scores, metrics, submissions and the model for serving."""
