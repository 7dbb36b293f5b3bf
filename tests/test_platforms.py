"""The commands without what only Linux has, and on file systems without locks, each in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

TESTS = Path(__file__).parent
AS_ON_WINDOWS = TESTS / "as_on_windows"
COMMANDS = """
import json, sys
from audiotag.cli import main
from audiotag.data.synthetic import make_demo
make_demo.__kwdefaults__ |= {"curated": 28, "noisy": 28, "test": 14}
for command in json.loads(sys.argv[1]):
    if code := main(command, standalone_mode=False):
        sys.exit(code)
from audiotag.data.records import read_manifest
from audiotag.runs.directory import open_run, start_run
with start_run("run", open_run("run").experiment, read_manifest("records"), restart=True):
    pass
"""
# Runs a command where the file system refuses locks; its messages go into a file.
REFUSING_LOCKS = """
import errno, fcntl, os, sys
def refuse(file, how):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = refuse
os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 2)
from audiotag.cli import main
main(sys.argv[2:])
"""
WARNING = (
    "Warning: {lock}: this file system has no file locks, so nothing keeps two commands from writing to this folder at "
    "the same time. Run one at a time."
)


def run_python(code, *arguments, path=(), cwd=None):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, TESTS.parent]))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=cwd)


def test_the_commands_work_without_what_only_linux_has(tmp_path):
    for module in ("fcntl", "resource"):
        assert run_python(f"import {module}", path=[AS_ON_WINDOWS]).returncode == 1
    rng = np.random.default_rng(0)
    for name in ("Hiss/1.wav", "Hiss/2.wav", "Rain/1.wav"):
        (tmp_path / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / "sounds" / name, 0.1 * rng.standard_normal(16_000), 16_000)
    small = ["model.filters=[8, 8]", "stages.train.epochs=1"]
    commands = [
        ["doctor", "sounds", "--workers", "1"],
        ["make-demo", "demo"],
        ["make-records", "demo", "--out", "records", "--sample-rate", "16000", "--workers", "1"],
        ["check-records", "records"],
        ["new", "own", "--records", "records"],
        ["fit", "own.json", "--run", "run", *(text for override in small for text in ("--set", override))],
        ["predict", "run/saved_model", "demo/test/11a263dd.wav", "--csv", "scores.csv"],
    ]
    done = run_python(COMMANDS, json.dumps(commands), path=[AS_ON_WINDOWS], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Experiment: own.json. Next:" in done.stdout and "SavedModel: " in done.stdout
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 1 and not scores.isna().any(axis=None)
    assert done.stderr.count("this file system has no file locks") == 1
    assert not list(tmp_path.rglob("*.weights.h5"))  # the script has started the run again
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith((".unfinished-", ".removed-"))]


@pytest.mark.check("A12")
def test_make_records_works_on_a_file_system_without_locks_and_says_so(recordings, start, tmp_path):
    recordings(tmp_path / "in", [4_000] * 6)
    out, script, messages = tmp_path / "out", tmp_path / "refusing_locks.py", tmp_path / "messages.txt"
    script.write_text(REFUSING_LOCKS)
    command = ("make-records", tmp_path / "in", "--out", out, "--sample-rate", 8_000, "--workers", 0)
    job = start(messages, *command, script=script)
    assert job.wait() == 0, messages.read_text()
    assert job.output() == f"6 curated clips of 2 classes: {out}\n"
    said = messages.read_text()
    assert said.count("no file locks") == 1 and WARNING.format(lock=out / ".work" / "lock") in said
    assert not (out / ".work").exists()
