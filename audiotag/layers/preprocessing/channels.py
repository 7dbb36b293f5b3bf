"""More channels for a picture: copies, how it changes in time, where each band lies, or colours."""

import keras
import numpy as np
from keras import ops

# The colour map "magma" of S. van der Walt and N. Smith, 2015, CC0: 256 colours from black over purple and orange to
# pale yellow, two digits each for red, green and blue. Rounded to 8 bits, as matplotlib draws a spectrogram.
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
    """Repeats the channels of a picture, by default to the three of a colour.

    For networks whose weights were learned on colour images.

    Args:
        count: How many times each channel is there.

    Raises:
        ValueError: A count below 1.

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

    def call(self, picture):
        return ops.concatenate([picture] * self.count, axis=-1)  # [B, M, T, C * count]

    def compute_output_shape(self, input_shape):
        """(B, M, T, C * count) for an input of (B, M, T, C)."""
        return (*input_shape[:3], input_shape[3] * self.count)

    def compute_output_spec(self, picture):
        """The shape above, and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(picture.shape), dtype=picture.dtype)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"count": self.count}


@keras.saving.register_keras_serializable(package="audiotag")
class Deltas(keras.layers.Layer):
    """Adds two channels for each: how fast it changes in time, and how that changes.

    Attacks and glides stand out, which a network of small kernels would have to
    learn. Over the `width` frames around each frame a line and a parabola are fitted,
    and the slope of the line and twice the square term of the parabola, per frame and
    frame squared, are the two; so `librosa.feature.delta` has it, orders 1 and 2. The
    frames near an end take what the first or last whole stretch has. A clip shorter
    than `width` counts as if its last frame went on.

    Reference: the 1st place of Freesound Audio Tagging 2019 (lRomul), with librosa's width of 9.

    Args:
        width: Frames that are looked at together, odd.

    Raises:
        ValueError: A width that is even or below 3.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, 3 * C], float32: the picture, then the first, then the second derivatives.

    Example:
        >>> rising = ops.reshape(ops.arange(10.0) ** 2, (1, 1, 10, 1))
        >>> [round(float(channel)) for channel in Deltas()(rising)[0, 0, 4]]
        [16, 8, 2]
    """

    def __init__(self, *, width: int = 9, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        if width < 3 or width % 2 == 0:
            raise ValueError(f"width must be odd and at least 3. Received: width={width}")
        self.width = width
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture):
        length = ops.shape(picture)[2]
        place = ops.arange(length + self.width - 1, dtype="int32")
        lengthened = ops.take(picture, ops.minimum(place, length - 1), axis=2)
        stretch = ops.clip(ops.arange(length, dtype="int32") - self.width // 2, 0, ops.maximum(length - self.width, 0))
        steps = np.arange(self.width) - self.width // 2
        bend = np.square(steps) - np.mean(np.square(steps))
        channels = [picture]
        for weights in (steps / np.sum(np.square(steps)), 2 * bend / np.sum(np.square(bend))):
            fitted = sum(float(weight) * lengthened[:, :, i : i + length] for i, weight in enumerate(weights))
            channels.append(ops.take(fitted, stretch, axis=2))  # [B, M, T, C]
        return ops.concatenate(channels, axis=-1)  # [B, M, T, 3 * C]

    def compute_output_shape(self, input_shape):
        """(B, M, T, 3 * C) for an input of (B, M, T, C)."""
        return (*input_shape[:3], 3 * input_shape[3])

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"width": self.width}


@keras.saving.register_keras_serializable(package="audiotag")
class FrequencyChannel(keras.layers.Layer):
    """Adds a channel that says how high each band lies, from -1 to 1.

    A convolution does the same wherever it is; with this channel it can tell a low
    hum from a high whistle. The lowest band has -1, the highest 1, and the others lie
    evenly between.

    Reference: the 3rd place of Freesound Audio Tagging 2019 (ex4sperans).

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C + 1], the same type.

    Example:
        >>> [float(height) for height in FrequencyChannel()(ops.ones((1, 5, 50, 1)))[0, :, 7, 1]]
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture):
        batch, bands, frames, _ = ops.shape(picture)
        band = ops.arange(bands, dtype="float32")
        height = 2 * band / ops.cast(ops.maximum(bands - 1, 1), "float32") - 1
        height = ops.reshape(ops.cast(height, picture.dtype), (1, bands, 1, 1))
        return ops.concatenate([picture, ops.broadcast_to(height, (batch, bands, frames, 1))], axis=-1)

    def compute_output_shape(self, input_shape):
        """(B, M, T, C + 1) for an input of (B, M, T, C)."""
        return (*input_shape[:3], input_shape[3] + 1)

    def compute_output_spec(self, picture):
        """The shape above, and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(picture.shape), dtype=picture.dtype)


@keras.saving.register_keras_serializable(package="audiotag")
class ColourMap(keras.layers.Layer):
    """Paints pictures of one channel in the 256 colours of "magma", 0 to 1.

    For networks that learned on colour images, and taggers that looked at plots of
    spectrograms. A pixel x has the colour min(255, floor(256 * (x - low) / (high - low))),
    and the first where that is negative. A constant picture has the first colour. The
    levels of `EightBit` each have their own.

    Reference: S. van der Walt and N. Smith, matplotlib, 2015; `librosa.display.specshow` draws decibels so.

    Args:
        low: Value of the first colour; None for each picture's own minimum.
        high: Value of the last colour; None for each picture's own maximum.

    Raises:
        ValueError: A low that is not below high, or pictures of more than one channel.

    Input shape: [B, M, T, 1], any float type.
    Output shape: [B, M, T, 3], float32: red, green and blue.

    Example:
        >>> colours = ColourMap()(ops.reshape(ops.convert_to_tensor([-80.0, -40.0, 0.0]), (1, 1, 3, 1)))
        >>> ops.convert_to_numpy(255 * colours[0, 0]).round().astype(int).tolist()
        [[0, 0, 4], [183, 55, 121], [252, 253, 191]]
    """

    def __init__(self, *, low: float | None = None, high: float | None = None, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must be below high={high}. Received: low={low}")
        self.low = low
        self.high = high
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: 1})

    def call(self, picture):
        low = ops.min(picture, axis=(1, 2, 3), keepdims=True) if self.low is None else self.low  # [B, 1, 1, 1]
        high = ops.max(picture, axis=(1, 2, 3), keepdims=True) if self.high is None else self.high
        colour = ops.floor(256 * (picture - low) / ops.maximum(high - low, 1e-6))
        colour = ops.cast(ops.clip(colour, 0, 255), "int32")[..., 0]  # [B, M, T]
        return ops.take(MAGMA.astype("float32") / 255, colour, axis=0)  # [B, M, T, 3]

    def compute_output_shape(self, input_shape):
        """(B, M, T, 3) for an input of (B, M, T, 1)."""
        return (*input_shape[:3], 3)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"low": self.low, "high": self.high}
