import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flips import bits, flipped
from hypothesis import given
from hypothesis import strategies as st
from tiers import law

from audiotag.data.records import check_records, write_records
from audiotag.data.records import manifest as manifests
from audiotag.data.records.manifest import (
    MANIFEST_FILE,
    Manifest,
    Shard,
    canonical,
    damaged_shards,
    digest,
    read_manifest,
    write_manifest,
)
from audiotag.errors import DataError


@pytest.fixture(scope="module")
def source(recordings, tmp_path_factory):
    return recordings(tmp_path_factory.mktemp("manifest") / "in", [60] * 14, subsets=("curated", "noisy"))[0]


@pytest.fixture(scope="module")
def complete(source, tmp_path_factory):
    """Records in four shards. Tests must not write into them."""
    out = tmp_path_factory.mktemp("manifest") / "out"
    write_records(source, out, sample_rate=16_000, workers=0, clips_per_shard=4)
    return out


@pytest.fixture
def out(complete, tmp_path):
    """A copy of these records, to damage."""
    return shutil.copytree(complete, tmp_path / "out")


def shards(out):
    return sorted(out.glob("clips-*.tfrecord"))


# Complete records

NAMES = st.lists(st.text(), max_size=5, unique=True).map(tuple)
SHARDS = st.lists(st.builds(Shard, st.just(""), st.text(), st.integers(0, 99), st.text(), NAMES), max_size=4)
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@law
@given(SHARDS, st.dictionaries(st.text(), ANYTHING), st.text(), NAMES)
def test_any_manifest_is_read_as_it_was_written(shards, options, fingerprint, vocabulary):
    with tempfile.TemporaryDirectory() as folder:
        shards = tuple(replace(shard, file=f"{number}.tfrecord") for number, shard in enumerate(shards))
        for shard in shards:
            (Path(folder) / shard.file).write_bytes(bytes(shard.bytes))
        manifest = Manifest(Path(folder), options, fingerprint, vocabulary, shards, {})
        write_manifest(manifest)
        assert read_manifest(folder) == manifest


def test_a_manifest_that_was_read_is_written_with_the_same_bytes(complete, tmp_path):
    manifest = read_manifest(complete)
    other = manifests.Manifest(**{**vars(manifest), "directory": tmp_path})
    write_manifest(other)
    assert (tmp_path / MANIFEST_FILE).read_bytes() == (complete / MANIFEST_FILE).read_bytes()
    assert [len(shard.clips) for shard in manifest.shards] == [4, 3, 4, 3]
    assert manifest.options == {
        "layout": "csv",
        "sample_rate": 16_000,
        "codec": "pcm",
        "trim": None,
        "trim_db": 60.0,
        "peak_db": None,
        "clips_per_shard": 4,
        "keep_known_bad": False,
        "skip_bad": False,
    }


def test_complete_records_have_no_damage(complete, capsys):
    assert list(check_records(complete)) == []
    assert "check-records: 4/4 shards" in capsys.readouterr().err


def test_records_can_be_moved(complete, tmp_path):
    moved = shutil.copytree(complete, tmp_path / "elsewhere")
    assert read_manifest(str(moved)).directory == moved
    assert list(check_records(moved)) == []


def test_paths_holding_returns_only_the_shards_of_the_clips(complete):
    manifest = read_manifest(complete)
    first, _, third, _ = manifest.shards
    assert manifest.paths_holding([]) == []
    assert manifest.paths_holding([third.clips[1], first.clips[0], first.clips[2]]) == [
        str(complete / first.file),
        str(complete / third.file),
    ]


def test_equal_content_has_the_same_text_and_digest():
    assert canonical({"b": (1, "ä"), "a": None}) == canonical({"a": None, "b": [1, "ä"]})
    assert json.loads(canonical({"b": (1, "ä"), "a": None})) == {"a": None, "b": [1, "ä"]}
    assert digest([1, 2]) == digest((1, 2)) != digest([2, 1])


# Damaged shards


@pytest.mark.check("B3")
def test_a_missing_shard_is_named(out):
    shards(out)[2].unlink()
    for check in (read_manifest, lambda out: list(check_records(out))):
        with pytest.raises(DataError, match="clips-00002-of-00004.tfrecord: is missing; .* and 4 clips. Make the rec"):
            check(out)


@pytest.mark.check("B3")
@pytest.mark.parametrize("change", [-1, -200, 1], ids=["a byte less", "truncated", "a byte more"])
def test_a_shard_of_another_length_is_named(out, change):
    content = shards(out)[1].read_bytes()
    shards(out)[1].write_bytes(content[:change] if change < 0 else content + b"x")
    size = len(content)
    message = f"clips-00001-of-00004.tfrecord: has {size + change} bytes; the manifest expects {size} bytes and 3 clip"
    with pytest.raises(DataError, match=message):
        read_manifest(out)


@pytest.mark.check("B1")
def test_a_flipped_bit_anywhere_in_a_shard_is_found_and_the_shard_named(out):
    manifest = read_manifest(out)
    content = shards(out)[1].read_bytes()
    for bit in bits(content, every=97):
        shards(out)[1].write_bytes(flipped(content, bit))
        (damage,) = damaged_shards(manifest)
        names, record = manifest.shards[1].clips, len(content) // 3  # of equal length
        assert "clips-00001-of-00004.tfrecord: damaged: its SHA-256 is not the manifest's" in damage
        assert damage.endswith(
            f"It holds 3 curated clips, {names[0]} to {names[-1]}. "
            f"The first damaged record is that of {names[bit // 8 // record]}."
        )
    assert list(check_records(out)) == [damage]


def test_every_damaged_shard_is_named(out):
    for index in (0, 3):
        shards(out)[index].write_bytes(flipped(shards(out)[index].read_bytes(), 1_000))
    damage = list(check_records(out))
    assert ["00000-of" in damage[0], "00003-of" in damage[1], len(damage)] == [True, True, 2]


@pytest.mark.check("B3")
def test_swapped_shards_are_found(out):
    first, second = shards(out)[0], shards(out)[2]  # of the same length
    one, other = first.read_bytes(), second.read_bytes()
    assert len(one) == len(other)
    first.write_bytes(other), second.write_bytes(one)
    assert ["clips-00000" in line or "clips-00002" in line for line in check_records(out)] == [True, True]


@pytest.mark.check("B3")
def test_swapped_records_within_a_shard_are_found(out):
    content = shards(out)[0].read_bytes()
    record = len(content) // 4
    shards(out)[0].write_bytes(content[record : 2 * record] + content[:record] + content[2 * record :])
    (damage,) = check_records(out)
    assert "clips-00000-of-00004.tfrecord: damaged" in damage


# A damaged manifest or table


@pytest.mark.check("B1")
def test_a_flipped_bit_anywhere_in_the_manifest_is_refused(out):
    content = (out / MANIFEST_FILE).read_bytes()
    for bit in bits(content, every=29):
        (out / MANIFEST_FILE).write_bytes(flipped(content, bit))
        with pytest.raises(DataError, match="manifest.json: altered since make-records wrote it.*Make the records"):
            read_manifest(out)


@pytest.mark.check("B3")
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"null", b'{"sha256": "00"}', b"\xff", bytes(100), b"[" * 100_000]
)
def test_other_content_in_its_place_is_refused(out, content):
    (out / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(DataError, match="manifest.json: altered"):
        read_manifest(out)


@pytest.mark.check("B3")
def test_the_same_content_in_another_format_is_refused(out):
    content = json.loads((out / MANIFEST_FILE).read_bytes())
    (out / MANIFEST_FILE).write_text(json.dumps(content))
    with pytest.raises(DataError, match="manifest.json: altered"):
        read_manifest(out)


@pytest.mark.check("B2")
def test_a_truncated_manifest_is_refused(out):
    content = (out / MANIFEST_FILE).read_bytes()
    for length in np.linspace(0, len(content) - 1, 40, dtype=int):
        (out / MANIFEST_FILE).write_bytes(content[:length])
        with pytest.raises(DataError, match="manifest.json: altered"):
            read_manifest(out)


def test_without_a_manifest_the_records_are_unfinished(out):
    (out / MANIFEST_FILE).unlink()
    with pytest.raises(DataError, match="out: no manifest.json, so make-records has not finished here. Run it again"):
        read_manifest(out)


def test_the_message_about_a_missing_directory_says_how_to_make_it(tmp_path):
    with pytest.raises(DataError, match="none: no such directory of records. Make it with: audiotag make-records SOU"):
        read_manifest(tmp_path / "none")


@pytest.mark.check("B3")
@pytest.mark.parametrize("version", [1, 2, 4])
def test_another_schema_version_is_refused(complete, out, monkeypatch, version):
    manifest = manifests.Manifest(**{**vars(read_manifest(complete)), "directory": out})
    with monkeypatch.context() as other:
        other.setattr(manifests, "SCHEMA_VERSION", version)
        write_manifest(manifest)
    message = (
        f"manifest.json: written by another version of audiotag, in schema {version}; this one reads schema 3, whose "
        "fingerprint covers the audio of the recordings. Make the records again with --overwrite"
    )
    with pytest.raises(DataError, match=message):
        read_manifest(out)


@pytest.mark.check("B1")
@pytest.mark.parametrize("table", ["clips.csv", "rejects.csv"])
def test_an_altered_table_is_refused(out, table):
    content = (out / table).read_bytes()
    for bit in bits(content, every=997 if table == "clips.csv" else 7):
        (out / table).write_bytes(flipped(content, bit))
        with pytest.raises(DataError, match=f"{table}: altered: its SHA-256 is not the manifest's. Make the"):
            read_manifest(out)


@pytest.mark.check("B3")
@pytest.mark.parametrize("table", ["clips.csv", "rejects.csv"])
def test_a_missing_table_is_refused(out, table):
    (out / table).unlink()
    with pytest.raises(DataError, match=f"{table}: missing"):
        read_manifest(out)


def test_a_damaged_directory_is_not_finished(source, out):
    shards(out)[0].unlink()
    options = {"sample_rate": 16_000, "workers": 0, "clips_per_shard": 4}
    with pytest.raises(DataError, match="is missing; .* Make the records again with --overwrite"):
        write_records(source, out, **options)
    write_records(source, out, overwrite=True, **options)
    assert list(check_records(out)) == []
