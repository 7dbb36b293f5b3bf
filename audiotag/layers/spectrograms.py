"""From waveforms to spectrograms, as librosa computes them, on the device and clip by clip."""

import math
from typing import Literal

import keras
import numpy as np
from keras import ops

# From the window to the decibels. The rounding of a float32 FFT alone moves what lies 80 dB under a pure tone by
# 2e-3 dB, and the TF32 products of a GPU by as much again. JAX has no float64 unless the user switches it on.
PRECISION = "float32" if keras.config.backend() == "jax" else "float64"

# A band touches few bins. 32 bands at a time multiply the bins they touch: a quarter of the work of all by all.
BANDS_PER_PRODUCT = 32


@keras.saving.register_keras_serializable(package="audiotag")
class LogMel(keras.layers.Layer):
    """Turns waveforms into mel spectrograms in decibels.

    Loudness and pitch on the scales of the ear: what differs to us differs in
    the picture. It runs inside the compiled model, so training and serving hear
    the same, and it floors each clip under the clip's own maximum, so a loud
    neighbour in the batch changes nothing.

    The numbers are those of `librosa.feature.melspectrogram` followed by
    `librosa.power_to_db`, within 1e-3 dB, and so are the defaults. Whatever the
    dtype policy, the output is float32.

    Args:
        sample_rate: Of the waveforms, in Hz.
        num_bands: How many mel bands. Bands narrower than an FFT bin may stay silent.
        fft_length: Length of a frame, in samples.
        frame_step: From one frame to the next, in samples.
        low_hz: Where the lowest band begins, from 0.
        high_hz: Where the highest band ends, at most half the sample rate, which None stands for.
        power: Of the magnitudes that are summed: 2 for energy, 1 for amplitude.
        window_length: Of the Hann window in the middle of a frame, in samples; None for the whole frame.
        padding: What lies beyond a clip's ends, where the first and last frames are centred. Systems
            built on librosa before 0.9 used "reflect".
        mel_scale: "slaney" is linear up to 1 kHz and logarithmic above; "htk" is logarithmic all the way.
        norm: "slaney" divides each band by its width in Hz; None leaves triangles of height 1.
        reference: What is 0 dB, or "max" for the clip's own maximum.
        silence: Anything quieter counts as this.
        dynamic_range_db: Floor under the clip's own maximum; None for none.

    Raises:
        ValueError: An option is out of its range, or a clip too short to be reflected.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, M] with T = 1 + N // frame_step (for an odd fft_length 1 + (N - 1) // frame_step), float32.

    Example:
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)[None]
        >>> decibels = LogMel(sample_rate=16_000, num_bands=64, fft_length=1024)(tone)
        >>> tuple(decibels.shape)
        (1, 32, 64)
        >>> round(float(ops.max(decibels) - ops.min(decibels)))
        80
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        num_bands: int = 128,
        fft_length: int = 2048,
        frame_step: int = 512,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        power: float = 2.0,
        window_length: int | None = None,
        padding: Literal["zeros", "reflect"] = "zeros",
        mel_scale: Literal["slaney", "htk"] = "slaney",
        norm: Literal["slaney"] | None = "slaney",
        reference: float | Literal["max"] = 1.0,
        silence: float = 1e-10,
        dynamic_range_db: float | None = 80.0,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32"})
        for name, value in {
            "sample_rate": sample_rate,
            "num_bands": num_bands,
            "fft_length": fft_length,
            "frame_step": frame_step,
            "power": power,
            "reference": 1.0 if reference == "max" else reference,
            "silence": silence,
            "dynamic_range_db": 1.0 if dynamic_range_db is None else dynamic_range_db,
        }.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0. Received: {name}={value}")
        if window_length is not None and not 0 < window_length <= fft_length:
            raise ValueError(
                f"window_length must be 1 to fft_length={fft_length}, or None. Received: window_length={window_length}"
            )
        if high_hz is not None and not 0 < high_hz <= sample_rate / 2:
            raise ValueError(
                f"high_hz must be above 0 and at most {sample_rate / 2}, half of sample_rate={sample_rate}. "
                f"Received: high_hz={high_hz}"
            )
        top = sample_rate / 2 if high_hz is None else high_hz
        if not 0 <= low_hz < top:
            raise ValueError(f"low_hz must be from 0 to below high_hz={top}. Received: low_hz={low_hz}")
        for name, value, accepted in (
            ("padding", padding, ("zeros", "reflect")),
            ("mel_scale", mel_scale, ("slaney", "htk")),
            ("norm", norm, ("slaney", None)),
        ):
            if value not in accepted:
                raise ValueError(f"{name} must be {accepted[0]!r} or {accepted[1]!r}. Received: {name}={value!r}")
        self.sample_rate = sample_rate
        self.num_bands = num_bands
        self.fft_length = fft_length
        self.frame_step = frame_step
        self.low_hz = low_hz
        self.high_hz = high_hz
        self.power = power
        self.window_length = window_length
        self.padding = padding
        self.mel_scale = mel_scale
        self.norm = norm
        self.reference = reference
        self.silence = silence
        self.dynamic_range_db = dynamic_range_db
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        """Computes the window and the filters, once."""
        self.window = hann_window(self.window_length or self.fft_length, self.fft_length).astype(PRECISION)  # [F]
        filters = mel_filters(
            sample_rate=self.sample_rate,
            fft_length=self.fft_length,
            num_bands=self.num_bands,
            low_hz=self.low_hz,
            high_hz=self.sample_rate / 2 if self.high_hz is None else self.high_hz,
            mel_scale=self.mel_scale,
            norm=self.norm,
        )  # [F, M]
        self.filters = tuple(touched_bins(filters.astype(PRECISION)))

    def call(self, waveform):
        margin = [[0, 0], [self.fft_length // 2, self.fft_length // 2]]
        num_frames = self._num_frames(ops.shape(waveform)[1])
        waveform = ops.cast(waveform, PRECISION)
        waveform = ops.pad(waveform, margin, mode="reflect" if self.padding == "reflect" else "constant")
        frames = windowed_frames(waveform, self.window, frame_step=self.frame_step, num_frames=num_frames)  # [B, T, F]
        real, imaginary = ops.rfft(frames)  # [B, T, F // 2 + 1]
        power = ops.square(real) + ops.square(imaginary)
        if self.power != 2:
            power = ops.power(power, self.power / 2)
        mel = [ops.matmul(power[..., first:last], filters) for first, last, filters in self.filters]
        mel = ops.concatenate(mel, axis=-1)  # [B, T, M]
        return ops.cast(self._decibels(mel), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """(B, T, M) for an input of (B, N); what is None stays None."""
        batch, samples = input_shape
        return (batch, None if samples is None else self._num_frames(samples), self.num_bands)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "sample_rate": self.sample_rate,
            "num_bands": self.num_bands,
            "fft_length": self.fft_length,
            "frame_step": self.frame_step,
            "low_hz": self.low_hz,
            "high_hz": self.high_hz,
            "power": self.power,
            "window_length": self.window_length,
            "padding": self.padding,
            "mel_scale": self.mel_scale,
            "norm": self.norm,
            "reference": self.reference,
            "silence": self.silence,
            "dynamic_range_db": self.dynamic_range_db,
        }

    def _num_frames(self, samples):
        """How many frames are centred within a clip; `samples` is an int, or a tensor where it is not known yet."""
        shortest = self.fft_length // 2 + 1
        if self.padding == "reflect" and isinstance(samples, int) and samples < shortest:
            raise ValueError(
                f'padding="reflect" needs clips of at least fft_length // 2 + 1 = {shortest} samples. Received: '
                f'{samples} samples. Use padding="zeros", a shorter fft_length, or longer clips.'
            )
        return 1 + (samples - self.fft_length % 2) // self.frame_step

    def _decibels(self, mel):
        decibels = 10 * ops.log10(ops.maximum(mel, self.silence))  # [B, T, M]
        loudest = ops.max(decibels, axis=(1, 2), keepdims=True)  # [B, 1, 1]
        if self.dynamic_range_db is not None:
            decibels = ops.maximum(decibels, loudest - self.dynamic_range_db)
        if self.reference == "max":
            return decibels - loudest
        return decibels - 10 * math.log10(max(self.silence, self.reference))


def hann_window(window_length, fft_length):
    """A periodic Hann window in the middle of `fft_length` samples: [F] float64.

    Example:
        >>> hann_window(4, 6).round(3).tolist()
        [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
    before = (fft_length - window_length) // 2
    return np.pad(window, (before, fft_length - window_length - before))


def windowed_frames(waveform, window, *, frame_step, num_frames):
    """Overlapping frames of [B, N], each times the window: [B, T, F]; zeros stand beyond the end.

    The waveform is cut into steps once, and a frame is the next few steps side by
    side: plain copies, where gathering each frame by its indices takes twice as long.

    Example:
        >>> frames = windowed_frames(np.arange(10.0)[None], np.ones(4), frame_step=3, num_frames=3)
        >>> np.asarray(frames)[0].tolist()
        [[0.0, 1.0, 2.0, 3.0], [3.0, 4.0, 5.0, 6.0], [6.0, 7.0, 8.0, 9.0]]
    """
    pieces = np.split(window, range(frame_step, len(window), frame_step))
    num_steps = num_frames + len(pieces) - 1
    waveform = ops.pad(waveform, [[0, 0], [0, len(pieces) * frame_step]])[:, : num_steps * frame_step]
    steps = ops.reshape(waveform, (ops.shape(waveform)[0], num_steps, frame_step))
    return ops.concatenate(
        [ops.multiply(steps[:, i : i + num_frames, : len(piece)], piece) for i, piece in enumerate(pieces)], axis=-1
    )  # [B, T, F]


def mel_filters(*, sample_rate, fft_length, num_bands, low_hz, high_hz, mel_scale, norm):
    """Triangles that gather the bins of an FFT into mel bands, as `librosa.filters.mel` has them.

    Reference: M. Slaney, "Auditory Toolbox", 1998; S. Young et al., "The HTK Book", 2006.

    Returns:
        [fft_length // 2 + 1, M] float64, a column a band.

    Example:
        >>> filters = mel_filters(sample_rate=16_000, fft_length=512, num_bands=40, low_hz=0.0, high_hz=8000.0,
        ...                       mel_scale="htk", norm=None)
        >>> filters.shape
        (257, 40)
    """
    lowest, highest = hz_to_mel(np.array([low_hz, high_hz]), mel_scale)
    edges = mel_to_hz(np.linspace(lowest, highest, num_bands + 2), mel_scale)  # [M + 2]
    bins = np.fft.rfftfreq(fft_length, 1 / sample_rate)[:, None]  # [F, 1]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])  # [F, M]
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])  # [F, M]
    filters = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= 2 / (edges[2:] - edges[:-2])
    return filters


def hz_to_mel(hz, scale):
    """Frequencies on a mel scale, "slaney" or "htk".

    Example:
        >>> hz_to_mel(np.array([0.0, 500.0, 1000.0]), "slaney").tolist()
        [0.0, 7.5, 15.0]
    """
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def mel_to_hz(mel, scale):
    """The inverse of `hz_to_mel`.

    Example:
        >>> mel_to_hz(np.array([0.0, 7.5, 15.0]), "slaney").tolist()
        [0.0, 500.0, 1000.0]
    """
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def touched_bins(filters):
    """Groups of neighbouring bands with the bins that they touch: (first, last, filters[first:last, group]).

    Example:
        >>> [(first, last, part.shape) for first, last, part in touched_bins(np.eye(80, 64))]
        [(0, 32, (32, 32)), (32, 64, (32, 32))]
    """
    for start in range(0, filters.shape[1], BANDS_PER_PRODUCT):
        group = filters[:, start : start + BANDS_PER_PRODUCT]
        touched = np.flatnonzero(group.any(axis=1))
        first, last = (int(touched[0]), int(touched[-1]) + 1) if touched.size else (0, 1)
        yield first, last, group[first:last]
