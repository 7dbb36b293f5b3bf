"""Random masks over time and frequency."""

from typing import Any, Literal

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation, has_labels


class _Mask(RandomAugmentation):
    """Masks stretches of one axis: `axes` holds that of a spectrogram [B, T, M] and of an image [B, M, T, C]."""

    axes: tuple[int, int]

    def __init__(
        self,
        *,
        max_width: int | None = None,
        max_fraction: float | None = None,
        count: int = 1,
        min_count: int | None = None,
        fill: float | Literal["mean", "minimum"] = 0.0,
        probability: float = 1.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if (max_width is None) == (max_fraction is None):
            raise ValueError(
                "Expected either max_width, in frames or bands, or max_fraction, as a fraction of all of them. "
                f"Received: max_width={max_width}, max_fraction={max_fraction}"
            )
        if max_width is not None and max_width < 1:
            raise ValueError(f"max_width must be at least 1. Received: max_width={max_width}")
        if max_fraction is not None and not 0 < max_fraction <= 1:
            raise ValueError(f"max_fraction must be above 0 and at most 1. Received: max_fraction={max_fraction}")
        if count < 1:
            raise ValueError(f"count must be at least 1. Received: count={count}")
        if min_count is not None and not 0 <= min_count <= count:
            raise ValueError(f"min_count must be from 0 to count={count}, or None. Received: min_count={min_count}")
        self.max_width = max_width
        self.max_fraction = max_fraction
        self.count = count
        self.min_count = min_count
        self.fill = _checked(fill)
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=4)

    def build(self, input_shape: Any) -> None:
        """Refuses masks wider than the axis and fractions below one frame or band."""
        input_shape = input_shape[0] if has_labels(input_shape) else input_shape
        axis = self.axes[len(input_shape) - 3]
        size = input_shape[axis]
        if size is None:
            return
        where = f"the size of axis {axis} of the input of shape {tuple(input_shape)}"
        if self.max_width is not None and self.max_width > size:
            raise ValueError(f"max_width must be at most {size}, {where}. Received: max_width={self.max_width}")
        if self.max_fraction is not None and self.max_fraction * size < 1:
            raise ValueError(
                f"max_fraction must be at least 1 / {size}, {where}. Received: max_fraction={self.max_fraction}"
            )

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "max_width": self.max_width,
            "max_fraction": self.max_fraction,
            "count": self.count,
            "min_count": self.min_count,
            "fill": self.fill,
        }

    def get_random_transformation(self, inputs: Any) -> Any:
        """What is masked: bool, of size 1 on all axes but the batch and the masked one."""
        rank = len(inputs.shape)
        axis = self.axes[rank - 3]
        shape = ops.shape(inputs)
        start, width = self._draw_parameters(shape[0], shape[axis])
        masked = ops.any(_stretches(start, width, shape[axis]), axis=1)  # [B, size]
        masked = ops.reshape(masked, [shape[i] if i in (0, axis) else 1 for i in range(rank)])
        return masked & self.random_selection(inputs)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        return ops.where(transformation, _fill_values(inputs, self.fill), inputs)

    def _draw_parameters(self, batch, size):
        """Start and width of each clip's masks: int32 [B, count, 1] both."""
        shape = (batch, self.count, 1)
        max_width = self.max_width
        if max_width is None:  # in float32 0.29 * 100 may fall below 29
            max_width = ops.cast(ops.floor(self.max_fraction * ops.cast(size, "float32") + 1e-3), "int32")
        width = ops.minimum(self.random_integers(shape, 0, max_width), size)  # a size unknown to `build` may be smaller
        start = self.random_integers(shape, 0, size - width)
        if self.min_count is None:
            return start, width
        number = self.random_integers((batch, 1, 1), self.min_count, self.count)
        return start, ops.where(_indices(self.count) < number, width, 0)


@keras.saving.register_keras_serializable(package="audiotag")
class TimeMask(_Mask):
    """Masks stretches of time in each clip while training.

    The network must then recognize a sound from what remains. Each clip draws its own
    stretches, again at every step. At inference the layer is the identity.

    The first place of FSDKaggle2019 trained with `max_fraction=0.2, count=2,
    min_count=1, fill="minimum", probability=0.5`.

    Reference: Park et al., "SpecAugment", 2019, https://arxiv.org/abs/1904.08779 (T in the paper);
    L. Romul, 2019.

    Args:
        max_width: Widest mask, in frames. Widths are uniform from 0 to max_width, both included, and
            starts over all that keep the mask inside.
        max_fraction: The same as a fraction of all frames, above 0 and at most 1, rounded down to frames.
            Give either max_width or max_fraction.
        count: Masks per clip; they may overlap.
        min_count: Fewest masks per clip: their number is then uniform from min_count to count, both
            included. None for always count.
        fill: The value of masked frames: a number (0 is the mean of a standardized image), or the "mean" or
            the "minimum" of the clip.
        probability: Probability that a clip is masked.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range, or max_width above the number of frames.

    Input shape: a spectrogram [B, T, M] or an image [B, M, T, C], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> image = ops.ones((2, 64, 50, 1))
        >>> mask = TimeMask(max_width=20, seed=1)
        >>> bool(ops.all(mask(image) == image))
        True
        >>> bool(ops.all(mask(image, training=True) == image))
        False
    """

    axes = (1, 2)


@keras.saving.register_keras_serializable(package="audiotag")
class FrequencyMask(_Mask):
    """Masks bands of frequencies in each clip while training.

    The network must then recognize a sound from what remains. Each clip draws its own
    bands, again at every step. At inference the layer is the identity.

    The first place of FSDKaggle2019 trained with `max_fraction=0.15, count=2,
    min_count=1, fill="minimum", probability=0.5`.

    Reference: Park et al., "SpecAugment", 2019, https://arxiv.org/abs/1904.08779 (F in the paper);
    L. Romul, 2019.

    Args:
        max_width: Widest mask, in mel bands. Widths are uniform from 0 to max_width, both included, and
            starts over all that keep the mask inside.
        max_fraction: The same as a fraction of all bands, above 0 and at most 1, rounded down to bands.
            Give either max_width or max_fraction.
        count: Masks per clip; they may overlap.
        min_count: Fewest masks per clip: their number is then uniform from min_count to count, both
            included. None for always count.
        fill: The value of masked bands: a number (0 is the mean of a standardized image), or the "mean" or
            the "minimum" of the clip.
        probability: Probability that a clip is masked.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range, or max_width above the number of bands.

    Input shape: a spectrogram [B, T, M] or an image [B, M, T, C], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> mel = ops.ones((2, 50, 64))
        >>> mask = FrequencyMask(max_fraction=0.25, seed=1)
        >>> bool(ops.all(mask(mel) == mel))
        True
        >>> tuple(mask(mel, training=True).shape)
        (2, 50, 64)
    """

    axes = (2, 1)


@keras.saving.register_keras_serializable(package="audiotag")
class BarErasing(RandomAugmentation):
    """Erases crosses of full-width and full-height bars in each image while training.

    Harder than the masks: every cross hides a band of frequencies and a stretch of
    time at once. Each image draws one length and a number of crosses; each cross draws
    a center row and column, uniform over the image. A bar of length L about a center c
    covers floor(c - L / 2) to before floor(c + L / 2), cut at the edges. At inference
    the layer is the identity.

    Reference: the random erasing of M. Pinto, 6th place of FSDKaggle2019, whose images have 256 x 256 pixels
    with values from 0 to 1.

    Args:
        min_count: Fewest crosses per image; their number is uniform, both ends included.
        max_count: Most crosses per image.
        min_length: Thinnest bars, in pixels; the length is uniform, both ends included.
        max_length: Thickest bars, in pixels.
        fill: The value of erased pixels: a number, or the "mean" or the "minimum" of the image.
        probability: Probability that an image gets bars.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, M, T, C], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> bars = BarErasing(max_count=1, min_length=2, max_length=2, probability=1.0, seed=1)
        >>> erased = bars(ops.ones((1, 16, 16, 1)), training=True)
        >>> bool(ops.any(ops.all(erased == 0, axis=2)))  # a complete row is erased
        True
    """

    def __init__(
        self,
        *,
        min_count: int = 1,
        max_count: int = 4,
        min_length: int = 5,
        max_length: int = 20,
        fill: float | Literal["mean", "minimum"] = 0.0,
        probability: float = 0.75,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if not 1 <= min_count <= max_count:
            raise ValueError(
                "min_count must be at least 1 and at most max_count. "
                f"Received: min_count={min_count}, max_count={max_count}"
            )
        if not 1 <= min_length <= max_length:
            raise ValueError(
                "min_length must be at least 1 and at most max_length. "
                f"Received: min_length={min_length}, max_length={max_length}"
            )
        self.min_count = min_count
        self.max_count = max_count
        self.min_length = min_length
        self.max_length = max_length
        self.fill = _checked(fill)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Any) -> None:
        """Refuses bars thicker than the image."""
        input_shape = input_shape[0] if has_labels(input_shape) else input_shape
        size = min((size for size in input_shape[1:3] if size is not None), default=None)
        if size is not None and self.max_length > size:
            raise ValueError(
                f"max_length must be at most {size}, the smaller side of images of shape {tuple(input_shape)}. "
                f"Received: max_length={self.max_length}"
            )

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "min_count": self.min_count,
            "max_count": self.max_count,
            "min_length": self.min_length,
            "max_length": self.max_length,
            "fill": self.fill,
        }

    def get_random_transformation(self, inputs: Any) -> Any:
        """Which pixels are erased: bool [B, M, T, 1]."""
        batch, height, width, _ = ops.shape(inputs)
        number, length, row, column = self._draw_parameters(batch, height, width)
        before = (length + 1) // 2  # [B, 1, 1]
        length = ops.where(_indices(self.max_count) < number, length, 0)  # [B, max_count, 1]
        rows = ops.any(_stretches(row - before, length, height), axis=1)  # [B, M]
        columns = ops.any(_stretches(column - before, length, width), axis=1)  # [B, T]
        erased = rows[:, :, None, None] | columns[:, None, :, None]  # [B, M, T, 1]
        return erased & self.random_selection(inputs)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        return ops.where(transformation, _fill_values(inputs, self.fill), inputs)

    def _draw_parameters(self, batch, height, width):
        """Number and length of each image's bars, int32 [B, 1, 1]; center rows and columns, int32 [B, max_count, 1]."""
        number = self.random_integers((batch, 1, 1), self.min_count, self.max_count)
        length = self.random_integers((batch, 1, 1), self.min_length, self.max_length)
        row = self.random_integers((batch, self.max_count, 1), 0, height - 1)
        column = self.random_integers((batch, self.max_count, 1), 0, width - 1)
        return number, length, row, column


def _checked(fill):
    if fill not in ("mean", "minimum") and not isinstance(fill, (int, float)):
        raise ValueError(f"fill must be a number, 'mean' or 'minimum'. Received: fill={fill!r}")
    return fill


def _fill_values(inputs, fill):
    """The number itself, or the mean or the minimum of each clip: [B, 1, ...]."""
    axes = tuple(range(1, len(inputs.shape)))
    if fill == "mean":
        return ops.mean(inputs, axis=axes, keepdims=True)
    if fill == "minimum":
        return ops.min(inputs, axis=axes, keepdims=True)
    return ops.cast(fill, inputs.dtype)


def _stretches(start, width, size):
    """Which of `size` positions lie from start to before start + width: [..., 1] → bool [..., size]."""
    position = ops.arange(size, dtype="int32")
    return (position >= start) & (position < start + width)


def _indices(count):
    """0 to count - 1: int32 [count, 1]."""
    return ops.arange(count, dtype="int32")[:, None]
