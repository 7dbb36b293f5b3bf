"""A: records are complete and the same, whatever happens to the process that makes them."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audiotag.data.clips import read_clips
from audiotag.data.records import check_records, read_manifest, write_records
from audiotag.data.sources import find_clips
from audiotag.errors import AudiotagError

SUBSETS = ("curated", "noisy", "test")
OPTIONS = ("--sample-rate", 16_000, "--clips-per-shard", 64)
SMALL = {"sample_rate": 16_000, "clips_per_shard": 8, "workers": 0}


@pytest.fixture(scope="module")
def clips(recordings, tmp_path_factory):
    """A folder of 512 recordings, for nine shards."""
    folder = tmp_path_factory.mktemp("making") / "in"
    recordings(folder, 60 + np.arange(512) % 300, subsets=SUBSETS)
    return folder


@pytest.fixture(scope="module")
def made(clips, start, files_below, tmp_path_factory):
    """The records of `clips`, made without faults: {name: bytes}; and the number of operations that took."""
    out, count = tmp_path_factory.mktemp("made") / "out", tmp_path_factory.mktemp("made") / "count"
    assert make(start, clips, out, report=count).wait() == 0
    return files_below(out), int(count.read_text())


def make(start, clips, out, *, workers=0, **faults):
    if faults:
        faults["folder"] = out
    return start("make-records", clips, "--out", out, *OPTIONS, "--workers", workers, **faults)


@pytest.fixture
def expect_made(clips, made, start, files_below):
    """A function that finishes the records in a folder, and fails if they differ from those of `made`."""

    def correct_so_far(out):
        finished = files_below(out, hidden=False)
        altered = {name for name, content in finished.items() if made[0].get(name) != content}
        assert not altered, f"incomplete under a final name: {altered}"

    def finish(out):
        correct_so_far(out)
        job = make(start, clips, out)
        assert job.wait() == 0, job.output()[-500:]
        assert files_below(out) == made[0]

    finish.correct_so_far = correct_so_far
    return finish


def kills(made, count, seed=7):
    """`count` faults that kill: between two operations, and at a byte of a file."""
    rng, size = random.Random(seed), max(map(len, made[0].values()))
    between = [{"at": at, "what": "kill"} for at in range(1, made[1] + 1)]
    inside = [{"at": at, "what": f"kill at byte {rng.randrange(size)}"} for at in range(1, made[1] + 1)]
    rng.shuffle(between)
    return [fault for pair in zip(between, inside) for fault in pair][:count]


@pytest.mark.check("A1")
def test_killed_anywhere_it_resumes_to_the_same_bytes(clips, made, start, expect_made, tier, tally, tmp_path):
    for number, fault in enumerate(kills(made, tier(10, 240))):
        with tally.trial(fault):
            job = make(start, clips, tmp_path / str(number), workers=int(number % 10 == 0), **fault)
            assert job.wait() in (0, -signal.SIGKILL, -signal.SIGXFSZ), job.output()[-500:]
            expect_made(tmp_path / str(number))
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)


@pytest.mark.check("A2")
def test_killed_several_times_it_resumes_to_the_same_bytes(clips, made, start, expect_made, tier, tally, tmp_path):
    for number in range(tier(3, 50)):
        with tally.trial(f"series {number}"):
            for fault in kills(made, 2 + number % 4, seed=number):
                make(start, clips, tmp_path / str(number), **fault).wait()
                expect_made.correct_so_far(tmp_path / str(number))
            expect_made(tmp_path / str(number))
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)


@pytest.fixture(scope="module")
def small(recordings, tmp_path_factory):
    """Forty clips and their records in six shards."""
    folder = tmp_path_factory.mktemp("small")
    source, _ = recordings(folder / "in", 40 + np.arange(40), subsets=SUBSETS)
    write_records(source, folder / "out", **SMALL)
    return source, folder / "out"


@pytest.mark.check("A3")
def test_whichever_operation_fails_it_reports_it_and_resumes_later(small, faults, files_below, tier, tally, tmp_path):
    source, complete = small
    kinds = ["ENOSPC", "EIO", "EDQUOT", "EACCES", "ESTALE", "EROFS"]
    with faults(tmp_path / "count") as count:
        write_records(source, tmp_path / "count", **SMALL)
    for at in range(1, count[0] + 1, tier(3, 1)):
        for kind in tier([kinds[at % 2]], kinds):
            out = tmp_path / f"{at}-{kind}"
            with tally.trial(f"{kind} at {at}"):
                try:
                    with faults(out, at, kind):
                        write_records(source, out, **SMALL)
                except (AudiotagError, OSError) as error:  # the command line prints these without a traceback
                    assert os.strerror(getattr(errno, kind)) in str(error)
                    assert not (out / "manifest.json").exists() or not list(check_records(out))
                assert files_below(out, hidden=False).items() <= files_below(complete).items()
                write_records(source, out, **SMALL)
                assert files_below(out) == files_below(complete)
            shutil.rmtree(out, ignore_errors=True)


@pytest.mark.check("A4")
def test_a_full_disk_stops_it_and_it_resumes_when_there_is_room(clips, made, start, expect_made, tier, tally, tmp_path):
    rng, size = random.Random(4), max(map(len, made[0].values()))
    old = tmp_path / "old"
    shutil.copytree(clips, tmp_path / "other")
    assert make(start, tmp_path / "other", old).wait() == 0
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    for number in range(tier(3, 50)):
        out, limit = tmp_path / str(number), rng.randrange(size)
        with tally.trial(f"no file over {limit} bytes"):
            job = make(start, clips, out, at=rng.randrange(1, made[1]), what=f"limit {limit}")
            code = job.wait()
            assert code in (0, 1), code
            if code:
                output = job.output()
                assert "Error: " in output and "Traceback" not in output, output[-500:]
                assert "same command again" in output, output[-500:]
                assert not (out / "manifest.json").exists()
            expect_made(out)
        shutil.rmtree(out, ignore_errors=True)
    with tally.trial("complete records are not changed"):
        job = start("make-records", clips, "--out", old, "--sample-rate", 8_000, folder=old, at=1, what="limit 100")
        assert job.wait() == 1
        assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()} == before


@pytest.mark.check("A5")
def test_of_two_at_the_same_time_one_makes_the_records(clips, made, start, files_below, tier, tally, tmp_path):
    rng = random.Random(5)
    for number in range(tier(3, 50)):
        out = tmp_path / str(number)
        with tally.trial(number):
            first = make(start, clips, out, at=rng.randrange(1, made[1]), what="sleep 1")
            time.sleep(rng.random())
            second = make(start, clips, out)
            codes = second.wait(), first.wait()
            assert 0 in codes, codes
            assert codes == (0, 0) or "another make-records is writing here" in second.output() + first.output()
            assert files_below(out) == made[0]
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.check("A6")
def test_workers_order_and_hash_seed_do_not_change_a_byte(clips, made, start, files_below, tier, tally, tmp_path):
    header, *rows = (clips / "labels.csv").read_text().splitlines()
    copy = shutil.copytree(clips, tmp_path / "in")
    for number in range(tier(2, 28)):
        workers, out = (8, 2, 4, 1)[number % 4], tmp_path / str(number)
        with tally.trial(f"{workers} workers, seed {number}"):
            shuffled = np.random.default_rng(number).permutation(rows)
            (copy / "labels.csv").write_text("\n".join([header, *shuffled]) + "\n")
            if number % 2:
                assert make(start, copy, out, workers=workers).wait() == 0
            else:  # a separate process, since Python reads the seed at its start
                command = [sys.executable, "-m", "audiotag", "make-records", copy, "--out", out]
                environment = os.environ | {"PYTHONHASHSEED": str(number), "PYTHONPATH": str(Path(__file__).parents[2])}
                command = [*map(str, [*command, *OPTIONS, "--workers", workers])]
                subprocess.run(command, check=True, capture_output=True, env=environment)
            assert files_below(out) == made[0]


def workers_of(job):
    """The ids of the processes that decode for a job: the children of its child that forks them."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" (", 1)
            children.setdefault(int(rest.rsplit(") ", 1)[1].split()[1]), []).append(int(pid))
        except OSError:  # it has ended
            pass
    return [worker for server in children.get(job.pid, []) for worker in children.get(server, [])]


@pytest.mark.check("A7")
def test_a_worker_that_is_killed_changes_nothing(clips, made, start, expect_made, tier, tally, tmp_path):
    rng = random.Random(7)
    for number in range(tier(3, 50)):
        with tally.trial(number):
            job = make(start, clips, tmp_path / str(number), workers=2, at=12, what="sleep 0.3")
            end = time.monotonic() + 30
            while not (workers := workers_of(job)):
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
            if number % 5:
                os.kill(rng.choice(workers), signal.SIGKILL)
                assert job.wait(30) == 0, job.output()[-500:]
            else:
                job.kill().wait()
                end = time.monotonic() + 10
                while any(Path(f"/proc/{worker}").exists() for worker in workers):
                    assert time.monotonic() < end, "workers outlive the process that started them"
                    time.sleep(0.02)
            expect_made(tmp_path / str(number))
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)


DAMAGED = [b"", b"not audio", b"RIFF" + bytes(4) + b"WAVE", b"ID3", b"fLaC" + bytes(60), b"OggS" + bytes(60)]


@pytest.mark.check("A8")
def test_every_row_is_written_or_rejected(recordings, tier, tally, tmp_path):
    for number in range(tier(6, 100)):
        rng = random.Random(number)
        with tally.trial(number):
            folder, out = tmp_path / str(number) / "in", tmp_path / str(number) / "out"
            source, _ = recordings(folder, [50] * 24, subsets=SUBSETS)
            kept = source.clips.query("subset != 'test'").drop_duplicates("labels")["name"]  # a clip of each class
            others = sorted({*source.clips["name"]} - {*kept})
            for name in rng.sample(others, rng.randrange(len(others))):
                (folder / "audio" / name).write_bytes(rng.choice(DAMAGED))
            write_records(find_clips(folder), out, skip_bad=True, **SMALL)
            written = read_clips(out / "clips.csv")["name"].tolist()
            rejected = pd.read_csv(out / "rejects.csv")["name"].tolist()
            assert sorted(written + rejected) == source.clips["name"].tolist()
            assert sorted(name for shard in read_manifest(out).shards for name in shard.clips) == sorted(written)
            assert json.loads((out / "manifest.json").read_text())["options"]["skip_bad"]


# Records that are replaced


@pytest.fixture(scope="module")
def two(recordings, start, tmp_path_factory):
    """2.4 MB of recordings, and two sets of their records: (options, folder) of each."""
    folder = tmp_path_factory.mktemp("two")
    recordings(folder / "in", [20_000 + number for number in range(60)], subsets=("curated",))
    sets = []
    for peak in (-1, -2):
        options = ("--sample-rate", 16_000, "--clips-per-shard", 64, "--peak-db", peak, "--workers", 0)
        assert start("make-records", folder / "in", "--out", folder / f"{peak}", *options).wait() == 0
        sets.append((options, folder / f"{peak}"))
    return folder / "in", *sets


@pytest.mark.check("A10")
def test_a_full_disk_under_overwrite_leaves_the_old_records_complete(two, start, files_below, tier, tally, tmp_path):
    clips, (_, old), (options, new) = two
    size = max(path.stat().st_size for path in new.iterdir())
    limits = [4_096, *range(1 << 16, size, 1 << 16)]
    assert len(limits) > 30
    for limit in tier(limits[:: len(limits) // 3], limits):
        out = tmp_path / str(limit)
        shutil.copytree(old, out)
        with tally.trial(f"no file over {limit} bytes"):
            command = ("make-records", clips, "--out", out, "--overwrite", *options)
            job = start(*command, folder=out, at=1, what=f"limit {limit}")
            assert job.wait() == 1
            output = job.output()
            assert "Error: " in output and "Traceback" not in output, output[-500:]
            assert "same command again" in output, output[-500:]
            assert files_below(out, hidden=False) == files_below(old)
            assert list(check_records(out)) == []
            job = start(*command)
            assert job.wait() == 0, job.output()[-500:]
            assert files_below(out) == files_below(new)
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.check("A10")
def test_whichever_operation_of_overwrite_fails_one_set_is_complete_or_the_next_run_completes_it(
    small, faults, files_below, tier, tally, tmp_path
):
    source, old = small
    shutil.copytree(old, tmp_path / "new")
    with faults(tmp_path / "new") as count:
        write_records(source, tmp_path / "new", overwrite=True, peak_db=-1, **SMALL)
    new = files_below(tmp_path / "new")
    assert list(check_records(tmp_path / "new")) == []
    kinds = ["ENOSPC", "EIO", "EDQUOT", "EACCES", "ESTALE", "EROFS"]
    for at in range(1, count[0] + 1, tier(3, 1)):
        for kind in tier([kinds[at % 2]], kinds):
            out = tmp_path / f"{at}-{kind}"
            shutil.copytree(old, out)
            with tally.trial(f"{kind} at {at}"):
                try:
                    with faults(out, at, kind):
                        write_records(source, out, overwrite=True, peak_db=-1, **SMALL)
                except (AudiotagError, OSError) as error:
                    assert os.strerror(getattr(errno, kind)) in str(error)
                finished = files_below(out, hidden=False)
                if "manifest.json" in finished:
                    assert finished in (files_below(old), new)
                else:
                    assert (out / ".work" / "manifest.json").exists()
                write_records(source, out, overwrite=True, peak_db=-1, **SMALL)
                assert files_below(out) == new
            shutil.rmtree(out, ignore_errors=True)


@pytest.mark.check("A11")
def test_overwrite_killed_at_any_operation_leaves_a_complete_set_or_the_next_run_completes_it(
    small, start, files_below, tier, tally, tmp_path
):
    source, old = small
    options = ("--sample-rate", 16_000, "--clips-per-shard", 8, "--peak-db", -1, "--workers", 0, "--overwrite")
    clips, count = Path(source.clips["path"][0]).parents[1], tmp_path / "count"
    shutil.copytree(old, tmp_path / "new")
    job = start("make-records", clips, "--out", tmp_path / "new", *options, folder=tmp_path / "new", report=count)
    assert job.wait() == 0, job.output()[-500:]
    new = files_below(tmp_path / "new")
    operations = [*range(1, int(count.read_text()) + 1)]
    publishing = operations[-30:]  # where the new records replace the old ones
    for at in tier([*operations[: -len(publishing) : 15], *publishing[::2]], operations):
        out = tmp_path / str(at)
        shutil.copytree(old, out)
        with tally.trial(f"kill at {at}"):
            job = start("make-records", clips, "--out", out, *options, folder=out, at=at, what="kill")
            assert job.wait() == -signal.SIGKILL, job.output()[-500:]
            finished = files_below(out, hidden=False)
            if "manifest.json" in finished:
                assert finished in (files_below(old), new)
            else:
                assert (out / ".work" / "manifest.json").exists()
            # If the old manifest is removed, the new records are published first, whatever is requested.
            other = at % 2 and "manifest.json" not in finished
            job = start("make-records", clips, "--out", out, *(("--sample-rate", 8_000) if other else options))
            assert job.wait() == int(bool(other)), job.output()[-500:]
            assert files_below(out) == new
        shutil.rmtree(out, ignore_errors=True)
