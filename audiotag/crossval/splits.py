"""Who trains on which clip, and whose judgement of a clip counts: that of models that never heard it.

Every curated clip has a fold, and with `"noisy": true` every noisy one. The model of
a fold trains on no clip of its fold, in no stage, so it may judge them all. What a
stage did train on stands in its heard.csv; whatever folds.csv says later, no model
judges a clip that stands there.
"""


import pandas as pd

from audiotag import files
from audiotag.data.clips import numbers, read_table
from audiotag.data.corrections import corrected, read_corrections, write_corrections
from audiotag.data.folds import official_folds, stratified_folds
from audiotag.data.labels import split_labels
from audiotag.errors import DataError

ANEW = "Train the run anew with --restart."


def training_clips(run, clips):
    """The clips that the run may hear, corrected, with the columns `weight`, above 0, and `part`: the fold, or -1."""
    folds = _folds(run, clips)
    clips = clips[clips["subset"].isin(("curated", "noisy"))].reset_index(drop=True)
    clips = clips.assign(weight=1.0, part=clips["name"].map(folds).fillna(-1).astype(int))
    kept = run.folder / "corrections.csv"
    if kept.is_file():
        clips = corrected(clips, read_corrections(kept, run.vocabulary), source=kept)
    return clips[clips["weight"] > 0].reset_index(drop=True)


def _folds(run, clips):
    """The fold of every clip that is held out at times, a Series by name, as folds.csv of the run says.

    A noisy clip of the same recording as a curated one goes where that goes.

    Raises:
        DataError: folds.csv names a clip twice, other clips than are to be held out, no such fold, or parts a group.
    """
    path = run.folder / "folds.csv"
    curated, noisy = (clips[clips["subset"] == subset].set_index("name", drop=False) for subset in ("curated", "noisy"))
    if curated.empty:
        raise DataError(f"{run.experiment.records}: holds no curated clips, and some must be held out to judge by.")
    shared = noisy["group"].isin(set(curated["group"]) - {""})
    if not path.is_file():
        folds = _deal(run, curated)
        of_group = dict(zip(curated["group"], folds))
        beside = noisy["group"][shared].map(of_group)
        alone = _deal(run, noisy[~shared]) if run.experiment.folds.noisy and not shared.all() else beside[:0]
        folds = pd.concat([folds, beside, alone]).astype(int)
        files.write_text(path, files.csv_text(folds.rename("fold").sort_index().reset_index()))
    held = pd.concat([curated, noisy if run.experiment.folds.noisy else noisy[shared]])
    table = read_table(path, ["name", "fold"])
    table = table.assign(name=table["name"].map(files.from_cell), fold=numbers(table["fold"], int))
    nowhere = table.index[~table["fold"].between(0, run.experiment.folds.count - 1)]
    if len(nowhere):
        raise DataError(f"{path.parent / nowhere[0]}: there are folds 0 to {run.experiment.folds.count - 1}. {ANEW}")
    twice = table["name"][table["name"].duplicated()]
    if len(twice):
        raise DataError(f"{path}: clip {twice.iloc[0]!r} stands there twice, so it may be in two folds. {ANEW}")
    strange = sorted(set(table["name"]) ^ set(held["name"]))
    if strange:
        raise DataError(f"{path}: clip {strange[0]!r} is there or in the records, but not in both. {ANEW}")
    folds = table.set_index("name")["fold"]
    grouped = held[held["group"] != ""]
    parted = folds[grouped["name"]].groupby(grouped["group"].to_numpy()).nunique()
    if (parted > 1).any():
        raise DataError(f"{path}: clips of the recording {parted.index[parted > 1][0]!r} are in two folds. {ANEW}")
    return folds


def _deal(run, clips):
    asked = run.experiment.folds
    if asked.by == "official":
        return official_folds(clips, asked.count)
    return stratified_folds(clips, asked.count, seed=run.experiment.seed, groups="group")


def keep_corrections(run):
    """Keeps the corrections that the experiment names in the run, where its own copy counts from then on.

    Raises:
        DataError: They say something else than when the run began.
    """
    named, kept = run.experiment.corrections, run.folder / "corrections.csv"
    if named is None:
        return
    now = read_corrections(named, run.vocabulary).sort_values("clip", ignore_index=True)
    if not kept.is_file():
        write_corrections(kept, now)
    said = ["clip", "labels", "weight"]
    if not read_corrections(kept, run.vocabulary)[said].equals(now[said]):
        raise DataError(f"{named}: has changed since the run began, see {kept}. {ANEW}")


def check_subsets(run, clips):
    """Refuses records that hold no clip of a subset that a stage trains on.

    Raises:
        DataError: Names the stage and the subset.
    """
    present = set(_hearable(run, clips)["subset"])
    for stage in run.experiment.stages:
        for subset in stage.subset:
            if subset not in present:
                raise DataError(
                    f"{run.experiment.records}: holds no {subset} clips for stage {stage.name!r}, or none of a weight "
                    'above 0, and of one label where "labels" is "one". Make records that do, or take the stage out.'
                )


def held_out_clips(clips, fold):
    """The curated clips of a fold: they judge its model."""
    return clips[(clips["subset"] == "curated") & (clips["part"] == fold)]


def judging_clips(run, clips, fold):
    """Those held-out clips that judge every epoch: of a single label where the model hears no others.

    Raises:
        DataError: There are none.
    """
    judges = _hearable(run, held_out_clips(clips, fold))
    if judges.empty:
        raise DataError(
            f"{run.experiment.records}: no curated clip is left in fold {fold} to judge by; those of weight 0, and "
            'where "labels" is "one" those of several labels, do not. Choose other folds.'
        )
    return judges


def _hearable(run, clips):
    """The clips of a weight above 0, and of one label where the experiment hears no others."""
    clips = clips[clips["weight"] > 0]
    return clips[clips["labels"].map(split_labels).map(len) == 1] if run.experiment.labels == "one" else clips


