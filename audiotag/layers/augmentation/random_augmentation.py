"""Base class of the random augmentations.

They draw once per clip and call, and are the identity at inference.
"""

from typing import Any

import keras
from keras import ops


class RandomAugmentation(keras.layers.Layer):
    """Changes each clip of a batch at random while training.

    Derive from it to write an augmentation of your own. A subclass implements one
    method, `_augment(inputs)`, which returns the changed batch with the shape and the
    type of its inputs. It is called only while training; at inference the layer is
    the identity.

    Draw every random number with these helpers. They draw again at every call, also
    inside a compiled graph, and are repeatable with a seed:

    - `_selected(inputs)`: which clips change, each with `probability`: bool [B, 1, ...].
    - `_uniform(shape, low, high)`: float32, from low to below high.
    - `_integers(shape, low, high)`: int32, from low to high, both included.

    Give every clip a draw of its own (a shape that begins with the batch size) and
    return the clips that are not selected unchanged. An augmentation with options
    checks them in `__init__` and adds them to `get_config`. To be saved it needs
    `@keras.saving.register_keras_serializable(package="...")`.

    Args:
        probability: Probability that a clip changes.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: A probability outside 0 to 1.

    Input shape: [B, ...], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> class Invert(RandomAugmentation):
        ...     def _augment(self, inputs):
        ...         return ops.where(self._selected(inputs), -inputs, inputs)
        >>> waveforms, invert = ops.ones((4, 3)), Invert(probability=1.0, seed=1)
        >>> float(invert(waveforms, training=True)[0, 0]), float(invert(waveforms)[0, 0])
        (-1.0, 1.0)
    """

    def __init__(self, *, probability: float = 1.0, seed: int | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1. Received: probability={probability}")
        self.probability = probability
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        return self._augment(inputs) if training else inputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape

    def compute_output_spec(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        """The shape and the type of the input."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"probability": self.probability, "seed": self.seed}

    def _augment(self, inputs):
        """The changed batch, of the shape and the type of the inputs; subclasses implement it."""
        raise NotImplementedError(f"{type(self).__name__} must implement _augment(inputs).")

    def _selected(self, inputs):
        """Which clips change: bool [B, 1, ...], of the rank of the input."""
        shape = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        return self._uniform(shape, 0, 1) < self.probability

    def _uniform(self, shape, low, high):
        """Numbers from low to below high, float32 whatever Keras' float type is."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.generator)

    def _integers(self, shape, low, high):
        """Integers from low to high, both included, int32; high may be a tensor."""
        offset = self._uniform(shape, 0, 1) * ops.cast(high - low + 1, "float32")
        return low + ops.cast(ops.floor(offset), "int32")
