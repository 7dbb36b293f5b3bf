"""Flipped pictures as sounds of their own: K classes become 4 K while training, and four answers become one."""

import keras
from keras import ops

FLIPS = ("none", "time", "frequency", "both")  # the order of the four blocks of K labels


@keras.saving.register_keras_serializable(package="audiotag")
class FlipLabels(keras.layers.Layer):
    """Flips pictures in time, in frequency or both while training, and calls each flip a class of its own.

    A bark played backwards is no bark, but a sound that a network can learn to tell
    from a bell played backwards: four times the pictures and four times the
    questions. Of the 4 K labels the first K are for pictures as they are, then come
    those flipped in time, in frequency and in both. Outside training no picture is
    flipped, unless its attribute `flip` is set to another index of `FLIPS`: so that
    `predict.flips` of an experiment hears all four, flipped in the same place as while
    training and each read in its own K columns, and averages them.

    Reference: M. Pinto, "Freesound Audio Tagging 2019", 6th place (80 → 320 classes).

    Args:
        seed: Makes the draws repeatable. None draws differently every run.

    Input: (picture [B, M, T, C], labels [B, K]).
    Output: (picture [B, M, T, C], labels [B, 4 K]), the same types.

    Example:
        >>> picture, labels = FlipLabels(seed=1)((ops.ones((2, 8, 9, 1)), ops.eye(2)), training=True)
        >>> tuple(labels.shape), float(ops.sum(labels))
        ((2, 8), 2.0)
    """

    def __init__(self, *, seed: int | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self.flip = 0  # what is heard outside training
        self.input_spec = [keras.layers.InputSpec(ndim=4), keras.layers.InputSpec(ndim=2)]

    def call(self, inputs, training=False):
        picture, labels = inputs
        batch = ops.shape(picture)[0]
        flip = ops.full((batch,), self.flip, "int32")
        if training:
            flip = keras.random.randint((batch,), 0, len(FLIPS), seed=self.generator)  # [B]
        if training or self.flip:
            picture = flipped(picture, flip)
        block = ops.one_hot(flip, len(FLIPS), dtype=labels.dtype)  # [B, 4]
        labels = block[:, :, None] * labels[:, None, :]  # [B, 4, K]
        return picture, ops.reshape(labels, (batch, len(FLIPS) * labels.shape[-1]))  # [B, 4 K]

    def compute_output_shape(self, input_shape):
        """The shape of the picture, and (B, 4 K) for labels of (B, K)."""
        picture, (batch, num_classes) = input_shape
        return (tuple(picture), (batch, len(FLIPS) * num_classes))

    def compute_output_spec(self, inputs, training=False):
        """The shapes above, and the types of the inputs."""
        shapes = self.compute_output_shape([tensor.shape for tensor in inputs])
        return tuple(keras.KerasTensor(shape, dtype=tensor.dtype) for shape, tensor in zip(shapes, inputs))

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"seed": self.seed}


def flipped(picture, flip):
    """Pictures [B, M, T, C], each flipped as `FLIPS[flip]` says, for `flip` int [B].

    Example:
        >>> picture = ops.reshape(ops.arange(4.0), (1, 2, 2, 1))
        >>> [int(pixel) for pixel in ops.reshape(flipped(picture, [FLIPS.index("time")]), (-1,))]
        [1, 0, 3, 2]
    """
    flip = ops.reshape(ops.convert_to_tensor(flip, "int32"), (-1, 1, 1, 1))
    picture = ops.where(flip % 2 == 1, ops.flip(picture, axis=2), picture)
    return ops.where(flip // 2 == 1, ops.flip(picture, axis=1), picture)
