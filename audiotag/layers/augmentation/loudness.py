"""Random gain and random noise."""

from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation


@keras.saving.register_keras_serializable(package="audiotag")
class Gain(RandomAugmentation):
    """Makes each clip louder or softer while training.

    The distance of a microphone should not change the class. Each clip draws one
    gain g in dB and is multiplied by 10^(g / 20); nothing is clipped. At inference
    the layer is the identity. It has no effect on images that are standardized
    afterwards, except where the front end has an absolute floor in decibels.

    Reference: among the augmentations of Akiyama and Sato, 4th place of FSDKaggle2019; the range is our choice.

    Args:
        min_db: Lowest gain in dB; gains are uniform in dB.
        max_db: Highest gain in dB.
        probability: Probability that a clip is changed.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: a waveform [B, N], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> louder = Gain(min_db=20.0, max_db=20.0)
        >>> round(float(louder(ops.full((1, 100), 0.01), training=True)[0, 0]), 4)
        0.1
    """

    def __init__(
        self,
        *,
        min_db: float = -6.0,
        max_db: float = 6.0,
        probability: float = 1.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if not min_db <= max_db:
            raise ValueError(f"min_db must be at most max_db. Received: min_db={min_db}, max_db={max_db}")
        self.min_db = min_db
        self.max_db = max_db
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"min_db": self.min_db, "max_db": self.max_db}

    def get_random_transformation(self, inputs: Any) -> Any:
        """The gain of each clip in dB: [B, 1]."""
        gain_db = self.random_uniform((ops.shape(inputs)[0], 1), self.min_db, self.max_db)
        return ops.where(self.random_selection(inputs), gain_db, 0.0)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        return inputs * ops.cast(_amplitude(transformation), inputs.dtype)


@keras.saving.register_keras_serializable(package="audiotag")
class WhiteNoise(RandomAugmentation):
    """Adds white noise to each clip while training.

    Recordings contain background noise. Each clip draws a signal-to-noise ratio r in
    dB and noise n of its own:

        x' = x + n * rms(x) / rms(n) * 10^(-r / 20)

    over the complete clip, so r is exact and silence stays silence. At inference the
    layer is the identity.

    Args:
        min_snr_db: Lowest ratio in dB, the most noise; ratios are uniform in dB.
        max_snr_db: Highest ratio in dB, the least noise.
        probability: Probability that a clip gets noise.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: a waveform [B, N], any float type.
    Output shape: that of the input, the same type; the noise is computed in float32.

    Example:
        >>> noise = WhiteNoise(min_snr_db=20.0, max_snr_db=20.0, probability=1.0)
        >>> added = noise(ops.ones((1, 100)), training=True) - 1
        >>> round(float(ops.sqrt(ops.mean(ops.square(added)))), 4)
        0.1
    """

    def __init__(
        self,
        *,
        min_snr_db: float = 10.0,
        max_snr_db: float = 40.0,
        probability: float = 0.5,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if not min_snr_db <= max_snr_db:
            raise ValueError(
                f"min_snr_db must be at most max_snr_db. Received: min_snr_db={min_snr_db}, max_snr_db={max_snr_db}"
            )
        self.min_snr_db = min_snr_db
        self.max_snr_db = max_snr_db
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"min_snr_db": self.min_snr_db, "max_snr_db": self.max_snr_db}

    def get_random_transformation(self, inputs: Any) -> Any:
        """The ratio in dB [B, 1], the noise [B, N] and which clips get it [B, 1]."""
        batch, num_samples = ops.shape(inputs)
        snr_db = self.random_uniform((batch, 1), self.min_snr_db, self.max_snr_db)
        noise = keras.random.normal((batch, num_samples), dtype="float32", seed=self.generator)
        return snr_db, noise, self.random_selection(inputs)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        snr_db, noise, is_selected = transformation
        level = _rms(ops.cast(inputs, "float32")) / ops.maximum(_rms(noise), 1e-30) * _amplitude(-snr_db)  # [B, 1]
        level = ops.where(is_selected, level, 0.0)
        return inputs + ops.cast(noise * level, inputs.dtype)


def _amplitude(decibels):
    return ops.power(10.0, decibels / 20)


def _rms(waveform):
    return ops.sqrt(ops.mean(ops.square(waveform), axis=1, keepdims=True))  # [B, 1]
