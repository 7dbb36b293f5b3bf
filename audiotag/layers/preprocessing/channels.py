"""Layers that change the channels of an image."""

from typing import Any

import keras
import numpy as np
from keras import ops

# The colormap "magma" of S. van der Walt and N. Smith, 2015, CC0: 256 colors from black over purple and orange to
# pale yellow, two hex digits each for red, green and blue, rounded to 8 bits as in matplotlib.
MAGMA = np.frombuffer(
    bytes.fromhex(
        "00000401000501010601010802010902020b02020d03030f03031204041405041606051806051a07061c08071e090720"
        "0a08220b09240c09260d0a290e0b2b100b2d110c2f120d31130d34140e36150e38160f3b180f3d19103f1a10421c1044"
        "1d11471e114920114b21114e22115024125325125527125829115a2a115c2c115f2d11612f1163311165331067341069"
        "36106b38106c390f6e3b0f703d0f713f0f72400f74420f75440f764510774710784910784a10794c117a4e117b4f127b"
        "51127c52137c54137d56147d57157e59157e5a167e5c167f5d177f5f187f601880621980641a80651a80671b80681c81"
        "6a1c816b1d816d1d816e1e81701f81721f817320817521817621817822817922827b23827c23827e2482802582812581"
        "8326818426818627818827818928818b29818c29818e2a81902a81912b81932b80942c80962c80982d80992d809b2e7f"
        "9c2e7f9e2f7fa02f7fa1307ea3307ea5317ea6317da8327daa337dab337cad347cae347bb0357bb2357bb3367ab5367a"
        "b73779b83779ba3878bc3978bd3977bf3a77c03a76c23b75c43c75c53c74c73d73c83e73ca3e72cc3f71cd4071cf4070"
        "d0416fd2426fd3436ed5446dd6456cd8456cd9466bdb476adc4869de4968df4a68e04c67e24d66e34e65e44f64e55064"
        "e75263e85362e95462ea5661eb5760ec5860ed5a5fee5b5eef5d5ef05f5ef1605df2625df2645cf3655cf4675cf4695c"
        "f56b5cf66c5cf66e5cf7705cf7725cf8745cf8765cf9785df9795df97b5dfa7d5efa7f5efa815ffb835ffb8560fb8761"
        "fc8961fc8a62fc8c63fc8e64fc9065fd9266fd9467fd9668fd9869fd9a6afd9b6bfe9d6cfe9f6dfea16efea36ffea571"
        "fea772fea973feaa74feac76feae77feb078feb27afeb47bfeb67cfeb77efeb97ffebb81febd82febf84fec185fec287"
        "fec488fec68afec88cfeca8dfecc8ffecd90fecf92fed194fed395fed597fed799fed89afdda9cfddc9efddea0fde0a1"
        "fde2a3fde3a5fde5a7fde7a9fde9aafdebacfcecaefceeb0fcf0b2fcf2b4fcf4b6fcf6b8fcf7b9fcf9bbfcfbbdfcfdbf"
    ),
    "uint8",
).reshape(256, 3)


@keras.saving.register_keras_serializable(package="audiotag")
class RepeatChannels(keras.layers.Layer):
    """Repeats the channels of an image, by default to three.

    For networks that were pretrained on color images.

    Args:
        count: Number of copies of each channel.

    Raises:
        ValueError: count is below 1.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C * count], the same type.

    Example:
        >>> tuple(RepeatChannels()(ops.ones((2, 64, 50, 1))).shape)
        (2, 64, 50, 3)
    """

    def __init__(self, *, count: int = 3, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if count < 1:
            raise ValueError(f"count must be at least 1. Received: count={count}")
        self.count = count
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        return ops.concatenate([image] * self.count, axis=-1)  # [B, M, T, C * count]

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """(B, M, T, C * count) for an input of (B, M, T, C)."""
        return (*input_shape[:3], input_shape[3] * self.count)

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """The shape of `compute_output_shape` and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(image.shape), dtype=image.dtype)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"count": self.count}


@keras.saving.register_keras_serializable(package="audiotag")
class FlipBands(keras.layers.Layer):
    """Turns images upside down: the highest band is on top.

    In the images of front ends row 0 is the lowest band. Plots of spectrograms have it at the bottom, so this is how
    a network that is to see such plots gets them.

    Input shape: [B, M, T, C], any float type.
    Output shape: The same shape and type.

    Example:
        >>> image = ops.reshape(ops.convert_to_tensor([1.0, 2.0, 3.0]), (1, 3, 1, 1))
        >>> [int(band) for band in ops.reshape(FlipBands()(image), (-1,))]
        [3, 2, 1]
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        return ops.flip(image, axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """The shape and the type of the input."""
        return keras.KerasTensor(image.shape, dtype=image.dtype)


@keras.saving.register_keras_serializable(package="audiotag")
class Deltas(keras.layers.Layer):
    """Appends the first and second derivatives of each channel along time.

    They emphasize onsets and glides, which a network of small kernels would have to
    learn. A line and a parabola are fitted to the `width` frames around each frame; the
    derivatives are the slope of the line, per frame, and twice the quadratic coefficient
    of the parabola, per frame squared, as in `librosa.feature.delta` of orders 1 and 2.
    Frames near an end take the derivatives of the first or last complete window. A clip
    shorter than `width` is extended with its last frame.

    Reference: L. Romul, 1st place of FSDKaggle2019, 2019, with librosa's width of 9.

    Args:
        width: Number of frames in a window, odd and at least 3.

    Raises:
        ValueError: width is even or below 3.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, 3 * C], float32: the image, then the first, then the second derivatives.

    Example:
        >>> parabola = ops.reshape(ops.arange(10.0) ** 2, (1, 1, 10, 1))
        >>> [round(float(channel)) for channel in Deltas()(parabola)[0, 0, 4]]
        [16, 8, 2]
    """

    def __init__(self, *, width: int = 9, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        if width < 3 or width % 2 == 0:
            raise ValueError(f"width must be odd and at least 3. Received: width={width}")
        self.width = width
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        length = ops.shape(image)[2]
        frame = ops.arange(length + self.width - 1, dtype="int32")
        extended = ops.take(image, ops.minimum(frame, length - 1), axis=2)  # [B, M, T + width - 1, C]
        window = ops.clip(ops.arange(length, dtype="int32") - self.width // 2, 0, ops.maximum(length - self.width, 0))
        offset = np.arange(self.width) - self.width // 2
        curvature = np.square(offset) - np.mean(np.square(offset))
        channels = [image]
        for weights in (offset / np.sum(np.square(offset)), 2 * curvature / np.sum(np.square(curvature))):
            derivative = sum(float(weight) * extended[:, :, i : i + length] for i, weight in enumerate(weights))
            channels.append(ops.take(derivative, window, axis=2))  # [B, M, T, C]
        return ops.concatenate(channels, axis=-1)  # [B, M, T, 3 * C]

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """(B, M, T, 3 * C) for an input of (B, M, T, C)."""
        return (*input_shape[:3], 3 * input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"width": self.width}


@keras.saving.register_keras_serializable(package="audiotag")
class FrequencyChannel(keras.layers.Layer):
    """Appends a channel with the position of each band, from -1 to 1.

    A convolution is invariant to position; with this channel it can distinguish a low
    hum from a high whistle. The lowest band has -1, the highest 1, evenly spaced.

    Reference: the 3rd place of Freesound Audio Tagging 2019 (ex4sperans).

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C + 1], the same type.

    Example:
        >>> [float(value) for value in FrequencyChannel()(ops.ones((1, 5, 50, 1)))[0, :, 7, 1]]
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        batch, bands, frames, _ = ops.shape(image)
        band = ops.arange(bands, dtype="float32")
        position = 2 * band / ops.cast(ops.maximum(bands - 1, 1), "float32") - 1
        position = ops.reshape(ops.cast(position, image.dtype), (1, bands, 1, 1))
        position = ops.broadcast_to(position, (batch, bands, frames, 1))
        return ops.concatenate([image, position], axis=-1)  # [B, M, T, C + 1]

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """(B, M, T, C + 1) for an input of (B, M, T, C)."""
        return (*input_shape[:3], input_shape[3] + 1)

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """The shape of `compute_output_shape` and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(image.shape), dtype=image.dtype)


@keras.saving.register_keras_serializable(package="audiotag")
class Colormap(keras.layers.Layer):
    """Converts images of one channel to the 256 colors of "magma", 0 to 1.

    For networks that were pretrained on color images, and to reproduce taggers that
    were trained on plots of spectrograms. A pixel x gets color number
    floor(256 * (x - low) / (high - low)), limited to 0 and 255; a constant image gets
    the first color. The levels of `Quantize8Bit` get one color each.

    Reference: S. van der Walt and N. Smith, matplotlib, 2015; `librosa.display.specshow` draws decibels with it.

    Args:
        low: Value of the first color; None for each image's own minimum.
        high: Value of the last color; None for each image's own maximum.

    Raises:
        ValueError: low is not below high, or the images have more than one channel.

    Input shape: [B, M, T, 1], any float type.
    Output shape: [B, M, T, 3], float32: red, green and blue.

    Example:
        >>> colors = Colormap()(ops.reshape(ops.convert_to_tensor([-80.0, -40.0, 0.0]), (1, 1, 3, 1)))
        >>> ops.convert_to_numpy(255 * colors[0, 0]).round().astype(int).tolist()
        [[0, 0, 4], [183, 55, 121], [252, 253, 191]]
    """

    def __init__(self, *, low: float | None = None, high: float | None = None, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must be below high={high}. Received: low={low}")
        self.low = low
        self.high = high
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: 1})

    def call(self, image):
        low = ops.min(image, axis=(1, 2, 3), keepdims=True) if self.low is None else self.low  # [B, 1, 1, 1]
        high = ops.max(image, axis=(1, 2, 3), keepdims=True) if self.high is None else self.high
        color = ops.floor(256 * (image - low) / ops.maximum(high - low, 1e-6))
        color = ops.cast(ops.clip(color, 0, 255), "int32")[..., 0]  # [B, M, T]
        return ops.take(MAGMA.astype("float32") / 255, color, axis=0)  # [B, M, T, 3]

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """(B, M, T, 3) for an input of (B, M, T, 1)."""
        return (*input_shape[:3], 3)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"low": self.low, "high": self.high}
