"""Where windows lie on clips of any length, and how their answers become one."""

import numpy as np
from keras import ops

WHOLE_STEPS = 13  # a clip is heard whole up to 64 windows' length, and beyond that in windows of that length


def whole_window(size, n):
    """The length that clips of `size` samples are heard in whole: the next of n, n sqrt(2), 2 n, 2 sqrt(2) n, ….

    Few lengths, so that a compiled model meets few shapes. They are those that `evaluation_batches` fills up to.

    Example:
        >>> [whole_window(size, 100) for size in (7, 100, 101, 142, 150, 10**9)]
        [100, 100, 142, 142, 200, 6400]
    """
    lengths = np.ceil(n * 2 ** (np.arange(WHOLE_STEPS) / 2)).astype("int32")
    if isinstance(size, int):
        return int(lengths[min(np.searchsorted(lengths, size), WHOLE_STEPS - 1)])
    return ops.min(ops.where(lengths >= size, lengths, lengths[-1]))


def covering(length, size, n, *, hop):
    """Windows from the beginning of each clip to its end, the last of which ends where the clip does.

    Args:
        length: int [B, 1], samples of each clip.
        size: Samples of the longest, N.
        n: Samples of a window.
        hop: Samples from a window's beginning to the next one's.

    Returns:
        (start int [B, W], heard bool [B, W]): W is enough for N samples; `heard` tells the windows that
        a shorter clip has from those beyond its end.
    """
    number, beyond = _numbers(length, size, n, hop)
    return ops.minimum(number * hop, beyond), number * hop < beyond + hop


def slices(length, size, n):
    """Windows end to end from 0 to before the last n samples, as M. Pinto published them: the tail is not heard.

    A clip of a whole number of windows loses the last of them. Shapes as for `covering`.

    Reference: M. Pinto, "Freesound Audio Tagging 2019", 6th place.
    """
    number, beyond = _numbers(length, size, n, n)
    return ops.minimum(number * n, beyond), (number == 0) | (number * n < beyond)


def scattered(length, n, *, count):
    """As many windows anywhere in each clip, the same shares of every clip's length each time.

    So a clip gets the same windows again, whatever its batch. Shapes as for `covering`, with W = count.
    """
    shares = np.random.default_rng(0).random(count).astype("float32")[None]  # [1, W]
    places = ops.maximum(length - n, 0) + 1  # [B, 1]
    start = ops.cast(ops.floor(shares * ops.cast(places, "float32")), "int32")
    return ops.minimum(start, places - 1), ops.broadcast_to(length > 0, ops.shape(start))


def _numbers(length, size, n, hop):
    """(0 to W - 1 as [1, W], the last place where a window of each clip may begin as [B, 1])."""
    larger = max if isinstance(size, int) and isinstance(n, int) else ops.maximum  # JAX wants plain numbers
    num_windows = 1 + (larger(size - n, 0) + hop - 1) // hop
    return ops.arange(num_windows, dtype="int32")[None], ops.maximum(length - n, 0)


def cut(waveform, start, length, n, *, short_clips):
    """The windows of clips: [B, N] → [B, W, n].

    Args:
        waveform: [B, N].
        start: int [B, W], where each window begins.
        length: int [B, 1], samples of each clip.
        n: Samples of a window.
        short_clips: What fills a window beyond the clip: "repeat" the clip, or "zeros" on both sides.
    """
    place = start[:, :, None] + ops.arange(n, dtype="int32")  # [B, W, n]
    length = length[:, :, None]  # [B, 1, 1]
    if short_clips == "repeat":
        place = place % length
    else:
        place = place - ops.maximum(n - length, 0) // 2
    inside = (place >= 0) & (place < length)
    place = ops.reshape(ops.where(inside, place, 0), (ops.shape(waveform)[0], -1))  # [B, W * n]
    windows = ops.reshape(ops.take_along_axis(waveform, place, axis=1), ops.shape(inside))  # [B, W, n]
    return ops.where(inside, windows, 0.0)


def clip_lengths(waveform):
    """The samples of each clip of a batch, to its last that is not 0: [B, N] → int [B, 1]; silence has all N."""
    size = ops.shape(waveform)[1]
    places = ops.arange(1, size + 1, dtype="int32")
    length = ops.max(ops.where(waveform != 0, places, 0), axis=1, keepdims=True)  # [B, 1]
    return ops.where(length == 0, size, length)


def pooled(logits, heard, pool):
    """Logits of the mean, or the maximum, of the windows' probabilities, exact for any logits.

    The logit of the mean is log(sum of p) - log(sum of 1 - p), with both sums taken
    in logarithms, so that no probability rounds to 0 or 1 and makes a tie. Between the two
    lies the log-mean-exp of the logits, the mean of the odds p / (1 - p).

    Args:
        logits: [B, W, K].
        heard: bool [B, W, 1]: which windows count, at least one of each clip; or True.
        pool: "mean", "max" or "log_mean_exp".

    Returns:
        [B, K].
    """
    nothing = -1e30
    if pool == "max":
        return ops.max(ops.where(heard, logits, nothing), axis=1)
    if pool == "log_mean_exp":
        windows = ops.sum(ops.cast(ops.logical_and(heard, logits > 2 * nothing), logits.dtype), axis=1)  # [B, K]
        return ops.logsumexp(ops.where(heard, logits, nothing), axis=1) - ops.log(windows)
    present = ops.where(heard, ops.log_sigmoid(logits), nothing)
    absent = ops.where(heard, ops.log_sigmoid(-logits), nothing)
    return ops.logsumexp(present, axis=1) - ops.logsumexp(absent, axis=1)
