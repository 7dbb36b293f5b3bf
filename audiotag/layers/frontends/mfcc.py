"""The spectrum of a spectrogram's frames: their outline apart from their detail."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.spectrograms import LogMel
from audiotag.layers.frontends.stft import PRECISION


@keras.saving.register_keras_serializable(package="audiotag")
class Mfcc(keras.layers.Layer):
    """Turns waveforms into mel-frequency cepstral coefficients.

    The first few coefficients tell the outline of a spectrum, which we hear as the
    colour of a sound; loudness is all in coefficient 0, and the pitch is left out.
    They are the orthonormal cosine transform (DCT-II) of `LogMel`'s decibels along
    the bands, as `librosa.feature.mfcc` has it, whose defaults these are but for the
    number of coefficients.

    Reference: S. Davis and P. Mermelstein, 1980; 40 coefficients as in the Keras kernel of Maxwell_110, 2019.

    Args:
        sample_rate: Of the waveforms, in Hz.
        num_coefficients: How many to keep, at most num_bands.
        num_bands: How many mel bands, of Slaney's scale and norm.
        fft_length: Length of a frame, in samples.
        frame_step: From one frame to the next, in samples.
        low_hz: Where the lowest band begins, from 0.
        high_hz: Where the highest band ends, at most half the sample rate, which None stands for.
        padding: What lies beyond a clip's ends, as for `MelSpectrogram`.
        dynamic_range_db: Floor of the bands under the clip's own maximum; None for none.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, num_coefficients] with T as for `MelSpectrogram`, float32.

    Example:
        >>> tuple(Mfcc(sample_rate=44_100)(np.zeros((1, 88_200))).shape)
        (1, 173, 40)
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        num_coefficients: int = 40,
        num_bands: int = 128,
        fft_length: int = 2048,
        frame_step: int = 512,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        padding: Literal["zeros", "reflect"] = "zeros",
        dynamic_range_db: float | None = 80.0,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.log_mel = LogMel(
            sample_rate=sample_rate,
            num_bands=num_bands,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
            high_hz=high_hz,
            padding=padding,
            dynamic_range_db=dynamic_range_db,
        )
        checks.above_zero(num_coefficients=num_coefficients)
        if num_coefficients > num_bands:
            raise ValueError(
                f"num_coefficients must be at most num_bands={num_bands}. "
                f"Received: num_coefficients={num_coefficients}"
            )
        self.num_coefficients = num_coefficients
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        """Computes the window, the filters and the cosines, once."""
        self.log_mel.build(input_shape)
        self.cosines = cosines(self.log_mel.num_bands, self.num_coefficients).astype(PRECISION)

    def call(self, waveform):
        levels = ops.cast(self.log_mel(waveform), PRECISION)  # [B, T, M]
        return ops.cast(ops.matmul(levels, self.cosines), self.compute_dtype)  # [B, T, num_coefficients]

    def compute_output_shape(self, input_shape):
        """(B, T, num_coefficients) for an input of (B, N); what is None stays None."""
        return (*self.log_mel.compute_output_shape(input_shape)[:2], self.num_coefficients)

    def get_config(self):
        """What was passed."""
        told = ("sample_rate", "num_bands", "fft_length", "frame_step", "low_hz", "high_hz", "padding")
        return super().get_config() | {
            **{name: getattr(self.log_mel, name) for name in told},
            "dynamic_range_db": self.log_mel.dynamic_range_db,
            "num_coefficients": self.num_coefficients,
        }


def cosines(size, count):
    """The first `count` vectors of the orthonormal DCT-II of `size` values, a column each: [size, count] float64.

    Example:
        >>> cosines(2, 2).round(4).tolist()
        [[0.7071, 0.7071], [0.7071, -0.7071]]
    """
    waves = np.cos(np.pi / size * np.outer(np.arange(size) + 0.5, np.arange(count))) * np.sqrt(2 / size)
    waves[:, 0] = np.sqrt(1 / size)
    return waves
