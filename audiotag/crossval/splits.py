"""Cross-validation splits: which clips train or validate the model of a fold.

Every curated clip has a fold, and with `"split_noisy": true` every noisy one. The model of
a fold trains on no clip of its fold, in no stage, so its predictions for them are out-of-fold.
"""

import pandas as pd

from audiotag import files
from audiotag.data.clips import numbers, read_table
from audiotag.data.corrections import corrected, read_corrections, write_corrections
from audiotag.data.folds import predefined_folds, stratified_folds
from audiotag.data.labels import split_labels
from audiotag.errors import DataError
from audiotag.runs.directory import RETRAIN, Run

NO_FOLD = -1  # of a clip that is never held out


def training_clips(run: Run, clips: pd.DataFrame) -> pd.DataFrame:
    """The curated and noisy clips of a run, corrected.

    They have a `weight` above 0 and the `fold` that holds them out.

    Args:
        run: A `Run`.
        clips: The table of clips of its records.

    Returns:
        Rows of `clips`; `fold` counts from 0 and is `NO_FOLD` for clips that are never held out.

    Raises:
        DataError: folds.csv or corrections.csv of the run do not fit the records.
    """
    folds = _folds(run, clips)
    clips = clips[clips["subset"].isin(("curated", "noisy"))].reset_index(drop=True)
    clips = clips.assign(weight=1.0, fold=clips["name"].map(folds).fillna(NO_FOLD).astype(int))
    if run.corrections_file.is_file():
        corrections = read_corrections(run.corrections_file, run.vocabulary)
        clips = corrected(clips, corrections, source=run.corrections_file)
    return clips[clips["weight"] > 0].reset_index(drop=True)


def _folds(run, clips):
    """The fold of every clip that is held out at some time, a Series by name, as folds.csv of the run has it.

    A noisy clip from the same recording as a curated one is in the fold of that clip.

    Raises:
        DataError: folds.csv lists a clip twice, lacks a clip or has one too many, names a fold that does not exist, or
            has clips of one recording in two folds.
    """
    path, validation = run.folds_file, run.experiment.validation.folds
    curated, noisy = (clips[clips["subset"] == subset].set_index("name", drop=False) for subset in ("curated", "noisy"))
    if curated.empty:
        raise DataError(f"{run.experiment.records}: has no curated clips, and some must be held out for validation.")
    shared = noisy["group"].isin(set(curated["group"]) - {""})
    if not path.is_file():
        folds = _assign(run, curated)
        of_group = dict(zip(curated["group"], folds))
        with_curated = noisy["group"][shared].map(of_group)
        others = _assign(run, noisy[~shared]) if validation.split_noisy and not shared.all() else with_curated[:0]
        folds = pd.concat([folds, with_curated, others]).astype(int)
        files.write_text(path, files.csv_text(folds.rename("fold").sort_index().reset_index()))
    expected = pd.concat([curated, noisy if validation.split_noisy else noisy[shared]])
    table = read_table(path, ["name", "fold"])
    table = table.assign(name=table["name"].map(files.from_cell), fold=numbers(table["fold"], int))
    unknown = table.index[~table["fold"].between(0, validation.num_folds - 1)]
    if len(unknown):
        raise DataError(f"{path.parent / unknown[0]}: expected a fold from 0 to {validation.num_folds - 1}. {RETRAIN}")
    duplicates = table["name"][table["name"].duplicated()]
    if len(duplicates):
        raise DataError(f"{path}: clip {duplicates.iloc[0]!r} is listed twice, so it may be in two folds. {RETRAIN}")
    differing = sorted(set(table["name"]) ^ set(expected["name"]))
    if differing:
        raise DataError(f"{path}: clip {differing[0]!r} is in this file or in the records, but not in both. {RETRAIN}")
    folds = table.set_index("name")["fold"]
    grouped = expected[expected["group"] != ""]
    folds_per_group = folds[grouped["name"]].groupby(grouped["group"].to_numpy()).nunique()
    split_groups = folds_per_group.index[folds_per_group > 1]
    if len(split_groups):
        raise DataError(f"{path}: clips of the recording {split_groups[0]!r} are in two folds. {RETRAIN}")
    return folds


def _assign(run, clips):
    """A fold for each clip: the dataset's own, or stratified by labels."""
    validation = run.experiment.validation.folds
    if validation.by == "predefined":
        return predefined_folds(clips, validation.num_folds)
    return stratified_folds(clips, validation.num_folds, seed=run.experiment.seed, groups="group")


def keep_corrections(run: Run) -> None:
    """Copies the experiment's corrections into the run.

    The run uses its own copy from then on.

    Raises:
        DataError: They have changed since the run began.
    """
    source, kept = run.experiment.corrections, run.corrections_file
    if source is None:
        return
    current = read_corrections(source, run.vocabulary).sort_values("clip", ignore_index=True)
    if not kept.is_file():
        write_corrections(kept, current)
    columns = ["clip", "labels", "weight"]
    if not read_corrections(kept, run.vocabulary)[columns].equals(current[columns]):
        raise DataError(f"{source}: has changed since the run began, see {kept}. {RETRAIN}")


def check_subsets(run: Run, clips: pd.DataFrame) -> None:
    """Refuses records without clips of a subset that a stage trains on.

    Raises:
        DataError: Names the stage and the subset.
    """
    present = set(usable_clips(run, clips)["subset"])
    for stage in run.experiment.stages:
        for subset in stage.subset:
            if subset not in present:
                raise DataError(
                    f"{run.experiment.records}: has no {subset} clips for stage {stage.name!r}, or none with a weight "
                    'above 0, and with one label if "task" is "single_label". Make records that do, or remove the '
                    "stage."
                )


def held_out_clips(clips: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The curated clips of a fold, which its model does not train on."""
    return clips[(clips["subset"] == "curated") & (clips["fold"] == fold)]


def validation_clips(run: Run, clips: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The held-out clips that validate every epoch.

    For single-label tasks they are those with one label.

    Raises:
        DataError: There are none.
    """
    chosen = usable_clips(run, held_out_clips(clips, fold))
    if chosen.empty:
        raise DataError(
            f"{run.experiment.records}: fold {fold} has no curated clip for validation. Clips of weight 0 do not "
            'count, nor, if "task" is "single_label", clips with several labels. Choose other folds.'
        )
    return chosen


def usable_clips(run: Run, clips: pd.DataFrame) -> pd.DataFrame:
    """The clips with a weight above 0, and for single-label tasks with one label."""
    clips = clips[clips["weight"] > 0]
    if run.experiment.task == "multi_label":
        return clips
    return clips[clips["labels"].map(split_labels).map(len) == 1]
