"""From a spectrogram to the picture a network looks at: turned, then scaled.

`ToPicture` moves numbers about and keeps their type; `Standardise` and `EightBit` measure the clip, in float32
whatever the dtype policy.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="audiotag")
class ToPicture(keras.layers.Layer):
    """Turns a spectrogram into a picture of one channel, low bands first.

    Networks made for images expect rows, columns and channels: here frequency,
    time and one channel.

    Input shape: [B, T, M], any float type.
    Output shape: [B, M, T, 1], the same type.

    Example:
        >>> tuple(ToPicture()(ops.ones((2, 50, 64))).shape)
        (2, 64, 50, 1)
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def call(self, spectrogram):
        return ops.expand_dims(ops.transpose(spectrogram, (0, 2, 1)), axis=-1)  # [B, M, T, 1]

    def compute_output_shape(self, input_shape):
        """(B, M, T, 1) for an input of (B, T, M)."""
        batch, frames, bands = input_shape
        return (batch, bands, frames, 1)

    def compute_output_spec(self, spectrogram):
        """The shape above, and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(spectrogram.shape), dtype=spectrogram.dtype)


@keras.saving.register_keras_serializable(package="audiotag")
class Standardise(keras.layers.Layer):
    """Gives each picture mean 0 and standard deviation 1.

    A network should hear the same sound at any level. Each picture is measured
    alone: z = (x - mean) / (std + 1e-6), and a constant picture becomes zeros.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> z = Standardise()(ops.reshape(ops.arange(12.0), (1, 3, 4, 1)))
        >>> round(float(ops.mean(z)), 4), round(float(ops.std(z)), 4)
        (0.0, 1.0)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture):
        centred = picture - ops.mean(picture, axis=(1, 2, 3), keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(centred), axis=(1, 2, 3), keepdims=True))  # [B, 1, 1, 1]
        return centred / (deviation + 1e-6)

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable(package="audiotag")
class EightBit(keras.layers.Layer):
    """Rounds each picture down to the 256 levels of an image file, 0 to 1.

    Taggers that stored spectrograms as image files trained on such pictures:
    level = floor(255 * (x - min) / (max - min)), then level / 255, each clip by
    its own extremes. A picture that spans 1e-6 or less becomes zeros.

    Reference: the image route of A. Maji, 2020, and M. Pinto, 2019, standardises first.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> picture = ops.reshape(ops.convert_to_tensor([-80.0, -40.0, 0.0]), (1, 1, 3, 1))
        >>> [round(255 * float(level)) for level in ops.reshape(EightBit()(picture), (-1,))]
        [0, 127, 255]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture):
        low = ops.min(picture, axis=(1, 2, 3), keepdims=True)  # [B, 1, 1, 1]
        high = ops.max(picture, axis=(1, 2, 3), keepdims=True)  # [B, 1, 1, 1]
        span = high - low
        levels = ops.floor(255 * (picture - low) / ops.maximum(span, 1e-6))
        levels = ops.where(picture == high, 255.0, levels)  # 255 * span / span may be 254.99998
        return ops.where(span > 1e-6, levels / 255, 0.0)

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape
