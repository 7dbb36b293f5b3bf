import io
import os
import re
import sys
import time
import types
from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
import soundfile as sf
import tensorflow as tf
from scipy.stats import chisquare

from audiotag.data import pipeline
from audiotag.data.audio.decoding import decode_file, to_pcm
from audiotag.data.clips import read_clips
from audiotag.data.pipeline import Stopwatch, WindowFeatures, evaluation_batches, training_batches, window_batches
from audiotag.data.records import read_manifest, write_records
from audiotag.data.records.offsets import find_offsets
from audiotag.data.sources import find_clips
from audiotag.errors import DataError

RATE = 16_000
WINDOW = 100
SHORT = [1, 2, 3, 7, 33, 49, 50, 51, 98, 99]
LONG = [100, 101, 102, 150, 199, 200, 201, 300, 399, 400, 401, 799, 800, 801, 2_000]
NUM_STARTS = 10  # of a window in each of the last clips
EQUAL = [WINDOW + NUM_STARTS - 1] * 20
CODECS = ("pcm", "flac")
with_tensorflow_io = pytest.mark.skipif(pipeline.tensorflow_io() is None, reason="tensorflow-io is not installed")


@pytest.fixture(scope="module")
def dataset(recordings, tmp_path_factory):
    """(source, {name: int16 [N]}) of 45 clips of noise, so that no two windows are alike."""
    return recordings(tmp_path_factory.mktemp("noise"), [*SHORT, *LONG, *EQUAL])


@pytest.fixture(scope="module")
def sounds(dataset):
    return dataset[1]


@pytest.fixture(scope="module")
def packed(dataset, tmp_path_factory):
    """A function: codec and clips per shard → (manifest, table of clips) of the dataset."""
    made = {}

    def pack(codec="pcm", clips_per_shard=8):
        if (codec, clips_per_shard) not in made:
            out = tmp_path_factory.mktemp("records")
            options = {"sample_rate": RATE, "codec": codec, "clips_per_shard": clips_per_shard, "workers": 0}
            made[codec, clips_per_shard] = write_records(dataset[0], out, **options), read_clips(out / "clips.csv")
        return made[codec, clips_per_shard]

    return pack


def named_windows(batches, clips):
    """[(name, int16 [N]), ...] of training batches whose truth is one-hot, with one class per row of `clips`."""
    names = clips["name"].tolist()
    return [
        (names[row], window)
        for waveform, truth in batches.as_numpy_iterator()
        for row, window in zip(truth.argmax(axis=1), waveform)
    ]


def windows(packed, clips=None, *, epochs=range(1), pad="repeat", batch_size=1, seed=1, **options):
    """[(name, window), ...] in the order of training."""
    manifest, table = packed
    clips = table if clips is None else clips
    batches = training_batches(
        manifest, clips, np.eye(len(clips)), window_samples=WINDOW, pad=pad, batch_size=batch_size,
        seed=seed, epochs=epochs, **options,
    )  # fmt: skip
    return named_windows(batches, clips)


def equal(windows, others):
    return len(windows) == len(others) and all(
        name == other and np.array_equal(window, another) for (name, window), (other, another) in zip(windows, others)
    )


def starts_in(sound, window):
    """The positions of a window in a clip."""
    return np.flatnonzero((np.lib.stride_tricks.sliding_window_view(sound, len(window)) == window).all(axis=1))


# Training: what is in a window


@pytest.mark.parametrize("codec", CODECS)
def test_a_window_is_a_slice_of_its_clip(packed, sounds, codec):
    found = windows(packed(codec), epochs=range(3))
    assert len(found) == 3 * len(sounds)
    for name, window in found:
        assert window.shape == (WINDOW,)
        if len(sounds[name]) >= WINDOW:
            assert len(starts_in(sounds[name], window)) == 1


@pytest.mark.parametrize("codec", CODECS)
def test_a_short_clip_is_repeated_until_the_window_is_full(packed, sounds, codec):
    for name, window in windows(packed(codec), pad="repeat"):
        if len(sounds[name]) < WINDOW:
            np.testing.assert_array_equal(window, np.resize(sounds[name], WINDOW))


@pytest.mark.parametrize("codec", CODECS)
def test_a_short_clip_is_centered_in_zeros(packed, sounds, codec):
    for name, window in windows(packed(codec), pad="zeros"):
        missing = WINDOW - len(sounds[name])
        if missing > 0:
            np.testing.assert_array_equal(window, np.pad(sounds[name], (missing // 2, missing - missing // 2)))


@pytest.mark.parametrize("codec", CODECS)
def test_a_short_clip_is_at_a_random_place_in_zeros(packed, sounds, codec):
    places = {}
    for name, window in windows(packed(codec), pad="random_zeros", epochs=range(3)):
        if len(sounds[name]) < WINDOW:
            (place,) = starts_in(window, sounds[name])
            assert not window[:place].any() and not window[place + len(sounds[name]) :].any()
            places.setdefault(name, []).append(place / (WINDOW - len(sounds[name])))
    drawn = np.concatenate([*places.values()])
    assert len(drawn) >= 9 and drawn.max() > 0.7 and drawn.min() < 0.3
    assert all(len(set(of_clip)) > 1 for of_clip in places.values())  # another place in each epoch


def test_every_codec_gives_the_same_windows_in_the_same_order(packed):
    for pad in ("repeat", "zeros", "random_zeros"):
        pcm, flac = (windows(packed(codec), pad=pad, epochs=range(2)) for codec in CODECS)
        assert equal(pcm, flac)


def test_a_waveform_is_the_samples_of_the_clip_and_has_its_truth(packed, sounds):
    manifest, clips = packed()
    truth = np.random.default_rng(0).random((len(clips), 7)).astype("float32")
    batches = training_batches(
        manifest, clips, truth, window_samples=1, pad="zeros", batch_size=9, seed=0, epochs=range(1)
    )
    assert batches.element_spec == (tf.TensorSpec([9, 1], tf.int16), tf.TensorSpec([9, 7], tf.float32))
    rows = {row.tobytes(): name for row, name in zip(truth, clips["name"])}
    for waveform, targets in batches.as_numpy_iterator():
        for sample, row in zip(waveform[:, 0], targets):
            assert sample in sounds[rows[row.tobytes()]]


# Training: which windows, and in which order


def test_every_clip_is_used_once_per_epoch(packed):
    _, clips = packed()
    for epoch in range(3):
        assert sorted(name for name, _ in windows(packed(), epochs=range(epoch, epoch + 1))) == sorted(clips["name"])


def test_an_incomplete_last_batch_of_an_epoch_is_dropped(packed):
    _, clips = packed()
    found = windows(packed(), batch_size=7, epochs=range(4))
    assert len(found) == 4 * (45 // 7) * 7
    for epoch in range(4):
        counts = Counter(name for name, _ in found[epoch * 42 : (epoch + 1) * 42])
        assert len(counts) == 42 and counts.keys() <= set(clips["name"])


def test_the_cardinality_is_the_number_of_batches(packed):
    manifest, clips = packed()
    for epochs, batch_size in ((range(1), 45), (range(3), 7), (range(2, 9), 1)):
        batches = training_batches(
            manifest, clips, np.eye(45), window_samples=WINDOW, pad="zeros", batch_size=batch_size, seed=0,
            epochs=epochs,
        )  # fmt: skip
        assert batches.cardinality() == len(epochs) * (45 // batch_size) == len([*batches])


def test_one_seed_repeats_the_batches(packed):
    assert equal(windows(packed(), epochs=range(2), batch_size=7), windows(packed(), epochs=range(2), batch_size=7))


def test_a_resumed_run_has_the_batches_of_an_uninterrupted_one(packed):
    uninterrupted = windows(packed(), epochs=range(5), batch_size=7)
    for epoch in (1, 3):
        assert equal(windows(packed(), epochs=range(epoch, 5), batch_size=7), uninterrupted[epoch * 42 :])


def test_another_epoch_or_seed_gives_other_windows_in_another_order(packed):
    clips = packed()[1].tail(20)
    first, second = np.split(np.array(starts(packed(), clips, epochs=range(2))), 2)
    other = np.array(starts(packed(), clips, seed=2))
    for one, another in ((first, second), (first, other), (second, other)):
        assert one[:, 0].tolist() != another[:, 0].tolist()
        assert dict(one.tolist()) != dict(another.tolist())


def starts(packed, clips, **options):
    """[(number of the clip, start of the window), ...] for clips in which all windows differ."""
    sounds = dict(complete_clips(packed, clips))
    return [
        (int(name[:4]), int(starts_in(sounds[name], window)[0])) for name, window in windows(packed, clips, **options)
    ]


def complete_clips(packed, clips, batch_size=64, offsets=None):
    """(name, int16 [N]) of every clip, without the padding."""
    manifest, _ = packed
    names, lengths = clips["name"].tolist(), clips["num_samples"].tolist()
    options = {"window_samples": WINDOW, "batch_size": batch_size, "offsets": offsets}
    for waveform, rows in evaluation_batches(manifest, clips, **options):
        for row, pcm in zip(rows.numpy(), waveform.numpy()):
            assert not pcm[lengths[row] :].any()  # zeros, and only after the end
            yield names[row], pcm[: lengths[row]]


@pytest.fixture(scope="module")
def random_starts(packed):
    """The starts of the windows of 20 clips in 100 epochs: int [clips, epochs]."""
    found = starts(packed(), packed()[1].tail(len(EQUAL)), epochs=range(100))
    return np.array([start for _, start in sorted(found, key=lambda clip: clip[0])]).reshape(len(EQUAL), 100)


def test_the_start_of_a_window_is_uniform(random_starts):
    counts = np.bincount(random_starts.ravel())
    assert len(counts) == NUM_STARTS  # including the first and the last
    assert chisquare(counts).pvalue > 1e-4  # fails by chance for one seed in 10,000


def test_starts_are_independent_between_clips_and_epochs(random_starts):
    correlation = np.abs(np.corrcoef(random_starts)[np.triu_indices(len(EQUAL), 1)])
    assert correlation.max() < 0.45  # 190 pairs, 4.5 standard deviations: fails by chance for one seed in 700
    repeated = random_starts[:, 1:] == random_starts[:, :-1]
    assert repeated.mean() == pytest.approx(1 / NUM_STARTS, abs=0.03)  # 4.4 standard deviations


def test_a_clip_has_one_more_start_than_samples_beyond_the_window(packed, sounds):
    clips = packed()[1]
    clips = clips[clips["num_samples"].isin([WINDOW, WINDOW + 1])]
    found = starts(packed(), clips, epochs=range(40))
    lengths = {int(name[:4]): len(sounds[name]) for name in clips["name"]}
    assert {start for name, start in found if lengths[name] == WINDOW} == {0}
    assert {start for name, start in found if lengths[name] == WINDOW + 1} == {0, 1}


def test_the_start_of_a_window_does_not_depend_on_the_shards(packed):
    one, another = (windows(packed("pcm", clips_per_shard), epochs=range(1, 2)) for clips_per_shard in (4, 128))
    assert [name for name, _ in one] != [name for name, _ in another]
    assert equal(sorted(one, key=lambda clip: clip[0]), sorted(another, key=lambda clip: clip[0]))


def test_the_window_of_a_clip_does_not_depend_on_the_other_clips(packed):
    clips = packed()[1]
    some = clips.sample(frac=0.4, random_state=0)
    of_all = dict(windows(packed()))
    of_some = windows(packed(), some)
    assert sorted(name for name, _ in of_some) == sorted(some["name"])  # and no other
    for name, window in of_some:
        np.testing.assert_array_equal(window, of_all[name])


def test_neighbors_in_the_shards_are_rarely_neighbors_in_the_batches(packed):
    orders = [[name for name, _ in windows(packed(), epochs=range(epoch, epoch + 1))] for epoch in range(4)]
    pairs = [set(pairwise(order)) for order in orders]
    for index, some in enumerate(pairs):
        for others in pairs[:index]:
            assert len(some & others) < 8  # of 44, one expected


# Training: windows by offset


@pytest.mark.parametrize("pad, fraction", [("repeat", 0.5), ("zeros", 1.0)], ids=["some clips", "all clips"])
@pytest.mark.parametrize("drawn", [False, True], ids=["each once", "drawn"])
def test_windows_by_offset_are_those_of_the_sequential_reader(packed, pad, fraction, drawn):
    manifest, clips = packed("pcm", 4)
    clips = clips.sample(frac=fraction, random_state=0).reset_index(drop=True)
    options = {"pad": pad, "batch_size": 7, "epochs": range(1, 4)}
    if drawn:
        options |= {"probabilities": np.arange(1.0, len(clips) + 1), "num_steps": 17}
    sequential = windows((manifest, clips), **options)
    assert equal(windows((manifest, clips), **options, offsets=find_offsets(manifest)), sequential)
    assert len({name for name, _ in sequential}) > len(clips) / 2


# Sliding windows


@pytest.mark.parametrize("by_offset", [True, False])
def test_the_parts_of_several_processes_are_the_batch(packed, by_offset):
    manifest, clips = packed()
    options = {"batch_size": 6, "offsets": find_offsets(manifest) if by_offset else None}
    whole = windows((manifest, clips), **options)
    parts = [windows((manifest, clips), share=(index, 3), **options) for index in range(3)]
    joined = [pair for start in range(0, len(whole) // 3, 2) for part in parts for pair in part[start : start + 2]]
    assert len(whole) == 42
    assert equal(joined, whole)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("pad", ["repeat", "zeros"])
def test_every_sliding_window_of_a_clip_follows_the_one_before_and_the_last_ends_with_it(packed, sounds, codec, pad):
    manifest, clips = packed(codec)
    offsets = find_offsets(manifest) if codec == "pcm" else None
    options = {"window_samples": WINDOW, "pad": pad, "hop": 30, "batch_size": 7, "offsets": offsets}
    found = {name: [] for name in clips["name"]}
    for waveform, rows in window_batches(manifest, clips, **options).as_numpy_iterator():
        for window, row in zip(waveform, rows):
            found[clips["name"][row]].append(window)
    for name, sound in sounds.items():
        spare = len(sound) - WINDOW
        starts = [0] if spare <= 0 else [*range(0, spare, 30), spare]
        assert len(found[name]) == len(starts)
        for window, start in zip(found[name], starts):
            if spare >= 0:
                np.testing.assert_array_equal(window, sound[start : start + WINDOW])
            elif pad == "repeat":
                np.testing.assert_array_equal(window, np.resize(sound, WINDOW))
            else:
                np.testing.assert_array_equal(window[(-spare) // 2 :][: len(sound)], sound)


@pytest.mark.parametrize("probabilities", [None, np.arange(1.0, 46)])
def test_sliding_windows_in_training_are_drawn_alike_from_records_and_from_features(packed, sounds, probabilities):
    manifest, clips = packed()
    sampling = {} if probabilities is None else {"probabilities": probabilities, "num_steps": 60}
    values, counts = [], []
    for name in clips["name"]:
        sound, spare = sounds[name], max(len(sounds[name]) - WINDOW, 0)
        starts = [*range(0, spare, 30), spare]
        counts.append(len(starts))
        values += [np.resize(sound[start:], WINDOW) for start in starts]
    options = {"epochs": range(2), "hop": 30, **sampling}
    drawn = windows((manifest, clips), **options)
    assert equal(windows((manifest, clips), offsets=find_offsets(manifest), **options), drawn)
    features = WindowFeatures(np.stack(values), np.array(counts))
    assert equal(windows((manifest, clips), features=features, **options), drawn)
    assert len({window.tobytes() for _, window in drawn}) > len({name for name, _ in drawn})


@pytest.mark.parametrize("threads", [1, 5])
def test_an_epoch_continues_in_the_middle_with_any_number_of_threads(packed, threads):
    manifest, clips = packed()
    uninterrupted = windows(packed(), batch_size=4, epochs=range(3))
    batches = training_batches(
        manifest, clips, np.eye(len(clips)), window_samples=WINDOW, pad="repeat", batch_size=4, seed=1,
        epochs=range(1, 3), offsets=find_offsets(manifest),
    )  # fmt: skip
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    rest = named_windows(batches.skip(5).with_options(options), clips)
    assert equal(rest, uninterrupted[(11 + 5) * 4 :])


def cut(path):
    os.truncate(path, path.stat().st_size - 1_000)


def alter_the_last_sample(path):
    content = bytearray(path.read_bytes())
    content[content.rindex(b"codec") - 20] ^= 1
    path.write_bytes(content)


@pytest.mark.check("B6")
@pytest.mark.parametrize("change", [cut, os.remove, alter_the_last_sample])
def test_a_shard_that_changes_while_windows_are_read_is_named(dataset, tmp_path, change):
    manifest = write_records(dataset[0], tmp_path, sample_rate=RATE, workers=0, clips_per_shard=8)
    clips, path = read_clips(tmp_path / "clips.csv"), tmp_path / manifest.shards[2].file
    batches = training_batches(
        manifest, clips, np.eye(len(clips)), window_samples=WINDOW, pad="zeros", batch_size=9, seed=0,
        epochs=range(1_000), offsets=find_offsets(manifest),
    )  # fmt: skip
    with pytest.raises(DataError, match=f"{path.name}: (damaged|is missing; it held 8)"):
        with pipeline.explain_damage(manifest):
            for number, _ in enumerate(batches):
                if number == 3:
                    change(path)


@pytest.mark.check("B6")
def test_a_shard_that_is_only_copied_while_windows_are_read_changes_nothing(packed):
    manifest, clips = packed()
    offsets = find_offsets(manifest)
    for path in manifest.paths_holding(clips["name"]):
        os.utime(path)
    assert equal(windows(packed(), offsets=offsets), windows(packed()))


# Evaluation


@pytest.mark.parametrize("codec", [*CODECS, "pcm, by offset"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_clip_is_complete_and_used_once(packed, sounds, codec, batch_size):
    codec, _, by_offset = codec.partition(", ")
    manifest, clips = packed(codec)
    found = [*complete_clips((manifest, clips), clips, batch_size, find_offsets(manifest) if by_offset else None)]
    assert sorted(name for name, _ in found) == sorted(sounds)
    for name, pcm in found:
        np.testing.assert_array_equal(pcm, sounds[name])


def test_a_row_is_the_position_in_the_given_table(packed, sounds):
    some = packed()[1].sample(n=13, random_state=1)
    for offsets in (None, find_offsets(packed()[0])):
        found = dict(complete_clips(packed(), some, batch_size=5, offsets=offsets))
        assert found.keys() == set(some["name"])
        for name, pcm in found.items():
            np.testing.assert_array_equal(pcm, sounds[name])


@pytest.mark.parametrize("limit", [0, 1 << 28], ids=["read again", "in memory"])
def test_batches_that_are_read_several_times_are_the_same_each_time(packed, limit, monkeypatch):
    monkeypatch.setattr(pipeline, "CACHED_BYTES", limit)
    options = {"window_samples": WINDOW, "batch_size": 7}
    expected = [[tensor.numpy() for tensor in batch] for batch in evaluation_batches(*packed(), **options)]
    repeated = evaluation_batches(*packed(), **options, repeated=True)
    for _ in range(3):
        for batch, again in zip(expected, repeated, strict=True):
            for array, tensor in zip(batch, again):
                np.testing.assert_array_equal(array, tensor)


@pytest.mark.parametrize("by_offset", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_have_few_lengths_and_no_more_samples_than_a_batch_of_windows(packed, batch_size, by_offset):
    manifest, clips = packed()
    offsets = find_offsets(manifest) if by_offset else None
    batches = evaluation_batches(manifest, clips, window_samples=WINDOW, batch_size=batch_size, offsets=offsets)
    shapes = [waveform.shape for waveform, _ in batches]
    assert batches.cardinality() == len(shapes)
    assert {length for _, length in shapes} == {100, 142, 200, 283, 400, 566, 800, 1_132, 2_263}  # half octaves
    assert all(count == 1 or count * length <= batch_size * WINDOW for count, length in shapes)
    assert (min(batch_size, 11), WINDOW) in shapes  # 11 clips are no longer than a window


# What is refused


@pytest.mark.parametrize("batches", [training_batches, evaluation_batches])
def test_clips_that_are_not_in_the_records_are_refused(packed, batches):
    manifest, clips = packed()
    clips = clips.assign(name=["other.wav", "another.wav", *clips["name"][2:]])
    options = {"truth": np.eye(45), "pad": "zeros", "seed": 0, "epochs": range(1)}
    with pytest.raises(DataError, match="2 clips are not in these records, such as other.wav"):
        batches(
            manifest, clips, window_samples=WINDOW, batch_size=4, **(options if batches is training_batches else {})
        )


def test_a_batch_of_more_clips_than_there_are_is_refused(packed):
    with pytest.raises(DataError, match="45 clips do not fill a batch of 46. Give more clips or a smaller batch_size"):
        windows(packed(), batch_size=46)


@pytest.fixture
def with_damage(dataset, tmp_path):
    """A function: a change of the content of a shard → the records with that shard changed, but not the manifest."""

    def damage(change):
        write_records(dataset[0], tmp_path, sample_rate=RATE, workers=0, clips_per_shard=8)
        manifest = read_manifest(tmp_path)
        path = tmp_path / manifest.shards[2].file
        content = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
        with tf.io.TFRecordWriter(str(path)) as shard:
            for record in change(content):
                shard.write(record)
        return manifest, read_clips(tmp_path / "clips.csv")

    return damage


@pytest.mark.parametrize(
    "change", [lambda content: content[:-1], lambda content: content + content[:1]], ids=["missing", "twice"]
)
def test_a_missing_or_repeated_record_is_an_error(with_damage, change):
    packed = with_damage(change)
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 45 elements"):
        list(complete_clips(packed, packed[1]))
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 45 elements"):
        windows(packed, batch_size=7)


def test_a_flipped_bit_in_a_record_is_an_error(with_damage):
    manifest, clips = packed = with_damage(lambda content: content)
    path = manifest.directory / manifest.shards[2].file
    content = bytearray(path.read_bytes())
    for position in np.linspace(0, len(content) - 1, 6, dtype=int):
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
            list(complete_clips(packed, clips))
        content[position] ^= 1
    path.write_bytes(content)
    assert len(list(complete_clips(packed, clips))) == 45
    path.unlink()
    with pytest.raises(tf.errors.NotFoundError):
        windows(packed)


# Ogg and MP3 files in records


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """((manifest, clips), {name: int16 [N]}): Ogg, MP3 and WAV files in records of codec source."""
    folder = tmp_path_factory.mktemp("coded")
    (folder / "in" / "hum").mkdir(parents=True)
    sounds = {}
    for index, (kind, length) in enumerate(product(["ogg", "mp3", "mp3 untagged", "wav"], [60, 3_000, 40_000])):
        rng = np.random.default_rng(index)
        sound = rng.standard_normal((length, 1 + index % 2)).cumsum(axis=0)  # [N, channels]
        path = folder / "in" / "hum" / f"{index}.{kind[:3]}"
        untagged = kind == "mp3 untagged"
        sf.write(path, 0.9 * sound / np.abs(sound).max(), RATE, bitrate_mode="CONSTANT" if untagged else None)
        if untagged:  # the first frame has the delay that the encoder added; some encoders do not write it
            content = path.read_bytes()
            path.write_bytes(content[content.index(content[:2], 4) :])
        if untagged:  # libsndfile itself guesses the length, and cuts some
            decoded = decode_file(path.read_bytes(), path=path)[0]
            assert length <= len(decoded) <= length + 3 * 1_152
        else:
            decoded = sf.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
        sounds[f"hum/{path.name}"] = to_pcm(decoded)
    options = {"sample_rate": RATE, "codec": "source", "clips_per_shard": 4, "workers": 0}
    manifest = write_records(find_clips(folder / "in"), folder / "out", **options)
    return (manifest, read_clips(folder / "out" / "clips.csv")), sounds


def test_compressed_files_are_decoded_as_by_soundfile(coded):
    packed, sounds = coded
    found = dict(complete_clips(packed, packed[1], batch_size=400))
    assert found.keys() == sounds.keys()
    for name, pcm in found.items():
        # MP3 and Vorbis do not define exact samples: two decoders may differ in the last of 16 bits.
        np.testing.assert_allclose(pcm, sounds[name], rtol=0, atol=0 if name.endswith("wav") else 1)


def test_windows_of_compressed_files_are_slices_of_the_clip(coded):
    packed, _ = coded
    clips = dict(complete_clips(packed, packed[1], batch_size=400))
    for name, window in windows(packed, epochs=range(30)):
        if len(clips[name]) >= WINDOW:
            assert len(starts_in(clips[name], window)) >= 1
        else:
            np.testing.assert_array_equal(window, np.resize(clips[name], WINDOW))


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_a_window_is_decoded_as_in_the_complete_file(kind):
    sound = np.random.default_rng(0).standard_normal(80_000).cumsum()
    file = io.BytesIO()
    sf.write(file, 0.9 * sound / np.abs(sound).max(), RATE, format=kind)
    complete = pipeline._decode_with_soundfile(file.getvalue(), 0, len(sound))
    for start in range(0, 78_000, 450):
        window = pipeline._decode_with_soundfile(file.getvalue(), start, 2_000)
        np.testing.assert_array_equal(window, complete[start : start + 2_000])


# Both decoders


def operations(dataset):
    """The types of all operations that a dataset runs, including those in its functions."""
    variant = tf.data.experimental.to_variant(dataset)
    graph = tf.compat.v1.GraphDef.FromString(tf.raw_ops.DatasetToGraphV2(input_dataset=variant).numpy())
    return set(re.findall(r'\bop: "([\w>]+)"', str(graph)))


def datasets(packed):
    manifest, clips = packed
    truth = np.eye(len(clips))
    yield evaluation_batches(manifest, clips, window_samples=WINDOW, batch_size=4)
    yield training_batches(
        manifest, clips, truth, window_samples=WINDOW, pad="repeat", batch_size=4, seed=0, epochs=range(1)
    )


def test_pcm_is_read_without_python(packed):
    for dataset in datasets(packed("pcm")):
        types = operations(dataset)
        assert "ParseSingleExample" in types or "ParseExampleV2" in types
        assert not any("PyFunc" in name for name in types)


@with_tensorflow_io
def test_with_tensorflow_io_no_codec_needs_python(packed, coded):
    for records in (packed("flac"), coded[0]):
        for dataset in datasets(records):
            types = operations(dataset)
            assert {"IO>AudioDecodeFlac", "IO>AudioDecodeVorbis", "IO>AudioDecodeMP3"} <= types
            assert not any("PyFunc" in name for name in types)


@with_tensorflow_io
def test_both_decoders_give_the_same_windows(packed, coded, monkeypatch):
    results = []
    for tfio in (pipeline.tensorflow_io(), None):
        monkeypatch.setattr(pipeline, "tensorflow_io", lambda tfio=tfio: tfio)
        results.append([windows(records, epochs=range(5)) for records in (packed("flac"), coded[0])])
    (flac, mixed), (flac_in_python, mixed_in_python) = results
    assert equal(flac, flac_in_python)
    assert [name for name, _ in mixed] == [name for name, _ in mixed_in_python]
    for (name, window), (_, another) in zip(mixed, mixed_in_python):
        np.testing.assert_allclose(window, another, rtol=0, atol=0 if name.endswith("wav") else 1)


def test_a_tensorflow_io_that_was_built_for_another_tensorflow_is_not_used(packed, monkeypatch):
    def decode_flac(coded, dtype):
        raise NotImplementedError("unable to open file: libtensorflow_io.so")  # as beside TensorFlow 2.18 or later

    broken = types.SimpleNamespace(__version__="0.37.1", audio=types.SimpleNamespace(decode_flac=decode_flac))
    expected = windows(packed("pcm"), epochs=range(1))
    monkeypatch.setitem(sys.modules, "tensorflow_io", broken)
    pipeline.tensorflow_io.cache_clear()
    with pytest.warns(
        UserWarning, match=r"^tensorflow-io 0\.37\.1 cannot decode .* pip install 'audiotag-trainer\[io\]'"
    ):
        assert equal(windows(packed("flac"), epochs=range(1)), expected)
    pipeline.tensorflow_io.cache_clear()


# The stopwatch


def waiting(batches, seconds):
    """The same batches, each delayed by `seconds`."""
    return batches.map(lambda batch: tf.numpy_function(lambda b: (time.sleep(seconds), b)[1], [batch], tf.int64))


def test_waiting_for_a_slow_source_is_measured():
    stopwatch = Stopwatch()
    started = time.monotonic()
    assert [int(n) for n in stopwatch.timed(waiting(tf.data.Dataset.range(8), 0.05))] == [*range(8)]
    assert 8 * 0.05 <= stopwatch.seconds <= time.monotonic() - started


def test_a_source_that_is_ready_in_time_costs_almost_no_waiting():
    stopwatch = Stopwatch()
    for _ in stopwatch.timed(tf.data.Dataset.range(20).prefetch(20)):  # a second in all
        time.sleep(0.05)
    assert stopwatch.seconds < 0.3


def test_waiting_accumulates_over_epochs():
    stopwatch = Stopwatch()
    timed = stopwatch.timed(waiting(tf.data.Dataset.range(2), 0.05))
    list(timed)
    assert 0.1 <= stopwatch.seconds
    list(timed)
    assert 0.2 <= stopwatch.seconds


def test_the_stopwatch_changes_neither_batches_nor_their_number(packed):
    for dataset in datasets(packed()):
        timed = Stopwatch().timed(dataset)
        assert timed.element_spec == dataset.element_spec and timed.cardinality() == dataset.cardinality()
        for one, another in zip(timed.as_numpy_iterator(), dataset.as_numpy_iterator()):
            np.testing.assert_array_equal(one[0], another[0])


# Training: draws with replacement


def draws(packed, probabilities, *, num_steps, epochs=range(1), batch_size=10, seed=1, clips=None):
    manifest, table = packed
    clips = table if clips is None else clips
    batches = training_batches(
        manifest, clips, np.eye(len(clips)), window_samples=WINDOW, pad="repeat", batch_size=batch_size,
        seed=seed, epochs=epochs, probabilities=probabilities, num_steps=num_steps,
    )  # fmt: skip
    assert len(batches) == len(epochs) * num_steps
    return named_windows(batches, clips)


@pytest.mark.parametrize("codec", CODECS)
def test_clips_are_drawn_with_their_probabilities(packed, codec):
    clips = packed(codec)[1]
    probabilities = np.arange(1, len(clips) + 1) / np.arange(1, len(clips) + 1).sum()
    drawn = Counter(name for name, _ in draws(packed(codec), probabilities, num_steps=300))
    counts = [drawn[name] for name in clips["name"]]
    assert sum(counts) == 3_000
    assert chisquare(counts, 3_000 * probabilities).pvalue > 1e-3


def test_a_clip_of_probability_zero_is_never_drawn(packed):
    probabilities = np.ones(len(packed()[1]))
    probabilities[:40] = 0
    assert {name for name, _ in draws(packed(), probabilities, num_steps=20)} == set(packed()[1]["name"][40:])


def test_two_draws_of_a_clip_give_two_windows(packed, sounds):
    probabilities = (packed()[1]["num_samples"] == 2_000).astype(float)
    drawn = draws(packed(), probabilities, num_steps=5)
    starts = [int(starts_in(sounds[name], window)[0]) for name, window in drawn]
    assert len(starts) == 50 and len(set(starts)) > 40


def test_draws_are_shuffled_within_an_epoch(packed):
    names = [name for name, _ in draws(packed(), np.ones(45), num_steps=45)]  # ten rounds of 45 draws
    assert sum(one == other for one, other in pairwise(names)) < 45
    assert all(len(set(names[start : start + 45])) > 20 for start in range(0, 450, 45))


def test_draws_depend_on_seed_and_epoch_and_continue_when_resumed(packed):
    uninterrupted = draws(packed(), np.ones(45), num_steps=7, epochs=range(3))
    assert equal(uninterrupted, draws(packed(), np.ones(45), num_steps=7, epochs=range(3)))
    assert equal(uninterrupted[140:], draws(packed(), np.ones(45), num_steps=7, epochs=range(2, 3)))
    assert not equal(uninterrupted, draws(packed(), np.ones(45), num_steps=7, epochs=range(3), seed=2))


def test_only_the_given_clips_are_drawn_from_shards_with_others(packed):
    clips = packed()[1].iloc[::3].reset_index(drop=True)
    assert {name for name, _ in draws(packed(), np.ones(len(clips)), num_steps=20, clips=clips)} == set(clips["name"])


@pytest.mark.parametrize("probabilities", [None, np.ones(45)])
def test_the_global_seed_changes_nothing(packed, probabilities):
    read = (
        (lambda: windows(packed())) if probabilities is None else (lambda: draws(packed(), probabilities, num_steps=3))
    )
    series = []
    for seed in (None, 0, 1):
        tf.random.set_seed(seed)
        series.append(read())
    tf.random.set_seed(None)
    assert equal(series[0], series[1]) and equal(series[0], series[2])
