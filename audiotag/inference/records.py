"""Scores of clips in records."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import progress
from audiotag.backend import compiled
from audiotag.data.pipeline import evaluation_batches, explain_damage
from audiotag.data.records.manifest import Manifest
from audiotag.data.records.offsets import Shards
from audiotag.inference.predictor import mean_logits
from audiotag.models.tagger import Tagger

BATCH_SIZE = 32  # windows per batch


def score_records(
    taggers: Sequence[Tagger],
    manifest: Manifest,
    clips: pd.DataFrame,
    *,
    offsets: Shards | None = None,
    label: str = "score",
) -> np.ndarray:
    """Probabilities of clips in records, averaged over taggers.

    Args:
        taggers: Models with the same window and classes.
        manifest: The `Manifest` of the records.
        clips: Rows of its table of clips.
        offsets: What `find_offsets` returns for the shards of these clips; None reads the shards from their start.
        label: Of the progress bar.

    Returns:
        float64 [len(clips), K].
    """
    return expit(score_logits(taggers, manifest, clips, offsets=offsets, label=label))


def score_logits(
    taggers: Sequence[Tagger],
    manifest: Manifest,
    clips: pd.DataFrame,
    *,
    offsets: Shards | None = None,
    label: str = "score",
) -> np.ndarray:
    """The logits of `score_records`, which keep probabilities near 0 and 1 apart.

    Returns:
        float64 [len(clips), K]: logits of the mean of the taggers' probabilities.
    """
    tagger = taggers[0]
    scores = np.full((len(clips), tagger.num_classes), np.nan)  # [clips, K]
    batches = evaluation_batches(
        manifest, clips, window_samples=tagger.window_samples, batch_size=BATCH_SIZE, offsets=offsets
    )
    predict = logits_function(taggers)
    predictions = (pair for waveform, rows in batches for pair in zip(rows.numpy(), predict(waveform)))
    with explain_damage(manifest):
        for row, logits in progress.bar(predictions, total=len(clips), unit="clip", label=label):
            scores[row] = logits
    return scores


def logits_function(taggers: Sequence[Tagger]) -> Callable[[Any], np.ndarray]:
    """A function that scores batches of clips, traced once for all.

    Its shapes are waveform int16 or float32 [B, N] → float64 [B, K], logits of the mean of the taggers' probabilities.
    """
    predict = compiled(lambda waveform: [tagger(waveform, training=False) for tagger in taggers], taggers)
    to_numpy = keras.ops.convert_to_numpy
    return lambda waveform: mean_logits(np.stack([*map(to_numpy, predict(waveform))]).astype("float64"))
