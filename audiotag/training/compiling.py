"""A stage's compiled model and its callbacks."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from audiotag.config.components import CustomComponent, Section
from audiotag.config.custom import bound, create, errors_of
from audiotag.config.schema import Experiment, Stage, StartFrom, stage_of
from audiotag.config.validation import is_validated_only
from audiotag.crossval.label_rules import build_rule
from audiotag.data.corrections import read_corrections
from audiotag.data.records.manifest import Manifest
from audiotag.data.sampling import class_weights
from audiotag.errors import ConfigError, error_context
from audiotag.losses import LOSSES
from audiotag.models.tagger import Tagger
from audiotag.optimizers import OPTIMIZERS, with_lr_multipliers
from audiotag.runs.building import build_tagger
from audiotag.runs.directory import StageFiles
from audiotag.runs.metrics import build_metrics, direction
from audiotag.runs.models import without_initial_weights
from audiotag.runs.warm_start import find_source, load_source
from audiotag.schedules import SCHEDULES
from audiotag.training.callbacks import CALLBACKS, CSVLogger, ModelCheckpoint
from audiotag.training.embedding_cache import check_cache
from audiotag.training.initial_head import check_initial_head, check_options

MOST_BATCH_VALUES = 1 << 32  # of a batch of images: 16 gigabytes


def check_stages(
    experiment: Experiment,
    manifest: Manifest,
    *,
    folds: Sequence[int] | None = None,
    folder: str | Path | None = None,
) -> None:
    """Builds and compiles every stage once.

    A wrong setting thus fails before anything is trained or written.

    Args:
        experiment: An `Experiment`.
        manifest: The `Manifest` of its records.
        folds: The folds that are trained; None are those of the experiment.
        folder: The directory of the run, from which no stage may take weights as if from outside.

    Raises:
        ConfigError: A component refuses its options, or does not fit the others or the weights to start with.
        DataError: The corrections are not valid, or weights to start with are missing or damaged.
    """
    if experiment.corrections is not None:
        read_corrections(experiment.corrections, manifest.vocabulary)
    direction(experiment, experiment.monitored, len(manifest.vocabulary))
    sizes = {"sample_rate": manifest.sample_rate, "num_classes": len(manifest.vocabulary)}
    for stage in experiment.stages:
        tagger = stage_tagger(experiment, stage, **sizes)
        _check_batch_size(tagger, stage)
        if isinstance(stage.start_from, StartFrom):
            for fold in experiment.held_out if folds is None else folds:
                source = find_source(stage, fold, folder=folder)
                load_source(tagger, source, experiment, manifest.sample_rate, manifest.vocabulary)
        compile_tagger(tagger, experiment, stage, num_steps=stage.steps_per_epoch or 1)
        set_class_weights(tagger, stage, (), manifest.vocabulary)
        stage_callbacks(experiment, stage, StageFiles(Path()), num_classes=len(manifest.vocabulary))
        if stage.initial_head is not None:
            check_options(stage.initial_head, sizes["num_classes"], f"stages.{stage.name}.initial_head")
        if stage.select is not None:
            num_classes = sizes["num_classes"]
            build_rule(stage.select.rule)(np.eye(2, num_classes, dtype=bool), np.full((2, num_classes), 0.5))
        if stage.select is not None and stage.select.predict is not None:
            scoring = without_initial_weights(experiment).model_copy(update={"predict": stage.select.predict})
            try:
                build_tagger(scoring, **sizes, stage=stage)
            except ConfigError as error:
                raise ConfigError(f"stages.{stage.name}.select.{error}") from error


def _check_batch_size(tagger, stage):
    """Refuses a batch of images that no memory holds."""
    image_size = math.prod(filter(None, tagger.preprocessor.outputs[0].shape))  # M T C
    size = stage.batch_size * max(image_size, tagger.window_samples)
    if size > MOST_BATCH_VALUES:
        raise ConfigError(
            f"stages.{stage.name}.batch_size: a batch of {stage.batch_size:,} windows has {size:,} values. "
            f"Expected at most {MOST_BATCH_VALUES:,}: choose a smaller batch or a shorter window."
        )


def stage_tagger(experiment: Experiment, stage: Stage, *, sample_rate: int, num_classes: int) -> Tagger:
    """The model of a stage.

    It has the network's initial weights; a stage that starts from others needs no pretrained ones.
    """
    if stage.start_from is not None:
        experiment = without_initial_weights(experiment)
    return build_tagger(experiment, sample_rate=sample_rate, num_classes=num_classes, stage=stage)


def compile_tagger(
    tagger: Tagger, experiment: Experiment, stage: Stage, *, num_steps: int, num_validation: int = 1
) -> None:
    """Compiles a model with the optimizer, the losses and the metrics of a stage.

    Args:
        tagger: A built `Tagger`.
        experiment: The `Experiment`.
        stage: One of its stages.
        num_steps: Batches per epoch.
        num_validation: Number of validation clips.

    Raises:
        ConfigError: Keras, a loss, a metric or a schedule refuses a setting.
    """
    metrics = build_metrics(experiment, num_classes=tagger.num_classes, num_clips=num_validation)
    validated_only = [metric for metric, named in zip(metrics, experiment.metrics) if is_validated_only(named)]
    with error_context(f"stages.{stage_of(stage.name)}"):
        if stage.backbone_lr_multiplier == 0:
            tagger.freeze_backbone()
        if stage.initial_head is not None:
            check_initial_head(tagger)
        if stage.cache_embeddings:
            check_cache(tagger)
        optimizer = build_optimizer(
            stage, tagger.trainable_variables, num_steps=num_steps, multipliers=lr_multipliers(tagger, stage)
        )
        if experiment.dtype_policy == "mixed_float16":  # else small gradients round to 0
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        tagger.compile(
            optimizer=optimizer,
            loss=build_loss(stage.loss, tagger.num_classes),
            metrics=[metric for metric in metrics if metric not in validated_only],
            validation_metrics=validated_only,
            jit_compile=experiment.jit_compile or keras.backend.backend() == "jax",  # which else runs step by step
        )
        if stage.noisy_loss is not None:
            tagger.noisy_loss = build_loss(stage.noisy_loss, tagger.num_classes)


def lr_multipliers(tagger: Tagger, stage: Stage) -> dict[int, float]:
    """What the learning rate of the backbone's weights is multiplied by.

    The decay from layer to layer is that of ELECTRA (Clark et al., 2020) and BEiT (Bao et al., 2021).

    Args:
        tagger: A built `Tagger`.
        stage: A `Stage`.

    Returns:
        {id of a weight: its multiplier}, without those of 1.
    """
    multipliers: dict[int, float] = {}
    num_above = 0  # layers with a kernel between a layer and the head
    for layer in reversed(tagger.backbone()):
        multiplier = stage.backbone_lr_multiplier * stage.layer_lr_decay ** (1 + num_above)
        weights = layer.trainable_variables
        num_above += any(len(weight.shape) > 1 for weight in weights)
        multipliers |= {id(weight): multiplier for weight in weights if multiplier != 1}
    return multipliers


def build_loss(loss: Section, num_classes: int) -> keras.losses.Loss:
    """The loss of a stage.

    Raises:
        ConfigError: A component from outside audiotag is not valid, fails, or returns no number.
        ValueError: A loss of audiotag refuses an option.
    """
    built = create(loss, LOSSES)
    if isinstance(loss, CustomComponent):
        if loss.name.startswith("keras.") and not getattr(loss, "from_logits", True):
            raise ConfigError(f'{loss.name}: the models return logits. Add "from_logits": true.')
        with errors_of(loss):
            truth = keras.ops.eye(2, num_classes)
            value = keras.ops.convert_to_numpy(built(truth, keras.ops.zeros((2, num_classes))))
        if value.shape != () or not np.isfinite(value):
            raise ConfigError(
                f"{loss.name}: returns {value.tolist()} for truth and logits [2, {num_classes}]. Expected a finite "
                'number, or a loss per clip from call() with a reduction such as "sum_over_batch_size".'
            )
    return built


def set_class_weights(tagger: Tagger, stage: Stage, labels: Iterable[str], vocabulary: Sequence[str]) -> None:
    """Sets the class weights of a stage in its model.

    Args:
        tagger: A built `Tagger`.
        stage: A `Stage`.
        labels: The labels of each training clip.
        vocabulary: The K class names.

    Raises:
        ConfigError: A class that has a weight is not in the vocabulary.
    """
    with error_context(f"stages.{stage_of(stage.name)}.class_weights"):
        tagger.class_weights = class_weights(stage.class_weights, labels, vocabulary)


def stage_callbacks(
    experiment: Experiment, stage: Stage, stage_files: StageFiles, *, num_classes: int = 1
) -> list[keras.callbacks.Callback]:
    """The callbacks of a stage, which write into its folder.

    A CSVLogger and, if there are validation clips, a ModelCheckpoint are always among them, listed or not. Those that
    monitor a value and do not name it monitor that of the experiment.

    Raises:
        ConfigError: A callback refuses its options.
    """
    paths: dict[str, dict[str, Any]] = {
        "CSVLogger": {"path": stage_files.history},
        "ModelCheckpoint": {"path": stage_files.best_weights},
        "TensorBoard": {"log_dir": str(stage_files.tensorboard)},
    }
    with error_context(f"stages.{stage_of(stage.name)}"):
        callbacks = [
            _checked_callback(_with_monitor(experiment, callback, num_classes), paths.get(callback.name, {}))
            for callback in stage.callbacks
        ]
    mode = direction(experiment, experiment.monitored, num_classes)
    monitor = {"monitor": experiment.monitored, "mode": mode}
    defaults: dict[type, dict[str, Any]] = {CSVLogger: {}}
    if experiment.validation is not None:
        defaults[ModelCheckpoint] = monitor
    for kind, settings in defaults.items():
        if not any(isinstance(callback, kind) for callback in callbacks):
            callbacks.append(kind(**settings, **paths[kind.__name__]))
    return callbacks


def _checked_callback(callback, paths):
    """A callback, whose state, if it is a user's, can be saved and restored."""
    built = create(callback, CALLBACKS, **paths)
    if isinstance(callback, CustomComponent) and hasattr(built, "get_state") != hasattr(built, "set_state"):
        raise ConfigError(f"{callback.name}: has only one of get_state and set_state. Write both, or neither.")
    return built


def _with_monitor(experiment, callback, num_classes):
    """A callback of audiotag with its monitor, and whether the highest or the lowest value of it is best."""
    if isinstance(callback, CustomComponent) or not hasattr(callback, "monitor"):
        return callback
    settings = {"monitor": callback.monitor or experiment.monitored}
    if getattr(callback, "mode", None) == "auto":
        settings["mode"] = direction(experiment, settings["monitor"], num_classes)
    return callback.model_copy(update=settings)


def build_optimizer(
    stage: Stage, weights: list, *, num_steps: int, multipliers: Mapping[int, float] | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of a stage, with its schedule.

    In every Keras optimizer, `weight_decay` shrinks the weights by weight_decay times the learning rate before
    each step: it is decoupled from the gradient (Loshchilov and Hutter, 2017).

    Args:
        stage: A `Stage`.
        weights: The trainable variables of the model.
        num_steps: Batches per epoch.
        multipliers: {id of a variable: what its learning rate is multiplied by}; 1 for the others.

    Raises:
        ValueError: Keras or a schedule refuses a setting, or no weight is trainable.
    """
    if not weights:
        raise ValueError("no weight is trainable: with backbone_lr_multiplier 0 the network needs a head with weights.")
    make = bound(stage.optimizer, OPTIMIZERS)
    settings: dict[str, Any] = {}
    if stage.schedule is not None:
        if not hasattr(stage.optimizer, "learning_rate"):
            raise ValueError(f"{stage.optimizer.name} has no option learning_rate. Leave out the schedule.")
        schedule = create(
            stage.schedule,
            SCHEDULES,
            learning_rate=stage.optimizer.learning_rate,
            epochs=max(stage.epochs, 1),
            steps_per_epoch=num_steps,
        )
        settings["learning_rate"] = schedule
        if getattr(schedule, "beta_1", None) is not None:
            settings["beta_1"] = schedule.momentum
    if multipliers:
        make = functools.partial(with_lr_multipliers(make.func), **make.keywords)
    with errors_of(stage.optimizer):
        optimizer: Any = make(**settings)
    optimizer.lr_multipliers = tuple((multipliers or {}).items())  # Keras would track a dict
    if stage.weight_decay_on == "kernels":  # scales, biases and other vectors do not decay
        optimizer.exclude_from_weight_decay(var_list=[weight for weight in weights if len(weight.shape) < 2])
    return optimizer
