"""Random shifts in time."""

from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation


@keras.saving.register_keras_serializable(package="audiotag")
class TimeRoll(RandomAugmentation):
    """Rolls each waveform by a random number of samples while training.

    When a sound happens should not change its class. The roll is circular: what is
    shifted out at the end comes back at the beginning. Each clip draws its own shift,
    uniform over all its samples. At inference the layer is the identity.

    Args:
        probability: Probability that a clip is rolled.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: A probability outside 0 to 1.

    Input shape: a waveform [B, N], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> rolled = TimeRoll(seed=1)(ops.reshape(ops.arange(4.0), (1, 4)), training=True)
        >>> sorted(float(sample) for sample in rolled[0])
        [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(self, *, probability: float = 1.0, seed: int | None = None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def get_random_transformation(self, inputs: Any) -> Any:
        """The shift of each clip in samples: int32 [B, 1]."""
        batch, num_samples = ops.shape(inputs)
        return ops.where(self.random_selection(inputs), self.random_integers((batch, 1), 0, num_samples - 1), 0)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        num_samples = ops.shape(inputs)[1]
        sample = ops.arange(num_samples, dtype="int32")
        return ops.take_along_axis(inputs, (sample - transformation) % num_samples, axis=1)  # [B, N]
