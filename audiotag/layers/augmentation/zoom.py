"""Looking closer at a part of each picture."""

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import _Disturbance


@keras.saving.register_keras_serializable(package="audiotag")
class Zoom(_Disturbance):
    """Magnifies each picture about a random point while training.

    The same sound, a little slower or faster, higher or lower: neither should
    change what it is called. Outside training the layer is the identity. Each
    picture draws one scale s for both axes and, in each axis, a point f uniform
    from the middle of the first pixel, 0, to that of the last. That point stays
    where it is: pixel i shows what lay at f + (i - f) / s, blended from the two
    neighbours of that place in each axis. With s of 1 or more that is always
    inside; with less, what lies outside repeats the edge.

    Reference: the zoom of fastai v1, as M. Pinto, 6th place of FSDKaggle2019, trained with it.

    Args:
        min_scale: Smallest scale, above 0; scales are uniform.
        max_scale: Largest scale.
        probability: That a picture is zoomed at all.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, M, T, C], any float type.
    Output shape: that of the input, the same type; the blending is float32.

    Example:
        >>> zoom = Zoom(min_scale=1.5, probability=1.0, seed=1)
        >>> ramp = ops.reshape(ops.arange(5.0), (1, 5, 1, 1))
        >>> near = ops.reshape(zoom(ramp, training=True), (-1,))
        >>> [round(float(step), 3) for step in near[1:] - near[:-1]]
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
        super().__init__(probability, seed, **kwargs)
        if not 0 < min_scale <= max_scale:
            raise ValueError(
                "min_scale must be above 0 and at most max_scale. "
                f"Received: min_scale={min_scale}, max_scale={max_scale}"
            )
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"min_scale": self.min_scale, "max_scale": self.max_scale}

    def _disturbed(self, picture):
        batch, height, width, _ = ops.shape(picture)
        scale = self._uniform((batch, 1), self.min_scale, self.max_scale)  # [B, 1]
        rows, columns = [self._places(size, scale) for size in (height, width)]  # [B, M], [B, T]
        return ops.where(self._chosen(picture), bilinear(picture, rows, columns), picture)

    def _places(self, size, scale):
        """What each pixel along an axis shows, about a point that is thrown: [B, 1] → [B, S]."""
        place = ops.arange(size, dtype="float32")
        focus = self._uniform(ops.shape(scale), 0, 1) * place[-1]  # [B, 1]
        return focus + (place - focus) / scale


def bilinear(picture, rows, columns):
    """What lies at given places of each picture, blended from its neighbours.

    Two products with a matrix a clip, one an axis: pixel m weighs max(0, 1 - |row - m|)
    in a row. Quicker than gathering four pixels for each, and the same everywhere.

    Args:
        picture: [B, M, T, C].
        rows: [B, I], float32; 0 is the middle of the first row. What lies outside repeats the edge.
        columns: [B, J].

    Returns:
        [B, I, J, C], of the picture's type.

    Example:
        >>> picture = ops.reshape(ops.convert_to_tensor([0.0, 10.0, 20.0]), (1, 3, 1, 1))
        >>> rows, columns = ops.convert_to_tensor([[-1.0, 0.5, 1.75]]), ops.zeros((1, 1))
        >>> [float(value) for value in ops.reshape(bilinear(picture, rows, columns), (-1,))]
        [0.0, 5.0, 17.5]
    """
    _, height, width, _ = ops.shape(picture)
    pixels = ops.cast(picture, "float32")
    pixels = ops.einsum("bim,bmtc->bitc", _weights(rows, height), pixels)  # [B, I, T, C]
    pixels = ops.einsum("bjt,bitc->bijc", _weights(columns, width), pixels)  # [B, I, J, C]
    return ops.cast(pixels, picture.dtype)


def _weights(places, size):
    """How much each of `size` pixels counts at each place: [B, P] → [B, P, S]."""
    pixel = ops.arange(size, dtype="float32")
    places = ops.minimum(ops.maximum(places, 0), pixel[-1])
    return ops.relu(1 - ops.abs(places[:, :, None] - pixel))
