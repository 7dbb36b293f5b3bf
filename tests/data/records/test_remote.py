"""Records at URLs."""

import os

import numpy as np
import pytest
from object_store import cached_bytes, ended_after, objects, served
from record_folders import OPTIONS, finished_files

from audiotag import remote
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches, explain_damage, training_batches
from audiotag.data.records import check_records, read_manifest, write_records
from audiotag.data.records import remote as shards_at_urls
from audiotag.data.records.manifest import refuse_replaced
from audiotag.data.records.offsets import PcmShard, RemoteShard, find_offsets
from audiotag.errors import ConfigError, DataError
from audiotag.remote import Store


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The URL of a store in memory, with an empty cache; requests are not repeated."""
    import fsspec

    monkeypatch.setenv("AUDIOTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/records"


@pytest.fixture
def uploaded(memory, source):
    write_records(source, memory, **OPTIONS)
    return memory


@pytest.fixture(params=["pcm", "flac"])
def both(request, source, memory, tmp_path):
    """The same records in a folder and at a URL, with a cache for three shards."""
    options = OPTIONS | {"codec": request.param}
    local = write_records(source, tmp_path / "local", **options)
    return local, write_records(source, memory, **options)


def batches_of(manifest, offsets):
    """All batches of two epochs of training, and of an evaluation, as arrays."""
    clips = read_clips(manifest.directory / "clips.csv")
    truth, options = multi_hot(clips["labels"], manifest.vocabulary), {"pad": "repeat", "batch_size": 7, "seed": 3}
    found = training_batches(
        manifest, clips, truth, window_samples=300, epochs=range(2), offsets=offsets, **options
    ).as_numpy_iterator()
    yield from found
    yield from evaluation_batches(
        manifest, clips, window_samples=300, batch_size=7, offsets=offsets
    ).as_numpy_iterator()


def test_a_store_that_fails_gives_the_same_records_and_nothing_incomplete(source, complete, tmp_path):
    with served(tmp_path / "cache", every=3) as store:
        url = f"{store.url}/records"
        manifest = write_records(source, url, **OPTIONS)
        store.every = 0
        assert objects(url) == finished_files(complete)
        assert manifest.place == url
        store.every = 4
        expected = [*batches_of(read_manifest(complete), find_offsets(read_manifest(complete)))]
        found = [*batches_of(manifest, find_offsets(manifest))]
        assert len(found) == len(expected) > 20
        for one, other in zip(found, expected):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
        assert store.num_failed > 10


def test_batches_are_the_same_from_a_cache_for_three_shards(both, tmp_path, monkeypatch):
    local, there = both
    bound = 3 * max(shard.bytes for shard in there.shards)
    monkeypatch.setenv("AUDIOTAG_CACHE_GB", str((bound + 10) / 1e9))
    expected, most = [*batches_of(local, find_offsets(local))], 0
    for (one, truth), other in zip(batches_of(there, find_offsets(there)), expected, strict=True):
        np.testing.assert_array_equal(one, other[0])
        np.testing.assert_array_equal(truth, other[1])
        most = max(most, cached_bytes(tmp_path / "cache"))
    assert 0 < most <= bound + 10 < sum(shard.bytes for shard in there.shards)


@pytest.mark.parametrize("both", ["pcm"], indirect=True)
def test_a_copy_that_another_thread_removed_and_fetched_again_is_read(both, monkeypatch):
    local, there = both
    shard, read = there.shards[0], PcmShard.read
    whole = PcmShard(local.directory / shard.file, shard.sha256, len(shard.clips))
    expected, found = np.zeros((2, whole.num_samples[0]), "int16")
    whole.read(0, 0, expected)

    def read_once_removed(copy, *arguments):
        monkeypatch.setattr(PcmShard, "read", read)
        os.unlink(copy.path)
        try:
            read(copy, *arguments)
        finally:
            there.remote.fetch(shard.file)

    monkeypatch.setattr(PcmShard, "read", read_once_removed)
    RemoteShard(there.remote, shard, whole.num_samples).read(0, 0, found)
    np.testing.assert_array_equal(found, expected)
    assert PcmShard.read is read and expected.any()


def test_what_is_in_the_cache_is_not_read_again_if_it_is_intact(uploaded, tmp_path, monkeypatch):
    manifest = read_manifest(uploaded)
    first = manifest.shards[0].file
    content = manifest.remote.fetch(first).read_bytes()
    calls = []
    monkeypatch.setattr(Store, "read_part", lambda self, name, *_: calls.append(name) or content)
    assert read_manifest(uploaded).remote.fetch(first).read_bytes() == content and not calls
    (manifest.directory / first).write_bytes(content[:-1] + b"?")
    assert read_manifest(uploaded).remote.fetch(first).read_bytes() == content and calls == [first]


def test_the_next_shards_are_fetched_before_they_are_read(uploaded, monkeypatch):
    monkeypatch.setattr(shards_at_urls, "MAX_AHEAD", 4)
    shards = read_manifest(uploaded).remote
    order = [shard.file for shard in read_manifest(uploaded).shards]
    shards.expect(order, "training")
    assert appear(shards.folder, order[:4])
    shards.reading(order[0])
    assert appear(shards.folder, order[:5])


def appear(folder, names, seconds=10):
    """Whether exactly these shards are in a folder, soon."""
    import time

    end = time.monotonic() + seconds
    while {path.name for path in folder.glob("clips-*")} != set(names) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    return {path.name for path in folder.glob("clips-*")} == set(names)


def test_a_shard_that_is_damaged_or_gone_is_an_error_with_its_address(uploaded):
    manifest, store = read_manifest(uploaded), Store(uploaded)
    name = manifest.shards[1].file
    content = store.read(name)
    store.write(name, content[:-1] + b"?")
    for message in ("its SHA-256 is not the manifest's", "is missing"):
        with pytest.raises(DataError, match=f"{uploaded}/{name}: {message}"):
            with explain_damage(manifest):
                [*batches_of(manifest, find_offsets(manifest))]
        assert any(message in sentence for sentence in check_sentences(manifest))
        store.remove(name)
    with pytest.raises(DataError, match="is missing; the manifest expects"):
        read_manifest(uploaded)
    store.write(name, content[:-1])
    with pytest.raises(DataError, match=f"has {len(content) - 1} bytes; the manifest expects {len(content)}"):
        read_manifest(uploaded)
    store.write(name, content)
    assert [*check_records(uploaded)] == []


def check_sentences(manifest):
    from audiotag.data.records.manifest import damaged_shards

    return [*damaged_shards(manifest)]


def test_records_killed_at_any_request_are_never_complete_too_early(source, complete, memory, monkeypatch):
    """Each call of make-records ends one request later, until one is not interrupted."""
    content = finished_files(complete)
    for last in range(1, 100):
        with ended_after(last, monkeypatch):
            write_records(source, memory, **OPTIONS)
            break
        if "manifest.json" in objects(memory):
            assert objects(memory) == content
        else:
            with pytest.raises(DataError, match="has not finished here"):
                read_manifest(memory)
    assert 5 < last < 99 and objects(memory) == content


def test_other_records_are_replaced_only_if_asked_for(source, uploaded, tmp_path):
    before = read_manifest(uploaded)
    assert write_records(source, uploaded, **OPTIONS) == before
    other = OPTIONS | {"clips_per_shard": 20}
    with pytest.raises(DataError, match=f"{uploaded}: holds finished records of other clips or options"):
        write_records(source, uploaded, **other)
    assert len(write_records(source, uploaded, overwrite=True, **other).shards) < len(before.shards)
    assert objects(uploaded) == finished_files(write_records(source, tmp_path / "out", **other).directory)
    with pytest.raises(DataError, match=f"{uploaded}: the records were replaced while they were in use"):
        refuse_replaced(before)
    assert not [*(tmp_path / "cache" / "outgoing").iterdir()]


def test_a_bound_below_a_shard_is_refused(uploaded, monkeypatch):
    monkeypatch.setenv("AUDIOTAG_CACHE_GB", "1e-6")
    with pytest.raises(ConfigError, match="AUDIOTAG_CACHE_GB allows 1e-06 GB"):
        read_manifest(uploaded).remote.fetch(read_manifest(uploaded).shards[0].file)
    monkeypatch.setenv("AUDIOTAG_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="AUDIOTAG_CACHE_GB is 'much'"):
        remote.cache_bytes()


def test_a_url_of_an_unknown_kind_says_what_to_install():
    with pytest.raises(ConfigError, match=r"audiotag-trainer\[remote\]"):
        read_manifest("nowhere://bucket/records")
