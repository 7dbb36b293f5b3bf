"""Trimming: where the sound in a clip starts and ends. Silence inside it stays."""

import numpy as np

TRIMS = ("relative", "absolute")  # trim_relative and trim_absolute
PEAK = 10 ** (-0.1 / 20)  # -0.1 dBFS
LEVEL = 0.0015  # of full scale


def trim_relative(waveform: np.ndarray, *, trim_db: float = 60.0) -> tuple[int, int]:
    """Finds where a clip's level is within `trim_db` of its loudest frame.

    The threshold is relative, so loud and faint recordings are trimmed alike: a frame of 2048 samples, one every
    512, centered, is silent if its RMS is `trim_db` or more below that of the loudest one.

    Reference: `librosa.effects.trim`, as M. Pinto, 6th place of FSDKaggle2019, 2019, calls it at 44.1 kHz; frames
    are counted in samples at any rate.

    Args:
        waveform: float32 [N], N >= 1.
        trim_db: Threshold below the loudest frame, in dB; above 0.

    Returns:
        (start, end), in samples: the sound is waveform[start:end], never empty.

    Example:
        >>> click = np.zeros(44_100, "float32")
        >>> click[20_000] = 0.5
        >>> trim_relative(click)
        (19456, 21504)
        >>> trim_relative(np.zeros(44_100, "float32"))
        (0, 44100)
    """
    import librosa  # here: it takes seconds, and only those who trim need it

    _, (start, end) = librosa.effects.trim(waveform, top_db=trim_db, frame_length=2_048, hop_length=512)
    return int(start), int(end)


def trim_absolute(waveform: np.ndarray, *, sample_rate: int) -> tuple[int, int]:
    """Finds where the level of a clip stays above 0.15% of full scale.

    Clicks before and after the sound are dropped with the silence around them. The level is the RMS of the last
    20 ms; sound starts where it exceeds the threshold for 25 ms. It is measured as if the clip's peak were at
    -0.1 dBFS. After the start is cut, the rest is scaled to that peak again and the end is found on the reversed
    waveform. A clip whose level never stays above the threshold is not trimmed.

    Reference: M. Dorfer and G. Widmer's system for DCASE 2018, 2018, by SoX: `norm -0.1 silence 1 0.025 0.15%`,
    then `norm -0.1 reverse silence 1 0.025 0.15% reverse`, and the file itself if these leave nothing.

    Args:
        waveform: float32 [N], N >= 1.
        sample_rate: In Hz.

    Returns:
        (start, end), in samples: the sound is waveform[start:end], never empty.

    Example:
        >>> beep = np.zeros(44_100, "float32")
        >>> beep[10_000:20_000] = 0.5
        >>> trim_absolute(beep, sample_rate=44_100)
        (10000, 20000)
        >>> trim_absolute(np.zeros(44_100, "float32"), sample_rate=44_100)
        (0, 44100)
    """
    start = _first_sound(waveform, sample_rate)
    if start is None:
        return 0, len(waveform)
    silent_end = _first_sound(waveform[start:][::-1], sample_rate)
    if silent_end is None:
        return 0, len(waveform)
    return start, len(waveform) - silent_end


def _first_sound(waveform, sample_rate):
    """The first sample from which the level stays above the threshold, or None."""
    window, min_samples = sample_rate // 50, (sample_rate + 20) // 40  # 20 ms and 25 ms, rounded as SoX does
    threshold = LEVEL * float(np.abs(waveform).max()) / PEAK
    # In float64: after many clicks, a level is a small difference of large sums.
    sums = np.cumsum(np.square(waveform, dtype="float64"))  # [N]
    energies = sums.copy()
    energies[window:] -= sums[:-window]
    quiet = np.flatnonzero(energies <= window * threshold**2)
    boundaries = np.concatenate([[-1], quiet, [len(waveform)]])  # every sample between two of them is loud
    long_enough = np.flatnonzero(np.diff(boundaries) > min_samples)
    return int(boundaries[long_enough[0]]) + 1 if len(long_enough) else None
