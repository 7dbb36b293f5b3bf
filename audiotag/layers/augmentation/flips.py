"""Flipped images as classes of their own: K classes become 4 K while training."""

from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation, has_labels

FLIPS = ("none", "time", "frequency", "both")  # the order of the four blocks of K labels


@keras.saving.register_keras_serializable(package="audiotag")
class FlipsAsClasses(RandomAugmentation):
    """Flips images at random while training, and makes each kind of flip a class.

    A bark played backwards is no bark, but a network can learn to distinguish it from
    a bell played backwards: that gives four times the images and four times the
    classes. Of the 4 K labels the first K are for images as they are; those flipped in
    time, in frequency and in both follow. At inference no image is flipped, unless the
    attribute `flip` is set to another index of `FLIPS`. With `predict.flip_tta` an
    experiment predicts all four flips, reads each in its own K columns and averages
    them.

    Reference: M. Pinto, "Freesound Audio Tagging 2019", 6th place (80 → 320 classes).

    Args:
        seed: Seed of the random numbers; None is different in every run.

    Input: (image [B, M, T, C], labels [B, K]).
    Output: (image [B, M, T, C], labels [B, 4 K]), the same types.

    Example:
        >>> image, labels = FlipsAsClasses(seed=1)((ops.ones((2, 8, 9, 1)), ops.eye(2)), training=True)
        >>> tuple(labels.shape), float(ops.sum(labels))
        ((2, 8), 2.0)
    """

    def __init__(self, *, seed: int | None = None, **kwargs):
        super().__init__(seed=seed, **kwargs)
        self.flip = 0  # index of `FLIPS`, at inference
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs, training=False):
        if training:
            return super().call(inputs, training=True)
        images, *labels = inputs if isinstance(inputs, (tuple, list)) else [inputs]
        flip = ops.full((ops.shape(images)[0],), self.flip, "int32")
        images = self.transform_inputs(images, flip) if self.flip else images
        return (images, self.transform_labels(labels[0], flip)) if labels else images

    def get_random_transformation(self, inputs: Any) -> Any:
        """The flip of each image, an index of `FLIPS`: int32 [B]."""
        return keras.random.randint((ops.shape(inputs)[0],), 0, len(FLIPS), seed=self.generator)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        return flipped(inputs, transformation)

    def transform_labels(self, labels: Any, transformation: Any) -> Any:
        block = ops.one_hot(transformation, len(FLIPS), dtype=labels.dtype)  # [B, 4]
        blocks = block[:, :, None] * labels[:, None, :]  # [B, 4, K]
        return ops.reshape(blocks, (ops.shape(labels)[0], len(FLIPS) * labels.shape[-1]))  # [B, 4 K]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the images, and (B, 4 K) for labels of shape (B, K)."""
        if not has_labels(input_shape):
            return input_shape
        images, (batch, num_classes) = input_shape
        return tuple(images), (batch, len(FLIPS) * num_classes)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        config = super().get_config()
        del config["probability"]  # all four flips are equally likely
        return config


def flipped(image: Any, flip: Any) -> Any:
    """Flips each image as `FLIPS[flip]` says.

    Args:
        image: [B, M, T, C].
        flip: int [B], or [1] for all images; indices of `FLIPS`.

    Returns:
        [B, M, T, C], of the image's type.

    Example:
        >>> image = ops.reshape(ops.arange(4.0), (1, 2, 2, 1))
        >>> [int(pixel) for pixel in ops.reshape(flipped(image, [FLIPS.index("time")]), (-1,))]
        [1, 0, 3, 2]
    """
    flip = ops.reshape(ops.convert_to_tensor(flip, "int32"), (-1, 1, 1, 1))
    image = ops.where(flip % 2 == 1, ops.flip(image, axis=2), image)
    return ops.where(flip // 2 == 1, ops.flip(image, axis=1), image)
