"""Out-of-fold predictions: scores of clips by models that did not train on them.

What a stage trained on is listed in its training_clips.csv. No model scores a clip that is listed
there, even if folds.csv is changed later.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from audiotag import files
from audiotag.config.schema import Stage, StartFrom, expand_rounds, stage_of
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.splits import held_out_clips
from audiotag.data.clips import read_table
from audiotag.errors import DataError
from audiotag.inference.records import score_records
from audiotag.runs.directory import RETRAIN, Run
from audiotag.runs.models import load_tagger


def out_of_fold_scores(
    context: FoldContext, subset: str | None = None, *, selecting: Stage | None = None
) -> pd.DataFrame:
    """Probabilities of clips by the model of a fold that held them out.

    They are stored in oof.csv or oof_SUBSET.csv of the stage. Without folds for noisy clips, a model that trained on
    no clip of a noisy subset scores all of them, except those of a recording that it trained on.

    Args:
        context: The fold, and a finished stage.
        subset: A subset of noisy clips; None scores the validation clips.
        selecting: The stage whose selection uses the scores; its `select.predict` says how clips are scored.

    Returns:
        A table: `name` and a column of probabilities per class, one row per clip.

    Raises:
        DataError: The stage is not trained, or its model trained on one of the clips.
    """
    run, fold, stage = context.run, context.fold, context.stage.name
    clips = _out_of_fold_clips(context, subset)
    predict = selecting.select.predict if selecting is not None and selecting.select is not None else None
    path = context.files.oof_scores(subset, selecting.name if selecting is not None and predict else None)
    if clips.empty:
        return pd.DataFrame(columns=["name", *run.vocabulary]).astype(dict.fromkeys(run.vocabulary, float))
    if not path.is_file():
        taggers = [load_tagger(run, fold, stage, predict=predict)]
        label = f"{stage}, fold {fold}, on {subset or 'validation'} clips"
        clips = clips.reset_index(drop=True)
        scores = score_records(taggers, context.manifest, clips, offsets=context.offsets, label=label)
        table = pd.DataFrame(scores, columns=list(run.vocabulary))
        table.insert(0, "name", clips["name"].to_numpy())
        try:
            files.write_text(path, files.csv_text(table))
        except FileNotFoundError:  # a process that starts to train this fold has just cleaned its folder: try once more
            files.write_text(path, files.csv_text(table))
    return read_scores(path, run.vocabulary)


def read_scores(path: Path, vocabulary: Iterable[str]) -> pd.DataFrame:
    """The table that `out_of_fold_scores` wrote.

    It has `name` and a column of probabilities per class.
    """
    classes = list(vocabulary)
    table = read_table(path, ["name", *map(files.as_cell, classes)]).rename(columns=files.from_cell)
    scores = table[classes].replace("", "nan").to_numpy().astype(float)  # [clips, K]
    names = table["name"].map(files.from_cell).reset_index(drop=True)
    return pd.concat([names, pd.DataFrame(scores, columns=classes)], axis=1)


def _out_of_fold_clips(context, subset):
    """The clips that the model of a fold scores, none of which it trained on."""
    run, clips = context.run, context.clips
    used = trained_on(run, context.fold, context.stage.name)
    split = subset is None or run.experiment.split_noisy
    in_subset = clips["subset"] == subset
    if subset is None:
        chosen = held_out_clips(run, clips, context.fold)
    elif split:
        chosen = clips[in_subset & (clips["fold"] == context.fold)]
    else:
        recordings = set(clips["group"][clips["name"].isin(used) & ~in_subset]) - {""}
        chosen = clips[in_subset & ~clips["group"].isin(recordings)]
    leaked = chosen["name"][chosen["name"].isin(used)]
    if len(leaked):
        remedy = RETRAIN if split else 'Add "split_noisy": true to validation.folds, and hold out all folds.'
        raise DataError(
            f"{context.files.folder}: its model trained on clip {leaked.iloc[0]!r} and {len(leaked) - 1} others that "
            f"it should score out-of-fold. {remedy}"
        )
    return chosen


def trained_on(run: Run, fold: int, stage: str | None) -> set[str]:
    """Names of all clips of a run's records that a stage's model trained on.

    They are the clips of this stage and of the stages that it started from, of other runs, too.

    Raises:
        DataError: One of the stages has not begun.
    """
    return set(trained_clips(run, fold, stage)["name"]) - {""}


def trained_clips(run: Run, fold: int, stage: str | None) -> pd.DataFrame:
    """The table of all clips that a stage's model trained on.

    Its columns are `name`, `group` and `sha256`. A clip of another run, from which a stage started, has the name "" if
    the records of this run lack it. A file of weights does not say what its model trained on.

    Raises:
        DataError: One of the stages has not begun.
    """
    start_from: dict[str, str | StartFrom | None] = {
        each.name: each.start_from for each in expand_rounds(run.experiment)
    }
    last_round = {stage_of(each.name): each.name for each in expand_rounds(run.experiment)}
    tables = []
    while stage is not None:
        stage = last_round.get(stage, stage)  # it includes what the rounds before it trained on
        path = run.stage_files(fold, stage).training_clips
        if not path.is_file():
            raise DataError(
                f"{run.folder}: stage {stage!r} of fold {fold} is not trained yet, and its model is to score clips. "
                f"Train it with: audiotag fit --fold {fold}"
            )
        tables.append(_read_clips(path))
        source = start_from[stage]
        if isinstance(source, StartFrom) and source.run is not None:
            tables.append(_read_clips(run.stage_files(fold, stage).source_clips))
        stage = source if isinstance(source, str) else None
    return pd.concat(tables).drop_duplicates(ignore_index=True)


def _read_clips(path):
    columns = ["name", "group", "sha256"]
    return read_table(path, columns)[columns].map(files.from_cell)


def mean_out_of_fold_scores(context: FoldContext, subset: str | None = None) -> pd.DataFrame:
    """`out_of_fold_scores` of all trained folds, averaged per clip.

    A clip that several models scored has their mean.
    """
    folds = context.run.trained_folds(context.stage.name)
    return mean_scores([out_of_fold_scores(context.in_fold(fold), subset) for fold in folds])


def mean_scores(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of scores from several: the mean for a clip that is in more than one."""
    return pd.concat(tables).groupby("name", sort=True).mean().reset_index()
