"""Scores for clips: of the records, for metrics and submissions, or of any audio files."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.special import expit, log_expit, logsumexp

from audiotag import progress
from audiotag.building import build_tagger
from audiotag.data.audio import read_waveform
from audiotag.data.pipeline import damage_named, evaluation_batches
from audiotag.errors import ConfigError, DataError
from audiotag.experiment import Predict, load, stage_named
from audiotag.inference.timeline import events, finite_logits, hear_windows, seconds_of
from audiotag.models.pretrained import LATER
from audiotag.models.windows import clip_lengths, pooled
from audiotag.training.checkpoint import load_weights

BATCH_SIZE = 32  # windows at a time
LONG_SECONDS = 600  # beyond which a recording is heard window by window


def load_taggers(run, stage=None, fold=None):
    """The trained models of a run, one a fold.

    Args:
        run: A `Run`.
        stage: The stage whose weights to take; None is the last.
        fold: The only fold to take; None takes all that are trained.

    Raises:
        DataError: There is no such stage, or no fold, or not this one, has finished it.
    """
    stage = run.known_stage(stage)
    folds = [trained for trained in run.trained_folds(stage) if fold in (None, trained)]
    if not folds and fold is not None:
        raise DataError(f"{run.folder}: stage {stage!r} of fold {fold} is not trained. Name another fold.")
    if not folds:
        raise DataError(f"{run.folder}: stage {stage!r} is not trained yet. Finish the run with: audiotag fit")
    return [load_tagger(run, fold, stage) for fold in folds]


def load_tagger(run, fold, stage, *, predict=None):
    """The model of one fold after one stage; it hears clips as `predict` says, or else as the experiment does."""
    experiment = begun_already(run.experiment)
    tagger = build_tagger(
        experiment.model_copy(update={"predict": predict or experiment.predict}),
        sample_rate=run.sample_rate,
        num_classes=len(run.vocabulary),
        stage=stage_named(run.experiment, stage),
    )
    load_weights(tagger, run.weights(fold, stage))
    return tagger


def begun_already(experiment):
    """The experiment without the weights that its network begins with, which are neither needed nor, maybe, here."""
    model = experiment.model
    if getattr(model, "weights", None) is None:
        return experiment
    return experiment.model_copy(update={"model": model.model_copy(update={"weights": LATER})})


def heard_as(run, overrides):
    """The run, heard in another way than its experiment says.

    Args:
        run: A `Run`.
        overrides: Texts such as "predict.pool=max".

    Raises:
        ConfigError: A text is about anything but `predict`, or says what audiotag cannot do.
    """
    for text in overrides:
        if not text.startswith("predict."):
            raise ConfigError(
                f"--set {text}: a trained run changes only in how it is heard. Expected one of: "
                f"{', '.join(f'predict.{key}' for key in Predict.model_fields)}."
            )
    return dataclasses.replace(run, experiment=load(run.folder / "experiment.json", overrides))


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


def score_files(listener, paths):
    """Scores of audio files, read as make-records read the clips, but for the rounding to 16 bits.

    Recordings of more than ten minutes are heard window by window, and nothing is trimmed off them.

    Args:
        listener: A `Listener`.
        paths: Audio files of any length, rate and number of channels.

    Returns:
        Logits float64 [len(paths), K].
    """
    scores = []
    for path in progress.bar(paths, total=len(paths), unit="file", label="predict"):
        if seconds_of(path) > LONG_SECONDS:
            logits = pool_windows(hear_windows(listener, path)[2], listener.pool)
        else:
            logits = np.asarray(listener.logits(read_waveform(path, **listener.hearing)[None]))[0]
        scores.append(finite_logits(logits, path).astype("float64"))
    return np.stack(scores)


def score_timelines(listener, paths, *, threshold):
    """Scores of audio files that are heard window by window, and when each class is heard.

    Args:
        listener: A `Listener`.
        paths: Audio files of any length, rate and number of channels. Nothing is trimmed off them.
        threshold: From which probability on a class is heard.

    Returns:
        (logits float64 [len(paths), K], table): `table` has the columns fname, start, end (seconds), class,
        probability.
    """
    scores, tables = [], []
    for path in progress.bar(paths, total=len(paths), unit="file", label="predict"):
        starts, ends, logits = hear_windows(listener, path)
        scores.append(pool_windows(logits, listener.pool))
        heard = events(starts, ends, expit(logits.astype("float64")), listener.vocabulary, threshold=threshold)
        heard.insert(0, "fname", str(path))
        tables.append(heard)
    return np.stack(scores), pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def pool_windows(logits, pool):
    """One answer of those of all windows: [W, K] → float64 [K]."""
    return np.asarray(pooled(tf.constant(logits[None], tf.float64), True, pool))[0]


def best_classes(names, logits, vocabulary, top):
    """Scores in words: for each file its `top` classes and their probabilities."""
    lines = []
    for name, row in zip(names, expit(logits)):
        best = np.argsort(-row, kind="stable")[:top]
        lines += [str(name), *(f"  {row[label]:6.1%}  {vocabulary[label]}" for label in best)]
    return "\n".join(lines)
