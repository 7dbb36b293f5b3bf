"""Who trains on which clip, and whose judgement of a clip counts: that of models that never heard it.

Every curated clip has a fold, and with `"noisy": true` every noisy one. The model of
a fold trains on no clip of its fold, in no stage, so it may judge them all. What a
stage did train on stands in its heard.csv; whatever folds.csv says later, no model
judges a clip that stands there.
"""

import functools

import numpy as np
import pandas as pd

from audiotag import files
from audiotag.data.clips import numbers, read_table
from audiotag.data.corrections import corrected, read_corrections, write_corrections
from audiotag.data.folds import official_folds, stratified_folds
from audiotag.data.labels import split_labels
from audiotag.errors import ConfigError, DataError
from audiotag.experiment import options, passes, stage_of
from audiotag.inference.predict import load_tagger, score_records
from audiotag.training.selection import RULES, select

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


def heard_clips(run, manifest, clips, fold, stage):
    """The clips that a stage of a fold trains on, and their weights.

    Args:
        run: The `Run`.
        manifest: What `read_manifest` answers.
        clips: What `training_clips` answers.
        fold: The one that is held out.
        stage: One of the `passes` of the experiment.

    Returns:
        Rows of `clips`: those of the stage's subsets without those held out, those that its selection leaves out,
        those of weight 0, and those of several labels if the experiment says so.

    Raises:
        DataError: None is left of a subset.
        ConfigError: The selection took none, and nothing else is heard.
    """
    if stage.select is not None:
        clips = corrected(clips, _selected(run, manifest, clips, fold, stage), source="the selection")
    heard = _hearable(run, clips[clips["subset"].isin(stage.subset) & (clips["part"] != fold)])
    for subset in stage.subset:
        if not (heard["subset"] == subset).any() and (stage.select is None or subset != "noisy"):
            raise DataError(f"{manifest.directory}: all {subset} clips of stage {stage.name!r} are in fold {fold}.")
    if heard.empty:
        raise ConfigError(
            f"stages.{stage_of(stage.name)}.select: no clip was taken, so there is nothing to hear. Ask for less."
        )
    return heard


def _hearable(run, clips):
    """The clips of a weight above 0, and of one label where the experiment hears no others."""
    clips = clips[clips["weight"] > 0]
    return clips[clips["labels"].map(split_labels).map(len) == 1] if run.experiment.labels == "one" else clips


def _selected(run, manifest, clips, fold, stage):
    """What a stage's selection says of the noisy clips; kept in corrections.csv of the stage."""
    path = run.stage_folder(fold, stage.name) / "corrections.csv"
    if not path.is_file():
        write_corrections(path, _verdict(run, manifest, clips, fold, stage))
    return read_corrections(path, run.vocabulary)


def _verdict(run, manifest, clips, fold, stage):
    """The table of corrections that a stage's rule makes of the mean scores of the models it asks."""
    asked = stage.select
    noisy = _hearable(run, clips[clips["subset"] == "noisy"])
    judges = range(run.experiment.folds.count) if run.experiment.folds.noisy else [fold]
    hear = functools.partial(unheard_scores, run, manifest, clips, subset="noisy", wanted=stage)
    scores = _mean([hear(judge, name) for name in asked.scored_by for judge in judges]).set_index("name")
    judged = noisy["name"].isin(scores.index)
    source = f"{asked.rule.name}, scored by {' and '.join(asked.scored_by)}"
    before = run.stage_folder(fold, asked.scored_by[0]) / "corrections.csv"
    again = asked.keep and asked.scored_by[0].startswith(f"{stage_of(stage.name)}/")  # not the first round
    verdict = select(
        noisy[judged],
        scores.loc[noisy["name"][judged], list(run.vocabulary)].to_numpy(),
        run.vocabulary,
        rule=functools.partial(RULES[asked.rule.name], **options(asked.rule)),
        per_class=asked.per_class,
        kept=read_corrections(before, run.vocabulary) if again else None,
        source=source,
    )
    left = noisy[~judged].rename(columns={"name": "clip"})
    left = left.assign(weight=0.0, reason="not judged: its recording was heard", source=source)
    return pd.concat([verdict, left[verdict.columns]]) if len(left) else verdict


def unheard_scores(run, manifest, clips, fold, stage, subset, *, wanted=None):
    """Probabilities of clips by the model of a fold that held them out; kept in SUBSET_scores.csv of the stage.

    Without folds of the noisy clips, they are all held out from a model that trained on curated ones alone, but for
    those of a recording that it heard; these are left out.

    Args:
        run: The `Run`.
        manifest: What `read_manifest` answers.
        clips: What `training_clips` answers.
        fold: The fold whose model judges.
        stage: Name of one of the `passes`; it must be finished.
        subset: "curated" or "noisy".
        wanted: The stage that selects by them, which may want the clips heard in its own way.

    Returns:
        A table: `name` and a column of probabilities a class, one row a clip.

    Raises:
        DataError: The stage is not trained, or its model has heard one of the clips.
    """
    judged = _unheard_clips(run, clips, fold, stage, subset)
    own = wanted and wanted.select.predict
    name = f"{subset}_scores_for_{wanted.name.replace('/', '-')}.csv" if own else f"{subset}_scores.csv"
    path = run.stage_folder(fold, stage) / name
    if judged.empty:
        return pd.DataFrame(columns=["name", *run.vocabulary]).astype(dict.fromkeys(run.vocabulary, float))
    if not path.is_file():
        label = f"{stage}, fold {fold}, on {subset}"
        taggers = [load_tagger(run, fold, stage, predict=own)]
        scores = score_records(taggers, manifest, judged.reset_index(drop=True), label=label)
        table = pd.DataFrame(scores, columns=list(run.vocabulary))
        table.insert(0, "name", judged["name"].to_numpy())
        try:
            files.write_text(path, files.csv_text(table))
        except FileNotFoundError:  # who begins to train that fold has swept its folder
            files.write_text(path, files.csv_text(table))
    return read_scores(path, run.vocabulary)


def read_scores(path, vocabulary):
    """What `unheard_scores` has written: `name` and a column of probabilities a class."""
    classes = list(vocabulary)
    table = read_table(path, ["name", *map(files.as_cell, classes)]).rename(columns=files.from_cell)
    scores = table[classes].replace("", "nan").astype(float)
    scores.insert(0, "name", table["name"].map(files.from_cell))
    return scores.reset_index(drop=True)


def _unheard_clips(run, clips, fold, stage, subset):
    """The clips of a subset that the model of a fold is to judge, none of which it has heard."""
    heard, parted = heard_by(run, fold, stage), subset == "curated" or run.experiment.folds.noisy
    of_subset, of_fold = clips["subset"] == subset, clips["part"] == fold
    recordings = set(clips["group"][clips["name"].isin(heard) & (clips["subset"] == "curated")]) - {""}
    judged = clips[of_subset & (of_fold if parted else ~clips["group"].isin(recordings))]
    leaked = judged["name"][judged["name"].isin(heard)]
    if len(leaked):
        hint = ANEW if parted else 'Add "noisy": true to the folds, and hold all of them out.'
        raise DataError(
            f"{run.stage_folder(fold, stage)}: its model has trained on clip {leaked.iloc[0]!r} and {len(leaked) - 1} "
            f"others that it should judge unheard. {hint}"
        )
    return judged


def heard_by(run, fold, stage):
    """Names of all clips that a stage's model has trained on, in it and in the stages that it started from.

    Raises:
        DataError: One of the stages has not begun.
    """
    start_from = {each.name: each.start_from for each in passes(run.experiment)}
    last_round = {stage_of(each.name): each.name for each in passes(run.experiment)}
    names = set()
    while stage is not None:
        stage = last_round.get(stage, stage)  # it has heard what those before it heard
        path = run.stage_folder(fold, stage) / "heard.csv"
        if not path.is_file():
            raise DataError(
                f"{run.folder}: stage {stage!r} of fold {fold} is not trained yet, and its model is to judge clips. "
                f"Train it with: audiotag fit --fold {fold}"
            )
        names |= set(read_table(path, ["name"])["name"].map(files.from_cell))
        stage = start_from[stage]
    return names


def mean_unheard(run, manifest, clips, stage, subset):
    """`unheard_scores` of all trained folds; the mean where several models judged a clip."""
    return _mean([unheard_scores(run, manifest, clips, fold, stage, subset) for fold in run.trained_folds(stage)])


def _mean(tables):
    """One table of scores: the mean where several models judged a clip."""
    return pd.concat(tables).groupby("name", sort=True).mean().reset_index()


def best_round(run, folds, stage):
    """The number of the round, from 1, with the highest mean lwlrap on the held-out clips of some folds.

    Raises:
        DataError: A fold has not been through all rounds.
    """
    verdicts = np.zeros((stage.select.rounds, len(folds)))  # [rounds, folds]
    for number, fold in np.ndindex(verdicts.shape):
        known = run.finished(folds[fold], f"{stage.name}/{number + 1}")
        if known is None:
            raise DataError(
                f"{run.folder}: round {number + 1} of stage {stage.name!r} is not trained in fold {folds[fold]} yet, "
                f"and all folds choose the best round. Train it with: audiotag fit --fold {folds[fold]}"
            )
        verdicts[number, fold] = known["val_lwlrap"]
    return 1 + int(verdicts.mean(axis=1).argmax())
