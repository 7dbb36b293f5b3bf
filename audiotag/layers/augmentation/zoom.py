"""Random zoom."""

from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation


@keras.saving.register_keras_serializable(package="audiotag")
class Zoom(RandomAugmentation):
    """Magnifies each image about a random point while training.

    The sound becomes a little slower or faster, higher or lower, which should not
    change its class. At inference the layer is the identity. Each image draws one
    scale s for both axes and, per axis, a point f uniform from the center of the
    first pixel, 0, to that of the last. The point f does not move: output pixel i
    shows the input at f + (i - f) / s, interpolated linearly between the two nearest
    pixels of each axis. With s of 1 or more that is always inside the image; with
    less, pixels outside repeat the edge.

    Reference: the zoom of fastai v1, used by M. Pinto, 6th place of FSDKaggle2019.

    Args:
        min_scale: Smallest scale, above 0; scales are uniform.
        max_scale: Largest scale.
        probability: Probability that an image is zoomed.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, M, T, C], any float type.
    Output shape: that of the input, the same type; the interpolation is in float32.

    Example:
        >>> zoom = Zoom(min_scale=1.5, probability=1.0, seed=1)
        >>> ramp = ops.reshape(ops.arange(5.0), (1, 5, 1, 1))
        >>> zoomed = ops.reshape(zoom(ramp, training=True), (-1,))
        >>> [round(float(step), 3) for step in zoomed[1:] - zoomed[:-1]]
        [0.667, 0.667, 0.667, 0.667]
    """

    def __init__(
        self,
        *,
        min_scale: float = 1.0,
        max_scale: float = 1.5,
        probability: float = 0.75,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if not 0 < min_scale <= max_scale:
            raise ValueError(
                "min_scale must be above 0 and at most max_scale. "
                f"Received: min_scale={min_scale}, max_scale={max_scale}"
            )
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"min_scale": self.min_scale, "max_scale": self.max_scale}

    def get_random_transformation(self, inputs: Any) -> Any:
        """The rows [B, M] and columns [B, T] to show, and which images change."""
        batch, height, width, _ = ops.shape(inputs)
        scale = self.random_uniform((batch, 1), self.min_scale, self.max_scale)  # [B, 1]
        rows, columns = [self._positions(size, scale) for size in (height, width)]  # [B, M], [B, T]
        return rows, columns, self.random_selection(inputs)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        rows, columns, is_selected = transformation
        return ops.where(is_selected, bilinear(inputs, rows, columns), inputs)

    def _positions(self, size, scale):
        """The input position that each pixel along an axis shows, about a random point: [B, 1] → [B, size]."""
        pixel = ops.arange(size, dtype="float32")
        focus = self.random_uniform(ops.shape(scale), 0, 1) * pixel[-1]  # [B, 1]
        return focus + (pixel - focus) / scale


def bilinear(image: Any, rows: Any, columns: Any) -> Any:
    """Samples images at given positions with bilinear interpolation.

    One matrix product per axis: pixel m has weight max(0, 1 - |row - m|). That is
    faster than gathering four pixels for each position, and equal on every backend.

    Args:
        image: [B, M, T, C].
        rows: [B, I], float32, in pixels; 0 is the center of the first row. Positions outside repeat the edge.
        columns: [B, J], likewise.

    Returns:
        [B, I, J, C], of the image's type.

    Example:
        >>> image = ops.reshape(ops.convert_to_tensor([0.0, 10.0, 20.0]), (1, 3, 1, 1))
        >>> rows, columns = ops.convert_to_tensor([[-1.0, 0.5, 1.75]]), ops.zeros((1, 1))
        >>> [float(value) for value in ops.reshape(bilinear(image, rows, columns), (-1,))]
        [0.0, 5.0, 17.5]
    """
    _, height, width, _ = ops.shape(image)
    pixels = ops.cast(image, "float32")
    pixels = ops.einsum("bim,bmtc->bitc", _weights(rows, height), pixels)  # [B, I, T, C]
    pixels = ops.einsum("bjt,bitc->bijc", _weights(columns, width), pixels)  # [B, I, J, C]
    return ops.cast(pixels, image.dtype)


def _weights(positions, size):
    """The weight of each of `size` pixels at each position: [B, P] → [B, P, size]."""
    pixel = ops.arange(size, dtype="float32")
    positions = ops.minimum(ops.maximum(positions, 0), pixel[-1])
    return ops.relu(1 - ops.abs(positions[:, :, None] - pixel))
