"""Training on several devices and in several processes on JAX gives the run of one device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kills import arrays_in

from audiotag.config.loading import dump
from audiotag.runs.directory import open_run

SCRIPT = Path(__file__).with_name("devices_alone.py")


def begin(role, experiment, folder, **environment):
    """Starts a process; it needs JAX, so it cannot be forked from one with TensorFlow as the backend."""
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(SCRIPT.parents[1])} | environment
    command = [sys.executable, SCRIPT, role, experiment, folder]
    return subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """The folder with runs of one stage on one and four devices and in two processes, and what those printed."""
    folder = tmp_path_factory.mktemp("devices")
    stage = json.loads(dump(tiny()))["stages"][0] | {"validation_freq": 2}
    experiment = folder / "one.json"
    experiment.write_text(dump(tiny(f"stages={json.dumps([stage])}", 'augment=[{"name": "mixup"}]')))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    group = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    both = [
        begin(role, experiment, folder, **group, KERAS_DISTRIBUTION_PROCESS_ID=str(index))
        for index, role in enumerate(("first", "second"))
    ]
    said = [(*job.communicate(timeout=200), job.returncode) for job in both]
    four = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    alone = begin("alone", experiment, folder, XLA_FLAGS=four)
    said.append((*alone.communicate(timeout=200), alone.returncode))
    return folder, [(out.decode(), err.decode(), code) for out, err, code in said]


def losses(folder):
    return open_run(folder).history(0, "noisy")[["loss", "lwlrap"]].to_numpy()


@pytest.mark.parametrize("name", ["four", "two"])
def test_the_run_is_that_of_one_device_also_with_mixing(trained, name):
    folder, said = trained
    assert said[-1][2] == 0, said[-1][1][-3_000:]
    np.testing.assert_allclose(losses(folder / name), losses(folder / "one"), atol=1e-4)
    one, other = (arrays_in(open_run(folder / run).weights(0, "noisy")) for run in ("one", name))
    for expected, found in zip(one.values(), other.values(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_killed_process_ends_the_others_with_a_message(trained):
    folder, ((_, error, code), (_, _, killed), _) = trained
    assert killed == -9
    assert code != 0
    assert "another of the 2 processes has ended" in error or "another task died" in error
    assert "noisy, fold 0 1/2: loss" in error
    assert not (folder / "other").exists()


def test_a_batch_that_devices_cannot_share_is_refused(trained):
    output = trained[1][-1][0]
    assert "stages.noisy.batch_size: 16 windows cannot be split evenly among 3 devices. Expected a mul" in output
    assert "--devices: process 0 has 4 cpu devices, and 5 are asked of each." in output
