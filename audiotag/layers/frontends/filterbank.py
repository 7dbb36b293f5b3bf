"""A spectrogram with as many bands in every octave."""

import math

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.filters import gathered, touched_bins
from audiotag.layers.frontends.stft import power_spectrum


@keras.saving.register_keras_serializable(package="audiotag")
class LogFilterbank(keras.layers.Layer):
    """Turns waveforms into bands spaced as on a keyboard, of compressed amplitude.

    A tune played an octave higher is the same picture moved up, and the ending of a
    clip is at its right: frame t begins at sample t * frame_step and zeros follow
    the clip. Each band is the mean magnitude x of its bins, and log10(1 + x) keeps
    silence at 0.

    Reference: M. Dorfer and G. Widmer, "Training general-purpose audio tagging networks with noisy labels and
    iterative self-verification", DCASE 2018, whose defaults these are (version 2, on madmom's filterbank).

    Args:
        sample_rate: Of the waveforms, in Hz.
        bands_per_octave: How many centre frequencies an octave has, one of them at 440 Hz. Where bins are wider
            apart, low down, the bins themselves are the bands.
        fft_length: Length of a frame and its symmetric Hann window, in samples.
        frame_step: From one frame to the next, in samples.
        low_hz: Lowest centre frequency, above 0.
        high_hz: Highest centre frequency, at most half the sample rate.
        normalise: Scale each waveform to a peak of 1 first. What the layer hears is a window of a clip; where
            whole clips have been scaled before, False keeps their windows' loudness.

    Raises:
        ValueError: An option is out of its range, or no band fits between the frequencies.

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
        normalise: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.above_zero(
            sample_rate=sample_rate,
            bands_per_octave=bands_per_octave,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
        )
        checks.at_most(1_000_000, fft_length=fft_length)
        checks.frequency_range(low_hz, high_hz, sample_rate)
        filters = octave_filters(
            sample_rate=sample_rate,
            fft_length=fft_length,
            bands_per_octave=bands_per_octave,
            low_hz=low_hz,
            high_hz=high_hz,
        )  # [F // 2, M]
        self.sample_rate = sample_rate
        self.bands_per_octave = bands_per_octave
        self.fft_length = fft_length
        self.frame_step = frame_step
        self.low_hz = low_hz
        self.high_hz = high_hz
        self.normalise = normalise
        self.num_bands = filters.shape[1]
        self.filters = tuple(touched_bins(filters))
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def call(self, waveform):
        num_frames = self._num_frames(ops.shape(waveform)[1])
        waveform = ops.cast(waveform, self.compute_dtype)
        if self.normalise:
            peak = ops.max(ops.abs(waveform), axis=1, keepdims=True)  # [B, 1]
            waveform = waveform / ops.where(peak > 0, peak, 1)
        window = np.hanning(self.fft_length)
        power = power_spectrum(waveform, window, frame_step=self.frame_step, num_frames=num_frames)
        bands = gathered(ops.sqrt(power), self.filters)  # [B, T, M]
        return ops.cast(ops.log1p(bands) / math.log(10), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """(B, T, M) for an input of (B, N); what is None stays None."""
        batch, samples = input_shape
        return (batch, None if samples is None else self._num_frames(samples), self.num_bands)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "sample_rate": self.sample_rate,
            "bands_per_octave": self.bands_per_octave,
            "fft_length": self.fft_length,
            "frame_step": self.frame_step,
            "low_hz": self.low_hz,
            "high_hz": self.high_hz,
            "normalise": self.normalise,
        }

    def _num_frames(self, samples):
        return (samples + self.frame_step - 1) // self.frame_step


def octave_filters(*, sample_rate, fft_length, bands_per_octave, low_hz, high_hz):
    """Triangles over the bins of an FFT, evenly spaced in octaves around 440 Hz, each summing to 1.

    The centre frequencies 440 * 2^(k / bands_per_octave) are moved to their nearest bins, and where several meet,
    one stays. Every three bins in a row make a triangle: 0 at the first, 1 at the second, 0 at the third.

    Returns:
        [fft_length // 2, M] float64, a column a band; the bin of half the sample rate is not among the rows.

    Example:
        >>> filters = octave_filters(sample_rate=32_000, fft_length=1024, bands_per_octave=26, low_hz=20.0,
        ...                          high_hz=14_000.0)
        >>> filters.shape
        (512, 128)
    """
    octaves = np.log2(np.array([low_hz, high_hz]) / 440)
    lowest, highest = np.round(octaves * bands_per_octave, 9)  # rounded: a limit that is a centre is inside
    centres = 440 * 2 ** (np.arange(np.ceil(lowest), np.floor(highest) + 1) / bands_per_octave)
    bins = np.floor(centres * fft_length / sample_rate + 0.5).astype(int)
    bins = np.unique(np.minimum(bins, fft_length // 2 - 1))  # [M + 2]
    if len(bins) < 3:
        raise ValueError(
            f"low_hz={low_hz} to high_hz={high_hz} must hold the centres of at least 3 bins of an FFT of {fft_length} "
            f"samples at {sample_rate} Hz, {sample_rate / fft_length:g} Hz apart. Received: {len(bins)}"
        )
    rows = np.arange(fft_length // 2)[:, None]
    first, centre, last = bins[:-2], bins[1:-1], bins[2:]
    triangles = np.minimum((rows - first) / (centre - first), (last - rows) / (last - centre))  # [F // 2, M]
    triangles = np.maximum(triangles, 0)
    return triangles / triangles.sum(axis=0)
