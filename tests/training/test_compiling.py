from pathlib import Path

import keras
import pytest
from selection_runs import fit

from audiotag.data.records import read_manifest
from audiotag.errors import AudiotagError, ConfigError
from audiotag.losses import LOSSES
from audiotag.runs.directory import StageFiles
from audiotag.training.callbacks import CSVLogger, ModelCheckpoint
from audiotag.training.compiling import check_stages, compile_tagger, stage_callbacks, stage_tagger

FOLDER = StageFiles(Path("runs/tiny/fold-0/noisy"))


def test_a_setting_that_keras_refuses_is_named_by_its_place(tiny, tmp_path):
    callbacks = '[{"name": "ReduceLROnPlateau", "factor": 2}]'
    with pytest.raises(ConfigError, match=r"^stages\.noisy: ReduceLROnPlateau does not support a factor >= 1"):
        fit(tiny(f"stages.noisy.callbacks={callbacks}"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^stages\.noisy: label_smoothing must be from 0 to below 1"):
        fit(tiny("stages.noisy.loss.label_smoothing=2"), tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.curated.loss.label_smoothing=2"], r"^stages\.curated: label_smoothing must be from 0 to below 1"),
        (['stages.curated.augment=[{"name": "time_mask", "max_width": -1}]'], r"^augment\[0\] time_mask: max_width"),
        (
            [
                'image_preprocess=[{"name": "resize", "height": 32, "width": 32}]',
                'stages.curated.subset=["curated", "noisy"]',
                'stages.curated.select={"rule": {"name": "top_ranked"}, "score_with": "noisy"}',
                'stages.curated.select.predict={"windows": "full_clip"}',
            ],
            r'^stages\.curated\.select\.predict\.windows: "full_clip" needs images as long as their clip',
        ),
        (
            ["stages.curated.batch_size=1000000", "window.seconds=2"],
            r"^stages\.curated\.batch_size: a batch of 1,000,000 windows has \d{2},\d{3},000,000 values\. Expected",
        ),
        (["corrections=nowhere.csv"], r"^nowhere\.csv: cannot be read"),
    ],
)
def test_errors_of_a_later_stage_are_raised_before_the_first_is_trained(tiny, tmp_path, overrides, message):
    with pytest.raises(AudiotagError, match=message):
        fit(tiny(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_valid_experiment_passes_the_check_of_its_stages(tiny):
    check_stages(tiny(), read_manifest(tiny().records))


@pytest.mark.parametrize("overrides", [(), ("stages.noisy.callbacks=[]",), ("stages.noisy.keep=last",)])
def test_the_history_and_the_best_weights_are_always_written(tiny, overrides):
    logger, checkpoint = stage_callbacks(tiny(*overrides), tiny(*overrides).stages[0], FOLDER)
    assert isinstance(logger, CSVLogger) and isinstance(checkpoint, ModelCheckpoint)
    assert (checkpoint.path, checkpoint.monitor, checkpoint.mode) == (str(FOLDER.best_weights), "val_lwlrap", "max")


def test_callbacks_without_a_monitor_have_that_of_the_experiment(tiny):
    callbacks = '[{"name": "EarlyStopping"}, {"name": "ReduceLROnPlateau", "monitor": "val_lwlrap"}]'
    experiment = tiny("monitor=val_loss", f"stages.noisy.callbacks={callbacks}")
    stopping, plateau, _, checkpoint = stage_callbacks(experiment, experiment.stages[0], FOLDER)
    assert [(callback.monitor, callback.mode) for callback in (stopping, plateau, checkpoint)] == [
        ("val_loss", "min"),
        ("val_lwlrap", "max"),
        ("val_loss", "min"),
    ]


def test_a_class_weight_for_an_unknown_class_is_refused_before_training(tiny, records, tmp_path):
    name = read_manifest(records).vocabulary[0]
    with pytest.raises(ConfigError) as error:
        fit(tiny(f'stages.curated.class_weights={{"{name}s": 2.0}}'), tmp_path / "run")
    assert str(error.value) == (
        f"stages.curated.class_weights: there is no class '{name}s' in the records. Did you mean '{name}'? Name "
        "classes as in their labels."
    )
    assert not (tmp_path / "run").exists()


def test_a_metric_that_refuses_an_option_is_named(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"^metrics\.map_at_k: k must be at least 1\. Received: k=0"):
        fit(tiny('metrics=[{"name": "map_at_k", "k": 0}]'), tmp_path / "run")


def test_a_checkpoint_that_is_named_is_not_added_again(tiny):
    named = tiny('stages.noisy.callbacks=[{"name": "ModelCheckpoint", "monitor": "val_loss"}]')
    checkpoint, logger = stage_callbacks(named, named.stages[0], FOLDER)
    assert isinstance(logger, CSVLogger)
    assert (checkpoint.path, checkpoint.monitor, checkpoint.mode) == (str(FOLDER.best_weights), "val_loss", "min")


@pytest.mark.parametrize(("multiplier", "num_trainable"), [(0, 2), (0.1, None)])
def test_a_multiplier_of_0_freezes_the_backbone(tiny, multiplier, num_trainable):
    experiment = tiny(f"stages.noisy.backbone_lr_multiplier={multiplier}")
    tagger = stage_tagger(experiment, experiment.stages[0], sample_rate=16_000, num_classes=14)
    num_weights = len(tagger.trainable_variables)
    compile_tagger(tagger, experiment, experiment.stages[0], num_steps=1)
    assert len(tagger.trainable_variables) == (num_trainable or num_weights)
    assert {value for _, value in tagger.optimizer.lr_multipliers} == ({multiplier} if multiplier else set())


def test_the_learning_rate_decays_from_the_head_to_the_first_layer(tiny):
    rates_of = ("stages.noisy.layer_lr_decay=0.5", "stages.noisy.backbone_lr_multiplier=0.8")
    experiment = tiny("model.filters=[8, 16]", *rates_of)
    tagger = stage_tagger(experiment, experiment.stages[0], sample_rate=16_000, num_classes=14)
    compile_tagger(tagger, experiment, experiment.stages[0], num_steps=1)
    tagger.optimizer.build(tagger.trainable_variables)
    rates = {}
    for weight, rate in zip(tagger.trainable_variables, tagger.optimizer.multipliers, strict=True):
        rates.setdefault(weight.path.split("/")[-2].rstrip("_0123456789"), []).append(rate)
    assert rates["logits"] == [1.0, 1.0]
    every = [0.8 * 0.5**depth for depth in range(1, 7)]  # two blocks of three convolutions
    assert sorted(set(rates["conv2d"]), reverse=True) == pytest.approx(every)
    assert set(rates["batch_normalization"]) < set(rates["conv2d"])  # each has the rate of its convolution


def test_half_precision_scales_the_loss_and_noisy_clips_may_have_a_loss_of_their_own(tiny):
    experiment = tiny("dtype_policy=mixed_float16", 'stages.noisy.noisy_loss={"name": "focal"}')
    stage = experiment.stages[0]
    tagger = stage_tagger(experiment, stage, sample_rate=16_000, num_classes=14)
    compile_tagger(tagger, experiment, stage, num_steps=1)
    assert isinstance(tagger.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(tagger.noisy_loss, LOSSES["focal"])
