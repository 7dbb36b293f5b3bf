"""Which noisy clips a stage trains on: those whose labels out-of-fold predictions confirm."""

import functools

import numpy as np
import pandas as pd

from audiotag.config.components import options
from audiotag.config.schema import stage_of
from audiotag.crossval.label_rules import RULES, select
from audiotag.crossval.out_of_fold import _mean, unheard_scores
from audiotag.crossval.splits import _hearable
from audiotag.data.corrections import corrected, read_corrections, write_corrections
from audiotag.errors import ConfigError, DataError


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
