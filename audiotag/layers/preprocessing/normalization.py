"""From a spectrogram to the picture a network looks at: turned, then scaled.

`ToPicture` moves numbers about and keeps their type; the others compute, in float32 whatever the dtype policy.
"""

import math
from typing import Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks


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
class Normalise(keras.layers.Layer):
    """Shifts and scales all pictures alike: (x - mean) / std.

    For networks that learned on pictures scaled by fixed numbers. The defaults
    are for pictures of 0 to 1.

    Reference: M. Pinto, 6th place of Freesound Audio Tagging 2019, on the 8-bit pictures of FSDKaggle2019.

    Args:
        mean: What becomes 0.
        std: How far above it lies what becomes 1.

    Raises:
        ValueError: A std that is not above 0.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> black_and_white = Normalise()(ops.reshape(ops.convert_to_tensor([0.0, 1.0]), (1, 1, 2, 1)))
        >>> [round(float(pixel), 3) for pixel in ops.reshape(black_and_white, (-1,))]
        [-1.147, 2.765]
    """

    def __init__(self, *, mean: float = 0.2932, std: float = 0.2556, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.above_zero(std=std)
        self.mean = mean
        self.std = std
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture):
        return (picture - self.mean) / self.std

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"mean": self.mean, "std": self.std}


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
class AdaptedStandardise(keras.layers.Layer):
    """Scales pictures by the mean and deviation of the training clips.

    Low bands are mostly louder than high ones; here each counts by how it differs
    from its own habit: z = (x - mean) / std. `adapt` measures both in the training
    clips, once and before training. Until then they are 0 and 1, and `adapted` is
    False. They are weights, saved with the network, which training leaves alone.

    What was constant in the training clips, its std at most 1e-6, is only centred.

    Reference: Maxwell_110's Keras kernel of 2019, by "cell", there measured on the held-out clips too.

    Args:
        per: What has a mean and a std of its own: each "cell", that is each frame of each band, for
            pictures of one width; each "band"; or the whole "picture". Channels never share them.

    Raises:
        ValueError: An unknown per, or pictures of unknown size where the statistics must have theirs.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> layer = AdaptedStandardise(per="picture")
        >>> layer.adapt([np.full((1, 8, 5, 1), 3.0), np.full((1, 8, 5, 1), 5.0)])
        >>> float(layer(np.full((1, 8, 9, 1), 6.0))[0, 0, 0, 0])
        2.0
    """

    def __init__(self, *, per: Literal["cell", "band", "picture"] = "band", **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.one_of(("cell", "band", "picture"), per=per)
        self.per = per
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        """Makes the statistics, 0 and 1."""
        shape = [size if axis in self._kept else 1 for axis, size in enumerate(input_shape)]
        if None in shape:
            raise ValueError(
                f"per={self.per!r} needs pictures of a known size. Received: an input of shape {tuple(input_shape)}. "
                f"Fix the size of axis {shape.index(None)} before this layer, or use per='picture'."
            )
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.std = self.add_weight(name="std", shape=shape, initializer="ones", trainable=False)
        self.clips = self.add_weight(name="clips", shape=(), dtype="int32", initializer="zeros", trainable=False)

    @property
    def adapted(self):
        """Whether the mean and the deviation were measured, here or before they were saved."""
        return self.built and int(ops.convert_to_numpy(self.clips)) > 0

    def adapt(self, pictures):
        """Measures training clips, and forgets those measured before.

        One pass over the batches, in float64. Frames that share a mean count alike,
        so that a longer clip counts for more.

        Reference: T. Chan, G. Golub and R. LeVeque, "Updating Formulae and a Pairwise Algorithm for
        Computing Sample Variances", 1979.

        Args:
            pictures: Batches [B, M, T, C], arrays or tensors, as they reach this layer.

        Raises:
            ValueError: There is no picture, one does not fit the statistics, or holds NaN or infinity.
        """
        clips, count, mean, squares = 0, 0, 0.0, 0.0
        shared = tuple(axis for axis in range(4) if axis not in self._kept)
        for batch in pictures:
            batch = np.asarray(ops.convert_to_numpy(batch), "float64")
            if batch.ndim == 4 and not self.built:
                self.build(batch.shape)
            if batch.ndim != 4 or any(batch.shape[axis] != self.mean.shape[axis] for axis in self._kept):
                expected = ["B", "M", "T", "C"]
                for axis in self._kept if self.built else ():
                    expected[axis] = str(self.mean.shape[axis])
                raise ValueError(
                    f"adapt expects batches of shape [{', '.join(expected)}]. Received: a batch of shape "
                    f"{batch.shape}. Pass a single batch in a list."
                )
            if not np.isfinite(batch).all():
                raise ValueError(f"adapt expects finite numbers. Received: NaN or infinity after {clips} clips.")
            if not batch.size:
                continue
            added = batch.size // math.prod(self.mean.shape)
            centre = batch.mean(axis=shared, keepdims=True)
            step = centre - mean
            squares = squares + np.square(batch - centre).sum(axis=shared, keepdims=True)
            squares = squares + np.square(step) * (count * added / (count + added))
            mean = mean + step * (added / (count + added))
            count += added
            clips += len(batch)
        if not clips:
            raise ValueError("adapt expects at least one batch of pictures. Received: none.")
        std = np.sqrt(squares / count)
        self.mean.assign(mean)
        self.std.assign(np.where(std > 1e-6, std, 1.0))
        self.clips.assign(clips)

    def call(self, picture):
        return (picture - self.mean) / self.std

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"per": self.per}

    @property
    def _kept(self):
        """The axes along which the statistics differ."""
        return {"cell": (1, 2, 3), "band": (1, 3), "picture": (3,)}[self.per]


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
