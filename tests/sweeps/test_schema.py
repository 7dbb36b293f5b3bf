import json
import shlex
from pathlib import Path

import pytest

from audiotag.config.loading import load, parse
from audiotag.errors import ConfigError
from audiotag.evaluation.measures import MEASURES
from audiotag.sweeps.schema import SweepConfig, list_trials

SMALL = {"experiment": "esc10", "seeds": [1, 2], "variations": {"as it is": {}, "no mixup": {"augment": []}}}


def trials_of(tmp_path, **keys):
    return list_trials(parse(SMALL | keys, SweepConfig, "small.json"), tmp_path / "runs", "small.json")


def error_of(tmp_path, **keys):
    with pytest.raises(ConfigError) as caught:
        trials_of(tmp_path, **keys)
    return str(caught.value)


def test_a_trial_for_each_seed_and_variation_seeds_first(tmp_path):
    trials = trials_of(tmp_path)
    assert [trial.folder.name for trial in trials] == ["as-it-is-1", "no-mixup-1", "as-it-is-2", "no-mixup-2"]
    assert [trial.experiment.seed for trial in trials] == [1, 1, 2, 2]
    assert [trial.experiment.augment == () for trial in trials] == [False, True, False, True]
    assert trials[0].experiment == load("esc10", ["seed=1"])


def test_a_trial_for_each_of_the_records(tmp_path):
    trials = trials_of(tmp_path, records=["tfrecords/a", "tfrecords/b"], seeds=[1], variations={"x": {}})
    assert [(trial.records, trial.folder.name) for trial in trials] == [
        ("tfrecords/a", "x-a-1"),
        ("tfrecords/b", "x-b-1"),
    ]
    (trial,) = trials_of(tmp_path, records="tfrecords/a", seeds=[1], variations={"x": {}})
    assert (trial.experiment.records, trial.folder.name) == ("tfrecords/a", "x-1")


def test_folds_are_those_to_hold_out(tmp_path):
    trial = trials_of(tmp_path, folds=[2, 3])[0]
    assert trial.experiment.held_out == (2, 3)
    assert trial.experiment.validation.folds.by == "predefined"  # as in the experiment


def test_quick_changes_come_last(tmp_path):
    keys = SMALL | {"variations": {"long": {"stages.all.epochs": 240}}, "quick": {"stages.all.epochs": 120}}
    config = parse(keys, SweepConfig, "small.json")
    for quick, epochs in ((False, 240), (True, 120)):
        trials = list_trials(config, tmp_path, "small.json", quick=quick)
        assert [trial.experiment.stages[0].epochs for trial in trials] == [epochs, epochs]


def test_the_command_of_a_trial_trains_the_same_experiment(tmp_path):
    keys = {"records": "tfrecords/it's here", "folds": [1], "variations": {"a": {"about": 'a "b" $c'}}}
    trial = trials_of(tmp_path, **keys)[0]
    words = shlex.split(trial.command)
    assert words[:5] == ["audiotag", "fit", "esc10", "--run", str(trial.folder)]
    assert load("esc10", words[6::2]) == trial.experiment


def test_the_measures_are_those_of_evaluate():
    assert SweepConfig.model_json_schema()["properties"]["measure"]["enum"] == list(MEASURES)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"seed": 3}, "small.json: unknown key 'seed'. Did you mean 'seeds'? Accepted: "),
        ({"seeds": []}, "small.json: seeds: List should have at least 1 item after validation, not 0, found ()."),
        ({"seeds": [1, 1]}, "small.json: seeds: two of them would name their runs '1'. Give each its own name."),
        (
            {"variations": {"a b": {}, "A-b": {}}},
            "small.json: variations: two of them would name their runs 'a-b'. Give each its own name.",
        ),
        ({"variations": {"!": {}}}, "small.json: variations: a name without letters and digits. "),
        ({"records": ["a/x", "b/x"]}, "small.json: records: two of them would name their runs 'x'. "),
        ({"measure": "lwrap"}, "small.json: measure: there is no 'lwrap'. Did you mean 'lwlrap'? Accepted: "),
        ({"variations": {"a": {"agument": []}}}, "small.json: variations.a: "),
        ({"variations": {"a": {"stages.al.epochs": 1}}}, "variations.a: --set stages.al.epochs=1: there is no "),
        ({"folds": [7]}, "validation.folds.held_out: there is no fold 7. Accepted: 0 to 3."),
        (
            {"folds": [0], "variations": {"a": {"validation": {"fraction": 0.2}}}},
            'small.json: variations.a: "folds" needs an experiment whose validation has folds. Leave it out.',
        ),
        ({"experiment": "esc11"}, "esc11: neither a file nor a shipped experiment. Did you mean 'esc10'? "),
    ],
)  # fmt: skip
def test_errors_name_the_key_and_the_way_out(tmp_path, keys, message):
    assert message in error_of(tmp_path, **keys)


def test_a_sweep_file_is_described_by_a_json_schema():
    jsonschema = pytest.importorskip("jsonschema")
    from audiotag.config.json_schema import json_schema

    schema = json_schema(SweepConfig)
    jsonschema.validate(json.loads(json.dumps(SMALL)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(SMALL | {"seeds": [-1]}, schema)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "sweeps").glob("*.json")), ids=lambda path: path.stem
)
def test_the_sweeps_of_the_repository_are_valid(path):
    config = load(path, kind=SweepConfig)
    for quick in (False, True):
        assert len(list_trials(config, Path("runs"), path, quick=quick)) >= len(config.seeds)
