"""The faults of A1 and B1 in tensorflow-datasets: results are reported for comparison, and nothing is required."""

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


def read_all(start, folders):
    """What is read from each folder: [clips, SHA-256], or None if it is refused."""
    job = start("read", *folders, script=TFDS)
    job.wait(3_000)
    lines = [json.loads(line.removeprefix("read ")) for line in job.output().splitlines() if line.startswith("read ")]
    assert len(lines) == len(folders), job.output()[-500:]
    return [content for _, content in lines]


@pytest.mark.check("A1")
def test_after_a_kill_it_starts_over(start, tally, tmp_path):
    folders, made, again, looks_complete, left = [tmp_path / str(number) for number in range(10)], 0, 0, 0, 0
    for number, folder in enumerate(folders):
        job = start("make", folder, CLIPS, script=TFDS)
        assert job.shows(f"clip {(number + 1) * CLIPS // len(folders) - 1}."), job.output()[-500:]
        job.kill().wait()
        looks_complete += (folder / "clips" / "1.0.0").exists()
        before = job.output().count("clip ")
        job = start("make", folder, CLIPS, script=TFDS)
        assert job.wait() == 0, job.output()[-500:]
        made, again = made + before, again + max(0, before + job.output().count("clip ") - CLIPS)
        left += len([path for path in folder.rglob("*incomplete.*") if path.is_dir()])
    ends = [content and content[0] for content in read_all(start, folders)]
    tally.say(
        f"tensorflow-datasets: of {len(folders)} killed, {looks_complete} looked complete at once and "
        f"{ends.count(CLIPS)} were complete in the end; of {made} clips that had been made {again} were made again, "
        f"and {left} unfinished folders remain"
    )


@pytest.mark.check("B1")
@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_may_be_found(start, tally, tmp_path, name):
    assert start("make", tmp_path / "original", 24, script=TFDS).wait() == 0
    (original,) = read_all(start, [tmp_path / "original"])
    content = (tmp_path / "original" / "clips" / "1.0.0" / name).read_bytes()
    folders = []
    for bit in bits(content, count=300):
        folders.append(shutil.copytree(tmp_path / "original", tmp_path / str(bit)))
        (folders[-1] / "clips" / "1.0.0" / name).write_bytes(flipped(content, bit))
    contents = read_all(start, folders)
    found, same = contents.count(None), contents.count(original)
    fewer = sum(content is not None and content[0] < original[0] for content in contents)
    tally.say(
        f"tensorflow-datasets: of {len(contents)} flips in {name}, {found} are refused, {same} change nothing that is "
        f"read, {len(contents) - found - same} are read as other clips, {fewer} of them as fewer clips"
    )
