"""The faults of A1 and B1, as tensorflow-datasets takes them: what comes of it is said, and nothing is asked of it."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from flips import bits, flipped
from tiers import tier

TFDS = Path(__file__).parent / "tfds_alone.py"
FILES = ("clips-train.tfrecord-00000-of-00001", "dataset_info.json", "features.json")
CLIPS = 4_000

pytestmark = pytest.mark.skipif(
    tier(True, importlib.util.find_spec("tensorflow_datasets") is None),
    reason="of the full tier, for which make torture installs tensorflow-datasets",
)


def answers_of(start, folders):
    """What is read in each folder: [clips, SHA-256], or None where that is refused."""
    job = start("read", *folders, script=TFDS)
    job.wait(3_000)
    lines = [json.loads(line.removeprefix("read ")) for line in job.output().splitlines() if line.startswith("read ")]
    assert len(lines) == len(folders), job.output()[-500:]
    return [answer for _, answer in lines]


@pytest.mark.check("A1")
def test_killed_it_begins_anew(start, tally, tmp_path):
    folders, made, again, looks_whole, left = [tmp_path / str(number) for number in range(10)], 0, 0, 0, 0
    for number, folder in enumerate(folders):
        job = start("make", folder, CLIPS, script=TFDS)
        assert job.shows(f"clip {(number + 1) * CLIPS // len(folders) - 1}."), job.output()[-500:]
        job.kill().wait()
        looks_whole += (folder / "clips" / "1.0.0").exists()
        before = job.output().count("clip ")
        job = start("make", folder, CLIPS, script=TFDS)
        assert job.wait() == 0, job.output()[-500:]
        made, again = made + before, again + max(0, before + job.output().count("clip ") - CLIPS)
        left += len([path for path in folder.rglob("*incomplete.*") if path.is_dir()])
    ends = [answer and answer[0] for answer in answers_of(start, folders)]
    tally.say(
        f"tensorflow-datasets: of {len(folders)} killed, {looks_whole} looked whole at once and {ends.count(CLIPS)} "
        f"were whole in the end; of {made} clips that had been made {again} were made again, and {left} unfinished "
        f"folders stay behind"
    )


@pytest.mark.check("B1")
@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_found_or_not(start, tally, tmp_path, name):
    assert start("make", tmp_path / "whole", 24, script=TFDS).wait() == 0
    (whole,) = answers_of(start, [tmp_path / "whole"])
    content = (tmp_path / "whole" / "clips" / "1.0.0" / name).read_bytes()
    folders = []
    for bit in bits(content, count=300):
        folders.append(shutil.copytree(tmp_path / "whole", tmp_path / str(bit)))
        (folders[-1] / "clips" / "1.0.0" / name).write_bytes(flipped(content, bit))
    answers = answers_of(start, folders)
    found, same = answers.count(None), answers.count(whole)
    fewer = sum(answer is not None and answer[0] < whole[0] for answer in answers)
    tally.say(
        f"tensorflow-datasets: of {len(answers)} flips in {name}, {found} are refused, {same} change nothing that is "
        f"read, {len(answers) - found - same} are read as other clips, {fewer} of them as fewer clips"
    )
