"""The clips that a run is evaluated on, and its logits for them.

They are test clips, or training clips with out-of-fold predictions.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from audiotag.crossval.out_of_fold import read_scores
from audiotag.crossval.splits import held_out_clips, how_split, training_clips
from audiotag.data.clips import read_clips
from audiotag.data.records.manifest import Manifest, read_manifest, refuse_damage
from audiotag.data.records.offsets import find_offsets
from audiotag.errors import DataError
from audiotag.inference.records import score_logits
from audiotag.runs.directory import Run, find_records, open_run
from audiotag.runs.models import load_taggers


def score_test_clips(
    run: Run, *, records: str | Path | None = None, stage: str | None = None, fold: int | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """The test clips of a run's records, and the run's logits for them.

    Args:
        run: A `Run`.
        records: A directory of records; None is that of the experiment.
        stage: The stage whose weights to load; None is the last.
        fold: The only fold to use; None is the mean of all.

    Returns:
        A table of clips, and logits float64 [len(clips), K].
    """
    manifest, clips = find_test_clips(run, records)
    offsets = find_offsets(manifest, "test")
    refuse_damage(manifest, "test")
    return clips, score_logits(load_taggers(run, stage, fold), manifest, clips, offsets=offsets)


def find_test_clips(run: Run, records: str | Path | None = None) -> tuple[Manifest, pd.DataFrame]:
    """The records to test a run on, and their test clips.

    They are the records of the run, or others with its classes and sample rate.

    Raises:
        DataError: The records have other classes, another sample rate, or no test clips.
    """
    manifest = find_records(run) if records is None else read_manifest(records)
    if manifest.vocabulary != run.vocabulary:
        raise DataError(f"{manifest.place}: has other classes than {run.folder} was trained for.")
    if manifest.sample_rate != run.sample_rate:
        raise DataError(
            f"{manifest.place}: {manifest.sample_rate} Hz; {run.folder} was trained at {run.sample_rate} Hz."
        )
    clips = read_clips(manifest.directory / "clips.csv")
    clips = clips[clips["subset"] == "test"].reset_index(drop=True)
    if clips.empty:
        raise DataError(
            f"{manifest.place}: has no test clips. Measure on the validation clips with --out-of-fold (in Python: "
            "out_of_fold=True), or put clips into a folder or subset test and make the records again."
        )
    return manifest, clips


def out_of_fold_predictions(run: Run, stage: str | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """The validation clips of all trained folds, and out-of-fold logits for them.

    The logits are those of the models that held them out.

    The column `split` of the clips is "fold K", so that `evaluate` measures each fold too. For the last stage,
    the scores that `fit` wrote are read; for another stage, or other `predict` settings, the clips are scored now.

    Raises:
        DataError: The experiment holds out no clips, or no fold is fully trained yet, or a fold's table does not fit
            the clips that it held out.
    """
    last = run.experiment.stages[-1].name
    as_written = stage in (None, last) and run.experiment.predict == open_run(run.folder).experiment.predict
    manifest, folds = find_held_out_clips(run)
    clips = pd.concat([held_out for held_out, _ in folds.values()], ignore_index=True)
    if as_written:
        return clips, np.concatenate([logits_of(table, run.vocabulary) for _, table in folds.values()])
    offsets = find_offsets(manifest)
    for subset in sorted(set(clips["subset"])):
        refuse_damage(manifest, subset)
    scores = [
        score_logits(load_taggers(run, stage, fold), manifest, held_out, offsets=offsets)
        for fold, (held_out, _) in folds.items()
    ]
    return clips, np.concatenate(scores)


def find_held_out_clips(run: Run) -> tuple[Manifest, dict[int, tuple[pd.DataFrame, pd.DataFrame]]]:
    """A run's records, and what each trained fold held out.

    Returns:
        The records; and for each fold its validation clips, with the column `split`, and their scores as `fit` wrote
        them.

    Raises:
        DataError: As for `out_of_fold_predictions`.
    """
    if run.experiment.validation is None:
        raise DataError(f'{run.folder}: has no held-out clips, as "validation" is null in its experiment.')
    last = run.experiment.stages[-1].name
    paths = {fold: run.stage_files(fold, last).oof_scores() for fold in range(run.experiment.num_folds)}
    paths = {fold: path for fold, path in paths.items() if path.is_file()}
    if not paths:
        raise DataError(f"{run.folder}: no fold is fully trained yet. Finish the run with: audiotag fit")
    manifest = find_records(run)
    all_clips = training_clips(run, read_clips(manifest.directory / "clips.csv"))
    folds = {}
    for fold, path in paths.items():
        table = read_out_of_fold(path, set(held_out_clips(run, all_clips, fold)["name"]), run.vocabulary)
        clips = table[["name"]].merge(all_clips, on="name", how="left", validate="one_to_one")
        folds[fold] = clips.assign(split=f"fold {fold}"), table
    return manifest, folds


def how_validated(run: Run) -> str:
    """A sentence about how a run's clips were split for validation.

    Raises:
        DataError: The records are not there, or folds.csv does not fit them.
    """
    clips = training_clips(run, read_clips(find_records(run).directory / "clips.csv"))
    return f"Validation clips were split {how_split(run.experiment, clips)}."


def read_out_of_fold(path: Path, names: set[str], vocabulary: Iterable[str]) -> pd.DataFrame:
    """A fold's table of out-of-fold scores, checked against its held-out clips.

    It must have exactly the clips that the fold held out.

    Args:
        path: The file.
        names: The names of these clips.
        vocabulary: The K class names.

    Raises:
        DataError: The table has scores of other clips, or misses some.
    """
    table = read_scores(path, vocabulary)
    unexpected, missing = set(table["name"]) - names, names - set(table["name"])
    if unexpected:
        raise DataError(f"{path}: has scores of clips that its model trained on: {some(unexpected)}. Retrain the fold.")
    if missing:
        raise DataError(f"{path}: has no scores of held-out clips: {some(missing)}. Retrain the fold.")
    return table


def logits_of(table: pd.DataFrame, vocabulary: Iterable[str]) -> np.ndarray:
    """The logits of a table of out-of-fold scores, float64 [clips, K]."""
    # The largest number below 1 is 1 - 2 ** -53, whose logit is 36.7.
    return np.nan_to_num(logit(table[list(vocabulary)].to_numpy()), nan=np.nan, posinf=37.0)


def check_scores(clips: pd.DataFrame, logits: np.ndarray) -> None:
    """Raises DataError if scores of clips are missing or NaN, and names the clips."""
    if len(clips) != len(logits):
        raise DataError(f"{len(logits)} rows of scores for {len(clips)} clips. Expected one row per clip.")
    invalid = clips["name"][np.isnan(logits).any(axis=1)]
    if len(invalid):
        raise DataError(f"The scores of {len(invalid)} clips are NaN: {some(invalid)}. Did training diverge?")


def some(names: Iterable[str]) -> str:
    """Up to three names as text, and how many more.

    Example:
        >>> some(["d.wav", "a.wav", "b.wav", "c.wav"])
        'a.wav, b.wav, c.wav and 1 more'
    """
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
