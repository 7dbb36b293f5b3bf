"""Showing a part of each picture."""

import math

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import _Disturbance
from audiotag.layers.augmentation.zoom import bilinear


@keras.saving.register_keras_serializable(package="audiotag")
class RandomCrop(keras.layers.Layer):
    """Shows a random stretch of time of each picture while training.

    A network that takes any width learns from short stretches of long clips,
    and hears the whole clip afterwards: outside training the layer is the
    identity. Each clip draws its own stretch, the last one included. Because
    the width differs between training and hearing, a network sees it as unknown,
    unless every picture is `num_frames` wide already.

    Where the network must always see the same width, shorten the window of the
    waveform instead: then long clips are heard window by window.

    Reference: Dorfer and Widmer, 2nd place of DCASE 2018, trained on 384 of 3000 frames.

    Args:
        num_frames: Width of a stretch.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: num_frames below 1, or pictures known to be narrower.

    Input shape: [B, M, T, C], any float type, T at least `num_frames` while training.
    Output shape: [B, M, num_frames, C] while training, [B, M, T, C] otherwise, the same type.

    Example:
        >>> crop, picture = RandomCrop(num_frames=384), ops.ones((2, 8, 3000, 1))
        >>> tuple(crop(picture, training=True).shape), tuple(crop(picture).shape)
        ((2, 8, 384, 1), (2, 8, 3000, 1))
        >>> crop(keras.Input((8, 3000, 1))).shape
        (None, 8, None, 1)
    """

    def __init__(self, *, num_frames: int, seed: int | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1. Received: num_frames={num_frames}")
        self.num_frames = num_frames
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture, training=False):
        if not training:
            return picture
        self._refuse_narrower(picture.shape)
        batch, _, width, _ = ops.shape(picture)
        start = keras.random.uniform((batch, 1), dtype="float32", seed=self.generator)
        start = ops.floor(start * ops.cast(width - self.num_frames + 1, "float32"))
        columns = ops.cast(start, "int32") + ops.arange(self.num_frames, dtype="int32")  # [B, num_frames]
        return ops.take_along_axis(picture, columns[:, None, :, None], axis=2)  # [B, M, num_frames, C]

    def compute_output_shape(self, input_shape):
        """The shape of the input, which is that of the output outside training."""
        return input_shape

    def compute_output_spec(self, picture, training=False):
        """The type of the input, and its shape but for the width, which depends on whether the network trains."""
        self._refuse_narrower(picture.shape)
        batch, bands, width, channels = picture.shape
        width = width if width == self.num_frames else None
        return keras.KerasTensor((batch, bands, width, channels), dtype=picture.dtype)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"num_frames": self.num_frames, "seed": self.seed}

    def _refuse_narrower(self, shape):
        if shape[2] is not None and shape[2] < self.num_frames:
            raise ValueError(
                f"num_frames must be at most {shape[2]}, the width of pictures of shape {tuple(shape)}. "
                f"Received: num_frames={self.num_frames}. Use fewer, or longer windows."
            )


@keras.saving.register_keras_serializable(package="audiotag")
class RandomResizedCrop(_Disturbance):
    """Stretches a random part of each picture to its full size while training.

    The part of the picture covers a share of its area and has about its shape: sound
    is moved, and made a little slower or faster, higher or lower. Outside training
    the layer is the identity. With an area a and a ratio r, the part is sqrt(a * r)
    of the width and sqrt(a / r) of the height, neither above 1, and lies uniformly
    within the picture, at fractions of pixels too. Its edges become the edges of
    the picture, and between pixels neighbours are blended.

    The areas are those of the first place of FSDKaggle2019, and so are the ratios: he
    drew 1.7 to 2.3 for pictures twice as wide as high. The logarithm is torchvision's.

    Reference: Szegedy et al., "Going deeper with convolutions", 2014, https://arxiv.org/abs/1409.4842;
    L. Romul, 2019.

    Args:
        min_area: Smallest part, as a share of the picture's area, above 0; a is uniform.
        max_area: Largest part, at most 1.
        min_ratio: Least width by height of the part, over that of the picture; the logarithm of r is uniform.
        max_ratio: Greatest such ratio.
        probability: That a picture is cropped at all.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, M, T, C], any float type.
    Output shape: that of the input, the same type; the blending is float32.

    Example:
        >>> crop = RandomResizedCrop(min_area=0.25, max_area=0.25, min_ratio=1, max_ratio=1, probability=1, seed=2)
        >>> ramp = ops.reshape(ops.arange(8.0), (1, 1, 8, 1))
        >>> near = ops.reshape(crop(ramp, training=True), (-1,))
        >>> round(float(near[4] - near[3]), 4)
        0.5
    """

    def __init__(
        self,
        *,
        min_area: float = 0.8,
        max_area: float = 1.0,
        min_ratio: float = 0.85,
        max_ratio: float = 1.15,
        probability: float = 0.33,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability, seed, **kwargs)
        if not 0 < min_area <= max_area <= 1:
            raise ValueError(
                "min_area must be above 0 and at most max_area, and that at most 1. "
                f"Received: min_area={min_area}, max_area={max_area}"
            )
        if not 0 < min_ratio <= max_ratio:
            raise ValueError(
                "min_ratio must be above 0 and at most max_ratio. "
                f"Received: min_ratio={min_ratio}, max_ratio={max_ratio}"
            )
        self.min_area = min_area
        self.max_area = max_area
        self.min_ratio = min_ratio
        self.max_ratio = max_ratio
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "min_area": self.min_area,
            "max_area": self.max_area,
            "min_ratio": self.min_ratio,
            "max_ratio": self.max_ratio,
        }

    def _disturbed(self, picture):
        batch, height, width, _ = ops.shape(picture)
        area = self._uniform((batch, 1), self.min_area, self.max_area)  # [B, 1]
        ratio = ops.exp(self._uniform((batch, 1), math.log(self.min_ratio), math.log(self.max_ratio)))
        rows = self._places(height, ops.sqrt(area / ratio))  # [B, M]
        columns = self._places(width, ops.sqrt(area * ratio))  # [B, T]
        return ops.where(self._chosen(picture), bilinear(picture, rows, columns), picture)

    def _places(self, size, share):
        """What each pixel along an axis shows, when a share of it, somewhere, fills it: [B, 1] → [B, S]."""
        share = ops.minimum(share, 1)
        before = (1 - share) * self._uniform(ops.shape(share), 0, 1)  # share of the axis before the part
        middle = ops.arange(size, dtype="float32") + 0.5  # a pixel reaches from its number to the next
        return before * ops.cast(size, "float32") + middle * share - 0.5
