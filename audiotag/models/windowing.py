"""Windows over clips of any length, and the pooling of their logits.

B clips of N samples, the shorter ones padded with zeros, are cut into W windows of n samples each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from audiotag.padding import full_clip_lengths, random_fractions, zeros_before

FULL_SCALE = 32_768.0  # of int16


def full_clip_window(size: Any, n: int) -> Any:
    """The length of the single window over clips of `size` samples.

    It is the next of n, n sqrt(2), 2 n, 2 sqrt(2) n, …. This limits the shapes to compile for. They
    are the lengths that `evaluation_batches` pads to.

    Example:
        >>> [full_clip_window(size, 100) for size in (7, 100, 101, 142, 150, 10**9)]
        [100, 100, 142, 142, 200, 6400]
    """
    lengths = np.array(full_clip_lengths(n), "int32")
    if isinstance(size, int):
        return int(lengths[min(int(np.searchsorted(lengths, size)), len(lengths) - 1)])
    return ops.min(ops.where(lengths >= size, lengths, lengths[-1]))


def to_float(waveform: Any) -> Any:
    """int16 samples → float32 in -1 to 1; other waveforms → float32, unchanged.

    Example:
        >>> to_float(ops.convert_to_tensor([[-32768, 16384]], "int16")).numpy().tolist()
        [[-1.0, 0.5]]
    """
    scaled = keras.backend.standardize_dtype(waveform.dtype) == "int16"
    waveform = ops.cast(waveform, "float32")
    return waveform / FULL_SCALE if scaled else waveform


def sliding(length: Any, size: Any, n: Any, *, hop: Any) -> tuple[Any, Any]:
    """Overlapping windows from the start of each clip to its end.

    The last window ends with the clip.

    Args:
        length: int [B, 1], samples of each clip.
        size: N, samples of the longest clip.
        n: Samples of a window.
        hop: Samples from the start of a window to the start of the next.

    Returns:
        (start int [B, W], mask bool [B, W]): W is enough for N samples; `mask` is False for windows
        beyond the end of a shorter clip.
    """
    number, last_start = _window_numbers(length, size, n, hop)
    return ops.minimum(number * hop, last_start), number * hop < last_start + hop


def drop_remainder(length: Any, size: Any, n: Any) -> tuple[Any, Any]:
    """Adjacent windows that end before the clip does, and always the first.

    The remainder is dropped; of a clip that is exactly three windows long, two are used. Arguments and result as for
    `sliding`.

    Reference: M. Pinto, "Freesound Audio Tagging 2019", 6th place.
    """
    number, last_start = _window_numbers(length, size, n, n)
    return ops.minimum(number * n, last_start), (number == 0) | (number * n < last_start)


def random_windows(length: Any, n: Any, *, num_windows: int) -> tuple[Any, Any]:
    """Windows at random but fixed fractions of each clip's length.

    A clip therefore always has the same windows, whatever its batch. Result as for `sliding`, with W = num_windows.
    """
    fractions = random_fractions(num_windows)[None]  # [1, W]
    num_starts = ops.maximum(length - n, 0) + 1  # [B, 1]
    start = ops.cast(ops.floor(fractions * ops.cast(num_starts, "float32")), "int32")
    return ops.minimum(start, num_starts - 1), ops.broadcast_to(length > 0, ops.shape(start))


def _window_numbers(length, size, n, hop):
    """(0 to W - 1 as [1, W], the last sample where a window of each clip may start as [B, 1])."""
    larger = max if isinstance(size, int) and isinstance(n, int) else ops.maximum  # JAX needs Python integers
    num_windows = 1 + (larger(size - n, 0) + hop - 1) // hop
    return ops.arange(num_windows, dtype="int32")[None], ops.maximum(length - n, 0)


class Windows(NamedTuple):
    """Where the windows of a batch of clips are.

    Args:
        waveform: [B, N].
        start: int [B, W], the first sample of each window.
        mask: bool [B, W], False for windows beyond the end of a shorter clip.
        length: int [B, 1], samples of each clip.
        n: Samples of a window.
        pad: How a shorter clip fills the window: "repeat" the clip, or zeros on both sides.
    """

    waveform: Any
    start: Any
    mask: Any
    length: Any
    n: Any
    pad: str

    def cut(self) -> Any:
        """All windows, [B, W, n]."""
        size, (batch, num_windows) = ops.shape(self.waveform)[1], ops.shape(self.start)

        def gather():
            row = ops.arange(batch * num_windows, dtype="int32")
            return ops.reshape(self.cut_some(row // num_windows, row % num_windows), (batch, num_windows, self.n))

        if not (isinstance(size, int) and size == self.n and num_windows == 1):
            return gather()
        # Clips of exactly one window, such as those of a long recording that is already cut, are their own windows.
        whole = ops.logical_and(ops.all(self.length == size), ops.all(self.start == 0))
        return ops.cond(whole, lambda: self.waveform[:, None], gather)

    def cut_some(self, clip: Any, window: Any) -> Any:
        """Some windows: int [V] clips, and int [V] the window of each → [V, n]."""
        start = ops.take(ops.reshape(self.start, (-1,)), clip * ops.shape(self.start)[1] + window)  # [V]
        length = ops.take(self.length, clip, axis=0)  # [V, 1]
        place = start[:, None] + ops.arange(self.n, dtype="int32")  # [V, n]
        if self.pad == "repeat":
            place = place % length
        else:
            place = place - zeros_before(ops.maximum(self.n - length, 0))
        inside = (place >= 0) & (place < length)
        place = ops.where(inside, place, 0) + clip[:, None] * ops.shape(self.waveform)[1]
        return ops.where(inside, ops.take(ops.reshape(self.waveform, (-1,)), place), 0.0)


def score_all(windows: Windows, score: Callable[[Any], Any]) -> Any:
    """The scores of all windows at once.

    Args:
        windows: W windows of n samples for each of B clips.
        score: A function: [V, n] → [V, D].

    Returns:
        [B, W, D].
    """
    waveforms = windows.cut()  # [B, W, n]
    batch, num_windows, n = ops.shape(waveforms)
    scores = score(ops.reshape(waveforms, (-1, n)))  # [B * W, D]
    return ops.reshape(scores, (batch, num_windows, scores.shape[-1]))


def clip_lengths(waveform: Any) -> Any:
    """The samples of each clip of a batch, up to its last nonzero sample.

    The shapes are [B, N] → int [B, 1]; the result is 1 for silence, whose scores are then the same in any batch.
    """
    places = ops.arange(1, ops.shape(waveform)[1] + 1, dtype="int32")
    return ops.maximum(ops.max(ops.where(waveform != 0, places, 0), axis=1, keepdims=True), 1)


def pool_logits(logits: Any, mask: Any, pool: str) -> Any:
    """The logits of the mean or the maximum of the windows' probabilities.

    They are exact for any logits. The logit of the mean is log(sum of p) - log(sum of 1 - p), with both sums
    computed from logarithms, so that no probability rounds to 0 or 1 and makes a tie. "log_mean_exp" is the
    log-mean-exp of the logits, the mean of the odds p / (1 - p), between the two.

    Args:
        logits: [B, W, K].
        mask: bool [B, W, 1], the windows that count, at least one per clip; or True.
        pool: "mean", "max" or "log_mean_exp".

    Returns:
        [B, K].
    """
    minus_infinity = -1e30
    if pool == "max":
        return ops.max(ops.where(mask, logits, minus_infinity), axis=1)
    if pool == "log_mean_exp":
        valid = ops.logical_and(mask, logits > 2 * minus_infinity)
        num_windows = ops.sum(ops.cast(valid, logits.dtype), axis=1)  # [B, K]
        return ops.logsumexp(ops.where(mask, logits, minus_infinity), axis=1) - ops.log(num_windows)
    present = ops.where(mask, ops.log_sigmoid(logits), minus_infinity)
    absent = ops.where(mask, ops.log_sigmoid(-logits), minus_infinity)
    return ops.logsumexp(present, axis=1) - ops.logsumexp(absent, axis=1)
