"""What every disturbance shares: a throw for each clip, anew at every call, and peace outside training."""

import keras
from keras import ops


class _Disturbance(keras.layers.Layer):
    """Changes clips while training; a subclass says in `_disturbed` how, with the throws below."""

    def __init__(self, probability, seed, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1. Received: probability={probability}")
        self.probability = probability
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        return self._disturbed(inputs) if training else inputs

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape

    def compute_output_spec(self, inputs, training=False):
        """The shape and the type of the input."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"probability": self.probability, "seed": self.seed}

    def _chosen(self, inputs):
        """Whom it strikes: a boolean for each clip, [B, 1, ...] with as many axes as the input."""
        dice = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        return self._uniform(dice, 0, 1) < self.probability

    def _uniform(self, shape, low, high):
        """Numbers from low to high, float32 whatever Keras is set to."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.generator)

    def _integers(self, shape, low, high):
        """Whole numbers from low to high, both included, int32; high may be a tensor."""
        throw = self._uniform(shape, 0, 1) * ops.cast(high - low + 1, "float32")
        return low + ops.cast(ops.floor(throw), "int32")
