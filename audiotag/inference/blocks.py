"""Logits, embeddings and frames of clips of any length, as functions of tensors.

A network sees a block of windows at a time, so memory is bounded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from audiotag.inference.predictor import SAMPLES_PER_BLOCK, Predictor
from audiotag.models.tagger import Tagger
from audiotag.models.windowing import Windows, clip_lengths, pool_logits, sliding

ALMOST_SILENT = 1e-30  # a sample that is no padding


def predict_logits(taggers: Sequence[Tagger], waveform: Any) -> Any:
    """The logits of the mean probabilities of several taggers.

    The network sees at most `SAMPLES_PER_BLOCK` samples at a time, however long and many the clips are.

    The shapes are waveform [B, N] → float32 [B, K].
    """
    return pool_logits(tf.stack([_tagger_logits(tagger, waveform) for tagger in taggers], axis=1), True, "mean")


def _tagger_logits(tagger, waveform):
    """The logits of one tagger [B, K]; with full_clip windows, each clip is scored alone at its own length."""
    if tagger.window_layout != "full_clip":
        return tagger.clip_logits(waveform, score=score_in_blocks)

    def score_one(clip):
        length = clip_lengths(clip[None])[0, 0]
        return tagger.clip_logits(clip[None, :length], score=score_in_blocks)[0]

    spec = tf.TensorSpec([tagger.num_classes], tf.float32)
    return tf.map_fn(score_one, waveform, fn_output_signature=spec, parallel_iterations=1)


def predict_embeddings(taggers: Sequence[Tagger], waveform: Any) -> Any:
    """The embeddings of clips, those of several taggers one after the other.

    Each is the mean over the sliding windows of a clip.

    The shapes are waveform [B, N] → float32 [B, D].

    Raises:
        ValueError: A network does not tell what its head is.
    """
    embeddings = []
    for tagger in taggers:
        n, length = tagger.window_samples, clip_lengths(waveform)
        start, mask = sliding(length, tf.shape(waveform)[1], n, hop=tagger.hop)
        found = score_in_blocks(Windows(waveform, start, mask, length, n, tagger.pad), tagger.embeddings)  # [B, W, D]
        embeddings.append(tf.reduce_sum(found, axis=1) / tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)[:, None])
    return tf.concat(embeddings, axis=1)


def predict_frames(predictor: Predictor, waveform: Any, length: Any) -> tuple[Any, Any, Any]:
    """The logits of each window of clips.

    Windows are placed as in `long_recordings.predict_windows`.

    Args:
        predictor: A `Predictor` whose `logits` is a function of tensors.
        waveform: float32 [B, N].
        length: int [B], samples of each clip, at least 1; the rest is padding.

    Returns:
        (logits float32 [B, W, K], start int [B, W], num_windows int [B]): the first sample of each window, and
        the windows of each clip. Logits beyond the end of a shorter clip are 0.
    """
    window_samples, batch = predictor.window_samples, tf.shape(waveform)[0]
    missing = tf.maximum([1, window_samples] - tf.shape(waveform), 0)
    waveform = tf.pad(waveform, [[0, missing[0]], [0, missing[1]]])
    length = tf.pad(length, [[0, missing[0]]], constant_values=1)
    length, size = length[:, None], tf.shape(waveform)[1]  # [B, 1]
    # Zeros at the end of a window would count as padding. A clip that is shorter than a window is scored as such.
    silence = tf.where(length < window_samples, 0.0, ALMOST_SILENT)  # [B, 1]
    waveform = tf.where(waveform == 0, silence, waveform)
    waveform = tf.where(tf.range(size) < length, waveform, 0.0)
    start, mask = sliding(length, size, window_samples, hop=predictor.hop)
    windows = Windows(waveform, start, mask, tf.maximum(length, window_samples), window_samples, "zeros")
    logits = score_in_blocks(windows, predictor.logits)
    return logits[:batch], start[:batch], tf.math.count_nonzero(mask, axis=1, dtype=tf.int32)[:batch]


def score_in_blocks(windows: Windows, score: Callable[[Any], Any]) -> Any:
    """As `windowing.score_all`, with at most `SAMPLES_PER_BLOCK` samples at a time.

    Windows beyond the end of a shorter clip are not scored; they get zeros.
    """
    rows = tf.where(windows.mask)  # [V, 2], the clip and the number of each window
    num_rows = tf.shape(rows)[0]
    most = tf.maximum(SAMPLES_PER_BLOCK // windows.n, 1)
    per_block = -(-num_rows // -(-num_rows // most))  # blocks of nearly equal size
    num_blocks = -(-num_rows // per_block)

    def score_block(block, scores):
        clip, number = tf.unstack(tf.cast(rows[block * per_block : (block + 1) * per_block], tf.int32), axis=1)
        return block + 1, scores.write(block, score(windows.cut_some(clip, number)))

    scores = tf.TensorArray(tf.float32, num_blocks, element_shape=[None, None], infer_shape=False)
    _, scores = tf.while_loop(lambda block, scores: block < num_blocks, score_block, [0, scores], parallel_iterations=1)
    scores = scores.concat()  # [V, D]
    shape = tf.concat([tf.shape(windows.mask), tf.shape(scores)[1:]], axis=0)
    return tf.scatter_nd(rows, scores, tf.cast(shape, tf.int64))


def of_any_size(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of waveforms [B, N] that takes B and N from 0.

    Args:
        function: A function: float32 [B, N] → [B, ...], with B and N from 1. Clips without samples become silence.
    """

    def padded(waveform):
        missing = tf.maximum(1 - tf.shape(waveform), 0)
        waveform = tf.pad(waveform, [[0, missing[0]], [0, missing[1]]])
        return function(waveform)[: tf.shape(waveform)[0] - missing[0]]

    return padded
