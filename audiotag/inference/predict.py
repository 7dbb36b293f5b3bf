"""Scores for clips: of the records, for metrics and submissions, or of any audio files."""

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.special import expit, log_expit, logsumexp

from audiotag import progress
from audiotag.data.audio import read_waveform
from audiotag.data.pipeline import damage_named, evaluation_batches
from audiotag.errors import DataError
from audiotag.models.tagger import build_tagger
from audiotag.training.checkpoint import load_weights

BATCH_SIZE = 32  # windows at a time


def load_taggers(run, stage=None):
    """The trained models of a run, one a fold.

    Args:
        run: A `Run`.
        stage: The stage whose weights to take; None is the last.

    Raises:
        DataError: No fold has finished the stage.
    """
    names = [s.name for s in run.experiment.stages]
    stage = names[-1] if stage is None else stage
    if stage not in names:
        raise DataError(f"{run.folder}: has no stage {stage!r}. Accepted: {', '.join(names)}.")
    folds = run.trained_folds(stage)
    if not folds:
        raise DataError(f"{run.folder}: stage {stage!r} is not trained yet. Finish the run with: audiotag fit")
    return [load_tagger(run, fold, stage) for fold in folds]


def load_tagger(run, fold, stage):
    """The model of one fold after one stage."""
    (trained,) = (s for s in run.experiment.stages if s.name == stage)
    model = run.experiment.model
    if hasattr(model, "weights"):  # those that training began with are neither needed nor, maybe, here
        model = model.model_copy(update={"weights": None})
    tagger = build_tagger(
        run.experiment.model_copy(update={"model": model}),
        sample_rate=run.sample_rate,
        num_classes=len(run.vocabulary),
        stage=trained,
    )
    load_weights(tagger, run.weights(fold, stage))
    return tagger


def probabilities(taggers, waveform):
    """What several taggers think on average: waveform [B, N] → float32 [B, K] in 0 to 1."""
    answers = [keras.ops.sigmoid(tagger(waveform, training=False)) for tagger in taggers]  # E of [B, K]
    return sum(answers) / len(answers)


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


def score_files(listen, paths, *, hearing, vocabulary):
    """Scores of audio files, read as make-records read the clips, but for the rounding to 16 bits.

    Args:
        listen: A function: waveform float32 [1, N] → probabilities [1, K].
        paths: Audio files of any length, rate and number of channels.
        hearing: How `read_waveform` reads a file as `listen` expects it: its options.
        vocabulary: The K class names.

    Returns:
        A table: `fname` and a column of probabilities a class, one row a file.
    """
    scores = [
        np.asarray(listen(read_waveform(path, **hearing)[None]))[0]
        for path in progress.bar(paths, total=len(paths), unit="file", label="predict")
    ]
    table = pd.DataFrame(np.stack(scores).astype("float64"), columns=list(vocabulary))
    table.insert(0, "fname", [str(path) for path in paths])
    return table


def best_classes(table, top):
    """A table of scores in words: for each file its `top` classes and their probabilities."""
    lines = []
    for row in table.set_index("fname").itertuples():
        pairs = sorted(zip(row[1:], table.columns[1:]), key=lambda pair: -pair[0])[:top]
        lines.append(f"{row.Index}\n" + "\n".join(f"  {score:6.1%}  {name}" for score, name in pairs))
    return "\n".join(lines)
