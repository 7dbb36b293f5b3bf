"""Base class of the random augmentations.

They draw once per clip and call, and are the identity at inference.
"""

from typing import Any

import keras
from keras import ops


class RandomAugmentation(keras.layers.Layer):
    """Changes each clip of a batch at random while training, and its labels too.

    Derive from it to write an augmentation of your own. It draws a transformation of
    the batch once and applies it to the inputs and to the labels, as Keras' image
    preprocessing layers do. A subclass implements:

    - `get_random_transformation(inputs)`: draws all random numbers; returns tensors in any structure.
    - `transform_inputs(inputs, transformation)`: the changed batch, of the type of the inputs; draws nothing.
    - `transform_labels(labels, transformation)`: the labels of the changed batch, which are unchanged by
      default; draws nothing.

    They are called only while training; at inference the layer is the identity. It
    takes a batch, or a pair (batch, labels), and returns the same. A layer that
    changes labels takes only pairs while training.

    Draw every random number with these methods. They draw again at every call, also
    inside a compiled graph, and are repeatable with a seed:

    - `random_selection(inputs)`: which clips change, each with `probability`: bool [B, 1, ...].
    - `random_uniform(shape, low, high)`: float32, from low to below high.
    - `random_integers(shape, low, high)`: int32, from low to high, both included.

    For other distributions pass `seed=self.generator` to the functions of
    `keras.random`. Give every clip a draw of its own (a shape that begins with the
    batch size) and return the clips that are not selected unchanged. An augmentation
    with options checks them in `__init__` and adds them to `get_config`; its
    `input_spec`, if it sets one, is that of the inputs without labels. To be saved it
    needs `@keras.saving.register_keras_serializable(package="...")`. See
    docs/augmentations.md; `audiotag.testing.check_augmentation` tests it.

    Args:
        probability: Probability that a clip changes.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: A probability outside 0 to 1, or inputs without the labels that the layer changes.

    Input: [B, ...], any float type; or a pair of it and labels [B, K].
    Output: the same shapes and types.

    Example:
        >>> class Invert(RandomAugmentation):
        ...     def get_random_transformation(self, inputs):
        ...         return self.random_selection(inputs)
        ...     def transform_inputs(self, inputs, transformation):
        ...         return ops.where(transformation, -inputs, inputs)
        >>> waveforms, invert = ops.ones((4, 3)), Invert(probability=1.0, seed=1)
        >>> float(invert(waveforms, training=True)[0, 0]), float(invert(waveforms)[0, 0])
        (-1.0, 1.0)
    """

    def __init__(self, *, probability: float = 1.0, seed: int | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1. Received: probability={probability}")
        self.probability = probability
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        is_pair = isinstance(inputs, (tuple, list))
        if not training:
            return tuple(inputs) if is_pair else inputs
        if is_pair:
            inputs, labels = inputs
            transformation = self.get_random_transformation(inputs)
            return self.transform_inputs(inputs, transformation), self.transform_labels(labels, transformation)
        if type(self).transform_labels is not RandomAugmentation.transform_labels:
            raise ValueError(
                f"{type(self).__name__} changes labels too, so while training it needs them. "
                f"Received: inputs of shape {tuple(inputs.shape)} only. Pass a pair (inputs, labels)."
            )
        return self.transform_inputs(inputs, self.get_random_transformation(inputs))

    def get_random_transformation(self, inputs: Any) -> Any:
        """Draws the transformation of a batch; subclasses implement it.

        Args:
            inputs: The batch [B, ...], without labels.

        Returns:
            Tensors in any structure, as `transform_inputs` and `transform_labels` take them.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement get_random_transformation(inputs).")

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        """Applies a transformation to a batch; subclasses implement it.

        Args:
            inputs: The batch [B, ...].
            transformation: What `get_random_transformation` returned.

        Returns:
            The changed batch, of the type of the inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement transform_inputs(inputs, transformation).")

    def transform_labels(self, labels: Any, transformation: Any) -> Any:
        """Applies a transformation to labels; by default they stay as they are.

        Args:
            labels: [B, K].
            transformation: What `get_random_transformation` returned.

        Returns:
            The labels of the changed batch, of the same type.
        """
        return labels

    def random_selection(self, inputs: Any) -> Any:
        """Which clips change, each with `probability`.

        Args:
            inputs: The batch [B, ...].

        Returns:
            bool [B, 1, ...], of the rank of the inputs.
        """
        shape = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        return self.random_uniform(shape, 0, 1) < self.probability

    def random_uniform(self, shape: Any, low: float, high: float) -> Any:
        """Numbers from low to below high.

        Returns:
            float32 of that shape, whatever Keras' float type is.
        """
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.generator)

    def random_integers(self, shape: Any, low: Any, high: Any) -> Any:
        """Integers from low to high, both included.

        Args:
            shape: The shape of the result.
            low: An integer, or a tensor that broadcasts to the shape.
            high: Likewise, at most 2^24 above low.

        Returns:
            int32 of that shape.
        """
        offset = self.random_uniform(shape, 0, 1) * ops.cast(high - low + 1, "float32")
        return low + ops.cast(ops.floor(offset), "int32")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input, or those of inputs and labels."""
        return tuple(map(tuple, input_shape)) if has_labels(input_shape) else input_shape

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        """The shape and the type of the input, or those of inputs and labels."""
        if not isinstance(inputs, (tuple, list)):
            return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=inputs.dtype)
        shapes = self.compute_output_shape([tensor.shape for tensor in inputs])
        return tuple(keras.KerasTensor(shape, dtype=tensor.dtype) for shape, tensor in zip(shapes, inputs))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"probability": self.probability, "seed": self.seed}

    def _assert_input_compatibility(self, inputs):
        """Keras compares inputs with `input_spec` here, which is that of the inputs without labels."""
        super()._assert_input_compatibility(inputs[0] if isinstance(inputs, (tuple, list)) else inputs)


def has_labels(input_shape: Any) -> bool:
    """Whether these are the shapes of a pair (inputs, labels), not that of inputs.

    Example:
        >>> has_labels((None, 64, 100, 1)), has_labels([(None, 64, 100, 1), (None, 80)])
        (False, True)
    """
    return hasattr(input_shape[0], "__len__")
