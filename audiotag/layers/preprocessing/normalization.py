"""From spectrogram to image, and normalization of images.

`ToImage` keeps the type of its input; the others compute in float32 whatever the dtype policy.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.stft import are_portable


@keras.saving.register_keras_serializable(package="audiotag")
class ToImage(keras.layers.Layer):
    """Turns a spectrogram into an image of one channel, low bands first.

    Image networks expect rows, columns and channels: here frequency, time and one
    channel.

    Input shape: [B, T, M], any float type.
    Output shape: [B, M, T, 1], the same type.

    Example:
        >>> tuple(ToImage()(ops.ones((2, 50, 64))).shape)
        (2, 64, 50, 1)
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def call(self, spectrogram):
        return ops.expand_dims(ops.transpose(spectrogram, (0, 2, 1)), axis=-1)  # [B, M, T, 1]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, M, T, 1) for an input of (B, T, M)."""
        batch, frames, bands = input_shape
        return (batch, bands, frames, 1)

    def compute_output_spec(self, spectrogram: Any) -> keras.KerasTensor:
        """The shape of `compute_output_shape` and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(spectrogram.shape), dtype=spectrogram.dtype)


@keras.saving.register_keras_serializable(package="audiotag")
class Normalize(keras.layers.Layer):
    """Shifts and scales all images by fixed numbers: (x - mean) / std.

    For networks that were pretrained on images normalized this way. The defaults
    are for images of 0 to 1.

    Reference: M. Pinto, 6th place of Freesound Audio Tagging 2019, on the 8-bit images of FSDKaggle2019.

    Args:
        mean: Value that becomes 0.
        std: Divisor, above 0: mean + std becomes 1.

    Raises:
        ValueError: std is not above 0.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> normalized = Normalize()(ops.reshape(ops.convert_to_tensor([0.0, 1.0]), (1, 1, 2, 1)))
        >>> [round(float(pixel), 3) for pixel in ops.reshape(normalized, (-1,))]
        [-1.147, 2.765]
    """

    def __init__(self, *, mean: float = 0.2932, std: float = 0.2556, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.above_zero(std=std)
        self.mean = mean
        self.std = std
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        return (image - self.mean) / self.std

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="audiotag")
class Standardize(keras.layers.Layer):
    """Gives each image mean 0 and standard deviation 1.

    This makes a log spectrogram independent of the recording level. The statistics
    are those of the single image: z = (x - mean) / (std + 1e-6), and a constant image
    becomes zeros.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> z = Standardize()(ops.reshape(ops.arange(12.0), (1, 3, 4, 1)))
        >>> round(float(ops.mean(z)), 4), round(float(ops.std(z)), 4)
        (0.0, 1.0)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        if are_portable():  # other runtimes round equal numbers differently; of silence nothing else would be left
            rounding = 1e-6 * ops.max(ops.abs(image), axis=(1, 2, 3), keepdims=True)
            image = image - image[:, :1, :1, :1]
            image = ops.where(ops.abs(image) <= rounding, 0.0, image)
        centered = image - ops.mean(image, axis=(1, 2, 3), keepdims=True)
        std = ops.sqrt(ops.mean(ops.square(centered), axis=(1, 2, 3), keepdims=True))  # [B, 1, 1, 1]
        return centered / (std + 1e-6)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable(package="audiotag")
class DatasetStandardize(keras.layers.Layer):
    """Standardizes images with the mean and std of the training clips.

    Low bands are usually louder than high ones; z = (x - mean) / std with statistics
    per band puts all bands on one scale. `adapt` computes them from the training
    clips, once before training. Until then they are 0 and 1, and `adapted` is False.
    They are non-trainable weights, saved with the network.

    Values that are constant in the training clips, with a std of at most 1e-6, are
    only centered.

    Reference: Maxwell_110's Kaggle notebook of 2019, per "cell", which includes the held-out clips in the statistics.

    Args:
        per: What has its own mean and std: each "cell", that is each frame of each band, for images of one
            width; each "band"; or the complete "image". Statistics are always per channel.

    Raises:
        ValueError: per is unknown, or the statistics need a size of the image that is not fixed.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> layer = DatasetStandardize(per="image")
        >>> layer.adapt([np.full((1, 8, 5, 1), 3.0), np.full((1, 8, 5, 1), 5.0)])
        >>> float(layer(np.full((1, 8, 9, 1), 6.0))[0, 0, 0, 0])
        2.0
    """

    def __init__(self, *, per: Literal["cell", "band", "image"] = "band", **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.one_of(("cell", "band", "image"), per=per)
        self.per = per
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the statistics, 0 and 1."""
        shape = [size if axis in self._kept_axes else 1 for axis, size in enumerate(input_shape)]
        if None in shape:
            raise ValueError(
                f"per={self.per!r} needs images of a fixed size. Received: an input of shape {tuple(input_shape)}. "
                f"Fix the size of axis {shape.index(None)} before this layer, or use per='image'."
            )
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.std = self.add_weight(name="std", shape=shape, initializer="ones", trainable=False)
        self.clips = self.add_weight(name="clips", shape=(), dtype="int32", initializer="zeros", trainable=False)

    @property
    def adapted(self) -> bool:
        """Whether the statistics were computed, by `adapt` or before they were saved."""
        return self.built and int(ops.convert_to_numpy(self.clips)) > 0

    def adapt(self, images: Iterable[Any]) -> None:
        """Computes the statistics of training clips and replaces earlier ones.

        One pass over the batches, in float64. Every frame has the same weight, so a
        longer clip has more.

        Reference: T. Chan, G. Golub and R. LeVeque, "Updating Formulae and a Pairwise Algorithm for
        Computing Sample Variances", 1979.

        Args:
            images: Batches [B, M, T, C], arrays or tensors, as this layer receives them.

        Raises:
            ValueError: There are no images, one does not have the size of the statistics, or one has NaN or infinity.
        """
        num_clips, count, mean, squares = 0, 0, 0.0, 0.0
        reduced_axes = tuple(axis for axis in range(4) if axis not in self._kept_axes)
        for batch in images:
            batch = np.asarray(ops.convert_to_numpy(batch), "float64")
            if batch.ndim == 4 and not self.built:
                self.build(batch.shape)
            if batch.ndim != 4 or any(batch.shape[axis] != self.mean.shape[axis] for axis in self._kept_axes):
                expected = ["B", "M", "T", "C"]
                for axis in self._kept_axes if self.built else ():
                    expected[axis] = str(self.mean.shape[axis])
                raise ValueError(
                    f"adapt expects batches of shape [{', '.join(expected)}]. Received: a batch of shape "
                    f"{batch.shape}. Pass a single batch in a list."
                )
            if not np.isfinite(batch).all():
                raise ValueError(f"adapt expects finite numbers. Received: NaN or infinity after {num_clips} clips.")
            if not batch.size:
                continue
            added = batch.size // math.prod(self.mean.shape)
            batch_mean = batch.mean(axis=reduced_axes, keepdims=True)
            step = batch_mean - mean
            squares = squares + np.square(batch - batch_mean).sum(axis=reduced_axes, keepdims=True)
            squares = squares + np.square(step) * (count * added / (count + added))
            mean = mean + step * (added / (count + added))
            count += added
            num_clips += len(batch)
        if not num_clips:
            raise ValueError("adapt expects at least one batch of images. Received: none.")
        std = np.sqrt(squares / count)
        self.mean.assign(mean)
        self.std.assign(np.where(std > 1e-6, std, 1.0))
        self.clips.assign(num_clips)

    def call(self, image):
        return (image - self.mean) / self.std

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"per": self.per}

    @property
    def _kept_axes(self):
        """The axes along which the statistics differ."""
        return {"cell": (1, 2, 3), "band": (1, 3), "image": (3,)}[self.per]


@keras.saving.register_keras_serializable(package="audiotag")
class Quantize8Bit(keras.layers.Layer):
    """Quantizes each image to the 256 levels of an image file, 0 to 1.

    This reproduces taggers that stored spectrograms as image files:
    level = floor(255 * (x - min) / (max - min)), then level / 255, with each image's
    own minimum and maximum. An image with a range of 1e-6 or less becomes zeros.

    Reference: the image files of A. Maji, 2020, and M. Pinto, 2019, who standardize first.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, T, C], float32.

    Example:
        >>> image = ops.reshape(ops.convert_to_tensor([-80.0, -40.0, 0.0]), (1, 1, 3, 1))
        >>> [round(255 * float(level)) for level in ops.reshape(Quantize8Bit()(image), (-1,))]
        [0, 127, 255]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        low = ops.min(image, axis=(1, 2, 3), keepdims=True)  # [B, 1, 1, 1]
        high = ops.max(image, axis=(1, 2, 3), keepdims=True)  # [B, 1, 1, 1]
        span = high - low
        levels = ops.floor(255 * (image - low) / ops.maximum(span, 1e-6))
        levels = ops.where(image == high, 255.0, levels)  # 255 * span / span may be 254.99998
        return ops.where(span > 1e-6, levels / 255, 0.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape
