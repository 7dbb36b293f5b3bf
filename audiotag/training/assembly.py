"""A stage's model, compiled, and its callbacks: all that an experiment may say wrongly about training."""

from pathlib import Path

import keras

from audiotag.building import build_tagger
from audiotag.data.corrections import read_corrections
from audiotag.errors import ConfigError, blamed_on
from audiotag.experiment import options, stage_of
from audiotag.inference.predict import begun_already
from audiotag.losses import LOSSES
from audiotag.metrics import Lwlrap
from audiotag.training.callbacks import CALLBACKS
from audiotag.training.optimizers import build_optimizer


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
