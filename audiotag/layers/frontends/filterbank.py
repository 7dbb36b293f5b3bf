"""A spectrogram with the same number of bands in every octave."""

import math
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.filters import apply_filters, filter_groups
from audiotag.layers.frontends.stft import power_spectrogram, spectrum_dtype


@keras.saving.register_keras_serializable(package="audiotag")
class LogFilterbank(keras.layers.Layer):
    """Turns waveforms into log amplitudes of bands spaced evenly in octaves.

    A tune played an octave higher gives the same image shifted up. Frames are not
    centered: frame t starts at sample t * frame_step and zeros follow the clip. Each
    band is the weighted mean magnitude x of its bins, and log10(1 + x) keeps silence
    at 0.

    Reference: M. Dorfer and G. Widmer, "Training general-purpose audio tagging networks with noisy labels and
    iterative self-verification", DCASE 2018, the second of its two front ends, with madmom's filterbank; the defaults
    are its values.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz.
        bands_per_octave: Number of center frequencies per octave; 440 Hz is one. At low frequencies, where bins
            are farther apart than centers, each bin is a band.
        fft_length: Length of a frame, its symmetric Hann window and its FFT, in samples.
        frame_step: Step from one frame to the next, in samples.
        low_hz: Lowest center frequency, above 0.
        high_hz: Highest center frequency, at most half the sample rate.
        normalize: Scale each waveform to a peak of 1 first. The layer receives windows of clips; if complete
            clips were scaled before, False keeps the windows' relative loudness.
        dtype: Type to compute in, "float32" or "float64" (on JAX always "float32"); None is "float32". The output is
            float32.

    Raises:
        ValueError: An option is out of its range, or the frequency range is too narrow for one band.

    Input shape: [B, N], any float type, full scale at 1; N may differ from call to call.
    Output shape: [B, T, M] with T = ceil(N / frame_step), float32 from 0; M is 128 with the defaults.

    Example:
        >>> tuple(LogFilterbank()(np.zeros((1, 32_000))).shape)
        (1, 250, 128)
    """

    def __init__(
        self,
        *,
        sample_rate: int = 32_000,
        bands_per_octave: int = 26,
        fft_length: int = 1024,
        frame_step: int = 128,
        low_hz: float = 20.0,
        high_hz: float = 14_000.0,
        normalize: bool = True,
        dtype: Literal["float32", "float64"] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32", "autocast": False})
        checks.above_zero(
            sample_rate=sample_rate,
            bands_per_octave=bands_per_octave,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
        )
        checks.at_most(1_000_000, fft_length=fft_length)
        checks.at_most(10_000_000, fft_length_times_bands_per_octave=fft_length * bands_per_octave)
        checks.frequency_range(low_hz, high_hz, sample_rate)
        filters = octave_filters(
            sample_rate=sample_rate,
            fft_length=fft_length,
            bands_per_octave=bands_per_octave,
            low_hz=low_hz,
            high_hz=high_hz,
        )  # [F, M]
        self.sample_rate = sample_rate
        self.bands_per_octave = bands_per_octave
        self.fft_length = fft_length
        self.frame_step = frame_step
        self.low_hz = low_hz
        self.high_hz = high_hz
        self.normalize = normalize
        self.num_bands = filters.shape[1]
        self.requested_dtype = dtype
        self.spectrum_dtype = spectrum_dtype(dtype)
        self.filters = tuple(filter_groups(filters.astype(self.spectrum_dtype)))
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def call(self, waveform):
        num_frames = self._num_frames(ops.shape(waveform)[1])
        waveform = ops.cast(waveform, self.spectrum_dtype)
        if self.normalize:
            peak = ops.max(ops.abs(waveform), axis=1, keepdims=True)  # [B, 1]
            waveform = waveform / ops.where(peak > 0, peak, 1)
        window = np.hanning(self.fft_length).astype(self.spectrum_dtype)
        power = power_spectrogram(waveform, window, frame_step=self.frame_step, num_frames=num_frames)  # [B, T, F + 1]
        bands = apply_filters(ops.sqrt(power), self.filters)  # [B, T, M]
        return ops.cast(ops.log1p(bands) / math.log(10), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, M) for an input of (B, N); an unknown size stays None."""
        batch, samples = input_shape
        return (batch, None if samples is None else self._num_frames(samples), self.num_bands)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "sample_rate": self.sample_rate,
            "bands_per_octave": self.bands_per_octave,
            "fft_length": self.fft_length,
            "frame_step": self.frame_step,
            "low_hz": self.low_hz,
            "high_hz": self.high_hz,
            "normalize": self.normalize,
            "dtype": self.requested_dtype,
        }

    def _num_frames(self, samples):
        return (samples + self.frame_step - 1) // self.frame_step


def octave_filters(
    *, sample_rate: int, fft_length: int, bands_per_octave: int, low_hz: float, high_hz: float
) -> np.ndarray:
    """Triangular filters spaced evenly in octaves around 440 Hz, each of sum 1.

    The center frequencies 440 * 2^(k / bands_per_octave) are moved to their nearest bins, and duplicates are dropped.
    Every three consecutive bins make a triangle: 0 at the first, 1 at the second, 0 at the third.

    Returns:
        [F, M] float64 with F = fft_length // 2: one column per band, without the bin at half the sample rate.

    Raises:
        ValueError: The frequency range is too narrow for one band.

    Example:
        >>> filters = octave_filters(sample_rate=32_000, fft_length=1024, bands_per_octave=26, low_hz=20.0,
        ...                          high_hz=14_000.0)
        >>> filters.shape
        (512, 128)
    """
    octaves = np.log2(np.array([low_hz, high_hz]) / 440)
    lowest, highest = np.round(octaves * bands_per_octave, 9)  # rounded: a limit that is a center is included
    centers_hz = 440 * 2 ** (np.arange(np.ceil(lowest), np.floor(highest) + 1) / bands_per_octave)
    bins = np.floor(centers_hz * fft_length / sample_rate + 0.5).astype(int)
    bins = np.unique(np.minimum(bins, fft_length // 2 - 1))  # [M + 2]
    if len(bins) < 3:
        raise ValueError(
            f"low_hz={low_hz} to high_hz={high_hz} must cover at least 3 bins of an FFT of {fft_length} samples at "
            f"{sample_rate} Hz, {sample_rate / fft_length:g} Hz apart. Received: {len(bins)}. Widen the range or raise "
            f"fft_length."
        )
    rows = np.arange(fft_length // 2)[:, None]
    first, center, last = bins[:-2], bins[1:-1], bins[2:]
    triangles = np.minimum((rows - first) / (center - first), (last - rows) / (last - center))  # [F, M]
    triangles = np.maximum(triangles, 0)
    return triangles / triangles.sum(axis=0)
