"""A-weighted mel spectrograms."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.filters import apply_filters
from audiotag.layers.frontends.spectrograms import MelSpectrogram, power_to_db
from audiotag.layers.frontends.stft import spectrum_dtype


@keras.saving.register_keras_serializable(package="audiotag")
class PerceptualMel(keras.layers.Layer):
    """Turns waveforms into A-weighted mel spectrograms in decibels.

    Of a soft hum of 50 Hz and a soft chirp of 3 kHz with the same energy, people
    notice only the chirp; A-weighting models that. Every bin of the FFT is converted
    to decibels, floored below the clip's own maximum and A-weighted before the mel
    filters are applied: each band is a weighted sum of decibels. The weights of a band
    sum to about 0.03, so values are small and mostly negative. Nothing is normalized.

    Reference: M. Dorfer and G. Widmer, "Training general-purpose audio tagging networks with noisy labels and
    iterative self-verification", DCASE 2018, the first of its two front ends; the defaults are its values.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz.
        num_bands: Number of mel bands, on Slaney's scale and with his norm.
        fft_length: Length of a frame and of its FFT, in samples.
        frame_step: Step from one frame to the next, in samples.
        low_hz: Lower edge of the lowest band, from 0.
        high_hz: Upper edge of the highest band, at most half the sample rate, which None stands for.
        padding: Padding before and after the clip, so that frames are centered: "zeros", or "reflect" for its
            mirror image, repeated if the clip is shorter than half a frame.
        silence: Floor of the power of a bin, above 0.
        dynamic_range_db: Bins are floored this far below the clip's loudest bin before they are weighted; None for
            no floor.
        dtype: Type to compute in, "float32" or "float64" (on JAX always "float32"); None is "float64" if
            `dynamic_range_db` is above 100 or None, and else "float32". The output is float32.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, M] with T = 1 + N // frame_step (for an odd fft_length 1 + (N - 1) // frame_step), float32.

    Example:
        >>> tuple(PerceptualMel()(np.zeros((1, 32_000))).shape)
        (1, 167, 128)
    """

    def __init__(
        self,
        *,
        sample_rate: int = 32_000,
        num_bands: int = 128,
        fft_length: int = 1024,
        frame_step: int = 192,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        padding: Literal["zeros", "reflect"] = "reflect",
        silence: float = 1e-10,
        dynamic_range_db: float | None = 99.0,
        dtype: Literal["float32", "float64"] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32", "autocast": False})
        checks.above_zero(silence=silence, dynamic_range_db=1.0 if dynamic_range_db is None else dynamic_range_db)
        self.mel = MelSpectrogram(
            sample_rate=sample_rate,
            num_bands=num_bands,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
            high_hz=high_hz,
            padding=padding,
            dtype=spectrum_dtype(dtype, range_db=dynamic_range_db),
        )
        self.requested_dtype = dtype
        self.silence = silence
        self.dynamic_range_db = dynamic_range_db
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Computes the window, the filters and the weighting once."""
        self.mel.build(input_shape)
        self.weighting = a_weighting(np.fft.rfftfreq(self.mel.fft_length, 1 / self.mel.sample_rate)).astype("float32")

    def call(self, waveform):
        power = self.mel.power_spectrogram(waveform)  # [B, T, F]
        levels = power_to_db(power, silence=self.silence, dynamic_range_db=self.dynamic_range_db)
        bands = apply_filters(ops.add(levels, self.weighting), self.mel.filters)  # [B, T, M]
        return ops.cast(bands, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, M) for an input of (B, N); an unknown size stays None."""
        return self.mel.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        shared = ("sample_rate", "num_bands", "fft_length", "frame_step", "low_hz", "high_hz", "padding")
        return super().get_config() | {
            **{name: getattr(self.mel, name) for name in shared},
            "silence": self.silence,
            "dynamic_range_db": self.dynamic_range_db,
            "dtype": self.requested_dtype,
        }


def a_weighting(hz: np.ndarray) -> np.ndarray:
    """A-weighting in decibels relative to 1 kHz, at least -80.

    2 + 20 * log10(d² f⁴ / ((f² + a²) (f² + d²) √((f² + b²) (f² + c²)))) with the corner frequencies a = 20.6,
    b = 107.7, c = 737.9 and d = 12,200 Hz of the standard, rounded as in librosa in 2018.

    Reference: IEC 61672-1, 2013, curve A.

    Example:
        >>> a_weighting(np.array([0.0, 50.0, 1000.0, 10_000.0])).round(1).tolist()
        [-80.0, -30.3, 0.0, -2.5]
    """
    a, b, c, d = np.square([20.6, 107.7, 737.9, 12_200.0])
    square = np.square(np.maximum(hz, 1e-3))  # log(0) is avoided; the floor hides the difference
    gain = d * square**2 / ((square + a) * (square + d) * np.sqrt((square + b) * (square + c)))
    return np.maximum(2 + 20 * np.log10(gain), -80)
