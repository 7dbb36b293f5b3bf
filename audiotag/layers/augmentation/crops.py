"""Random crops."""

import math
from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation
from audiotag.layers.augmentation.zoom import bilinear


@keras.saving.register_keras_serializable(package="audiotag")
class RandomCrop(RandomAugmentation):
    """Crops each image to a random stretch of time while training.

    A network that accepts any width trains on short stretches of long clips and
    predicts on complete clips: at inference the layer is the identity. Each clip
    draws its own start, uniform over all that keep the stretch inside. With the windows
    `random_crops` of `predict` an experiment predicts such stretches, too: the attribute
    `position` then crops every image at that fraction of all starts. The width
    differs between training and inference, so a functional model sees it as unknown,
    unless every image is `num_frames` wide already.

    If the network needs one fixed width, shorten the window of the waveform instead:
    then long clips are predicted window by window.

    Reference: Dorfer and Widmer, 2nd place of DCASE 2018, trained on 384 of 3000 frames.

    Args:
        num_frames: Width of the crop in frames.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: num_frames below 1, or above the width of the images.

    Input shape: [B, M, T, C], any float type, T at least `num_frames` while training.
    Output shape: [B, M, num_frames, C] while training, [B, M, T, C] at inference, the same type.

    Example:
        >>> crop, image = RandomCrop(num_frames=384), ops.ones((2, 8, 3000, 1))
        >>> tuple(crop(image, training=True).shape), tuple(crop(image).shape)
        ((2, 8, 384, 1), (2, 8, 3000, 1))
        >>> crop(keras.Input((8, 3000, 1))).shape
        (None, 8, None, 1)
    """

    def __init__(self, *, num_frames: int, seed: int | None = None, **kwargs):
        super().__init__(seed=seed, **kwargs)
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1. Received: num_frames={num_frames}")
        self.num_frames = num_frames
        self.position: Any = None  # from 0 to below 1, at inference; None does not crop
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs, training=False):
        if training or self.position is None:
            return super().call(inputs, training=training)
        images, *labels = inputs if isinstance(inputs, (tuple, list)) else [inputs]
        self._check_width(images.shape)
        num_starts = ops.shape(images)[2] - self.num_frames + 1
        start = ops.cast(ops.floor(self.position * ops.cast(num_starts, "float32")), "int32")
        start = ops.full((ops.shape(images)[0], 1), ops.minimum(start, num_starts - 1), "int32")  # [B, 1]
        images = self.transform_inputs(images, start)
        return (images, *labels) if labels else images

    def get_random_transformation(self, inputs: Any) -> Any:
        """The first frame of each image's stretch: int32 [B, 1]."""
        self._check_width(inputs.shape)
        batch, _, width, _ = ops.shape(inputs)
        return self.random_integers((batch, 1), 0, width - self.num_frames)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        columns = transformation + ops.arange(self.num_frames, dtype="int32")  # [B, num_frames]
        return ops.take_along_axis(inputs, columns[:, None, :, None], axis=2)  # [B, M, num_frames, C]

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        """The shapes and types of the inputs; the width is None unless it is fixed."""
        image, *labels = keras.tree.flatten(super().compute_output_spec(inputs))
        self._check_width(image.shape)
        if image.shape[2] != self.num_frames:
            image = keras.KerasTensor((*image.shape[:2], None, image.shape[3]), dtype=image.dtype)
        return (image, *labels) if labels else image

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        config = super().get_config() | {"num_frames": self.num_frames}
        del config["probability"]  # every image is cropped
        return config

    def _check_width(self, shape):
        if shape[2] is not None and shape[2] < self.num_frames:
            raise ValueError(
                f"num_frames must be at most {shape[2]}, the width of images of shape {tuple(shape)}. "
                f"Received: num_frames={self.num_frames}. Lower it, or use longer windows."
            )


@keras.saving.register_keras_serializable(package="audiotag")
class RandomResizedCrop(RandomAugmentation):
    """Crops each image at random and resizes it back while training.

    It moves the sound, and makes it a little slower or faster, higher or lower. At
    inference the layer is the identity. With an area a and a ratio r, the crop has
    sqrt(a * r) of the width and sqrt(a / r) of the height, neither above 1, and its
    position is uniform within the image, at fractions of pixels too. The edges of
    the crop become the edges of the image; pixels are interpolated bilinearly.

    The areas are those of L. Romul, 1st place of FSDKaggle2019. So are the ratios: he
    drew 1.7 to 2.3 for images twice as wide as high, which is 0.85 to 1.15 here.
    Drawing log r uniformly follows torchvision.

    Reference: Szegedy et al., "Going deeper with convolutions", 2014, https://arxiv.org/abs/1409.4842;
    L. Romul, 2019.

    Args:
        min_area: Smallest crop, as a fraction of the image's area, above 0; a is uniform.
        max_area: Largest crop, at most 1.
        min_ratio: Lowest width / height of the crop relative to that of the image, above 0; log r is uniform.
        max_ratio: Highest such ratio.
        probability: Probability that an image is cropped.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, M, T, C], any float type.
    Output shape: that of the input, the same type; the interpolation is in float32.

    Example:
        >>> crop = RandomResizedCrop(min_area=0.25, max_area=0.25, min_ratio=1, max_ratio=1, probability=1, seed=2)
        >>> ramp = ops.reshape(ops.arange(8.0), (1, 1, 8, 1))
        >>> cropped = ops.reshape(crop(ramp, training=True), (-1,))
        >>> round(float(cropped[4] - cropped[3]), 4)
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
        super().__init__(probability=probability, seed=seed, **kwargs)
        if not 0 < min_area <= max_area <= 1:
            raise ValueError(
                "min_area must be above 0 and at most max_area, and max_area at most 1. "
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

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "min_area": self.min_area,
            "max_area": self.max_area,
            "min_ratio": self.min_ratio,
            "max_ratio": self.max_ratio,
        }

    def get_random_transformation(self, inputs: Any) -> Any:
        """The rows [B, M] and columns [B, T] to show, and which images change."""
        batch, height, width, _ = ops.shape(inputs)
        area = self.random_uniform((batch, 1), self.min_area, self.max_area)  # [B, 1]
        ratio = ops.exp(self.random_uniform((batch, 1), math.log(self.min_ratio), math.log(self.max_ratio)))
        rows = self._positions(height, ops.sqrt(area / ratio))  # [B, M]
        columns = self._positions(width, ops.sqrt(area * ratio))  # [B, T]
        return rows, columns, self.random_selection(inputs)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        rows, columns, is_selected = transformation
        return ops.where(is_selected, bilinear(inputs, rows, columns), inputs)

    def _positions(self, size, fraction):
        """The input position that each pixel shows when a random fraction of the axis fills it: [B, 1] → [B, size]."""
        fraction = ops.minimum(fraction, 1)
        before = (1 - fraction) * self.random_uniform(ops.shape(fraction), 0, 1)  # fraction of the axis before the crop
        center = ops.arange(size, dtype="float32") + 0.5  # pixel i extends from i to i + 1
        return before * ops.cast(size, "float32") + center * fraction - 0.5
