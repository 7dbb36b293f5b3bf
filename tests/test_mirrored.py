"""Training on several devices on TensorFlow gives the run of one device, but for random numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from kills import arrays_in

from audiotag.errors import ConfigError
from audiotag.runs.directory import open_run
from audiotag.training.loop import fit

SCRIPT = Path(__file__).with_name("mirrored_alone.py")


@pytest.fixture(scope="module")
def trained(tiny_file, start, tmp_path_factory):
    """The folder with runs on one device and on two, and what was printed meanwhile."""
    folder = tmp_path_factory.mktemp("mirrored")
    job = start(tiny_file, folder, script=SCRIPT)
    assert job.wait() == 0, job.output()[-3_000:]
    return folder, job.output()


def results(folder, stage="noisy"):
    """Losses and metrics, and the weights that the stage ends with."""
    run = open_run(folder)
    return run.history(0, stage).to_numpy(), list(arrays_in(run.weights(0, stage)).values())


@pytest.mark.parametrize("name", ["two", "fewer"])
@pytest.mark.parametrize("stage", ["noisy", "curated"])
def test_without_random_numbers_a_run_is_that_of_one_device_also_if_it_was_interrupted(trained, name, stage):
    (history, weights), (expected, of_one) = results(trained[0] / name, stage), results(trained[0] / "one", stage)
    np.testing.assert_allclose(history, expected, atol=1e-4)
    for array, other in zip(weights, of_one, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-3)


def test_an_interrupted_run_ends_with_the_same_weights_bit_by_bit(trained):
    (history, weights), (expected, uninterrupted) = results(trained[0] / "stopped"), results(trained[0] / "mixed")
    np.testing.assert_allclose(history, expected, rtol=1e-6)  # the sums of an epoch are those of two parts
    for array, other in zip(weights, uninterrupted, strict=True):
        np.testing.assert_array_equal(array, other)


def test_devices_have_the_same_weights_and_draw_other_numbers(trained):
    seen = json.loads((trained[0] / "devices.json").read_text())
    assert len(seen["weights"]) >= 10
    for first, second in seen["weights"]:
        np.testing.assert_array_equal(first, second)
    assert len(seen["draws"]) == 3  # mixing, masks and dropout
    for first, second in seen["draws"]:
        assert not set(first) & set(second)


def test_what_devices_cannot_share_is_refused(trained):
    for message in (
        "--devices: 3 are asked, and TensorFlow finds 2 CPU. Give at most that.",
        "stages.noisy.batch_size: 9 windows cannot be split evenly among 2 devices. Expected a multiple of 2.",
        "jit_compile: on TensorFlow Keras trains with it on one device only. Leave it out, set KERAS_BACKEND=jax",
        "stages.curated.optimizer.gradient_accumulation_steps: on TensorFlow Keras trains with it on one device only",
    ):
        assert message in trained[1]


def test_several_processes_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ConfigError, match="and TensorFlow trains in one process. Set KERAS_BACKEND=jax for several"):
        fit(tiny(), tmp_path / "run", devices="all")
