"""Scores of test clips, and out-of-fold scores, of a run."""

import numpy as np
import pandas as pd
from scipy.special import logit

from audiotag.crossval import out_of_fold, splits
from audiotag.data.clips import read_clips
from audiotag.data.records.manifest import read_manifest, refuse_damage
from audiotag.errors import DataError
from audiotag.inference.records import score_logits
from audiotag.runs.directory import open_run
from audiotag.runs.models import load_taggers


def score_test_clips(run, *, records=None, stage=None, fold=None):
    """(clips, logits): the test clips of a run's records, and what the run thinks of them.

    Args:
        run: A `Run`.
        records: A directory of records; None is the one of the experiment.
        stage: The stage whose weights to take; None is the last.
        fold: The only fold to hear; None is the mean of all.

    Returns:
        A table of clips, and logits float64 [len(clips), K].
    """
    manifest, clips = find_test_clips(run, records)
    refuse_damage(manifest, "test")
    return clips, score_logits(load_taggers(run, stage, fold), manifest, clips)


def find_test_clips(run, records=None):
    """(manifest, clips): the records of a run, or others of its classes and rate, and their test clips."""
    manifest = read_manifest(records or run.experiment.records)
    if manifest.vocabulary != run.vocabulary:
        raise DataError(f"{manifest.directory}: has other classes than {run.folder} was trained for.")
    if manifest.sample_rate != run.sample_rate:
        raise DataError(
            f"{manifest.directory}: {manifest.sample_rate} Hz; {run.folder} was trained at {run.sample_rate} Hz."
        )
    clips = read_clips(manifest.directory / "clips.csv")
    clips = clips[clips["subset"] == "test"].reset_index(drop=True)
    if clips.empty:
        raise DataError(f"{manifest.directory}: holds no test clips.")
    return manifest, clips


def held_out_answers(run, stage=None):
    """(clips, logits): the curated clips that were held out so far, and what the model that never heard them thinks.

    `usage` of the clips is "fold K", so that `evaluate` measures each fold too. What fit wrote of the last stage is
    read; another stage, or another way to hear, is scored now.

    Raises:
        DataError: No fold is trained to its end yet, or a fold's table is not of the clips it held out.
    """
    last = run.experiment.stages[-1].name
    as_written = stage in (None, last) and run.experiment.predict == open_run(run.folder).experiment.predict
    paths = {fold: run.stage_folder(fold, last) / "curated_scores.csv" for fold in range(run.experiment.folds.count)}
    paths = {fold: path for fold, path in paths.items() if path.is_file()}
    if not paths:
        raise DataError(f"{run.folder}: no fold is trained to its end yet. Finish the run with: audiotag fit")
    manifest = read_manifest(run.experiment.records)
    known = splits.training_clips(run, read_clips(manifest.directory / "clips.csv"))
    if not as_written:
        refuse_damage(manifest, "curated")
    clips, scores = [], []
    for fold, path in paths.items():
        table = read_out_of_fold(path, set(splits.held_out_clips(known, fold)["name"]), run.vocabulary)
        clips.append(table[["name"]].merge(known, on="name", how="left", validate="one_to_one"))
        clips[-1]["usage"] = f"fold {fold}"
        if as_written:  # no number below 1 lies nearer to it than 2 ** -53, whose logit is 36.7
            scores.append(np.nan_to_num(logit(table[list(run.vocabulary)].to_numpy()), nan=np.nan, posinf=37.0))
        else:
            scores.append(score_logits(load_taggers(run, stage, fold), manifest, clips[-1]))
    return pd.concat(clips, ignore_index=True), np.concatenate(scores)


def read_out_of_fold(path, names, vocabulary):
    """A fold's curated_scores.csv, once it scores exactly the clips that the fold held out.

    Args:
        path: The file.
        names: The set of their names.
        vocabulary: The K class names.
    """
    table = out_of_fold.read_scores(path, vocabulary)
    heard, missing = set(table["name"]) - names, names - set(table["name"])
    if heard:
        raise DataError(f"{path}: scores clips that its model was trained on: {some(heard)}. Train the fold anew.")
    if missing:
        raise DataError(f"{path}: has no scores of held-out clips: {some(missing)}. Train the fold anew.")
    return table


def check_scores(clips, logits):
    """Raises DataError where a clip's scores are missing or not numbers, and names the clips."""
    if len(clips) != len(logits):
        raise DataError(f"{len(logits)} rows of scores for {len(clips)} clips. Expected one row a clip.")
    strange = clips["name"][np.isnan(logits).any(axis=1)]
    if len(strange):
        raise DataError(f"The scores of {len(strange)} clips are NaN: {some(strange)}. Did training diverge?")


def some(names):
    """Up to three names in words, and how many more.

    Example:
        >>> some(["d.wav", "a.wav", "b.wav", "c.wav"])
        'a.wav, b.wav, c.wav and 1 more'
    """
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
