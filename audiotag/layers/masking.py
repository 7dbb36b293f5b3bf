"""Hiding stretches of time and of frequency, so that a network learns to do without them."""

import keras
from keras import ops


class _Mask(keras.layers.Layer):
    """Hides stretches along one axis; `axes` says which, in a spectrogram [B, T, M] and in a picture [B, M, T, C]."""

    axes = (None, None)

    def __init__(self, max_width, count, fill, seed, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if max_width < 1:
            raise ValueError(f"max_width must be at least 1. Received: max_width={max_width}")
        if count < 1:
            raise ValueError(f"count must be at least 1. Received: count={count}")
        self.max_width = max_width
        self.count = count
        self.fill = fill
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=4)

    def build(self, input_shape):
        """Refuses masks wider than what they hide from."""
        axis = self.axes[len(input_shape) - 3]
        size = input_shape[axis]
        if size is not None and self.max_width > size:
            raise ValueError(
                f"max_width must be at most {size}, the size of axis {axis} of the input of shape "
                f"{tuple(input_shape)}. Received: max_width={self.max_width}"
            )

    def call(self, inputs, training=False):
        if not training:
            return inputs
        rank = len(inputs.shape)
        axis = self.axes[rank - 3]
        shape = ops.shape(inputs)
        start, width = self._throw(shape[0], shape[axis])
        place = ops.arange(shape[axis])  # [S]
        hidden = ops.any((place >= start) & (place < start + width), axis=1)  # [B, S]
        hidden = ops.reshape(hidden, [shape[i] if i in (0, axis) else 1 for i in range(rank)])
        return ops.where(hidden, ops.cast(self.fill, inputs.dtype), inputs)

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape

    def compute_output_spec(self, inputs, training=False):
        """The shape and the type of the input."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "max_width": self.max_width,
            "count": self.count,
            "fill": self.fill,
            "seed": self.seed,
        }

    def _throw(self, batch, size):
        """Where the masks of each clip start, and how wide they are: int32 [B, count, 1] both."""
        dice = (batch, self.count, 1)
        width = keras.random.randint(dice, 0, self.max_width + 1, seed=self.generator)
        width = ops.minimum(width, size)  # a size not known before may be smaller
        start = keras.random.uniform(dice, dtype="float32", seed=self.generator)
        start = ops.floor(start * ops.cast(size - width + 1, "float32"))
        return ops.cast(start, "int32"), width


@keras.saving.register_keras_serializable(package="audiotag")
class TimeMask(_Mask):
    """Hides stretches of time in each clip while training.

    The network must then recognise a sound from what remains, as we do when a
    door slams in between. Outside training the layer is the identity. Each clip
    draws its own stretches, and draws them anew at every step.

    Reference: Park et al., "SpecAugment", 2019, https://arxiv.org/abs/1904.08779 (T in the paper).

    Args:
        max_width: Widest stretch, in frames. Widths are uniform over 0 to max_width, both included, and
            starts over every place that keeps the stretch inside.
        count: How many stretches a clip; they may overlap.
        fill: What they are filled with; 0 is the mean of a standardised picture.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: max_width or count below 1, or max_width above the number of frames.

    Input shape: a spectrogram [B, T, M] or a picture [B, M, T, C], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> picture = ops.ones((2, 64, 50, 1))
        >>> mask = TimeMask(max_width=20, seed=1)
        >>> bool(ops.all(mask(picture) == picture))
        True
        >>> bool(ops.all(mask(picture, training=True) == picture))
        False
    """

    axes = (1, 2)

    def __init__(self, *, max_width: int, count: int = 1, fill: float = 0.0, seed: int | None = None, **kwargs):
        super().__init__(max_width, count, fill, seed, **kwargs)


@keras.saving.register_keras_serializable(package="audiotag")
class FrequencyMask(_Mask):
    """Hides bands of frequencies in each clip while training.

    The network must then recognise a sound from what remains, as we do through
    a wall. Outside training the layer is the identity. Each clip draws its own
    bands, and draws them anew at every step.

    Reference: Park et al., "SpecAugment", 2019, https://arxiv.org/abs/1904.08779 (F in the paper).

    Args:
        max_width: Most neighbouring mel bands to hide. Widths are uniform over 0 to max_width, both
            included, and starts over every place that keeps the mask inside.
        count: How many masks a clip; they may overlap.
        fill: What they are filled with; 0 is the mean of a standardised picture.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: max_width or count below 1, or max_width above the number of bands.

    Input shape: a spectrogram [B, T, M] or a picture [B, M, T, C], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> mel = ops.ones((2, 50, 64))
        >>> mask = FrequencyMask(max_width=20, seed=1)
        >>> bool(ops.all(mask(mel) == mel))
        True
        >>> tuple(mask(mel, training=True).shape)
        (2, 50, 64)
    """

    axes = (2, 1)

    def __init__(self, *, max_width: int, count: int = 1, fill: float = 0.0, seed: int | None = None, **kwargs):
        super().__init__(max_width, count, fill, seed, **kwargs)
