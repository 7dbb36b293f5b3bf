"""Hiding stretches of time and of frequency, so that a network learns to do without them."""

from typing import Literal

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import _Disturbance


class _Mask(_Disturbance):
    """Hides stretches along one axis; `axes` says which, in a spectrogram [B, T, M] and in a picture [B, M, T, C]."""

    axes = (None, None)

    def __init__(
        self,
        *,
        max_width: int | None = None,
        max_share: float | None = None,
        count: int = 1,
        min_count: int | None = None,
        fill: float | Literal["mean", "minimum"] = 0.0,
        probability: float = 1.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability, seed, **kwargs)
        if (max_width is None) == (max_share is None):
            raise ValueError(
                "Expected either max_width, in places, or max_share, as a share of them all. "
                f"Received: max_width={max_width}, max_share={max_share}"
            )
        if max_width is not None and max_width < 1:
            raise ValueError(f"max_width must be at least 1. Received: max_width={max_width}")
        if max_share is not None and not 0 < max_share <= 1:
            raise ValueError(f"max_share must be above 0 and at most 1. Received: max_share={max_share}")
        if count < 1:
            raise ValueError(f"count must be at least 1. Received: count={count}")
        if min_count is not None and not 0 <= min_count <= count:
            raise ValueError(f"min_count must be from 0 to count={count}, or None. Received: min_count={min_count}")
        self.max_width = max_width
        self.max_share = max_share
        self.count = count
        self.min_count = min_count
        self.fill = _checked(fill)
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=4)

    def build(self, input_shape):
        """Refuses masks wider than what they hide from, and those that could hide nothing."""
        axis = self.axes[len(input_shape) - 3]
        size = input_shape[axis]
        if size is None:
            return
        where = f"the size of axis {axis} of the input of shape {tuple(input_shape)}"
        if self.max_width is not None and self.max_width > size:
            raise ValueError(f"max_width must be at most {size}, {where}. Received: max_width={self.max_width}")
        if self.max_share is not None and self.max_share * size < 1:
            raise ValueError(f"max_share must be at least 1 / {size}, {where}. Received: max_share={self.max_share}")

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "max_width": self.max_width,
            "max_share": self.max_share,
            "count": self.count,
            "min_count": self.min_count,
            "fill": self.fill,
        }

    def _disturbed(self, inputs):
        rank = len(inputs.shape)
        axis = self.axes[rank - 3]
        shape = ops.shape(inputs)
        start, width = self._throw(shape[0], shape[axis])
        hidden = ops.any(_stretches(start, width, shape[axis]), axis=1)  # [B, S]
        hidden = ops.reshape(hidden, [shape[i] if i in (0, axis) else 1 for i in range(rank)])
        return ops.where(hidden & self._chosen(inputs), _filling(inputs, self.fill), inputs)

    def _throw(self, batch, size):
        """Where the masks of each clip start, and how wide they are: int32 [B, count, 1] both."""
        dice = (batch, self.count, 1)
        widest = self.max_width
        if widest is None:  # in float32 0.29 * 100 may fall below 29
            widest = ops.cast(ops.floor(self.max_share * ops.cast(size, "float32") + 1e-3), "int32")
        width = ops.minimum(self._integers(dice, 0, widest), size)  # a size not known before may be smaller
        start = self._integers(dice, 0, size - width)
        if self.min_count is None:
            return start, width
        number = self._integers((batch, 1, 1), self.min_count, self.count)
        return start, ops.where(_numbered(self.count) < number, width, 0)


@keras.saving.register_keras_serializable(package="audiotag")
class TimeMask(_Mask):
    """Hides stretches of time in each clip while training.

    The network must then recognise a sound from what remains, as we do when a
    door slams in between. Outside training the layer is the identity. Each clip
    draws its own stretches, and draws them anew at every step.

    The first place of FSDKaggle2019 trained with `max_share=0.2, count=2,
    min_count=1, fill="minimum", probability=0.5`.

    Reference: Park et al., "SpecAugment", 2019, https://arxiv.org/abs/1904.08779 (T in the paper);
    L. Romul, 2019.

    Args:
        max_width: Widest stretch, in frames. Widths are uniform over 0 to max_width, both included, and
            starts over every place that keeps the stretch inside.
        max_share: The same as a share of all frames, above 0 and at most 1, rounded down to whole frames. One
            of max_width and max_share is given.
        count: How many stretches a clip; they may overlap.
        min_count: Fewest stretches a clip: their number is then uniform over min_count to count, both
            included. None for always count.
        fill: What they are filled with: a number (0 is the mean of a standardised picture), or the "mean" or
            the "minimum" of the clip.
        probability: That a clip is masked at all.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range, or max_width above the number of frames.

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


@keras.saving.register_keras_serializable(package="audiotag")
class FrequencyMask(_Mask):
    """Hides bands of frequencies in each clip while training.

    The network must then recognise a sound from what remains, as we do through
    a wall. Outside training the layer is the identity. Each clip draws its own
    bands, and draws them anew at every step.

    The first place of FSDKaggle2019 trained with `max_share=0.15, count=2,
    min_count=1, fill="minimum", probability=0.5`.

    Reference: Park et al., "SpecAugment", 2019, https://arxiv.org/abs/1904.08779 (F in the paper);
    L. Romul, 2019.

    Args:
        max_width: Most neighbouring mel bands to hide. Widths are uniform over 0 to max_width, both
            included, and starts over every place that keeps the mask inside.
        max_share: The same as a share of all bands, above 0 and at most 1, rounded down to whole bands. One of
            max_width and max_share is given.
        count: How many masks a clip; they may overlap.
        min_count: Fewest masks a clip: their number is then uniform over min_count to count, both included.
            None for always count.
        fill: What they are filled with: a number (0 is the mean of a standardised picture), or the "mean" or
            the "minimum" of the clip.
        probability: That a clip is masked at all.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range, or max_width above the number of bands.

    Input shape: a spectrogram [B, T, M] or a picture [B, M, T, C], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> mel = ops.ones((2, 50, 64))
        >>> mask = FrequencyMask(max_share=0.25, seed=1)
        >>> bool(ops.all(mask(mel) == mel))
        True
        >>> tuple(mask(mel, training=True).shape)
        (2, 50, 64)
    """

    axes = (2, 1)


@keras.saving.register_keras_serializable(package="audiotag")
class Bars(_Disturbance):
    """Hides crosses of full-width and full-height bars in each picture while training.

    Harder than masks: every cross hides a band of frequencies and a stretch of time
    at once. Each picture draws one length and a number of crosses, and each cross a
    centre row and column, uniform over the picture. A bar of length L about a
    centre c covers floor(c - L / 2) to before floor(c + L / 2), cut at the edges.
    Outside training the layer is the identity.

    Reference: the random erasing of M. Pinto, 6th place of FSDKaggle2019, whose pictures are 256 x 256 pixels
    with values from 0 to 1.

    Args:
        min_count: Fewest crosses a picture; their number is uniform, both ends included.
        max_count: Most crosses a picture.
        min_length: Thinnest bars, in pixels; the length is uniform, both ends included.
        max_length: Thickest bars, in pixels.
        fill: What they are filled with: a number, or the "mean" or the "minimum" of the picture.
        probability: That a picture is barred at all.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, M, T, C], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> bars = Bars(max_count=1, min_length=2, max_length=2, probability=1.0, seed=1)
        >>> barred = bars(ops.ones((1, 16, 16, 1)), training=True)
        >>> bool(ops.any(ops.all(barred == 0, axis=2)))  # a whole row is hidden
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
        super().__init__(probability, seed, **kwargs)
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

    def build(self, input_shape):
        """Refuses bars thicker than the picture."""
        size = min((size for size in input_shape[1:3] if size is not None), default=None)
        if size is not None and self.max_length > size:
            raise ValueError(
                f"max_length must be at most {size}, the smaller side of pictures of shape {tuple(input_shape)}. "
                f"Received: max_length={self.max_length}"
            )

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "min_count": self.min_count,
            "max_count": self.max_count,
            "min_length": self.min_length,
            "max_length": self.max_length,
            "fill": self.fill,
        }

    def _disturbed(self, picture):
        batch, height, width, _ = ops.shape(picture)
        number, length, row, column = self._throw(batch, height, width)
        back = (length + 1) // 2  # [B, 1, 1]
        length = ops.where(_numbered(self.max_count) < number, length, 0)  # [B, max_count, 1]
        rows = ops.any(_stretches(row - back, length, height), axis=1)  # [B, M]
        columns = ops.any(_stretches(column - back, length, width), axis=1)  # [B, T]
        hidden = rows[:, :, None, None] | columns[:, None, :, None]  # [B, M, T, 1]
        return ops.where(hidden & self._chosen(picture), _filling(picture, self.fill), picture)

    def _throw(self, batch, height, width):
        """How many crosses, how thick: int32 [B, 1, 1]; their centre rows and columns: int32 [B, max_count, 1]."""
        number = self._integers((batch, 1, 1), self.min_count, self.max_count)
        length = self._integers((batch, 1, 1), self.min_length, self.max_length)
        row = self._integers((batch, self.max_count, 1), 0, height - 1)
        column = self._integers((batch, self.max_count, 1), 0, width - 1)
        return number, length, row, column


def _checked(fill):
    if fill not in ("mean", "minimum") and not isinstance(fill, (int, float)):
        raise ValueError(f"fill must be a number, 'mean' or 'minimum'. Received: fill={fill!r}")
    return fill


def _filling(inputs, fill):
    """The number itself, or the mean or the minimum of each clip: [B, 1, ...]."""
    axes = tuple(range(1, len(inputs.shape)))
    if fill == "mean":
        return ops.mean(inputs, axis=axes, keepdims=True)
    if fill == "minimum":
        return ops.min(inputs, axis=axes, keepdims=True)
    return ops.cast(fill, inputs.dtype)


def _stretches(start, width, size):
    """Which of `size` places lie from start to before start + width: [..., 1] → [..., size]."""
    place = ops.arange(size, dtype="int32")
    return (place >= start) & (place < start + width)


def _numbered(count):
    """0 to count - 1 along an axis before that of the places: int32 [count, 1]."""
    return ops.arange(count, dtype="int32")[:, None]
