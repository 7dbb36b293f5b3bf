"""The clips that a stage trains on, and its selection among noisy clips.

The selection uses out-of-fold predictions.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from audiotag.config.schema import Stage, stage_of
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.label_rules import build_rule, select
from audiotag.crossval.out_of_fold import mean_scores, out_of_fold_scores
from audiotag.crossval.splits import usable_clips
from audiotag.data.corrections import corrected, read_corrections, write_corrections
from audiotag.errors import ConfigError, DataError
from audiotag.runs.directory import Run
from audiotag.runs.metrics import direction


def stage_clips(context: FoldContext) -> pd.DataFrame:
    """The clips that a stage of a fold trains on, and their weights.

    Args:
        context: The fold, and one of the stages that `expand_rounds` yields.

    Returns:
        Rows of `context.clips` of the stage's subsets, without those that are held out, that the selection leaves
        out, that have weight 0, or that have several labels in a single-label task.

    Raises:
        DataError: No clip of a subset is left.
        ConfigError: The selection kept no clip, and the stage has no others.
    """
    stage, clips = context.stage, context.clips
    if stage.select is not None:
        clips = corrected(clips, _selection(context), source="the selection")
    chosen = usable_clips(context.run, clips[clips["subset"].isin(stage.subset) & (clips["fold"] != context.fold)])
    for subset in stage.subset:
        may_select_none = stage.select is not None and subset in context.run.experiment.noisy_subsets(stage)
        if not (chosen["subset"] == subset).any() and not may_select_none:
            raise DataError(
                f"{context.manifest.place}: all {subset} clips of stage {stage.name!r} are in fold {context.fold}, "
                "which is held out."
            )
    if chosen.empty:
        raise ConfigError(
            f"stages.{stage_of(stage.name)}.select: the selection rule kept no clips, so there is nothing to train "
            "on. Lower its threshold."
        )
    return chosen


def _selection(context):
    """The table of corrections that a stage's selection makes; stored in selected_clips.csv of the stage."""
    path = context.files.selected_clips
    if not path.is_file():
        write_corrections(path, _select_clips(context))
    return read_corrections(path, context.run.vocabulary)


def _select_clips(context):
    """Applies a stage's label rule to the mean out-of-fold scores of the stages that it names."""
    run, stage = context.run, context.stage
    rule, score_with = stage.select.rule, stage.select.score_with
    subsets = run.experiment.noisy_subsets(stage)
    noisy = usable_clips(run, context.clips[context.clips["subset"].isin(subsets)])
    scoring = [
        context.in_fold(fold).at_stage(name)
        for name in score_with
        for fold in (range(run.experiment.num_folds) if run.experiment.split_noisy else [context.fold])
    ]
    tables = [out_of_fold_scores(each, subset, selecting=stage) for each in scoring for subset in subsets]
    scores = mean_scores(tables).set_index("name")
    scored = noisy["name"].isin(scores.index)
    source = f"{rule.name}, scored with {' and '.join(score_with)}"
    is_later_round = score_with[0].startswith(f"{stage_of(stage.name)}/")
    previous = None
    if stage.select.keep_previous and is_later_round:
        previous = read_corrections(run.stage_files(context.fold, score_with[0]).selected_clips, run.vocabulary)
    selection = select(
        noisy[scored],
        scores.loc[noisy["name"][scored], list(run.vocabulary)].to_numpy(),
        run.vocabulary,
        rule=build_rule(rule),
        max_per_class=stage.select.max_per_class,
        previous=previous,
        source=source,
    )
    if scored.all():
        return selection
    unscored = noisy[~scored].rename(columns={"name": "clip"})
    reason = "not scored: the model trained on a clip of the same group"
    unscored = unscored.assign(weight=0.0, reason=reason, source=source)
    return pd.concat([selection, unscored[selection.columns]])


def best_round(run: Run, folds: Sequence[int], stage: Stage) -> int:
    """The number of the round, from 1, whose monitored value is best.

    It is the best mean over some folds of the experiment's monitor.

    Raises:
        DataError: A fold has not finished all rounds.
    """
    num_rounds = 1 if stage.select is None else stage.select.rounds
    values = np.zeros((num_rounds, len(folds)))  # [rounds, folds]
    for number, index in np.ndindex(values.shape):
        result = run.result(folds[index], f"{stage.name}/{number + 1}")
        if result is None:
            raise DataError(
                f"{run.folder}: round {number + 1} of stage {stage.name!r} is not trained in fold {folds[index]} yet, "
                f"and all folds choose the best round. Train it with: audiotag fit --fold {folds[index]}"
            )
        values[number, index] = result["value"]
    means = values.mean(axis=1)  # [rounds]
    best = (
        means.argmax()
        if direction(run.experiment, run.experiment.monitored, len(run.vocabulary)) == "max"
        else means.argmin()
    )
    return 1 + int(best)
