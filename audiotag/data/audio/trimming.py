"""Silence at the two ends of a clip: where the sound begins and where it ends. What lies between stays whole."""

import numpy as np

TRIMS = ("loudest", "level")  # trim_to_loudest and trim_to_level
FRAME, HOP = 2_048, 512  # librosa's, in samples
FAINTEST = 1e-10  # power of a frame where full scale is 1; librosa hears no difference below it
PEAK = 10 ** (-0.1 / 20)  # -0.1 dBFS
LEVEL = 0.0015  # of full scale


def trim_to_loudest(waveform, *, trim_db=60.0):
    """Where a clip comes within reach of its loudest frame, and where it leaves it.

    Loud and faint recordings are trimmed alike, as each is compared with itself: a frame of 2048 samples, one
    every 512, centred, is silent when its RMS lies `trim_db` or more below that of the loudest one.

    Reference: `librosa.effects.trim`, as mnpinto's solution of FSDKaggle2019 (2019) calls it at 44.1 kHz; frames
    are counted in samples at any rate. Not called here: to load it takes as long as to trim a thousand clips.

    Args:
        waveform: float32 [N], N >= 1.
        trim_db: How far below the loudest frame silence lies, in dB; above 0.

    Returns:
        (start, end), in samples: the sound is waveform[start:end], never empty.

    Example:
        >>> click = np.zeros(44_100, "float32")
        >>> click[20_000] = 0.5
        >>> trim_to_loudest(click)
        (19456, 21504)
        >>> trim_to_loudest(np.zeros(44_100, "float32"))
        (0, 44100)
    """
    squares = np.pad(np.square(waveform, dtype="float64"), FRAME // 2)
    power = np.lib.stride_tricks.sliding_window_view(squares, FRAME)[::HOP].mean(axis=1)  # [T]
    level_db = 10.0 * np.log10(np.maximum(power, FAINTEST))  # [T]
    loud = np.flatnonzero(level_db > level_db.max() - trim_db)
    return int(loud[0]) * HOP, min(len(waveform), (int(loud[-1]) + 1) * HOP)


def trim_to_level(waveform, *, sample_rate):
    """Where the level of a clip comes to stay above 0.15 % of full scale, seen from either end.

    Clicks before and after the sound are dropped with the silence around them. The level is the RMS of the last
    20 ms, and it stays when all samples of 25 ms have it. It is measured as if the clip's peak were at -0.1 dBFS;
    what is left of the clip after the first cut is brought there again before its end is cut, as in a mirror.
    Where no level stays, the clip is left whole.

    Reference: M. Dorfer and G. Widmer's system for DCASE 2018, 2018, by SoX: `norm -0.1 silence 1 0.025 0.15%`,
    then `norm -0.1 reverse silence 1 0.025 0.15% reverse`, and the file as it was where these leave nothing.

    Args:
        waveform: float32 [N], N >= 1.
        sample_rate: In Hz.

    Returns:
        (start, end), in samples: the sound is waveform[start:end], never empty.

    Example:
        >>> beep = np.zeros(44_100, "float32")
        >>> beep[10_000:20_000] = 0.5
        >>> trim_to_level(beep, sample_rate=44_100)
        (10000, 20000)
        >>> trim_to_level(np.zeros(44_100, "float32"), sample_rate=44_100)
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
    """The first sample from which on the level stays; None if it never does."""
    window, stay = sample_rate // 50, (sample_rate + 20) // 40  # 20 ms and 25 ms, rounded as SoX does
    threshold = LEVEL * float(np.abs(waveform).max()) / PEAK
    # In float64, as a level after many clicks is a small difference of large sums.
    sums = np.cumsum(np.square(waveform, dtype="float64"))  # [N]
    energies = sums.copy()
    energies[window:] -= sums[:-window]
    quiet = np.flatnonzero(energies <= window * threshold**2)
    borders = np.concatenate([[-1], quiet, [len(waveform)]])  # between two of them all is loud
    stays = np.flatnonzero(np.diff(borders) > stay)
    return int(borders[stays[0]]) + 1 if len(stays) else None
