"""The trained models of a run."""

import dataclasses

from audiotag.config.loading import load
from audiotag.config.schema import Predict, stage_named
from audiotag.errors import ConfigError, DataError
from audiotag.models.backbones import LATER
from audiotag.runs.building import build_tagger
from audiotag.runs.weights import load_weights


def load_taggers(run, stage=None, fold=None):
    """The trained models of a run, one a fold.

    Args:
        run: A `Run`.
        stage: The stage whose weights to take; None is the last.
        fold: The only fold to take; None takes all that are trained.

    Raises:
        DataError: There is no such stage, or no fold, or not this one, has finished it.
    """
    stage = run.known_stage(stage)
    folds = [trained for trained in run.trained_folds(stage) if fold in (None, trained)]
    if not folds and fold is not None:
        raise DataError(f"{run.folder}: stage {stage!r} of fold {fold} is not trained. Name another fold.")
    if not folds:
        raise DataError(f"{run.folder}: stage {stage!r} is not trained yet. Finish the run with: audiotag fit")
    return [load_tagger(run, fold, stage) for fold in folds]


def load_tagger(run, fold, stage, *, predict=None):
    """The model of one fold after one stage; it hears clips as `predict` says, or else as the experiment does."""
    experiment = begun_already(run.experiment)
    tagger = build_tagger(
        experiment.model_copy(update={"predict": predict or experiment.predict}),
        sample_rate=run.sample_rate,
        num_classes=len(run.vocabulary),
        stage=stage_named(run.experiment, stage),
    )
    load_weights(tagger, run.weights(fold, stage))
    return tagger


def begun_already(experiment):
    """The experiment without the weights that its network begins with, which are neither needed nor, maybe, here."""
    model = experiment.model
    if getattr(model, "weights", None) is None:
        return experiment
    return experiment.model_copy(update={"model": model.model_copy(update={"weights": LATER})})


def heard_as(run, overrides):
    """The run, heard in another way than its experiment says.

    Args:
        run: A `Run`.
        overrides: Texts such as "predict.pool=max".

    Raises:
        ConfigError: A text is about anything but `predict`, or says what audiotag cannot do.
    """
    for text in overrides:
        if not text.startswith("predict."):
            raise ConfigError(
                f"--set {text}: a trained run changes only in how it is heard. Expected one of: "
                f"{', '.join(f'predict.{key}' for key in Predict.model_fields)}."
            )
    return dataclasses.replace(run, experiment=load(run.folder / "experiment.json", overrides))
