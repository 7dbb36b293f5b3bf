import numpy as np
import pytest
import tensorflow as tf
from record_folders import OPTIONS

from audiotag.data.records import read_manifest, write_records
from audiotag.data.records.manifest import Shard
from audiotag.data.records.offsets import PcmShard, find_offsets


def audio_of(path):
    """The PCM of every record of a shard, read by TensorFlow."""
    for serialized in tf.data.TFRecordDataset(str(path)):
        yield tf.train.Example.FromString(serialized.numpy()).features.feature["audio"].bytes_list.value[0]


def test_offsets_are_those_of_the_pcm_of_each_clip(complete):
    manifest = read_manifest(complete)
    offsets = find_offsets(manifest)
    assert offsets.keys() == {shard.file for shard in manifest.shards}
    for name, shard in offsets.items():
        content = (complete / name).read_bytes()
        places = zip(shard.offsets.tolist(), shard.num_samples.tolist(), strict=True)
        assert [content[start : start + 2 * samples] for start, samples in places] == [*audio_of(complete / name)]


@pytest.mark.parametrize("samples", [1, 20, 40, 60, 63, 64, 8_170, 8_190, 8_192, 100_000, 1_100_000])
def test_the_length_of_a_clip_may_take_any_number_of_bytes(recordings, tmp_path, samples):
    source, sounds = recordings(tmp_path / "in", [samples, 5])
    manifest = write_records(source, tmp_path / "out", **OPTIONS)
    for shard in manifest.shards:
        found = find_offsets(manifest)[shard.file]
        for clip, (name, number) in enumerate(zip(shard.clips, found.num_samples.tolist())):
            pcm = np.empty(number, "int16")
            found.read(clip, 0, pcm)
            np.testing.assert_array_equal(pcm, sounds[name])


def test_compressed_records_have_none(source, tmp_path):
    assert find_offsets(write_records(source, tmp_path / "out", **OPTIONS | {"codec": "flac"})) is None


def test_shards_that_make_records_did_not_write_have_none(source, tmp_path):
    manifest = write_records(source, tmp_path / "out", **OPTIONS)
    path = tmp_path / "out" / manifest.shards[0].file
    content = path.read_bytes()
    for other in (content[:-1], content[:-200], content + b"1", content + content, b"", b"no records"):
        path.write_bytes(other)
        assert find_offsets(manifest) is None
    path.unlink()
    assert find_offsets(manifest) is None
    path.write_bytes(content)
    assert find_offsets(manifest) is not None


def test_a_shard_that_was_replaced_is_not_read(source, tmp_path):
    manifest = write_records(source, tmp_path / "out", **OPTIONS)
    shard: Shard = manifest.shards[0]
    path = tmp_path / "out" / shard.file
    content, pcm = path.read_bytes(), np.empty(4, "int16")
    found = PcmShard(path, shard.sha256, len(shard.clips))
    path.write_bytes(content)  # another time, the same content
    found.read(0, 0, pcm)
    assert pcm.tobytes() == content[found.offsets[0] :][:8]
    for other, message in ((content[:-1], "was changed"), (content[:-1] + b"?", "was changed"), (None, "be read")):
        path.unlink() if other is None else path.write_bytes(other)
        with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
            found.read(0, 0, pcm)
