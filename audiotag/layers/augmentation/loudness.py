"""How loud a clip is, and against what noise it is heard."""

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import _Disturbance


@keras.saving.register_keras_serializable(package="audiotag")
class Gain(_Disturbance):
    """Makes each clip louder or softer while training.

    How far away a microphone stood should not change what is heard. Each clip
    draws one gain g in dB and is multiplied by 10^(g / 20); nothing is clipped.
    Outside training the layer is the identity. A picture that is standardised
    afterwards shows nothing of it, except where a floor in decibels is absolute.

    Reference: among the disturbances of Akiyama and Sato, 4th place of FSDKaggle2019; the range is our choice.

    Args:
        min_db: Least gain; gains are uniform in dB.
        max_db: Greatest gain.
        probability: That a clip is changed at all.
        seed: Makes the draws repeatable. None draws differently every run.

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
        super().__init__(probability, seed, **kwargs)
        if not min_db <= max_db:
            raise ValueError(f"min_db must be at most max_db. Received: min_db={min_db}, max_db={max_db}")
        self.min_db = min_db
        self.max_db = max_db
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"min_db": self.min_db, "max_db": self.max_db}

    def _disturbed(self, waveform):
        gain_db = self._uniform((ops.shape(waveform)[0], 1), self.min_db, self.max_db)  # [B, 1]
        gain_db = ops.where(self._chosen(waveform), gain_db, 0.0)
        return waveform * ops.cast(_amplitude(gain_db), waveform.dtype)


@keras.saving.register_keras_serializable(package="audiotag")
class Noise(_Disturbance):
    """Adds white noise to each clip while training.

    Sounds to be recognised come with others. Each clip draws a ratio of signal to
    noise r in dB and noise n of its own:

        x' = x + n * rms(x) / rms(n) * 10^(-r / 20)

    over the whole clip, so that r is met to the last digit and silence stays
    silence. Outside training the layer is the identity.

    Args:
        min_snr_db: Least ratio, the most noise; ratios are uniform in dB.
        max_snr_db: Greatest ratio, the least noise.
        probability: That a clip gets noise at all.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: a waveform [B, N], any float type.
    Output shape: that of the input, the same type; the noise is made in float32.

    Example:
        >>> noise = Noise(min_snr_db=20.0, max_snr_db=20.0, probability=1.0)
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
        super().__init__(probability, seed, **kwargs)
        if not min_snr_db <= max_snr_db:
            raise ValueError(
                f"min_snr_db must be at most max_snr_db. Received: min_snr_db={min_snr_db}, max_snr_db={max_snr_db}"
            )
        self.min_snr_db = min_snr_db
        self.max_snr_db = max_snr_db
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"min_snr_db": self.min_snr_db, "max_snr_db": self.max_snr_db}

    def _disturbed(self, waveform):
        batch, length = ops.shape(waveform)
        ratio_db = self._uniform((batch, 1), self.min_snr_db, self.max_snr_db)  # [B, 1]
        noise = keras.random.normal((batch, length), dtype="float32", seed=self.generator)  # [B, N]
        level = _rms(ops.cast(waveform, "float32")) / ops.maximum(_rms(noise), 1e-30) * _amplitude(-ratio_db)  # [B, 1]
        level = ops.where(self._chosen(waveform), level, 0.0)
        return waveform + ops.cast(noise * level, waveform.dtype)


def _amplitude(decibels):
    return ops.power(10.0, decibels / 20)


def _rms(waveform):
    return ops.sqrt(ops.mean(ops.square(waveform), axis=1, keepdims=True))  # [B, 1]
