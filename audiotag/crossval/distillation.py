"""Soft targets: labels mixed with what a teacher predicts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiotag import files
from audiotag.config.schema import Distill, stage_of
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.label_issues import scored_training_clips
from audiotag.crossval.out_of_fold import mean_scores, read_scores
from audiotag.data.labels import multi_hot
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.runs.directory import Run, open_run


def stage_targets(
    context: FoldContext, clips: pd.DataFrame, *, resumed: bool = False, say: Callable[[str], Any] = print
) -> np.ndarray:
    """What the loss of a stage compares its predictions with.

    They are the labels. With `distill` of weight w a clip that the teacher scored has (1 - w) label + w probability,
    class by class. The probabilities are the mean over the teachers' out-of-fold predictions, so none is by a model
    that was trained on that clip's label. They are stored in teacher_scores.csv of the stage.

    Reference: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531, at temperature 1.

    Args:
        context: The fold and the stage.
        clips: The clips that it trains on.
        resumed: Whether the stage goes on, so that it reads the scores that it stored.
        say: Called with a sentence that tells for how many clips there are predictions.

    Returns:
        float32 [n, K].

    Raises:
        ConfigError: A teacher is the run itself, or lacks a class.
        DataError: A teacher is not trained, or has no out-of-fold predictions of these clips.
    """
    classes, distill = list(context.run.vocabulary), context.stage.distill
    truth = multi_hot(clips["labels"], classes)
    if distill is None:
        return truth
    path, place, teachers = context.files.teacher_scores, _place(context), " and ".join(distill.run)
    if not (resumed and path.is_file()):
        table = mean_scores([_scores(run, distill, classes) for run in open_teachers(context)])
        table = table[table["name"].isin(clips["name"])]
        if table.empty:
            raise DataError(
                f"{place}: {teachers} held out none of the {len(clips)} clips that this stage trains on, so it has no "
                "out-of-fold predictions of them. Train a teacher on the same clips, in all folds, "
                'and of noisy clips with "split_noisy": true.'
            )
        files.write_text(path, files.csv_text(table))
    scores = read_scores(path, classes).set_index("name").reindex(clips["name"])[classes].to_numpy()
    scored = np.isfinite(scores).all(axis=1)  # [n]
    others = "" if scored.all() else "; the others keep their labels"
    say(f"{place}: {scored.sum()} of {len(clips)} clips have predictions of {teachers}{others}.")
    scores = scores[scored]
    if context.run.experiment.task == "single_label":
        scores = scores / scores.sum(axis=1, keepdims=True)
    truth[scored] = (1 - distill.weight) * truth[scored] + distill.weight * scores
    return truth


def open_teachers(context: FoldContext) -> list[Run]:
    """The runs that teach a stage.

    Raises:
        ConfigError: A teacher is the run itself, or lacks a class.
        DataError: A teacher is no run, or its stage is not trained.
    """
    teachers: list[Run] = []
    place, distill = _place(context), context.stage.distill
    if distill is None:
        return teachers
    for name in distill.run:
        if Path(name).resolve() == context.run.folder.resolve():
            raise ConfigError(f"{place}: {name} is this run, and cannot be its own teacher. Choose another --run.")
        try:
            run = open_run(name)
            if not run.trained_folds(run.stage_name(distill.stage)):
                raise DataError(f"{name} is not trained yet. Finish it with: audiotag fit")
        except AudiotagError as error:
            raise type(error)(f"{place}: {error}") from error
        if missing := [each for each in context.run.vocabulary if each not in run.vocabulary]:
            raise ConfigError(
                f"{place}: {name} does not know the class {missing[0]!r} ({len(missing)} such classes in all). "
                "Train the teacher with the classes of these records."
            )
        teachers.append(run)
    return teachers


def _scores(run, distill: Distill, classes):
    clips, scores = scored_training_clips(run, stage=distill.stage)
    table = pd.DataFrame(scores, columns=list(run.vocabulary))[classes]
    table.insert(0, "name", clips["name"].to_numpy())
    return table


def _place(context):
    return f"stages.{stage_of(context.stage.name)}.distill"
