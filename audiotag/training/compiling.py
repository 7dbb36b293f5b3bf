"""A stage's model, compiled, and its callbacks: all that an experiment may say wrongly about training."""

from pathlib import Path

import keras

from audiotag.config.components import options
from audiotag.config.schema import stage_of
from audiotag.data.corrections import read_corrections
from audiotag.errors import ConfigError, blamed_on
from audiotag.losses import LOSSES
from audiotag.metrics import Lwlrap
from audiotag.optimizers import OPTIMIZERS
from audiotag.runs.building import build_tagger
from audiotag.runs.models import begun_already
from audiotag.schedules import SCHEDULES
from audiotag.training.callbacks import CALLBACKS


def try_out(experiment, manifest):
    """Puts every stage together once, so that a wrong setting is told before anything is trained or written.

    Args:
        experiment: An `Experiment`.
        manifest: What `read_manifest` answers.

    Raises:
        ConfigError: A part refuses its settings, or does not fit the others.
        DataError: The corrections are not as they should be.
    """
    if experiment.corrections is not None:
        read_corrections(experiment.corrections, manifest.vocabulary)
    sound = {"sample_rate": manifest.sample_rate, "num_classes": len(manifest.vocabulary)}
    for stage in experiment.stages:
        compile_tagger(stage_tagger(experiment, stage, **sound), experiment, stage, steps=stage.steps or 1)
        stage_callbacks(stage, Path())
        if stage.select is not None and stage.select.predict is not None:
            heard_so = begun_already(experiment).model_copy(update={"predict": stage.select.predict})
            try:
                build_tagger(heard_so, **sound, stage=stage)
            except ConfigError as error:
                raise ConfigError(f"stages.{stage.name}.select.{error}") from error


def stage_tagger(experiment, stage, *, sample_rate, num_classes):
    """The model of a stage with the weights that its network begins with, unless an earlier stage gives it others."""
    begun = experiment if stage.start_from is None else begun_already(experiment)
    return build_tagger(begun, sample_rate=sample_rate, num_classes=num_classes, stage=stage)


def compile_tagger(tagger, experiment, stage, *, steps):
    """Gives a model the optimizer and the losses of a stage, whose epochs have so many steps."""
    with blamed_on(f"stages.{stage_of(stage.name)}"):
        if stage.trunk_rate == 0:
            for layer in tagger.trunk():
                layer.trainable = False
        trunk = [weight for layer in tagger.trunk() for weight in layer.trainable_variables]
        optimizer = build_optimizer(stage, tagger.trainable_variables, steps_per_epoch=steps, trunk=trunk)
        if experiment.precision == "mixed_float16":  # else small gradients round to 0
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        tagger.compile(
            optimizer=optimizer,
            loss=LOSSES[stage.loss.name](**options(stage.loss)),
            metrics=[Lwlrap(tagger.num_classes)],
            jit_compile=experiment.xla,
        )
        if stage.noisy_loss is not None:
            tagger.noisy_loss = LOSSES[stage.noisy_loss.name](**options(stage.noisy_loss))


def stage_callbacks(stage, folder):
    """The callbacks of a stage, which write into its folder."""
    places = {"CSVLogger": {"path": folder / "history.csv"}, "ModelCheckpoint": {"path": folder / "best.weights.h5"}}
    places["TensorBoard"] = {"log_dir": str(folder / "tensorboard")}
    with blamed_on(f"stages.{stage_of(stage.name)}"):
        return [CALLBACKS[part.name](**options(part), **places.get(part.name, {})) for part in stage.callbacks]


def build_optimizer(stage, weights, *, steps_per_epoch, trunk=()):
    """The optimizer of a stage, with its schedule.

    Keras takes weight_decay off the weights themselves, times the learning rate and
    before the step, in every optimizer: it is decoupled from the gradient.

    Args:
        stage: A `Stage`.
        weights: The trainable variables of the model.
        steps_per_epoch: Batches in an epoch.
        trunk: Those variables that move by the stage's trunk_rate.

    Raises:
        ValueError: Keras or a schedule refuses a setting, or nothing is left to train.
    """
    if not weights:
        raise ValueError("nothing is left to train: with trunk_rate 0 the network needs a head with weights.")
    told = options(stage.optimizer)
    if stage.schedule is not None:
        schedule = SCHEDULES[stage.schedule.name](
            learning_rate=stage.optimizer.learning_rate,
            epochs=stage.epochs,
            steps_per_epoch=steps_per_epoch,
            **options(stage.schedule),
        )
        told["learning_rate"] = schedule
        if getattr(schedule, "beta_1", None) is not None:
            told["beta_1"] = schedule.momentum
    optimizer = OPTIMIZERS[stage.optimizer.name](**told)
    optimizer.trunk, optimizer.trunk_rate = tuple(map(id, trunk)), stage.trunk_rate  # a list would be tracked
    if stage.decayed_weights == "kernels":  # gains, biases and other vectors stay as they are
        optimizer.exclude_from_weight_decay(var_list=[weight for weight in weights if len(weight.shape) < 2])
    return optimizer
