"""Flipped images as classes of their own: K classes become 4 K while training."""

from typing import Any

import keras
from keras import ops

FLIPS = ("none", "time", "frequency", "both")  # the order of the four blocks of K labels


@keras.saving.register_keras_serializable(package="audiotag")
class FlipsAsClasses(keras.layers.Layer):
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
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self.flip = 0  # index of `FLIPS`, at inference
        self.input_spec = [keras.layers.InputSpec(ndim=4), keras.layers.InputSpec(ndim=2)]

    def call(self, inputs, training=False):
        image, labels = inputs
        batch = ops.shape(image)[0]
        flip = ops.full((batch,), self.flip, "int32")
        if training:
            flip = keras.random.randint((batch,), 0, len(FLIPS), seed=self.generator)  # [B]
        if training or self.flip:
            image = flipped(image, flip)
        block = ops.one_hot(flip, len(FLIPS), dtype=labels.dtype)  # [B, 4]
        labels = block[:, :, None] * labels[:, None, :]  # [B, 4, K]
        return image, ops.reshape(labels, (batch, len(FLIPS) * labels.shape[-1]))  # [B, 4 K]

    def compute_output_shape(self, input_shape: Any) -> tuple[tuple[int | None, ...], ...]:
        """The shape of the image, and (B, 4 K) for labels of shape (B, K)."""
        image, (batch, num_classes) = input_shape
        return (tuple(image), (batch, len(FLIPS) * num_classes))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> tuple[keras.KerasTensor, ...]:
        """The shapes above, and the types of the inputs."""
        shapes = self.compute_output_shape([tensor.shape for tensor in inputs])
        return tuple(keras.KerasTensor(shape, dtype=tensor.dtype) for shape, tensor in zip(shapes, inputs))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"seed": self.seed}


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
