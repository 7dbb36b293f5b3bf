"""The trained models of a run."""

import dataclasses
import warnings
from collections.abc import Iterable

from audiotag.config.loading import load
from audiotag.config.schema import Experiment, Predict, stage_named
from audiotag.errors import ConfigError, DataError
from audiotag.models.backbones import LOADED_LATER
from audiotag.models.tagger import Tagger
from audiotag.runs.building import build_tagger
from audiotag.runs.directory import Run, experiment_file
from audiotag.runs.weights import load_weights


def load_taggers(run: Run, stage: str | None = None, fold: int | None = None) -> list[Tagger]:
    """The trained models of a run, one per fold.

    Args:
        run: A `Run`.
        stage: The stage whose weights to load; None is the last.
        fold: The only fold to load; None loads all trained folds.

    Raises:
        DataError: There is no such stage, or no fold, or not this one, has finished it.
    """
    stage = run.stage_name(stage)
    folds = [trained for trained in run.trained_folds(stage) if fold in (None, trained)]
    if not folds and fold is not None:
        raise DataError(f"{run.folder}: stage {stage!r} of fold {fold} is not trained. Name another fold.")
    if not folds:
        raise DataError(f"{run.folder}: stage {stage!r} is not trained yet. Finish the run with: audiotag fit")
    return [load_tagger(run, fold, stage) for fold in folds]


def load_tagger(run: Run, fold: int, stage: str, *, predict: Predict | None = None) -> Tagger:
    """The model of one fold after one stage.

    Args:
        run: A `Run`.
        fold: A trained fold.
        stage: Name of a stage or of one of its rounds.
        predict: How whole clips are scored; None is the experiment's `predict`.

    Raises:
        DataError: The stage is not finished, or its weights are missing or damaged.
    """
    for name in run.changed_components():
        warnings.warn(f"{run.folder}: the source file of {name} has changed since the run was trained.", stacklevel=2)
    experiment = without_initial_weights(run.experiment)
    tagger = build_tagger(
        experiment.model_copy(update={"predict": predict or experiment.predict}),
        sample_rate=run.sample_rate,
        num_classes=len(run.vocabulary),
        stage=stage_named(run.experiment, stage),
    )
    load_weights(tagger, run.weights(fold, stage))
    return tagger


def without_initial_weights(experiment: Experiment) -> Experiment:
    """The experiment without the file of pretrained weights.

    Trained weights replace those.
    """
    model = experiment.model
    if getattr(model, "weights", None) is None:
        return experiment
    return experiment.model_copy(update={"model": model.model_copy(update={"weights": LOADED_LATER})})


def with_predict_options(run: Run, overrides: Iterable[str]) -> Run:
    """The run with other `predict` settings than its experiment has.

    Args:
        run: A `Run`.
        overrides: Changes such as "predict.pool=max".

    Raises:
        ConfigError: A change is not about `predict`, or is not valid.
    """
    for text in overrides:
        if not text.startswith("predict."):
            raise ConfigError(
                f"--set {text}: only the predict settings of a trained run can change. Expected one of: "
                f"{', '.join(f'predict.{key}' for key in Predict.model_fields)}."
            )
    return dataclasses.replace(run, experiment=load(experiment_file(run.folder), overrides))
