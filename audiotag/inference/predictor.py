"""A loaded model that predicts logits for waveforms.

It is the model of a run, of an ensemble, or a SavedModel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from audiotag.models.tagger import Tagger
from audiotag.models.windowing import clip_lengths, pool_logits


@dataclass(frozen=True)
class Predictor:
    """A model that predicts logits, and how audio files are read for it.

    Args:
        logits: A function: waveform float32 [B, N] → logits float32 [B, K].
        audio_config: How `read_waveform` reads a file as the model expects it: its options.
        vocabulary: The K class names.
        window_samples: Samples of a window.
        hop: Samples from one window to the next in a long recording.
        pool: How the logits of windows are pooled, as in `predict.pool`.
    """

    logits: Callable[[Any], Any]
    audio_config: dict[str, Any]
    vocabulary: tuple[str, ...]
    window_samples: int
    hop: int
    pool: str


def predict_logits(taggers: Sequence[Tagger], waveform: Any) -> Any:
    """The logits of the mean probabilities of several taggers.

    The shapes are waveform [B, N] → float32 [B, K].
    """
    return pool_logits(tf.stack([_tagger_logits(tagger, waveform) for tagger in taggers], axis=1), True, "mean")


def _tagger_logits(tagger, waveform):
    """The logits of one tagger [B, K]; with full_clip windows, each clip is scored alone at its own length."""
    if tagger.window_layout != "full_clip":
        return tagger(waveform, training=False)

    def score_one(clip):
        length = clip_lengths(clip[None])[0, 0]
        return tagger(clip[None, :length], training=False)[0]

    return tf.map_fn(score_one, waveform, fn_output_signature=tf.TensorSpec([tagger.num_classes], tf.float32))


def pool_windows(logits: np.ndarray, pool: str) -> np.ndarray:
    """Pools the logits of all windows of a recording: [W, K] → float64 [K]."""
    return np.asarray(pool_logits(tf.constant(logits[None], tf.float64), True, pool))[0]
