"""Mel-frequency cepstral coefficients."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.filters import full_matmul
from audiotag.layers.frontends.spectrograms import LogMel


@keras.saving.register_keras_serializable(package="audiotag")
class Mfcc(keras.layers.Layer):
    """Turns waveforms into mel-frequency cepstral coefficients.

    The first coefficients describe the envelope of a spectrum, which is the timbre of
    a sound; overall loudness is in coefficient 0 alone, and the pitch is left out. They
    are the orthonormal cosine transform (DCT-II) of `LogMel`'s decibels along the bands.
    The values and the defaults are those of `librosa.feature.mfcc`, apart from the
    number of coefficients.

    Reference: S. Davis and P. Mermelstein, 1980; 40 coefficients as in the Kaggle notebook of Maxwell_110, 2019.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz.
        num_coefficients: Number of coefficients to keep, at most num_bands.
        num_bands: Number of mel bands, on Slaney's scale and with his norm.
        fft_length: Length of a frame and of its FFT, in samples.
        frame_step: Step from one frame to the next, in samples.
        low_hz: Lower edge of the lowest band, from 0.
        high_hz: Upper edge of the highest band, at most half the sample rate, which None stands for.
        padding: Padding before and after the clip, as for `MelSpectrogram`.
        dynamic_range_db: Levels are floored this far below the clip's own maximum; None for no floor.
        dtype: Type to compute the decibels in, with the errors of `LogMel`: "float32", "float64", or None for "float64"
            if `dynamic_range_db` is above 100 or None, and else "float32". The output is float32.

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
        dtype: Literal["float32", "float64"] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32", "autocast": False})
        self.log_mel = LogMel(
            sample_rate=sample_rate,
            num_bands=num_bands,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
            high_hz=high_hz,
            padding=padding,
            dynamic_range_db=dynamic_range_db,
            dtype=dtype,
        )
        checks.above_zero(num_coefficients=num_coefficients)
        if num_coefficients > num_bands:
            raise ValueError(
                f"num_coefficients must be at most num_bands={num_bands}. Received: num_coefficients={num_coefficients}"
            )
        self.num_coefficients = num_coefficients
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Computes the window, the filters and the cosine transform once."""
        self.log_mel.build(input_shape)
        dct = dct_matrix(self.log_mel.num_bands, self.num_coefficients)
        self.dct = dct.astype(self.log_mel.spectrum_dtype)  # [M, num_coefficients]

    def call(self, waveform):
        levels = self.log_mel(waveform)  # [B, T, M]
        return ops.cast(full_matmul(levels, self.dct), self.compute_dtype)  # [B, T, num_coefficients]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, num_coefficients) for an input of (B, N); an unknown size stays None."""
        return (*self.log_mel.compute_output_shape(input_shape)[:2], self.num_coefficients)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        shared = ("sample_rate", "num_bands", "fft_length", "frame_step", "low_hz", "high_hz", "padding")
        return super().get_config() | {
            **{name: getattr(self.log_mel, name) for name in shared},
            "dynamic_range_db": self.log_mel.dynamic_range_db,
            "num_coefficients": self.num_coefficients,
            "dtype": self.log_mel.requested_dtype,
        }


def dct_matrix(size: int, count: int) -> np.ndarray:
    """The first `count` basis vectors of the orthonormal DCT-II, as columns.

    Returns:
        [size, count] float64.

    Example:
        >>> dct_matrix(2, 2).round(4).tolist()
        [[0.7071, 0.7071], [0.7071, -0.7071]]
    """
    basis = np.cos(np.pi / size * np.outer(np.arange(size) + 0.5, np.arange(count))) * np.sqrt(2 / size)
    basis[:, 0] = np.sqrt(1 / size)
    return basis
