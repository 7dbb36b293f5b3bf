"""A loaded model that predicts logits for waveforms."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from audiotag.models.windowing import clip_lengths, pooled


def hear(taggers, waveform):
    """What several taggers think on average: waveform [B, N] → logits float32 [B, K]."""
    return pooled(tf.stack([_answer(tagger, waveform) for tagger in taggers], axis=1), True, "mean")


def _answer(tagger, waveform):
    """The logits of one tagger [B, K]; clips that are heard whole are heard one by one, each in its own length."""
    if tagger.laid != "whole":
        return tagger(waveform, training=False)

    def alone(clip):
        length = clip_lengths(clip[None])[0, 0]
        return tagger(clip[None, :length], training=False)[0]

    return tf.map_fn(alone, waveform, fn_output_signature=tf.TensorSpec([tagger.num_classes], tf.float32))


@dataclasses.dataclass(frozen=True)
class Listener:
    """A model that answers for waveforms: of a run, of an ensemble or a SavedModel.

    Args:
        logits: A function: waveform float32 [B, N] → logits float32 [B, K].
        hearing: How `read_waveform` reads a file as the model expects it: its options.
        vocabulary: The K class names.
        window_samples: The samples that it hears at once.
        hop: Samples from one window to the next on a long recording.
        pool: How answers for windows become one, as in `predict.pool`.
    """

    logits: Callable
    hearing: dict
    vocabulary: tuple[str, ...]
    window_samples: int
    hop: int
    pool: str


def pool_windows(logits, pool):
    """One answer of those of all windows: [W, K] → float64 [K]."""
    return np.asarray(pooled(tf.constant(logits[None], tf.float64), True, pool))[0]
