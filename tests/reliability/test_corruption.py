"""B: every change to records is found, and changed records are not trained on."""

import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from flips import flipped

from audiotag.data.records import check_records, read_manifest, write_records
from audiotag.data.records.manifest import refuse_damage
from audiotag.data.records.source_hashes import CACHE
from audiotag.errors import DataError
from audiotag.training.loop import fit


@pytest.fixture(scope="module")
def complete(recordings, tmp_path_factory):
    """Records of twelve clips in four shards."""
    folder = tmp_path_factory.mktemp("corruption")
    source, _ = recordings(folder / "in", [40] * 12, subsets=("curated", "noisy"))
    write_records(source, folder / "out", sample_rate=16_000, clips_per_shard=3, workers=0)
    return folder / "out"


@pytest.fixture
def out(complete, tmp_path):
    """A copy of these records, to damage."""
    return shutil.copytree(complete, tmp_path / "out")


def shards(folder):
    return sorted(folder.glob("clips-*.tfrecord"))


def damage_of(folder):
    """The message of check-records, or None if it finds nothing."""
    try:
        refuse_damage(read_manifest(folder))
    except DataError as error:
        return str(error)


def record_ends(content):
    """The byte after each record of a shard."""
    ends, at = [], 0
    while at < len(content):
        at += 16 + struct.unpack_from("<Q", content, at)[0]
        ends.append(at)
    return ends


def read_by_tensorflow(path, ignore_errors=False):
    """The number of records that tf.data reads; None if it raises."""
    records = tf.data.TFRecordDataset(str(path))
    try:
        return sum(1 for _ in (records.ignore_errors() if ignore_errors else records))
    except tf.errors.DataLossError:
        return None


@pytest.mark.check("B1")
def test_every_flipped_bit_is_found_with_its_shard_and_its_clip(out, tier, tally):
    manifest = read_manifest(out)
    (out / CACHE).unlink()  # not part of the records; tests/data/records/test_source_hashes.py damages it
    bits = [(path, bit) for path in sorted(out.iterdir()) for bit in range(8 * path.stat().st_size)]
    clips = {shard.file: shard.clips for shard in manifest.shards}
    every = tier(max(1, len(bits) // 1_000), 1)
    for path, bit in bits[::every]:
        content = path.read_bytes()
        with tally.trial(f"{path.name} bit {bit}"):
            path.write_bytes(flipped(content, bit))
            found = damage_of(out)
            assert found and path.name in found
            if path.name in clips:
                clip = clips[path.name][np.searchsorted(record_ends(content), bit // 8, side="right")]
                assert f"The first damaged record is that of {clip}." in found
        path.write_bytes(content)


@pytest.mark.check("B1")
def test_flipped_bits_that_tf_data_alone_finds(out, tier, tally):
    path = shards(out)[0]
    content = path.read_bytes()
    bits = range(0, 8 * len(content), tier(97, 1))
    silent = lost = 0
    for bit in bits:
        path.write_bytes(flipped(content, bit))
        silent += read_by_tensorflow(path) is not None
        lost += 3 - read_by_tensorflow(path, ignore_errors=True)
    tally.say(
        f"tf.data alone: {len(bits) - silent} of {len(bits)} flips in a shard of 3 clips found when read, without a "
        f"name; with ignore_errors none, and {lost} of {3 * len(bits)} clips left out silently"
    )


@pytest.mark.check("B2")
def test_every_cut_of_a_shard_is_found(out, tier, tally):
    path, read = shards(out)[1], []
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with tally.trial(f"cut to {length}"):
            found = damage_of(out)
            assert found and path.name in found and "expects" in found
        if length % tier(5, 1) == 0:
            read.append(read_by_tensorflow(path))
    silent = [count for count in read if count is not None]
    tally.say(
        f"tf.data alone: {len(silent)} of {len(read)} cuts of a shard of 3 clips read as complete, with fewer clips"
    )


def masked_crc(data):
    """TFRecord's checksum, computed bit by bit, to forge records."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(payload):
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked_crc(length)) + payload + struct.pack("<I", masked_crc(payload))


def tampered(folder, rng):
    """{kind: a function that does it}: ten ways to change a directory of records, at places drawn by `rng`."""
    one, other = rng.choice(shards(folder), 2, replace=False)
    content = one.read_bytes()
    borders = [0, *record_ends(content)]
    records = [content[start:end] for start, end in zip(borders, borders[1:])]
    first, second = rng.choice(len(records), 2, replace=False)

    def write(pieces):
        one.write_bytes(b"".join(pieces))

    def swap_shards():
        other_content = other.read_bytes()
        other.write_bytes(content), one.write_bytes(other_content)

    def swap_records():
        records[first], records[second] = records[second], records[first]
        write(records)

    def forge():
        payload = bytearray(records[first][12:-4])
        payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        records[first] = framed(bytes(payload))
        write(records)

    return {
        "junk added": lambda: write([content, rng.bytes(rng.integers(1, 40))]),
        "a valid record added": lambda: write([content, records[first]]),
        "a record twice, another gone": lambda: write([*records[:first], records[second], *records[first + 1 :]]),
        "a record gone": lambda: write(records[:first] + records[first + 1 :]),
        "two records swapped": swap_records,
        "two shards swapped": swap_shards,
        "a shard in the place of another": lambda: shutil.copy(other, one),
        "a shard renamed": lambda: one.rename(one.with_name("clips-00009-of-00004.tfrecord")),
        "a shard gone": one.unlink,
        "a forged checksum": forge,
    }


@pytest.mark.check("B3")
def test_every_kind_of_tampering_is_found(complete, tier, tally, tmp_path):
    for number in range(tier(6, 100)):
        for kind in tampered(complete, np.random.default_rng(number)):
            folder = shutil.copytree(complete, tmp_path / "out")
            with tally.trial(f"{kind}, {number}"):
                tampered(folder, np.random.default_rng(number))[kind]()
                assert damage_of(folder)
            shutil.rmtree(folder)


@pytest.mark.check("B3")
def test_kinds_of_tampering_that_tf_data_alone_finds(complete, tier, tally, tmp_path):
    found, tried = 0, 0
    for number in range(tier(2, 10)):
        for kind in tampered(complete, np.random.default_rng(number)):
            folder = shutil.copytree(complete, tmp_path / "out")
            tampered(folder, np.random.default_rng(number))[kind]()
            found += any(read_by_tensorflow(path) is None for path in shards(folder))
            tried += 1
            shutil.rmtree(folder)
    tally.say(f"tf.data alone, over the existing files: {found} of {tried} found")


@pytest.mark.check("B4")
def test_damaged_records_are_never_trained_on(records, tiny, tally, tier, tmp_path):
    for number in range(tier(2, 4)):
        for kind in [*tampered(records, np.random.default_rng(number)), "a flipped bit"]:
            folder = shutil.copytree(records, tmp_path / "records")
            with tally.trial(f"{kind}, {number}"):
                rng = np.random.default_rng(number)
                if kind == "a flipped bit":
                    path = rng.choice(shards(folder))
                    path.write_bytes(flipped(path.read_bytes(), int(rng.integers(8 * path.stat().st_size))))
                else:
                    tampered(folder, rng)[kind]()
                with pytest.raises(DataError, match="clips-0000"):
                    fit(tiny(f"records={folder}"), tmp_path / "run", say=lambda sentence: None)
                assert not list((tmp_path / "run").rglob("training_state.npz"))
                assert not list((tmp_path / "run").rglob("fold-*"))
            shutil.rmtree(folder)


@pytest.mark.check("B4")
def test_complete_records_pass(complete):
    assert damage_of(complete) is None and list(check_records(complete)) == []
