import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiment_files import FILE, changed, refusal

from audiotag.config.loading import dump, load
from audiotag.config.schema import StartFrom


def test_the_experiment_has_the_values_of_the_file(write):
    experiment = load(write(FILE))
    assert experiment.window.seconds == 2.0
    assert experiment.frontend.reference == "max"
    assert [component.name for component in experiment.image_preprocess] == ["standardize", "resize"]
    assert experiment.model.filters == (16, 32)
    assert experiment.stages[0].callbacks[1].patience == 3
    assert experiment.stages[1].start_from == "noisy"
    assert experiment.validation.folds.held_out == (0, 2)


def test_an_experiment_that_is_dumped_and_loaded_is_the_same(write):
    experiment = load(write(FILE))
    again = load(write(dump(experiment)))
    assert again == experiment
    assert dump(again) == dump(experiment)


def test_a_list_that_is_too_short_is_refused(write):
    schedule = {"name": "one_cycle", "beta_1": [0.95]}
    message = "stages[0].schedule.beta_1[1]: this entry is missing."
    assert refusal(write(changed("stages.0", FILE["stages"][0] | {"schedule": schedule}))) == message


def test_of_many_faults_the_first_twenty_are_named(write):
    lines = refusal(write(changed("model.filters", ["x"] * 40_000))).splitlines()
    assert len(lines) == 21 and lines[19].startswith("model.filters[19]: ") and lines[20] == "and 39980 more faults."


@pytest.mark.parametrize("value", [[0] * 60_000, [[0] * 300] * 200, {str(number): 0 for number in range(60_000)}])
def test_more_values_than_any_experiment_needs_are_refused_at_once(write, value):
    path, begun = write(changed("model.filters", value)), time.process_time()
    assert re.fullmatch(r"has 60,\d{3} values\. Expected at most 50,000\.", refusal(path))
    assert time.process_time() - begun < 1


def test_every_fault_is_named_at_once(write):
    content = changed("window.second", 1.0)
    content["stages"][0]["epochs"] = "many"
    content["model"]["name"] = "convskip"
    assert [line.split(":")[0] for line in refusal(write(content)).splitlines()] == [
        "window",
        "model",
        "stages[0].epochs",
    ]


@pytest.mark.parametrize(("key", "value"), [("epochs", 0), ("subset", "test")])
def test_a_list_is_not_called_too_short_because_of_an_entry_that_is_not_valid(write, key, value):
    content = changed(f"stages.0.{key}", value)
    assert refusal(write(content | {"stages": content["stages"][:1]})).count("\n") == 0


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON file: Expecting value: line 1 column 1 (char 0)"),
        ('{"about": }', "not a JSON file: Expecting value: line 1 column 11 (char 10)"),
        ('{"about": "a", "about": "b"}', "not a JSON file: the key 'about' is given twice in one object."),
        ('{"window": {"seconds": NaN}}', "not a JSON file: NaN is not a JSON number."),
        ('{"seed": -Infinity}', "not a JSON file: -Infinity is not a JSON number."),
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
    assert refusal(tmp_path).startswith("is a folder, and no experiment. Write one with: audiotag new")
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
        (
            'stages.curated.start_from={"run": "runs/a", "stage": "noisy"}',
            lambda e: e.stages[1].start_from,
            StartFrom(run="runs/a", stage="noisy"),
        ),
        ("stages.curated.optimizer.learning_rate=1e-4", lambda e: e.stages[1].optimizer.learning_rate, 1e-4),
        ("stages.curated.optimizer.learning_rate=1", lambda e: repr(e.stages[1].optimizer.learning_rate), "1.0"),
        ("validation.folds.held_out=[1,2,3]", lambda e: e.validation.folds.held_out, (1, 2, 3)),
        ("validation.folds.held_out.1=4", lambda e: e.validation.folds.held_out, (0, 4)),
        ("augment=[]", lambda e: e.augment, ()),
        ('model={"name": "densenet169"}', lambda e: e.model.name, "densenet169"),
        ("predict.pool=mean", lambda e: e.predict.pool, "mean"),
    ],
)
def test_an_override_replaces_one_value(write, override, found, expected):
    path = write(FILE)
    assert found(load(path, [override])) == expected
    assert load(path, [override]) != load(path)


def test_overrides_are_applied_in_order(write):
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
        (
            "validation.folds.held_out.x=3",
            "--set validation.folds.held_out.x=3: there is no entry 'x'. Accepted: 0 to 1.",
        ),
        ("window.seconds.x=3", "--set window.seconds.x=3: window.seconds is 2.0 and has no 'x'."),
        ("window.seconds.x.y=3", "--set window.seconds.x.y=3: there is no 'x'."),
        ("stages.noisy.epoch=3", "stages[0]: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("stages.noisy.epochs=three", "stages[0].epochs: Input should be a valid integer, found 'three'."),
        ("window.seconds=NaN", "window.seconds: Input should be a valid number, found 'NaN'."),
        ('window={"seconds": 1, "seconds": 2}', "window: Input should be a valid object"),
        (
            'augment=[{"name": "mixup"}, {"name": "mixup"}]\naugment.mixup.alpha=0.3',
            "--set augment.mixup.alpha=0.3: several entries are called 'mixup'. Name one by its index: 0, 1.",
        ),
    ],
)
def test_an_override_of_no_value_is_refused(write, override, message):
    assert message in refusal(write(FILE), override.split("\n"))


def test_an_entry_is_looked_up_among_names_that_are_no_strings(write):
    refused = refusal(write(changed("stages.0.name", 5)), ["stages.noisy.epochs=3"])
    assert refused == "--set stages.noisy.epochs=3: there is no entry 'noisy'. Accepted: 5, curated, 0 to 1."


def test_loading_imports_neither_tensorflow_nor_keras(write):
    code = "import sys; from audiotag.config.loading import load; load(sys.argv[1]); print(*sys.modules)"
    command = [sys.executable, "-c", code, str(write(FILE))]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "audiotag.config.schema" in modules
    assert not {"tensorflow", "keras", "audiotag.layers", "audiotag.models"} & set(modules)


def cpu_seconds_of_children():
    """CPU time of ended subprocesses, which other processes on the machine do not change."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_wrong_file_fails_before_tensorflow_could_start(write, tmp_path):
    path = write(changed("model.name", "convskip"))
    command = [sys.executable, "-m", "audiotag", "fit", str(path), "--run", str(tmp_path / "run")]
    before = cpu_seconds_of_children()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert cpu_seconds_of_children() - before < 2
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {path}: model: there is no component 'convskip'. Did you mean 'conv_skip'?")
    assert len(done.stderr.splitlines()) == 1
    assert not Path(tmp_path / "run").exists()


@pytest.mark.check("C7")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=" + "[" * 100_000, "seed: Input should be a valid integer, found '[[["),
        ("window=" + "[" * 500 + "]" * 500, "window: Input should be a valid object, found (((("),
        (".".join(["a"] * 100_000) + "=1", "…: there is no 'a'. Accepted: "),
        ("a" * 100_000, "…: expected key=value, such as stages.noisy.epochs=3."),
        ("stages.noisy.epochs=" + str(2**70), "stages[0].epochs: Input should be less than or equal to 1000000"),
        ("stages.noisy.batch_size=" + str(10**18), "batch_size: Input should be less than or equal to 1000000"),
        ("stages.noisy.steps_per_epoch=" + str(10**18), "steps_per_epoch: Input should be less than or equal to"),
        ("validation.folds.num_folds=20001", "num_folds: Input should be less than or equal to 1000, found 20001."),
        ("validation.folds.held_out=" + str([*range(20_000)]), "validation.folds.held_out: there is no fold 5."),
        ('about="\\ud800"', r"the text '\ud800' is not valid Unicode. Write it again without escapes such as \ud800."),
        ("a" * 100_000 + "=1", "unknown key 'aaaa"),
    ],
    ids=range(11),
)
def test_a_setting_that_is_far_too_large_is_refused_at_once_and_briefly(write, override, message):
    begun = time.process_time()
    refused = refusal(write(FILE), [override])
    assert time.process_time() - begun < 1
    assert message in refused and len(refused) < 1_000


def test_many_unknown_keys_are_refused_at_once(write):
    begun = time.process_time()
    assert "unknown key 'key0'" in refusal(write(FILE | {f"key{index}": 1 for index in range(20_000)}))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("stages.0.callbacks.1", {"name": "EarlyStopping", "mode": [0] * 50_000}),
        ("stages.0.callbacks.1", {"name": "EarlyStopping", "monitor": "x" * 100_000}),
        ("stages.0.subset_sampling_weights", {"x" * 100_000: 1.0}),
        ("x" * 100_000, 1),
    ],
)
def test_a_message_does_not_repeat_a_whole_file(write, place, value):
    path = write(changed(place, value))
    assert len(refusal(path)) < 3_000
    assert len(refusal(path, ["model.y=1", "z.z=1"])) < 3_000
