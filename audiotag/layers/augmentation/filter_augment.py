"""Random gains that change over the bands of a spectrogram."""

from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation, has_labels


@keras.saving.register_keras_serializable(package="audiotag")
class FilterAugment(RandomAugmentation):
    """Adds a random gain to each band of spectrograms in decibels while training.

    It imitates other microphones, rooms and distances. Each clip draws a number of
    segments, where they meet, and a gain at each end of a segment; between them the
    gain is linear in the bands. At inference the layer is the identity.

    Put it after a front end in decibels and before `standardize`, in `image_preprocess`.

    Reference: Nam, Kim and Park, "FilterAugment", 2022, https://arxiv.org/abs/2110.03282,
    the linear kind, whose gains are -6 to 6 dB and whose segments are 3 to 6.

    Args:
        max_db: Gains are uniform from -max_db to max_db, in the unit of the spectrogram.
        count: Most segments of a clip, at least 1.
        min_count: Fewest segments of a clip; their number is uniform from min_count to count. None for always count.
        probability: Probability that a clip is filtered.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: a spectrogram [B, T, M] or an image [B, M, T, C] of decibels, any float type.
    Output shape: that of the input, the same type; gains are computed in float32.

    Example:
        >>> mel = ops.zeros((2, 50, 64))
        >>> filtered = FilterAugment(max_db=6.0, seed=1)(mel, training=True)
        >>> float(ops.max(ops.abs(filtered))) <= 6.0
        True
        >>> bool(ops.all(filtered == filtered[:, :1]))  # the same at all times
        True
    """

    def __init__(
        self,
        *,
        max_db: float = 6.0,
        count: int = 6,
        min_count: int | None = 3,
        probability: float = 1.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if max_db <= 0:
            raise ValueError(f"max_db must be above 0. Received: max_db={max_db}")
        if count < 1:
            raise ValueError(f"count must be at least 1. Received: count={count}")
        if min_count is not None and not 1 <= min_count <= count:
            raise ValueError(f"min_count must be from 1 to count={count}, or None. Received: min_count={min_count}")
        self.max_db = max_db
        self.count = count
        self.min_count = min_count
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=4)

    def build(self, input_shape: Any) -> None:
        """Refuses a single band, which has no ends to interpolate between."""
        input_shape = input_shape[0] if has_labels(input_shape) else input_shape
        if input_shape[_band_axis(len(input_shape))] == 1:
            raise ValueError(f"Expected at least 2 bands. Received: input_shape={tuple(input_shape)}")

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"max_db": self.max_db, "count": self.count, "min_count": self.min_count}

    def get_random_transformation(self, inputs: Any) -> Any:
        """The gain of each band in decibels, float32 [B, 1, M] or [B, M, 1, 1]."""
        rank = len(inputs.shape)
        batch, num_bands = ops.shape(inputs)[0], ops.shape(inputs)[_band_axis(rank)]
        last = ops.cast(num_bands - 1, "float32")
        inner = ops.sort(self.random_uniform((batch, self.count - 1), 0, 1), axis=1) * last  # where segments meet
        if self.min_count is not None:  # the segments of a clip that are too many have no width, at the last band
            number = self.random_integers((batch, 1), self.min_count, self.count)
            inner = ops.where(ops.arange(1, self.count, dtype="int32")[None] < number, inner, last)
        ends = ops.zeros((batch, 1), "float32")
        start = ops.concatenate([ends, inner], axis=1)[:, :, None]  # [B, count, 1]
        stop = ops.concatenate([inner, ends + last], axis=1)[:, :, None]
        gain = self.random_uniform((batch, self.count + 1, 1), -self.max_db, self.max_db)
        band = ops.cast(ops.arange(num_bands), "float32")[None, None]  # [1, 1, M]
        passed = ops.clip((band - start) / ops.maximum(stop - start, 1e-3), 0, 1)  # the part of each segment below it
        total = gain[:, 0] + ops.sum((gain[:, 1:] - gain[:, :-1]) * passed, axis=1)  # [B, M]
        total = ops.reshape(total, (batch, num_bands, 1, 1) if rank == 4 else (batch, 1, num_bands))
        return ops.where(self.random_selection(inputs), total, 0.0)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        return ops.cast(ops.cast(inputs, "float32") + transformation, inputs.dtype)


def _band_axis(rank):
    return 1 if rank == 4 else rank - 1
