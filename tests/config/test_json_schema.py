"""The JSON schema accepts what `load` accepts, and refuses what it refuses, as far as one place of a file shows it."""

import copy
import json
import random

import jsonschema
import pytest
from experiment_files import FILE, changed

from audiotag.config.json_schema import json_schema
from audiotag.config.loading import dump, load, parse
from audiotag.config.schema import Experiment
from audiotag.config.shipped import shipped_experiments
from audiotag.errors import ConfigError

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
ANY = {"monitor", "mode", "update_freq"}  # options of Keras' callbacks without a type
OUT_OF_RANGE = {
    "schema_version": 3,
    "seed": -1,
    "seconds": 0,
    "epochs": -1,
    "batch_size": 0,
    "steps_per_epoch": 0,
    "validation_freq": 0,
    "num_folds": 1,
    "overlap": 1,
    "held_out": [],
    "stages": [],
    "subset": [],
    "num_windows": 0,
    "pool": "median",
    "pad": "ones",
    "keep": "first",
    "task": "regression",
}
every_file = pytest.mark.parametrize("path", shipped_experiments().values(), ids=shipped_experiments())


def is_valid(content):
    return VALIDATOR.is_valid(content)


def is_loaded(content):
    try:
        parse(content, Experiment, "it")
    except ConfigError:
        return False
    return True


def objects(content, place=()):
    """Yields (place, object) of every object in a file, the file itself first."""
    if isinstance(content, dict):
        yield place, content
    for key, inner in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(inner, (dict, list)):
            yield from objects(inner, (*place, key))


def mutations(content):
    """{kind: [(place, key, new value or None to delete)]}: each makes the file wrong."""
    found = {"unknown key": [], "wrong name": [], "wrong type": [], "missing key": [], "out of range": []}
    for place, section in objects(content):
        if place and place[-1] == "subset_sampling_weights":  # its keys are subsets
            continue
        found["unknown key"].append((place, "surplus", 1))
        if "name" in section and place[-2:-1] != ("stages",):
            found["wrong name"].append((place, "name", section["name"] + "_"))
            found["missing key"].append((place, "name", None))
        for key, value in section.items():
            if key not in ANY:
                found["wrong type"].append((place, key, 7 if isinstance(value, dict) else {"a": 1}))
            if key in OUT_OF_RANGE:
                found["out of range"].append((place, key, OUT_OF_RANGE[key]))
            if key in (
                "records",
                "frontend",
                "model",
                "seconds",
                "optimizer",
                "loss",
                "epochs",
                "batch_size",
                "subset",
            ):
                found["missing key"].append((place, key, None))
    return found


def mutated(content, place, key, value):
    content = copy.deepcopy(content)
    inner = content
    for step in place:
        inner = inner[step]
    if value is None:
        del inner[key]
    else:
        inner[key] = value
    return content


def test_it_is_a_schema_of_draft_2020_12():
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(json_schema())


@every_file
def test_a_shipped_experiment_is_valid_as_written_and_with_every_default(path):
    VALIDATOR.validate(json.loads(path.read_text()))
    VALIDATOR.validate(json.loads(dump(load(path))))


@every_file
def test_twenty_mutations_of_a_shipped_experiment_are_refused_by_the_schema_and_by_load(path):
    content = json.loads(path.read_text())
    rng = random.Random(path.stem)
    kinds = mutations(content)
    chosen = [(kind, *change) for kind, changes in kinds.items() for change in rng.sample(changes, 4)]
    assert len(chosen) == 20
    for kind, *change in chosen:
        wrong = mutated(content, *change)
        assert not is_valid(wrong), (kind, change)
        assert not is_loaded(wrong), (kind, change)


@pytest.mark.parametrize(
    ("place", "value", "accepted"),
    [
        ("stages.0.subset", "noisy", True),
        ("stages.0.subset", ["noisy", "curated"], True),
        ("stages.0.subset", [["noisy"]], False),
        ("stages.0.optimizer.learning_rate", 1, True),
        ("stages.0.optimizer.learning_rate", "fast", False),
        ("window.seconds", 2, True),
        ("window.seconds", 601, False),
        ("seed", True, False),
        ("frontend.reference", 2.0, True),
        ("frontend.reference", "max", True),
        ("frontend.reference", "min", False),
        ("model.filters", [16, 32, 64], True),
        ("model.filters", [16, "32"], False),
        ("stages.0.schedule", {"name": "one_cycle", "beta_1": [0.9, 0.8]}, True),
        ("stages.0.schedule", {"name": "one_cycle", "beta_1": [0.9]}, False),
        ("stages.0.schedule", None, True),
        ("stages.0.subset_sampling_weights", {"noisy": 1}, True),
    ],
)
def test_it_agrees_with_load_about_a_value(place, value, accepted):
    content = changed(place, value)
    assert (is_valid(content), is_loaded(content)) == (accepted, accepted)
    assert is_valid(FILE) and is_loaded(FILE)


def test_components_are_described_in_a_line():
    descriptions = {name: each.get("description") for name, each in json_schema()["$defs"].items()}
    assert descriptions["log_mel"] == "Turns waveforms into mel spectrograms in decibels."
    assert all(text and "\n" not in text for text in descriptions.values())
