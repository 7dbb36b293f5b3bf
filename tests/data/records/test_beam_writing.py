"""make-records on Apache Beam writes the same bytes as on one machine."""

import itertools
import os
from pathlib import Path

import fsspec
import pytest
from object_store import objects
from record_folders import OPTIONS, finished_files

from audiotag.beam import Beam
from audiotag.data.records import read_manifest, shard_writing, write_records
from audiotag.data.sources import find_clips
from audiotag.errors import ConfigError, DataError

pytest.importorskip("apache_beam", reason="apache-beam is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # of Beam and the packages that it imports
THREADS = "direct_running_mode=multi_threading"
RETRYING = "apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner"  # tries a bundle four times


def failing_at(monkeypatch, *calls):
    """Makes the writing of a record raise at some calls, counted from 1; returns what counts them."""
    encode, numbers = shard_writing.encode, itertools.count(1)

    def fail(record):
        if next(numbers) in calls:
            raise OSError("the worker is lost")
        return encode(record)

    monkeypatch.setattr(shard_writing, "encode", fail)
    return numbers


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_writes_the_same_bytes(source, complete, tmp_path, workers):
    write_records(
        source, tmp_path / "out", **OPTIONS, beam=Beam("DirectRunner", [f"direct_num_workers={workers}", THREADS])
    )
    assert finished_files(tmp_path / "out") == finished_files(complete)


def test_a_bundle_that_is_lost_or_repeated_changes_nothing(source, complete, tmp_path, monkeypatch):
    numbers = failing_at(monkeypatch, 5, 12, 30)
    write_records(source, tmp_path / "lost", **OPTIONS, beam=Beam(RETRYING))
    assert finished_files(tmp_path / "lost") == finished_files(complete)
    assert next(numbers) > 60 + 3
    repeated = Beam("DirectRunner", ["direct_runner_bundle_repeat=2"])
    write_records(source, tmp_path / "repeated", **OPTIONS, beam=repeated)
    assert finished_files(tmp_path / "repeated") == finished_files(complete)


def test_a_pipeline_that_fails_continues_where_it_stopped(source, complete, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOTAG_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()
    url = "memory://bucket/records"
    for out in (tmp_path / "out", url):
        with monkeypatch.context() as patch:
            failing_at(patch, 40)
            with pytest.raises(DataError, match="Beam's DirectRunner failed: .*the worker is lost"):
                write_records(source, out, **OPTIONS, beam=Beam("DirectRunner"))
        with pytest.raises(DataError, match="has not finished here"):
            read_manifest(out)
        with monkeypatch.context() as patch:
            numbers = failing_at(patch)
            write_records(source, out, **OPTIONS, beam=Beam("DirectRunner"))
            assert next(numbers) <= 60 - 32
    assert objects(url) == finished_files(tmp_path / "out") == finished_files(complete)


# Python imports it when it starts; the first worker process that comes to its fifth record kills itself.
KILL_ONE = """
import itertools, os, signal, sys
if any("sdk_worker_main" in word for word in sys.orig_argv):
    from pathlib import Path
    from audiotag.data.records import shard_writing
    encode, numbers = shard_writing.encode, itertools.count(1)
    def kill(record):
        if next(numbers) == 5:
            try:
                Path(__file__).with_name("alive").unlink()
            except FileNotFoundError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return encode(record)
    shard_writing.encode = kill
"""


def test_a_worker_process_that_is_killed_ends_the_command_which_then_continues(source, complete, tmp_path, monkeypatch):
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(KILL_ONE)
    (tmp_path / "start" / "alive").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"), prepend=os.pathsep)
    processes = Beam("DirectRunner", ["direct_num_workers=2", "direct_running_mode=multi_processing"])
    with pytest.raises(DataError, match="a worker is lost: Worker subprocess exited with return code .* run the same"):
        write_records(source, tmp_path / "out", **OPTIONS, beam=processes)
    assert not finished_files(tmp_path / "out")
    with pytest.raises(DataError, match="has not finished here"):
        read_manifest(tmp_path / "out")
    write_records(source, tmp_path / "out", **OPTIONS, beam=Beam("DirectRunner"))
    assert finished_files(tmp_path / "out") == finished_files(complete)


def test_clips_that_cannot_be_decoded_are_the_same_rejects(copy, tmp_path):
    for path in sorted(copy.rglob("*.wav"))[::7]:
        path.write_bytes(path.read_bytes()[:30])
    source = find_clips(copy)
    for beam in (None, Beam("DirectRunner")):
        with pytest.raises(DataError, match="9 of 60 clips cannot be used"):
            write_records(source, tmp_path / str(beam is None), **OPTIONS, beam=beam)
        write_records(source, tmp_path / str(beam is None), **OPTIONS, beam=beam, skip_bad=True)
    assert finished_files(tmp_path / "False") == finished_files(tmp_path / "True")
    assert Path(tmp_path / "False" / "rejects.csv").read_text().count("\n") == 10


def test_other_options_and_runners_are_refused(source, tmp_path):
    for beam, message in (
        (Beam("DirectRunner", ["direct_num_worker=4", "direct_numworkers=4"]), "--beam-option: .*direct_numworkers"),
        (Beam("NoRunner"), "Beam's NoRunner with no options: .*NoRunner"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_records(source, tmp_path / "out", **OPTIONS, beam=beam)
    assert not (tmp_path / "out").exists()
