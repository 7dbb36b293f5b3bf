"""Scores of clips in records."""

import numpy as np
import tensorflow as tf
from scipy.special import expit, log_expit, logsumexp

from audiotag import progress
from audiotag.data.pipeline import damage_named, evaluation_batches

BATCH_SIZE = 32  # windows at a time


def score_records(taggers, manifest, clips, *, label="score"):
    """Scores of clips in the records.

    Returns:
        float64 [len(clips), K]: probabilities, averaged over the taggers.
    """
    return expit(score_logits(taggers, manifest, clips, label=label))


def score_logits(taggers, manifest, clips, *, label="score"):
    """Scores of clips in the records, such that those near 0 and 1 stay apart.

    Returns:
        float64 [len(clips), K]: logits of the probabilities' mean over the taggers.
    """
    tagger = taggers[0]
    scores = np.full((len(clips), tagger.num_classes), np.nan)  # [clips, K]
    batches = evaluation_batches(manifest, clips, window_samples=tagger.window_samples, batch_size=BATCH_SIZE)
    hear = tf.function(lambda waveform: [tagger(waveform, training=False) for tagger in taggers], reduce_retracing=True)
    heard = (pair for waveform, rows in batches for pair in zip(rows.numpy(), np.stack(hear(waveform), axis=1)))
    with damage_named(manifest):
        for row, logits in progress.bar(heard, total=len(clips), unit="clip", label=label):  # logits: [E, K]
            scores[row] = mean_logits(logits.astype("float64"))
    return scores


def mean_logits(logits, axis=0):
    """The logits of the mean of probabilities along an axis, exact for any logits.

    Example:
        >>> float(mean_logits(np.array([50.0, 50.0])))
        50.0
    """
    return logsumexp(log_expit(logits), axis=axis) - logsumexp(log_expit(-logits), axis=axis)
