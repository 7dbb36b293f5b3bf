"""Waveforms for tests, float32 from -1 to 1."""

import numpy as np

from audiotag.data.audio.decoding import FULL_SCALE


def noise(*shape, seed=0):
    """Noise without zeros."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], shape) * rng.uniform(0.01, 1, shape)).astype("float32")


def padded(clips):
    """[B, N]: zeros after the end of the shorter clips."""
    batch = np.zeros((len(clips), max(map(len, clips))), "float32")
    for row, clip in zip(batch, clips):
        row[: len(clip)] = clip
    return batch


def from_pcm(pcm):
    """int16 [N] → float32 [N], the inverse of `to_pcm`."""
    return pcm.astype("float32") / FULL_SCALE
