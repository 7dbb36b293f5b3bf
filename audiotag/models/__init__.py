"""Who listens? Each model is a function of a picture's shape and the number of classes."""

from audiotag.models import conv_skip, densenet

# The names an experiment file may use.
MODELS = {"conv_skip": conv_skip.conv_skip, "densenet169": densenet.densenet169}

__all__ = ["MODELS"]
