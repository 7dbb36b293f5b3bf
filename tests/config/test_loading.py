import copy
import json
import subprocess
import sys
import time
from pathlib import Path

import pydantic
import pytest

from audiotag.config.components import options
from audiotag.config.loading import dump, load
from audiotag.errors import ConfigError

FILE = {
    "about": "All sections, and every kind of part.",
    "command": "audiotag fit all.json",
    "expect": "it loads",
    "records": "tfrecords/demo",
    "window": {"seconds": 2.0, "short_clips": "zeros"},
    "frontend": {"name": "log_mel", "num_bands": 64, "reference": "max"},
    "picture": [{"name": "standardise"}, {"name": "resize", "height": 32, "width": 48}],
    "augment": [{"name": "frequency_mask", "max_width": 8, "count": 2}],
    "model": {"name": "conv_skip", "filters": [16, 32]},
    "stages": [
        {
            "name": "noisy",
            "subset": "noisy",
            "epochs": 3,
            "batch_size": 32,
            "optimizer": {"name": "adam", "learning_rate": 2e-3},
            "loss": {"name": "binary_crossentropy", "label_smoothing": 0.2},
            "callbacks": [{"name": "CSVLogger"}, {"name": "EarlyStopping", "patience": 3}, {"name": "TensorBoard"}],
        },
        {
            "name": "curated",
            "subset": "curated",
            "epochs": 5,
            "batch_size": 32,
            "start_from": "noisy",
            "optimizer": {"name": "sgd"},
            "loss": {"name": "binary_crossentropy"},
        },
    ],
    "folds": {"count": 5, "held_out": [0, 2]},
    "predict": {"overlap": 0.25, "pool": "max"},
}
STAGE = FILE["stages"][0]


@pytest.fixture
def write(tmp_path):
    """A function: content → the path of an experiment file."""

    def write(content):
        path = tmp_path / "all.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def changed(place, value):
    """FILE with another value at a place such as "stages.0.epochs"."""
    content = copy.deepcopy(FILE)
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner = content
    for key in path:
        inner = inner[key]
    inner[last] = value
    return content


def refusal(path, overrides=()):
    """The message with which a file is refused, without the file's name."""
    with pytest.raises(ConfigError) as error:
        load(path, overrides)
    return str(error.value).replace(f"{path}: ", "")


def test_what_the_file_says_is_what_the_experiment_is(write):
    experiment = load(write(FILE))
    assert experiment.window.seconds == 2.0
    assert experiment.frontend.reference == "max"
    assert [part.name for part in experiment.picture] == ["standardise", "resize"]
    assert experiment.model.filters == (16, 32)
    assert experiment.stages[0].callbacks[1].patience == 3
    assert experiment.stages[1].start_from == "noisy"
    assert experiment.folds.held_out == (0, 2)


def test_defaults_are_those_of_the_parts_themselves(write):
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
    }
    assert options(experiment.augment[0]) == {
        "max_width": 8,
        "max_share": None,
        "count": 2,
        "min_count": None,
        "fill": 0.0,
        "probability": 1.0,
    }
    assert options(experiment.stages[1].optimizer)["learning_rate"] == 0.01
    assert (experiment.seed, experiment.precision, experiment.deterministic) == (2019, "float32", True)


@pytest.mark.parametrize(
    "more",
    [
        {"schedule": {"name": "hold_then_linear", "hold": 2}},
        {"schedule": {"name": "one_cycle", "beta_1": [0.9, 0.8]}},
        {"schedule": {"name": "one_cycle", "beta_1": None}, "optimizer": {"name": "sgd", "global_clipnorm": 1.0}},
        {"optimizer": {"name": "adamw", "weight_decay": 0.01, "use_ema": True}, "decayed_weights": "kernels"},
    ],
)
def test_a_stage_may_have_a_schedule_and_say_what_decays(write, more):
    experiment = load(write(changed("stages.0", STAGE | more)))
    assert load(write(dump(experiment))) == experiment
    assert load(write(FILE)).stages[0].schedule is None


def test_dumped_and_loaded_it_is_the_same(write):
    experiment = load(write(FILE))
    again = load(write(dump(experiment)))
    assert again == experiment
    assert dump(again) == dump(experiment)


def test_two_experiments_that_differ_are_not_equal(write):
    assert load(write(changed("stages.0.callbacks.1.patience", 4))) != load(write(FILE))


def test_nothing_changes_later(write):
    experiment = load(write(FILE))
    with pytest.raises(pydantic.ValidationError):
        experiment.window.seconds = 3.0


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("aobut", "x", "unknown key 'aobut'. Did you mean 'about'? Accepted: about, command, in_minutes, expect, s"),
        ("window.second", 1.0, "window: unknown key 'second'. Did you mean 'seconds'? Accepted: seconds, short_clips."),
        ("frontend.num_band", 3, "frontend: unknown key 'num_band'. Did you mean 'num_bands'? Accepted: na"),
        ("frontend.sample_rate", 8000, "frontend: unknown key 'sample_rate'. Accepted: name, num_bands, "),
        ("picture.1.heigth", 3, "picture[1]: unknown key 'heigth'. Did you mean 'height'? Accepted: name, "),
        (
            "augment.0.max_widht",
            3,
            "augment[0]: unknown key 'max_widht'. Did you mean 'max_width'? Accepted: name, max_width, max_share, ",
        ),
        ("augment.0.seed", 3, "augment[0]: unknown key 'seed'. Accepted: name, max_width, max_share, "),
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
        ("folds.number", 3, "folds: unknown key 'number'. Accepted: count, by, held_out, noisy."),
        ("predict.overlaps", 3, "predict: unknown key 'overlaps'. Did you mean 'overlap'? Accepted: overlap, pool, fl"),
    ],
)
def test_no_key_is_ignored(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("frontend.name", "logmel", "frontend: there is no part 'logmel'. Did you mean 'log_mel'? Accepted: log_mel, "),
        (
            "picture.0.name",
            "standardize",
            "picture[0]: there is no part 'standardize'. Did you mean 'standardise'? Acc",
        ),
        (
            "augment.0.name",
            "time_maks",
            "augment[0]: there is no part 'time_maks'. Did you mean 'time_mask'? Accepted: ",
        ),
        (
            "model.name",
            "convskip",
            "model: there is no part 'convskip'. Did you mean 'conv_skip'? Accepted: conv_skip, ",
        ),
        ("stages.0.optimizer.name", "Adam", "stages[0].optimizer: there is no part 'Adam'. Did you mean 'adam'? Accep"),
        ("stages.0.loss.name", "bce", "stages[0].loss: there is no part 'bce'. Accepted: binary_crossentropy, f"),
        ("stages.0.callbacks.1.name", "EarlyStoping", "stages[0].callbacks[1]: there is no part 'EarlyStoping'. Did "),
        ("stages.0.subset", "test", "stages[0].subset: there is no 'test'. Accepted: curated, noisy."),
        ("window.short_clips", "zeroes", "window.short_clips: there is no 'zeroes'. Did you mean 'zeros'? Accepted: "),
        ("predict.pool", "median", "predict.pool: there is no 'median'. Did you mean 'mean'? Accepted: mean, max, lo"),
        ("precision", "mixed_fp16", "precision: there is no 'mixed_fp16'. Did you mean 'mixed_float16'? Accepted: flo"),
    ],
)
def test_a_word_that_is_not_known_names_the_nearest_and_those_that_are(write, place, value, message):
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
        ("picture", {}, "picture: Input should be a valid list, found {}."),
        ("picture.0", "resize", "picture[0]: Input should be a valid object, found 'resize'."),
        ("model.filters", [16, "32"], "model.filters[1]: Input should be a valid integer, found '32'."),
        ("stages", [], "stages: List should have at least 1 item"),
        (
            "stages.0.name",
            "No Spaces",
            "stages[0].name: String should match pattern '^[a-z0-9_-]+$', found 'No Spaces'.",
        ),
        ("stages.0.epochs", 0, "stages[0].epochs: Input should be greater than or equal to 1, found 0."),
        ("stages.0.batch_size", None, "stages[0].batch_size: Input should be a valid integer, found None."),
        ("stages.0.optimizer.learning_rate", "x", "optimizer.learning_rate: Input should be a valid integer or a v"),
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
        ("stages.0.shares", {"test": 1.0}, "stages[0].shares.test: there is no 'test'. Accepted: curated, noisy."),
        ("folds.count", 1, "folds.count: Input should be greater than or equal to 2, found 1."),
        ("folds.held_out", [], "folds.held_out: List should have at least 1 item"),
        ("predict.overlap", 1.0, "predict.overlap: Input should be less than 1, found 1.0."),
        ("xla", "yes", "xla: Input should be a valid boolean, found 'yes'."),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_place(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


@pytest.mark.parametrize(("key", "value"), [("epochs", 0), ("subset", "test")])
def test_a_list_is_not_called_too_short_for_what_is_wrong_in_it(write, key, value):
    content = changed(f"stages.0.{key}", value)
    assert refusal(write(content | {"stages": content["stages"][:1]})).count("\n") == 0


@pytest.mark.check("C7")
@pytest.mark.parametrize("key", [key for key in FILE if key not in ("picture", "augment", "folds", "predict")])
def test_a_key_without_a_default_must_be_there(write, key):
    assert refusal(write({k: v for k, v in FILE.items() if k != key})) == f"{key}: this key is missing."


@pytest.mark.check("C7")
def test_a_part_without_a_name_is_refused(write):
    assert refusal(write(changed("augment.0", {"max_width": 3}))) == "augment[0].name: this key is missing."
    assert refusal(write(changed("frontend", {}))) == "frontend.name: this key is missing."


def test_every_fault_is_named_at_once(write):
    content = changed("window.second", 1.0)
    content["stages"][0]["epochs"] = "many"
    content["model"]["name"] = "convskip"
    assert [line.split(":")[0] for line in refusal(write(content)).splitlines()] == [
        "window",
        "model",
        "stages[0].epochs",
    ]


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
        ("stages.1.name", "noisy", "stages[1].name: two stages are called 'noisy'. Give each its own name."),
        ("folds.held_out", [0, 5], "folds.held_out: there is no fold 5. Accepted: 0 to 4."),
        ("folds.held_out", [0, 1, 0], "folds.held_out: fold 0 stands twice. Name each fold once."),
        ("folds.held_out", [-1], "folds.held_out: there is no fold -1. Accepted: 0 to 4."),
        ("stages.0.callbacks.2", {"name": "CSVLogger"}, "stages[0].callbacks[2]: 'CSVLogger' stands twice. Name each "),
        (
            "stages.0.callbacks.1.monitor",
            "val_lwrap",
            "stages[0].callbacks[1].monitor: there is no 'val_lwrap'. Did you mean 'val_lwlrap'? Accepted: val_lwl",
        ),
        (
            "stages.0.callbacks.1.mode",
            "maximum",
            "stages[0].callbacks[1].mode: there is no 'maximum'. Did you mean 'max'? ",
        ),
        (
            "stages.0",
            STAGE | {"schedule": {"name": "cosine"}, "callbacks": [{"name": "ReduceLROnPlateau"}]},
            "stages[0].schedule: cosine and ReduceLROnPlateau both move the learning rate. Leave out one of them.",
        ),
        (
            "stages.0",
            STAGE | {"schedule": {"name": "one_cycle"}, "optimizer": {"name": "sgd"}},
            "stages[0].schedule: one_cycle moves beta_1, which sgd has not. Name adam or adamw, or add ",
        ),
        (
            "stages.0.decayed_weights",
            "kernels",
            "stages[0].decayed_weights: nothing decays. Give the optimizer a weight_decay.",
        ),
        ("xla", True, 'xla: TensorFlow does not compile deterministic runs. Add "deterministic": false.'),
    ],
)
def test_names_that_lead_nowhere_are_refused(write, place, value, message):
    assert message in refusal(write(changed(place, value)))


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON file: Expecting value: line 1 column 1 (char 0)"),
        ('{"about": }', "not a JSON file: Expecting value: line 1 column 11 (char 10)"),
        ('{"about": "a", "about": "b"}', "not a JSON file: the key 'about' stands twice in one object."),
        ('{"window": {"seconds": NaN}}', "not a JSON file: NaN is no JSON number."),
        ('{"seed": -Infinity}', "not a JSON file: -Infinity is no JSON number."),
        ("[" * 100_000, "not a JSON file: maximum recursion depth"),
        ("[]", "Input should be a valid object, found ()."),
        (
            json.dumps(FILE).replace('"seconds": 2.0', '"seconds": 1e999'),
            "window.seconds: Input should be a finite num",
        ),
    ],
    ids=["empty", "broken", "twice", "nan", "infinity", "deep", "list", "overflow"],
)
def test_a_text_that_is_no_experiment_is_refused(write, text, message):
    assert message in refusal(write(text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert refusal(tmp_path / "nowhere.json") == "cannot be read: No such file or directory."
    assert refusal(tmp_path) == "cannot be read: Is a directory."
    (tmp_path / "latin.json").write_bytes('{"about": "é"}'.encode("latin-1"))
    assert "not a JSON file: 'utf-8' codec can't decode byte 0xe9" in refusal(tmp_path / "latin.json")


@pytest.mark.parametrize(
    ("override", "found", "expected"),
    [
        ("seed=7", lambda e: e.seed, 7),
        ("about=two words = one text", lambda e: e.about, "two words = one text"),
        ('about="7"', lambda e: e.about, "7"),
        ("stages.noisy.epochs=9", lambda e: e.stages[0].epochs, 9),
        ("stages.1.epochs=9", lambda e: e.stages[1].epochs, 9),
        ("stages.noisy.callbacks.EarlyStopping.patience=1", lambda e: e.stages[0].callbacks[1].patience, 1),
        ("stages.curated.start_from=null", lambda e: e.stages[1].start_from, None),
        ("stages.curated.optimizer.learning_rate=1e-4", lambda e: e.stages[1].optimizer.learning_rate, 1e-4),
        ("folds.held_out=[1,2,3]", lambda e: e.folds.held_out, (1, 2, 3)),
        ("folds.held_out.1=4", lambda e: e.folds.held_out, (0, 4)),
        ("augment=[]", lambda e: e.augment, ()),
        ('model={"name": "densenet169"}', lambda e: e.model.name, "densenet169"),
        ("predict.pool=mean", lambda e: e.predict.pool, "mean"),
    ],
)
def test_an_override_replaces_one_value(write, override, found, expected):
    path = write(FILE)
    assert found(load(path, [override])) == expected
    assert load(path, [override]) != load(path)


def test_overrides_are_taken_in_order(write):
    assert load(write(FILE), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set seed: expected key=value, such as stages.noisy.epochs=3."),
        (
            "widow.seconds=2",
            "--set widow.seconds=2: there is no 'widow'. Did you mean 'window'? Accepted: about, command, ",
        ),
        (
            "stages.nosy.epochs=3",
            "epochs=3: there is no entry 'nosy'. Did you mean 'noisy'? Accepted: noisy, curated, 0 to 1.",
        ),
        ("stages.2.epochs=3", "--set stages.2.epochs=3: there is no entry '2'. Accepted: noisy, curated, 0 to 1."),
        ("stages.-1.epochs=3", "--set stages.-1.epochs=3: there is no entry '-1'. Accepted: noisy, curated, 0 to 1."),
        ("stages.².epochs=3", "--set stages.².epochs=3: there is no entry '²'. Accepted: noisy, curated, 0 to 1."),
        ("folds.held_out.x=3", "--set folds.held_out.x=3: there is no entry 'x'. Accepted: 0 to 1."),
        ("window.seconds.x=3", "--set window.seconds.x=3: window.seconds is 2.0 and holds no 'x'."),
        ("window.seconds.x.y=3", "--set window.seconds.x.y=3: there is no 'x'."),
        ("stages.noisy.epoch=3", "stages[0]: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("stages.noisy.epochs=three", "stages[0].epochs: Input should be a valid integer, found 'three'."),
        ("window.seconds=NaN", "window.seconds: Input should be a valid number, found 'NaN'."),
        ('window={"seconds": 1, "seconds": 2}', "window: Input should be a valid object"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(write, override, message):
    assert message in refusal(write(FILE), [override])


def test_an_entry_is_looked_for_among_names_that_are_none(write):
    refused = refusal(write(changed("stages.0.name", 5)), ["stages.noisy.epochs=3"])
    assert refused == "--set stages.noisy.epochs=3: there is no entry 'noisy'. Accepted: 5, curated, 0 to 1."


def test_loading_imports_neither_tensorflow_nor_keras(write):
    code = "import sys; from audiotag.config.loading import load; load(sys.argv[1]); print(*sys.modules)"
    command = [sys.executable, "-c", code, str(write(FILE))]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "audiotag.config.schema" in modules
    assert not {"tensorflow", "keras", "audiotag.layers", "audiotag.models"} & set(modules)


def test_a_wrong_file_fails_before_tensorflow_could_start(write, tmp_path):
    path = write(changed("model.name", "convskip"))
    command = [sys.executable, "-m", "audiotag", "fit", str(path), "--run", str(tmp_path / "run")]
    begun = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert time.perf_counter() - begun < 2
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {path}: model: there is no part 'convskip'. Did you mean 'conv_skip'?")
    assert len(done.stderr.splitlines()) == 1
    assert not Path(tmp_path / "run").exists()


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["predict.flips=true"], 'predict.flips: needs flips as labels. Add {"name": "flip_labels"} to the picture.'),
        (['stages.noisy.augment=[{"name": "flip_labels"}]'], "augment: flip_labels gives the network four times as"),
        (['augment=[{"name": "flip_labels"}]', "stages.curated.augment=[]"], "augment: flip_labels gives the networ"),
        (['augment=[{"name": "flip_labels"}, {"name": "flip_labels"}]'], "picture: flip_labels may stand in an expe"),
        (
            ['augment=[{"name": "mixup"}, {"name": "mixup"}]', "augment.mixup.alpha=0.3"],
            "--set augment.mixup.alpha=0.3: several entries are called 'mixup'. Name one by its index: 0, 1.",
        ),
        (['augment=[{"name": "flip_labels"}]', "noisy_head=true"], "noisy_head: flip_labels makes other heads. Leave"),
        (
            ['augment=[{"name": "flip_labels"}]', 'stages.noisy.noisy_loss={"name": "focal"}'],
            "stages[0].noisy_loss: flip_labels makes heads of its own.",
        ),
        (['stages.curated.noisy_loss={"name": "focal"}'], "stages[1].noisy_loss: no noisy clip is heard. Add"),
        (['stages.noisy.subset="curated"', "noisy_head=true"], "noisy_head: no stage hears noisy clips. Add"),
        (['stages.noisy.noisy_loss={"name": "categorical_crossentropy"}'], 'stages[0].noisy_loss: "labels": "one" and'),
        (['stages.noisy.shares={"curated": 1.0}'], "stages[0].shares: expected a number above 0 for each of: noi"),
        (['stages.noisy.shares={"noisy": 0.0}'], "stages[0].shares: expected a number above 0 for each of: noi"),
        (["stages.noisy.validation_freq=3"], "stages[0].validation_freq: the last of 10 epochs must be judged. E"),
        (
            ["stages.curated.validation_freq=5", "stages.curated.callbacks.EarlyStopping.monitor=loss"],
            "stages[1].callbacks[3].monitor: may choose an epoch that is not judged. Expected val_lwlrap",
        ),
        (
            ["stages.curated.validation_freq=5", "stages.curated.callbacks.ModelCheckpoint.monitor=loss"],
            "].monitor: may choose an epoch that is not judged. Expected val_lwlrap",
        ),
        (
            ["noisy_head=true", 'waveform=[{"name": "mixup", "labels": "union"}]'],
            'waveform[0].labels: "union" counts both clips whole, where noisy_head',
        ),
        (
            [
                'stages.noisy.noisy_loss={"name": "focal"}',
                'stages.noisy.augment=[{"name": "concat_mix", "labels": "union"}]',
            ],
            'stages[0].augment[0].labels: "union" counts both',
        ),
        (
            [
                'stages.curated.subset=["curated", "noisy"]',
                'stages.curated.select={"rule": {"name": "ranked"}, "scored_by": "noisy", "predict": {"flips": true}}',
            ],
            "stages[1].select.predict.flips: needs flips as labels.",
        ),
        (["labels=one"], 'stages[0].loss: "labels": "one" and categorical_crossentropy need each other: a soft'),
        (['stages.noisy.subset=[]'], "stages[0].subset: "),
        (['stages.noisy.subset="test"'], "stages[0].subset: there is no 'test'. Accepted: curated, noisy."),
    ],
)
def test_sections_that_do_not_go_together_are_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        load(Path(__file__).parents[2] / "experiments" / "demo.json", overrides)
    assert message in str(error.value)
