import pydantic
import pytest
from experiment_files import FILE, STAGE, changed, refusal

from audiotag.config.components import options
from audiotag.config.loading import dump, load
from audiotag.config.schema import SCHEMA_VERSION, expand_rounds, stage_named
from audiotag.config.signatures import component_names

FRONTENDS = ", ".join(component_names("audiotag.layers", "FRONTENDS"))
MODELS = ", ".join(component_names("audiotag.models", "MODELS"))
LOSSES = ", ".join(component_names("audiotag.losses", "LOSSES"))


def test_defaults_are_those_of_the_components_themselves(write):
    experiment = load(write(FILE))
    assert options(experiment.frontend) == {
        "num_bands": 64,
        "fft_length": 2048,
        "frame_step": 512,
        "low_hz": 0.0,
        "high_hz": None,
        "power": 2.0,
        "window_length": None,
        "padding": "zeros",
        "mel_scale": "slaney",
        "norm": "slaney",
        "reference": "max",
        "silence": 1e-10,
        "dynamic_range_db": 80.0,
        "dtype": None,
    }
    assert options(experiment.augment[0]) == {
        "max_width": 8,
        "max_fraction": None,
        "count": 2,
        "min_count": None,
        "fill": 0.0,
        "probability": 1.0,
    }
    assert options(experiment.stages[1].optimizer)["learning_rate"] == 0.01
    assert (experiment.seed, experiment.dtype_policy, experiment.deterministic) == (2019, "float32", True)
    assert [stage.keep for stage in experiment.stages] == ["best", "best"]


@pytest.mark.parametrize(
    "more",
    [
        {"schedule": {"name": "constant_then_linear", "constant_epochs": 2}},
        {"schedule": {"name": "one_cycle", "beta_1": [0.9, 0.8]}},
        {"schedule": {"name": "one_cycle", "beta_1": None}, "optimizer": {"name": "sgd", "global_clipnorm": 1.0}},
        {"optimizer": {"name": "adamw", "weight_decay": 0.01, "use_ema": True}, "weight_decay_on": "kernels"},
        {"keep": "last"},
    ],
)
def test_a_stage_may_have_a_schedule_and_say_what_decays(write, more):
    experiment = load(write(changed("stages.0", STAGE | more)))
    assert load(write(dump(experiment))) == experiment
    assert load(write(FILE)).stages[0].schedule is None


def test_two_experiments_that_differ_are_not_equal(write):
    assert load(write(changed("stages.0.callbacks.1.patience", 4))) != load(write(FILE))


def test_an_experiment_is_frozen(write):
    experiment = load(write(FILE))
    with pytest.raises(pydantic.ValidationError):
        experiment.window.seconds = 3.0


def test_a_file_without_a_version_of_the_schema_has_the_current_one(write):
    assert load(write(FILE)).schema_version == SCHEMA_VERSION == 2
    assert load(write(FILE | {"schema_version": 2})) == load(write(FILE))


@pytest.mark.check("C7")
@pytest.mark.parametrize("version", [1, 3, "2", 2.5, None])
def test_another_version_of_the_schema_is_refused_in_a_sentence(write, version):
    message = f"schema_version: Input should be 2, found {version!r}."
    assert refusal(write(FILE | {"schema_version": version})) == message


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("picture", [], "unknown key 'picture'. Accepted: schema_version, about, command, quick_command, expect, "),
        ("waveform", [], "unknown key 'waveform'. Did you mean 'waveform_augment'? Accepted: "),
        ("labels", "any", "unknown key 'labels'. Accepted: "),
        ("folds", {"count": 5}, "unknown key 'folds'. Accepted: "),
        ("xla", False, "unknown key 'xla'. Accepted: "),
        ("window.short_clips", "zeros", "window: unknown key 'short_clips'. Accepted: seconds, pad."),
        ("stages.0.balanced", True, "stages[0]: unknown key 'balanced'. Did you mean 'class_balanced'? Accepted: "),
        ("stages.0.decayed_weights", 0.1, "stages[0]: unknown key 'decayed_weights'. Did you mean"),
        (
            "stages.1.select",
            {"rule": {"name": "top_ranked"}, "scored_by": "noisy"},
            "stages[1].select: unknown key 'scored_by'. Did you mean 'score_with'? Accepted: ",
        ),
        ("predict.flips", True, "predict: unknown key 'flips'. Did you mean 'flip_tta'? Accepted: "),
        (
            "validation.folds.noisy",
            True,
            "validation.folds: unknown key 'noisy'. Did you mean 'split_noisy'? Accepted: ",
        ),
        ("image_preprocess.0.name", "standardise", "no component 'standardise'. Did you mean 'standardize'? Accepted:"),
        ("image_preprocess.0.name", "colour_map", "no component 'colour_map'. Did you mean 'colormap'? Accepted: "),
        ("image_preprocess.0.name", "flip_labels", "image_preprocess[0]: there is no component 'flip_labels'."),
        ("frontend.name", "raw_wave", "no component 'raw_wave'. Did you mean 'raw_waveform'? Accepted: "),
        ("augment.0.max_share", 0.5, "augment[0]: unknown key 'max_share'. Accepted: name, max_width, max_fraction, "),
    ],
)
def test_a_key_or_a_name_of_the_first_edition_is_refused(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            "aobut",
            "x",
            "unknown key 'aobut'. Did you mean 'about'? Accepted: schema_version, about, command, quick_command, "
            "expect, s",
        ),
        ("window.second", 1.0, "window: unknown key 'second'. Did you mean 'seconds'? Accepted: seconds, pad."),
        ("frontend.num_band", 3, "frontend: unknown key 'num_band'. Did you mean 'num_bands'? Accepted: na"),
        ("frontend.sample_rate", 8000, "frontend: unknown key 'sample_rate'. Accepted: name, num_bands, "),
        (
            "image_preprocess.1.heigth",
            3,
            "image_preprocess[1]: unknown key 'heigth'. Did you mean 'height'? Accepted: name, ",
        ),
        (
            "augment.0.max_widht",
            3,
            "augment[0]: unknown key 'max_widht'. Did you mean 'max_width'? Accepted: name, max_width, max_fraction, ",
        ),
        ("augment.0.seed", 3, "augment[0]: unknown key 'seed'. Accepted: name, max_width, max_fraction, "),
        ("model.dropuot", 0.1, "model: unknown key 'dropuot'. Did you mean 'dropout'? Accepted: name, "),
        (
            "stages.1.epoch",
            3,
            "stages[1]: unknown key 'epoch'. Did you mean 'epochs'? Accepted: name, subset, epochs, ",
        ),
        ("stages.0.loss.label_smothing", 0.1, "stages[0].loss: unknown key 'label_smothing'. Did you mean 'label_s"),
        ("stages.0.schedule", {"name": "cosine", "steps": 9}, "schedule: unknown key 'steps'. Accepted: name"),
        ("stages.0.optimizer.learnig_rate", 1, "stages[0].optimizer: unknown key 'learnig_rate'. Did you mean "),
        ("stages.0.callbacks.1.patiense", 1, "stages[0].callbacks[1]: unknown key 'patiense'. Did you "),
        ("stages.0.callbacks.2.log_dir", "x", "stages[0].callbacks[2]: unknown key 'log_dir'. Accepted: "),
        (
            "stages.0.callbacks.1.restore_best_weights",
            True,
            "stages[0].callbacks[1]: unknown key 'restore_best_weights'. Accepted: name, monitor, ",
        ),
        (
            "validation.fold",
            {},
            "validation: unknown key 'fold'. Did you mean 'folds'? Accepted: folds, subset, fraction, seed.",
        ),
        (
            "validation.folds.number",
            3,
            "validation.folds: unknown key 'number'. Accepted: num_folds, by, held_out, split_noisy.",
        ),
        ("predict.overlaps", 3, "predict: unknown key 'overlaps'. Did you mean 'overlap'? Accepted: overlap, pool, fl"),
    ],
)
def test_no_key_is_ignored(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            "frontend.name",
            "logmel",
            f"frontend: there is no component 'logmel'. Did you mean 'log_mel'? Accepted: {FRONTENDS}.",
        ),
        (
            "image_preprocess.0.name",
            "standardise",
            "image_preprocess[0]: there is no component 'standardise'. Did you mean 'standardize'? Acc",
        ),
        (
            "augment.0.name",
            "time_maks",
            "augment[0]: there is no component 'time_maks'. Did you mean 'time_mask'? Accepted: ",
        ),
        (
            "model.name",
            "convskip",
            f"model: there is no component 'convskip'. Did you mean 'conv_skip'? Accepted: {MODELS}.",
        ),
        (
            "stages.0.optimizer.name",
            "Adam",
            "stages[0].optimizer: there is no component 'Adam'. Did you mean 'adam'? Accep",
        ),
        ("stages.0.loss.name", "bce", f"stages[0].loss: there is no component 'bce'. Accepted: {LOSSES}."),
        (
            "stages.0.callbacks.1.name",
            "EarlyStoping",
            "stages[0].callbacks[1]: there is no component 'EarlyStoping'. Did ",
        ),
        ("stages.0.subset", "a b", "stages[0].subset: String should match pattern '^[A-Za-z0-9_-]+$', found 'a b'."),
        ("stages.0.keep", "bets", "stages[0].keep: there is no 'bets'. Did you mean 'best'? Accepted: best, last."),
        ("window.pad", "zeroes", "window.pad: there is no 'zeroes'. Did you mean 'zeros'? Accepted: "),
        ("predict.pool", "median", "predict.pool: there is no 'median'. Did you mean 'mean'? Accepted: mean, max, lo"),
        (
            "dtype_policy",
            "mixed_fp16",
            "dtype_policy: there is no 'mixed_fp16'. Did you mean 'mixed_float16'? Accepted: flo",
        ),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_and_the_accepted_ones(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("seed", "1", "seed: Input should be a valid integer, found '1'."),
        ("seed", 1.5, "seed: Input should be a valid integer, found 1.5."),
        ("seed", True, "seed: Input should be a valid integer, found True."),
        ("seed", -1, "seed: Input should be greater than or equal to 0, found -1."),
        ("about", 3, "about: Input should be a valid string, found 3."),
        ("window", 3, "window: Input should be a valid object, found 3."),
        ("window.seconds", "2", "window.seconds: Input should be a valid number, found '2'."),
        ("window.seconds", 0, "window.seconds: Input should be greater than 0, found 0."),
        ("window.seconds", 1e9, "window.seconds: Input should be less than or equal to 600, found 1000000000.0."),
        ("frontend.num_bands", 64.5, "frontend.num_bands: Input should be a valid integer, found 64.5."),
        ("frontend.reference", [], "frontend.reference: Input should be 'max' or a valid number, found ()."),
        ("image_preprocess", {}, "image_preprocess: Input should be a valid list, found {}."),
        ("image_preprocess.0", "resize", "image_preprocess[0]: Input should be a valid object, found 'resize'."),
        ("model.filters", [16, "32"], "model.filters[1]: Input should be a valid integer, found '32'."),
        ("stages", [], "stages: List should have at least 1 item"),
        (
            "stages.0.name",
            "No Spaces",
            "stages[0].name: String should match pattern '^[a-z0-9_-]+$', found 'No Spaces'.",
        ),
        ("stages.0.epochs", 0, "stages[0].epochs: is 0, which only a stage with an initial_head may have."),
        ("stages.0.batch_size", None, "stages[0].batch_size: Input should be a valid integer, found None."),
        ("stages.0.optimizer.learning_rate", "x", "optimizer.learning_rate: Input should be a valid number, found 'x'"),
        (
            "stages.0.optimizer.amsgrad",
            1,
            "stages[0].optimizer.amsgrad: Input should be a valid boolean, found 1.",
        ),
        (
            "stages.0.callbacks.1.patience",
            "3",
            "callbacks[1].patience: Input should be a valid integ",
        ),
        (
            "stages.0.optimizer.weight_decay",
            "0.01",
            "stages[0].optimizer.weight_decay: Input should be a valid integer or a valid number, found '0.01'.",
        ),
        ("stages.0.callbacks.1.baseline", "high", "stages[0].callbacks[1].baseline: Input should be a valid integer o"),
        ("augment.0.fill", "least", "augment[0].fill: there is no 'least'. Accepted: mean, minimum, a valid number."),
        ("augment.0.fill", None, "augment[0].fill: Input should be 'mean' or 'minimum' or a valid number, found None."),
        (
            "stages.0.subset_sampling_weights",
            {"test": 1.0},
            "stages[0].subset_sampling_weights.test: test clips only evaluate: nothing trains on them",
        ),
        (
            "validation.folds.num_folds",
            1,
            "validation.folds.num_folds: Input should be greater than or equal to 2, found 1.",
        ),
        ("validation.folds.held_out", [], "validation.folds.held_out: List should have at least 1 item"),
        ("predict.overlap", 1.0, "predict.overlap: Input should be less than 1, found 1.0."),
        ("jit_compile", "yes", "jit_compile: Input should be a valid boolean, found 'yes'."),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


OPTIONAL = ("about", "command", "expect", "image_preprocess", "augment", "validation", "predict")


@pytest.mark.check("C7")
@pytest.mark.parametrize("key", [key for key in FILE if key not in OPTIONAL])
def test_a_key_without_a_default_is_required(write, key):
    assert refusal(write({k: v for k, v in FILE.items() if k != key})) == f"{key}: this key is missing."


def test_a_key_with_a_default_may_be_left_out(write):
    experiment = load(write({key: value for key, value in FILE.items() if key not in OPTIONAL}))
    assert (experiment.image_preprocess, experiment.augment, experiment.predict.pool) == ((), (), "mean")
    assert (experiment.validation.folds.num_folds, experiment.validation.folds.held_out) == (5, (0,))


@pytest.mark.check("C7")
def test_a_component_without_a_name_is_refused(write):
    assert refusal(write(changed("augment.0", {"max_width": 3}))) == "augment[0].name: this key is missing."
    assert refusal(write(changed("frontend", {}))) == "frontend.name: this key is missing."


def test_a_stage_of_several_rounds_becomes_a_stage_per_round(write):
    select = {"rule": {"name": "top_ranked"}, "score_with": "noisy", "rounds": 2}
    content = changed("stages.1", FILE["stages"][1] | {"subset": ["curated", "noisy"], "select": select})
    folds = {"num_folds": 2, "held_out": [0, 1], "split_noisy": True}
    experiment = load(write(content | {"validation": {"folds": folds}}))
    first, *rounds = expand_rounds(experiment)
    assert first == experiment.stages[0]
    assert [(stage.name, stage.start_from, stage.select.score_with) for stage in rounds] == [
        ("curated/1", "noisy", ("noisy",)),
        ("curated/2", "curated/1", ("curated/1",)),
    ]
    assert stage_named(experiment, "curated/2") == stage_named(experiment, "curated") == experiment.stages[1]
