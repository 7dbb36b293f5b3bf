"""A: records are made once and whole, whatever happens to the process that makes them."""

import random
import shutil

import numpy as np
import pytest

SUBSETS = ("curated", "noisy", "test")
OPTIONS = ("--sample-rate", 16_000, "--clips-per-shard", 64)


@pytest.fixture(scope="module")
def clips(recordings, tmp_path_factory):
    """A folder of 512 recordings, which fill nine shards."""
    folder = tmp_path_factory.mktemp("making") / "in"
    recordings(folder, 60 + np.arange(512) % 300, subsets=SUBSETS)
    return folder


@pytest.fixture(scope="module")
def made(clips, start, files_below, tmp_path_factory):
    """The records of `clips`, made undisturbed: {name: bytes}; and how many operations that took."""
    out, count = tmp_path_factory.mktemp("made") / "out", tmp_path_factory.mktemp("made") / "count"
    assert start("make-records", clips, "--out", out, *OPTIONS, "--workers", 1, folder=out, report=count).wait() == 0
    return files_below(out), int(count.read_text())


@pytest.fixture
def expect_made(clips, made, start, files_below):
    """A function that makes the records in a folder to their end, and fails where they are not those of `made`."""

    def finish(out, *more):
        under_final_names = files_below(out, hidden=False)
        altered = {name for name, content in under_final_names.items() if made[0].get(name) != content}
        assert altered <= {"rejects.csv"}, f"not whole under a final name: {altered}"
        job = start("make-records", clips, "--out", out, *OPTIONS, "--workers", 1, *more)
        assert job.wait() == 0, job.output()[-500:]
        assert files_below(out) == made[0]

    return finish


def moments(made, size, many):
    """`many` (operation, what) at which a process may be killed: between operations, and at a byte of a file."""
    dice = random.Random(7)
    between = [{"at": at, "what": "kill"} for at in range(1, made[1] + 1)]
    inside = [{"at": at, "what": f"kill at byte {dice.randrange(size)}"} for at in range(1, made[1], 3)]
    every = max(1, len(between + inside) // many)
    return (between + inside)[dice.randrange(every) :: every]


@pytest.mark.check("A1")
def test_killed_anywhere_it_goes_on_to_the_same_bytes(clips, made, start, expect_made, tier, tally, tmp_path):
    size = max(map(len, made[0].values()))
    for number, moment in enumerate(moments(made, size, tier(16, 220))):
        out = tmp_path / str(number)
        with tally.trial(moment):
            job = start("make-records", clips, "--out", out, *OPTIONS, "--workers", 1, folder=out, **moment)
            assert job.wait() != 1, job.output()[-500:]
            expect_made(out)
        shutil.rmtree(out, ignore_errors=True)
