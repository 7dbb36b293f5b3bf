import json
from pathlib import Path

import pytest
from experiment_files import STAGE, changed, refusal

from audiotag.config.loading import load
from audiotag.errors import ConfigError

DEMO = Path(__file__).parents[2] / "experiments" / "demo.json"
CACHED = [
    "stages.noisy.cache_embeddings=true",
    "stages.noisy.backbone_lr_multiplier=0",
    "stages.noisy.windows=sliding",
    "stages.noisy.augment=[]",
]
CHECKPOINT = [{"name": "ModelCheckpoint", "monitor": "loss"}]


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            "stages.1.start_from",
            "nosy",
            "stages[1].start_from: no earlier stage is called 'nosy'. Did you mean 'noisy'? Accepted: noisy.",
        ),
        (
            "stages.1.start_from",
            "curated",
            "stages[1].start_from: no earlier stage is called 'curated'. Accepted: noisy.",
        ),
        (
            "stages.0.start_from",
            "curated",
            "stages[0].start_from: no earlier stage is called 'curated'. Accepted: null.",
        ),
        (
            "stages.1.start_from",
            {"stage": "noisy"},
            'stages[1].start_from: neither run nor weights is given. Expected {"run": "runs/a", "stage": "noisy"} or ',
        ),
        (
            "stages.1.start_from",
            {"run": "runs/a", "weights": "a.weights.h5"},
            "stages[1].start_from: both run and weights are given. Expected",
        ),
        (
            "stages.1.start_from",
            {"weights": "a.weights.h5", "stage": "noisy"},
            "stages[1].start_from: a file of weights has no stages. Expected",
        ),
        (
            "stages.1.start_from",
            {"run": "runs/a", "stge": "noisy"},
            "stages[1].start_from: unknown key 'stge'. Did you mean 'stage'? Accepted: run, stage, weights.",
        ),
        ("stages.1.start_from", {"run": 3}, "stages[1].start_from.run: Input should be a valid string, found 3."),
        ("stages.1.start_from", 3, "stages[1].start_from: Input should be a valid string, found 3."),
        ("stages.1.name", "noisy", "stages[1].name: two stages are called 'noisy'. Give each its own name."),
        (
            "stages.0.validation_subset",
            "noisy",
            "stages[0].validation_subset: noisy clips are not split into folds. "
            'Add "split_noisy": true to validation.folds.',
        ),
        ("stages.0.validation_subset", "test", "test clips only evaluate: nothing trains on them or chooses by them."),
        ("validation.folds.held_out", [0, 5], "validation.folds.held_out: there is no fold 5. Accepted: 0 to 4."),
        (
            "validation.folds.held_out",
            [0, 1, 0],
            "validation.folds.held_out: fold 0 is listed twice. Name each fold once.",
        ),
        ("validation.folds.held_out", [-1], "validation.folds.held_out: there is no fold -1. Accepted: 0 to 4."),
        ("stages.0.callbacks.2", {"name": "CSVLogger"}, "stages[0].callbacks[2]: 'CSVLogger' is listed twice. Name ea"),
        (
            "stages.0.callbacks.1.monitor",
            "val_lwrap",
            "stages[0].callbacks[1].monitor: there is no 'val_lwrap'. Did you mean 'val_lwlrap'? Accepted: val_lwl",
        ),
        (
            "monitor",
            "val_lwrap",
            "monitor: there is no 'val_lwrap'. Did you mean 'val_lwlrap'? Accepted: val_lwlrap, val_loss.",
        ),
        (
            "monitor",
            "lwlrap",
            "monitor: there is no 'lwlrap'. Did you mean 'val_lwlrap'? Accepted: val_lwlrap, val_loss.",
        ),
        (
            "monitor",
            "val_auc",
            'monitor: there is no \'val_auc\'. Add {"name": "auc"} to metrics. Accepted: val_lwlrap, val_loss.',
        ),
        ("metrics", [{"name": "auc"}, {"name": "auc"}], "metrics[1]: 'auc' is listed twice. Name each metric once."),
        ("metrics", [], "metrics: "),
        (
            "metrics",
            [{"name": "acu"}],
            "metrics[0]: there is no component 'acu'. Did you mean 'auc'? Accepted: lwlrap, ",
        ),
        (
            "metrics",
            [{"name": "f_beta", "average": "all"}],
            "metrics[0].average: there is no 'all'. Accepted: macro, micro.",
        ),
        ("stages.0.class_weights", {"Bark": 0.0}, "stages[0].class_weights.Bark: is 0.0. Expected a number above 0."),
        (
            "stages.0.class_weights",
            "balancd",
            "stages[0].class_weights: there is no 'balancd'. Did you mean 'balanced'?",
        ),
        (
            "stages.0.callbacks.1.mode",
            "maximum",
            "stages[0].callbacks[1].mode: there is no 'maximum'. Did you mean 'max'? ",
        ),
        (
            "stages.0",
            STAGE | {"schedule": {"name": "cosine"}, "callbacks": [{"name": "ReduceLROnPlateau"}]},
            "stages[0].schedule: cosine and ReduceLROnPlateau both change the learning rate. Leave out one of them.",
        ),
        (
            "stages.0",
            STAGE | {"schedule": {"name": "one_cycle"}, "optimizer": {"name": "sgd"}},
            "stages[0].schedule: one_cycle changes beta_1, which sgd does not have. Name adam or adamw, or add ",
        ),
        (
            "stages.0.weight_decay_on",
            "kernels",
            "stages[0].weight_decay_on: the optimizer has no weight decay. Give it a weight_decay.",
        ),
        ("jit_compile", True, 'jit_compile: TensorFlow does not compile deterministic runs. Add "deterministic": f'),
    ],
)
def test_names_without_a_meaning_in_the_file_are_refused(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["predict.flip_tta=clip"],
            'predict.flip_tta: needs flips as classes. Add {"name": "flips_as_classes"} to image_preprocess.',
        ),
        (
            ["predict.windows=random_crops"],
            'predict.windows: "random_crops" needs a width. Add {"name": "random_crop", "num_frames": 384} to image_pr',
        ),
        (["predict.flip_tta=true"], "predict.flip_tta: "),
        (
            ['stages.noisy.augment=[{"name": "flips_as_classes"}]'],
            "augment: flips_as_classes gives the network four times as",
        ),
        (
            ['augment=[{"name": "flips_as_classes"}]', "stages.curated.augment=[]"],
            "augment: flips_as_classes gives the networ",
        ),
        (
            ['augment=[{"name": "flips_as_classes"}, {"name": "flips_as_classes"}]'],
            "image_preprocess: flips_as_classes is listed twice. Name it once.",
        ),
        (
            ['model={"name": "yamnet", "weights": "audioset"}'],
            'frontend: found \'log_mel\', but the weights of yamnet were trained on {"name": "yamnet_mel"}. Use',
        ),
        (
            ['augment=[{"name": "mixup"}, {"name": "mixup"}]', "augment.mixup.alpha=0.3"],
            "--set augment.mixup.alpha=0.3: several entries are called 'mixup'. Name one by its index: 0, 1.",
        ),
        (
            ['augment=[{"name": "flips_as_classes"}]', "noisy_head=true"],
            "noisy_head: flips_as_classes has output layers of its own. Leave",
        ),
        (
            ['augment=[{"name": "flips_as_classes"}]', 'stages.noisy.noisy_loss={"name": "focal"}'],
            "stages[0].noisy_loss: flips_as_classes has output layers of its own.",
        ),
        (
            ['stages.curated.noisy_loss={"name": "focal"}'],
            "stages[1].noisy_loss: the stage has no noisy clips. Add a subset that is not in trusted (curated), or",
        ),
        (
            ['stages.noisy.subset="curated"', "noisy_head=true"],
            "noisy_head: no stage trains on noisy clips. Add a subset that is not in trusted (curated), or leave",
        ),
        (
            ['stages.noisy.noisy_loss={"name": "categorical_crossentropy"}'],
            'stages[0].noisy_loss: "task": "single_label" and',
        ),
        (
            ['stages.noisy.subset_sampling_weights={"curated": 1.0}'],
            "stages[0].subset_sampling_weights: expected a number above 0 for each of: noi",
        ),
        (
            ['stages.noisy.subset_sampling_weights={"noisy": 0.0}'],
            "stages[0].subset_sampling_weights: expected a number above 0 for each of: noi",
        ),
        (
            ["stages.noisy.validation_freq=3"],
            "stages[0].validation_freq: the last of 10 epochs must be validated. Expected a divisor of 10.",
        ),
        (
            ["stages.curated.validation_freq=5", "stages.curated.callbacks.EarlyStopping.monitor=loss"],
            "stages[1].callbacks[1].monitor: may select an epoch that is not validated, as validation_freq is ab",
        ),
        (
            ["stages.curated.validation_freq=5", f"stages.curated.callbacks={json.dumps(CHECKPOINT)}"],
            "stages[1].callbacks[0].monitor: may select an epoch that is not validated, as validation_freq is ab",
        ),
        (
            ["noisy_head=true", 'waveform_augment=[{"name": "mixup", "label_mixing": "union"}]'],
            'waveform_augment[0].label_mixing: "union" gives a mix all labels of both clips',
        ),
        (
            [
                'stages.noisy.noisy_loss={"name": "focal"}',
                'stages.noisy.augment=[{"name": "concat_mix", "label_mixing": "union"}]',
            ],
            'stages[0].augment[0].label_mixing: "union" gives a mix all labels',
        ),
        (
            [
                'stages.curated.subset=["curated", "noisy"]',
                'stages.curated.select={"rule": {"name": "top_ranked"}, "score_with": "noisy", '
                '"predict": {"flip_tta": "clip"}}',
            ],
            "stages[1].select.predict.flip_tta: needs flips as classes.",
        ),
        (
            ["task=single_label"],
            'stages[0].loss: "task": "single_label" and categorical_crossentropy require each other: a soft',
        ),
        (["stages.noisy.subset=[]"], "stages[0].subset: "),
        (['stages.noisy.subset="test"'], "stages[0].subset: test clips only evaluate: nothing trains on them or"),
        (['trusted=["curated", "test"]'], "trusted[1]: test clips only evaluate: nothing trains on them or chooses by"),
        (['validation={"subset": "test"}'], "validation.subset: test clips only evaluate: nothing trains on them or"),
        (["trusted=noisy", "noisy_head=true", 'stages.curated.subset="noisy"'], "noisy_head: no stage trains on noisy"),
        (["validation={}"], "validation: found nothing. Expected one of folds, subset and fraction; or null for"),
        (['validation={"folds": {}, "subset": "valid"}'], "validation: found folds and subset. Expected one of"),
        (['validation={"folds": {}, "seed": 3}'], "validation: seed is for a fraction, not for folds. Leave it out."),
        (['validation={"fraction": 1}'], "validation.fraction: Input should be less than or equal to 0.99, found 1"),
        (
            ['validation={"subset": "curated"}'],
            "stages[1].subset: 'curated' validates, so nothing trains on it. Leave it out here.",
        ),
        (
            ["validation=null"],
            'stages[0].keep: "validation" is null, so no clip validates and there is no best epoch. Add "keep": "last',
        ),
        (
            ["validation=null", "stages.noisy.keep=last", "stages.noisy.validation_freq=2"],
            'stages[0].validation_freq: "validation" is null, so no clip validates. Leave it out.',
        ),
        (
            ["validation=null", "stages.noisy.keep=last", "stages.curated.keep=last"],
            'stages[1].callbacks[0].monitor: "validation" is null, so no clip validates and there is no val_lwlrap. '
            "Expected lwlrap or loss.",
        ),
        (
            ["stages.noisy.epochs=0"],
            "stages[0].epochs: is 0, which only a stage with an initial_head may have. Expected",
        ),
        (
            ["stages.noisy.cache_embeddings=true"],
            'stages[0].cache_embeddings: the backbone must not change. Add "backbone_lr_multiplier": 0 to the stage.',
        ),
        (
            CACHED[:2],
            'stages[0].cache_embeddings: each epoch must use the same windows. Add "windows": "sliding" to the stage.',
        ),
        (
            CACHED[:3],
            "stages[0].cache_embeddings: frequency_mask changes images at random, before the backbone. Add "
            '"augment": [] to the stage.',
        ),
        (
            [*CACHED, 'waveform_augment=[{"name": "time_roll"}]'],
            "stages[0].cache_embeddings: time_roll of waveform_augment is random, before the backbone. Leave it out",
        ),
        (
            [*CACHED, 'image_preprocess=[{"name": "random_crop", "num_frames": 64}]'],
            "stages[0].cache_embeddings: random_crop of image_preprocess is random, before the backbone. Leave it out",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        load(DEMO, ["waveform_augment=[]", *overrides])
    assert message in str(error.value)


SELECT = {"rule": {"name": "self_verified", "threshold": 0.0}, "score_with": "noisy"}
SELECTED = f"stages.curated.select={json.dumps(SELECT)}"


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SELECTED], "stages[1].select: selects noisy clips. Add a subset that is not in trusted (curated)."),
        (
            ['stages.curated.subset=["noisy"]', SELECTED.replace('"noisy"', '"nosy"')],
            "stages[1].select.score_with: no earlier stage is called 'nosy'. Did you mean 'noisy'? Accepted: noisy.",
        ),
        (
            ['stages.curated.subset=["noisy"]', SELECTED, "stages.curated.select.rule.threshold=95"],
            "stages[1].select.rule.threshold: is 95.0. Expected a number from 0 to 1.",
        ),
        (
            ['stages.curated.subset=["noisy"]', SELECTED, "validation.folds.split_noisy=true"],
            "validation.folds.held_out: every fold's model scores the noisy clips of its fold. Expected all of "
            "[0, 1, 2, 3, 4].",
        ),
        (
            ['stages.curated.subset=["noisy"]', SELECTED, "stages.curated.select.rounds=2"],
            "stages[1].select.rounds: from the second round on, a model would score clips that it trained on. Add",
        ),
    ],
)
def test_a_selection_that_cannot_work_is_refused_before_training(overrides, message):
    with pytest.raises(ConfigError) as error:
        load(DEMO, overrides)
    assert message in str(error.value)


def test_an_exact_metric_is_monitored_on_validation_clips_only(write):
    content = changed("metrics", [{"name": "mean_average_precision"}, {"name": "lrap"}])
    assert load(write(content)).monitored == "val_mean_average_precision"
    assert load(write(content), ["monitor=val_lrap"]).monitored == "val_lrap"
    assert load(write(content), ["stages.noisy.callbacks.EarlyStopping.monitor=lrap"]).monitor is None
    message = refusal(write(content), ["stages.noisy.callbacks.EarlyStopping.monitor=mean_average_precision"])
    assert message.startswith("stages[0].callbacks[1].monitor: there is no 'mean_average_precision'. Did you mean")
    assert message.endswith("Accepted: val_mean_average_precision, val_lrap, val_loss, lrap, loss.")


@pytest.mark.parametrize(
    ("validation", "num_folds", "held_out", "split_noisy"),
    [
        ('{"folds": {"num_folds": 3, "held_out": [0, 2], "split_noisy": true}}', 3, (0, 2), True),
        ('{"subset": "valid"}', 1, (0,), False),
        ('{"fraction": 0.25, "seed": 42}', 1, (0,), False),
        ("null", 1, (0,), False),
    ],
)
def test_every_kind_of_validation_says_which_folds_are_trained(validation, num_folds, held_out, split_noisy):
    last = ["stages.noisy.keep=last", "stages.curated.keep=last", "stages.curated.callbacks=[]"]
    experiment = load(DEMO, [f"validation={validation}", *last])
    found = experiment.num_folds, experiment.held_out, experiment.split_noisy
    assert found == (num_folds, held_out, split_noisy)


def test_noisy_clips_are_those_of_subsets_that_are_not_trusted():
    experiment = load(DEMO, ['trusted=["a", "b"]', 'stages.noisy.subset=["a", "web", "noisy"]'])
    assert experiment.noisy_subsets(experiment.stages[0]) == ("web", "noisy")
    assert load(DEMO, ["trusted=noisy"]).trusted == ("noisy",)
