"""Cross-validation splits: which clips train or validate the model of a fold.

With folds every trusted clip has one, and with `"split_noisy": true` every noisy one. With a subset or a
fraction, the clips that validate are those of fold 0. The model of a fold trains on no clip of its fold and
on no clip of their recordings, in no stage, so its predictions for them are out-of-fold.
"""

from pathlib import Path

import pandas as pd

from audiotag import files
from audiotag.config.schema import Experiment, Stage
from audiotag.config.signatures import nearest
from audiotag.data.clips import TEST, numbers, read_table
from audiotag.data.corrections import corrected, read_corrections, write_corrections
from audiotag.data.folds import predefined_folds, stratified_folds, stratified_fraction
from audiotag.data.labels import split_labels
from audiotag.data.records.manifest import Manifest
from audiotag.errors import DataError
from audiotag.runs.directory import RETRAIN, Run

NO_FOLD = -1  # of a clip that is never held out


def training_clips(run: Run, clips: pd.DataFrame) -> pd.DataFrame:
    """The clips of a run, corrected; all but test clips.

    They have a `weight` above 0, the `fold` that holds them out, and `trusted`, whether their labels are reliable.

    Args:
        run: A `Run`.
        clips: The table of clips of its records.

    Returns:
        Rows of `clips`; `fold` counts from 0 and is `NO_FOLD` for clips that are never held out.

    Raises:
        DataError: folds.csv or corrections.csv of the run do not fit the records.
    """
    folds = _folds(run, clips)
    clips = clips[clips["subset"] != TEST].reset_index(drop=True)
    clips = clips.assign(trusted=_is_trusted(run, clips), weight=1.0)
    clips = clips.assign(fold=clips["name"].map(folds).fillna(NO_FOLD).astype(int))
    if run.corrections_file.is_file():
        corrections = read_corrections(run.corrections_file, run.vocabulary)
        clips = corrected(clips, corrections, source=run.corrections_file)
    return clips[clips["weight"] > 0].reset_index(drop=True)


def _folds(run, clips):
    """The fold of every clip that is held out at some time, a Series by name, as folds.csv of the run has it.

    A clip from the same recording as one that validates is in the fold of that clip, whatever its subset.

    Raises:
        DataError: folds.csv lists a clip twice, lacks a clip or has one too many, names a fold that does not exist, or
            has clips of one recording in two folds.
    """
    path, experiment = run.folds_file, run.experiment
    if experiment.validation is None:
        return pd.Series(dtype=int)
    clips = clips[clips["subset"] != TEST].set_index("name", drop=False)
    validates = _may_validate(run, clips)
    if not validates.any():
        raise DataError(
            f"{experiment.records}: has no {_validating(experiment)} clips to hold out for validation. Make records "
            "with some, or set validation to null."
        )
    if not path.is_file():
        folds = _assign(run, clips[validates])
        others = clips.drop(index=folds.index)
        of_group = dict(zip(clips["group"][folds.index], folds))
        shared = others["group"].isin(set(of_group) - {""})
        with_group, rest = others["group"][shared].map(of_group), others[~shared]
        split = _assign(run, rest) if experiment.split_noisy and len(rest) else with_group[:0]
        folds = pd.concat([folds, with_group, split]).astype(int)
        files.write_text(path, files.csv_text(folds.rename("fold").sort_index().reset_index()))
    table = read_table(path, ["name", "fold"])
    table = table.assign(name=table["name"].map(files.from_cell), fold=numbers(table["fold"], int))
    unknown = table.index[~table["fold"].between(0, experiment.num_folds - 1)]
    if len(unknown):
        last = experiment.num_folds - 1
        raise DataError(f"{path.parent / unknown[0]}: expected a fold from 0 to {last}. {RETRAIN}")
    duplicates = table["name"][table["name"].duplicated()]
    if len(duplicates):
        raise DataError(f"{path}: clip {duplicates.iloc[0]!r} is listed twice, so it may be in two folds. {RETRAIN}")
    if experiment.validation.fraction is not None:
        validates &= clips["name"].isin(table["name"])  # the others are trained on
    shared = clips["group"].isin(set(clips["group"][validates]) - {""})
    expected = clips if experiment.split_noisy else clips[validates | shared]
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
    """The fold of clips that validate: the dataset's own, or stratified by labels; 0 with a subset or a fraction."""
    experiment, validation = run.experiment, run.experiment.validation
    if validation.subset is not None:
        return pd.Series(0, index=clips.index)
    if validation.fraction is not None:
        seed = experiment.seed if validation.seed is None else validation.seed
        chosen = stratified_fraction(clips, validation.fraction, seed=seed, groups="group")
        return pd.Series(0, index=clips.index[chosen])
    if validation.folds.by == "predefined":
        return predefined_folds(clips, experiment.num_folds)
    return stratified_folds(clips, experiment.num_folds, seed=experiment.seed, groups="group")


def _is_trusted(run, clips):
    """Whether the labels of each clip are reliable, as those of a subset that validates are."""
    validation = run.experiment.validation
    subset = None if validation is None else validation.subset
    return clips["subset"].isin([*run.experiment.trusted, subset])


def _may_validate(run, clips):
    """Whether each clip belongs to the subsets of which clips validate."""
    subset = run.experiment.validation.subset
    return _is_trusted(run, clips) if subset is None else clips["subset"] == subset


def _validating(experiment):
    """The names of the subsets of which clips validate."""
    return experiment.validation.subset or " or ".join(experiment.trusted)


def how_split(experiment: Experiment, clips: pd.DataFrame) -> str:
    """How clips were divided into those that train and those that validate.

    Scores on clips of recordings or speakers that a model trained on are higher than on new ones, so this is shown
    beside every validation score.

    Args:
        experiment: An experiment with validation.
        clips: What `training_clips` returns.

    Returns:
        For example "clip by clip" or "by group: 5 groups".
    """
    validation = experiment.validation
    named = clips["group"][clips["group"] != ""]
    ways = []
    if validation is not None and validation.subset is not None:
        ways.append(f"by the subset {validation.subset}")
    elif validation is not None and validation.folds is not None and validation.folds.by == "predefined":
        ways.append("by predefined folds")
    if len(named):
        without = len(clips) - len(named)
        rest = f", and {without} clips without a group one by one" if without else ""
        ways.append(f"by group: {named.nunique()} group{'s' if named.nunique() > 1 else ''}{rest}")
    return " and ".join(ways) or "clip by clip"


def untrained_classes(run: Run, clips: pd.DataFrame, fold: int) -> list[str]:
    """The classes of which the models of a fold train on no clip.

    Args:
        run: A `Run`.
        clips: What `training_clips` returns.
        fold: The fold that is held out.
    """
    subsets = {subset for stage in run.experiment.stages for subset in stage.subset}
    trained = clips[clips["subset"].isin(subsets) & (clips["fold"] != fold)]
    present = {label for labels in usable_clips(run, trained)["labels"] for label in split_labels(labels)}
    return [label for label in run.vocabulary if label not in present]


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


def check_subset_names(experiment: Experiment, manifest: Manifest) -> None:
    """Refuses a subset that the records do not have, wherever an experiment names it.

    Raises:
        DataError: Names the place, the nearest subset and those that there are.
    """
    named = {f"stages.{stage.name}.subset": stage.subset for stage in experiment.stages}
    named |= {
        f"stages.{stage.name}.validation_subset": stage.validation_subset
        for stage in experiment.stages
        if stage.validation_subset is not None
    }
    named["trusted"] = experiment.trusted
    if experiment.validation is not None and experiment.validation.subset is not None:
        named["validation.subset"] = (experiment.validation.subset,)
    present = manifest.count_clips()
    accepted = [subset for subset in present if subset != TEST]
    for place, subsets in named.items():
        for subset in subsets:
            if subset not in present:
                raise DataError(
                    f"{manifest.place}: has no {subset} clips, which {place} names. {nearest(subset, accepted)}"
                    f"Its subsets: {', '.join(present)}."
                )


def refuse_background(experiment: Experiment, clips: pd.DataFrame, source: str | Path) -> None:
    """Refuses training clips without labels in a single-label task.

    Args:
        experiment: An `Experiment`.
        clips: The table of clips of its records.
        source: The place of the records, for the message.

    Raises:
        DataError: Says how many there are.
    """
    background = clips["name"][(clips["labels"] == "") & (clips["subset"] != TEST)]
    if experiment.task == "single_label" and len(background):
        raise DataError(
            f"{source}: {len(background)} clips have no label, such as {background.iloc[0]}, and with "
            '"task": "single_label" every clip has one. Make records without --background, so that background is a '
            'class, or choose "task": "multi_label".'
        )


def check_subsets(run: Run, clips: pd.DataFrame) -> None:
    """Refuses records without usable clips of a subset that a stage trains on.

    Raises:
        DataError: Names the stage and the subset.
    """
    present = set(usable_clips(run, clips)["subset"])
    for stage in run.experiment.stages:
        for subset in stage.subset:
            if subset not in present:
                raise DataError(
                    f"{run.experiment.records}: has no {subset} clips for stage {stage.name!r}, or none with a weight "
                    'above 0 (and one label, if "task" is "single_label"). Make records with such clips, or remove the '
                    "stage."
                )


def held_out_clips(run: Run, clips: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The clips that validate the model of a fold; none without validation."""
    if run.experiment.validation is None:
        return clips[:0]
    return clips[_may_validate(run, clips) & (clips["fold"] == fold)]


def validation_clips(run: Run, clips: pd.DataFrame, fold: int, stage: Stage) -> pd.DataFrame:
    """The held-out clips that validate every epoch of a stage.

    For single-label tasks they are those with one label.

    Raises:
        DataError: There are none.
    """
    subsets = stage.validation_subset
    if subsets is None:
        held_out = held_out_clips(run, clips, fold)
    else:
        held_out = clips[clips["subset"].isin(subsets) & (clips["fold"] == fold)]
    chosen = usable_clips(run, held_out)
    if chosen.empty:
        kind = _validating(run.experiment) if subsets is None else " or ".join(subsets)
        raise DataError(
            f"{run.experiment.records}: fold {fold} has no {kind} clip for validation. Clips of "
            'weight 0 are left out, and if "task" is "single_label", clips with several labels. Choose other folds.'
        )
    return chosen


def usable_clips(run: Run, clips: pd.DataFrame) -> pd.DataFrame:
    """The clips with a weight above 0, and for single-label tasks with one label."""
    clips = clips[clips["weight"] > 0]
    if run.experiment.task == "multi_label":
        return clips
    return clips[clips["labels"].map(split_labels).map(len) == 1]
