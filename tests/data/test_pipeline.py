import io
import re
import time
from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
import soundfile as sf
import tensorflow as tf
from scipy.stats import chisquare

from audiotag.data import pipeline
from audiotag.data.audio.decoding import to_pcm
from audiotag.data.clips import read_clips
from audiotag.data.pipeline import Stopwatch, evaluation_batches, training_batches
from audiotag.data.records.manifest import read_manifest
from audiotag.data.records.writing import write_records
from audiotag.data.sources.layouts import find_clips
from audiotag.errors import DataError

RATE = 16_000
WINDOW = 100
SHORT = [1, 2, 3, 7, 33, 49, 50, 51, 98, 99]
LONG = [100, 101, 102, 150, 199, 200, 201, 300, 399, 400, 401, 799, 800, 801, 2_000]
PLACES = 10  # where a window may start in each of the last clips
SAME = [WINDOW + PLACES - 1] * 20
CODECS = ("pcm", "flac")
with_tensorflow_io = pytest.mark.skipif(pipeline.tfio is None, reason="tensorflow-io is not installed")


@pytest.fixture(scope="module")
def heard(recordings, tmp_path_factory):
    """(source, {name: int16 [N]}) of 45 clips of noise, so that no two windows are alike."""
    return recordings(tmp_path_factory.mktemp("noise"), [*SHORT, *LONG, *SAME])


@pytest.fixture(scope="module")
def sounds(heard):
    return heard[1]


@pytest.fixture(scope="module")
def packed(heard, tmp_path_factory):
    """A function: codec and clips a shard → (manifest, table of clips) of the same recordings."""
    made = {}

    def pack(codec="pcm", clips_per_shard=8):
        if (codec, clips_per_shard) not in made:
            out = tmp_path_factory.mktemp("records")
            options = {"sample_rate": RATE, "codec": codec, "clips_per_shard": clips_per_shard, "workers": 0}
            made[codec, clips_per_shard] = write_records(heard[0], out, **options), read_clips(out / "clips.csv")
        return made[codec, clips_per_shard]

    return pack


def heard_in(batches, clips):
    """[(name, int16 [N]), ...] of training batches whose truth is one-hot, a row of `clips` a class."""
    names = clips["name"].tolist()
    return [
        (names[row], window)
        for waveform, truth in batches.as_numpy_iterator()
        for row, window in zip(truth.argmax(axis=1), to_pcm(waveform))
    ]


def windows(packed, clips=None, *, epochs=range(1), short_clips="repeat", batch_size=1, seed=1):
    """[(name, window), ...] in the order of training."""
    manifest, table = packed
    clips = table if clips is None else clips
    batches = training_batches(
        manifest, clips, np.eye(len(clips)), window_samples=WINDOW, short_clips=short_clips, batch_size=batch_size,
        seed=seed, epochs=epochs,
    )  # fmt: skip
    return heard_in(batches, clips)


def same(windows, others):
    return len(windows) == len(others) and all(
        name == other and np.array_equal(window, another) for (name, window), (other, another) in zip(windows, others)
    )


def starts_in(sound, window):
    """The places in a clip where a window may come from."""
    return np.flatnonzero((np.lib.stride_tricks.sliding_window_view(sound, len(window)) == window).all(axis=1))


# Training: what is in a window


@pytest.mark.parametrize("codec", CODECS)
def test_a_window_is_a_slice_of_its_own_clip(packed, sounds, codec):
    heard = windows(packed(codec), epochs=range(3))
    assert len(heard) == 3 * len(sounds)
    for name, window in heard:
        assert window.shape == (WINDOW,)
        if len(sounds[name]) >= WINDOW:
            assert len(starts_in(sounds[name], window)) == 1


@pytest.mark.parametrize("codec", CODECS)
def test_a_short_clip_is_repeated_until_the_window_is_full(packed, sounds, codec):
    for name, window in windows(packed(codec), short_clips="repeat"):
        if len(sounds[name]) < WINDOW:
            np.testing.assert_array_equal(window, np.resize(sounds[name], WINDOW))


@pytest.mark.parametrize("codec", CODECS)
def test_a_short_clip_stands_in_the_middle_of_zeros(packed, sounds, codec):
    for name, window in windows(packed(codec), short_clips="zeros"):
        missing = WINDOW - len(sounds[name])
        if missing > 0:
            np.testing.assert_array_equal(window, np.pad(sounds[name], (missing // 2, missing - missing // 2)))


def test_every_codec_gives_the_same_windows_in_the_same_order(packed):
    for short_clips in ("repeat", "zeros"):
        pcm, flac = (windows(packed(codec), short_clips=short_clips, epochs=range(2)) for codec in CODECS)
        assert same(pcm, flac)


def test_a_waveform_is_the_samples_over_full_scale_and_truth_comes_with_it(packed, sounds):
    manifest, clips = packed()
    truth = np.random.default_rng(0).random((len(clips), 7)).astype("float32")
    batches = training_batches(
        manifest, clips, truth, window_samples=1, short_clips="zeros", batch_size=9, seed=0, epochs=range(1)
    )
    assert batches.element_spec == (tf.TensorSpec([9, 1], tf.float32), tf.TensorSpec([9, 7], tf.float32))
    rows = {row.tobytes(): name for row, name in zip(truth, clips["name"])}
    for waveform, heard in batches.as_numpy_iterator():
        for sample, row in zip(waveform[:, 0], heard):
            assert sample in sounds[rows[row.tobytes()]] / np.float32(32_768)


# Training: which windows, and in which order


def test_every_clip_is_heard_once_an_epoch(packed):
    _, clips = packed()
    for epoch in range(3):
        assert sorted(name for name, _ in windows(packed(), epochs=range(epoch, epoch + 1))) == sorted(clips["name"])


def test_what_does_not_fill_the_last_batch_of_an_epoch_is_left_out(packed):
    _, clips = packed()
    heard = windows(packed(), batch_size=7, epochs=range(4))
    assert len(heard) == 4 * (45 // 7) * 7
    for epoch in range(4):
        counts = Counter(name for name, _ in heard[epoch * 42 : (epoch + 1) * 42])
        assert len(counts) == 42 and counts.keys() <= set(clips["name"])


def test_keras_is_told_how_many_batches_there_are(packed):
    manifest, clips = packed()
    for epochs, batch_size in ((range(1), 45), (range(3), 7), (range(2, 9), 1)):
        batches = training_batches(
            manifest, clips, np.eye(45), window_samples=WINDOW, short_clips="zeros", batch_size=batch_size, seed=0,
            epochs=epochs,
        )  # fmt: skip
        assert batches.cardinality() == len(epochs) * (45 // batch_size) == len([*batches])


def test_one_seed_gives_one_series_of_batches(packed):
    assert same(windows(packed(), epochs=range(2), batch_size=7), windows(packed(), epochs=range(2), batch_size=7))


def test_a_resumed_run_hears_what_an_uninterrupted_one_would(packed):
    whole = windows(packed(), epochs=range(5), batch_size=7)
    for epoch in (1, 3):
        assert same(windows(packed(), epochs=range(epoch, 5), batch_size=7), whole[epoch * 42 :])


def test_another_epoch_or_seed_gives_other_windows_in_another_order(packed):
    clips = packed()[1].tail(20)
    first, second = np.split(np.array(starts(packed(), clips, epochs=range(2))), 2)
    other = np.array(starts(packed(), clips, seed=2))
    for one, another in ((first, second), (first, other), (second, other)):
        assert one[:, 0].tolist() != another[:, 0].tolist()
        assert dict(one.tolist()) != dict(another.tolist())


def starts(packed, clips, **options):
    """[(name, where the window starts), ...] for clips in which every window is unlike all others."""
    sounds = dict(whole_clips(packed, clips))
    return [
        (int(name[:4]), int(starts_in(sounds[name], window)[0])) for name, window in windows(packed, clips, **options)
    ]


def whole_clips(packed, clips, batch_size=64):
    """(name, int16 [N]) of every clip, the padding taken away."""
    manifest, _ = packed
    names, lengths = clips["name"].tolist(), clips["num_samples"].tolist()
    for waveform, rows in evaluation_batches(manifest, clips, window_samples=WINDOW, batch_size=batch_size):
        for row, pcm in zip(rows.numpy(), to_pcm(waveform.numpy())):
            assert not pcm[lengths[row] :].any()  # zeros, and only after the end
            yield names[row], pcm[: lengths[row]]


@pytest.fixture(scope="module")
def drawn(packed):
    """Where the windows of 20 clips with 10 places start in 100 epochs: int [clips, epochs]."""
    heard = starts(packed(), packed()[1].tail(len(SAME)), epochs=range(100))
    return np.array([start for _, start in sorted(heard, key=lambda clip: clip[0])]).reshape(len(SAME), 100)


def test_a_window_starts_anywhere_it_may_and_anywhere_as_often(drawn):
    counts = np.bincount(drawn.ravel())
    assert len(counts) == PLACES  # the first and the last place too
    assert chisquare(counts).pvalue > 1e-4  # by chance wrong for one seed in 10,000


def test_clips_and_epochs_draw_independently(drawn):
    correlation = np.abs(np.corrcoef(drawn)[np.triu_indices(len(SAME), 1)])
    assert correlation.max() < 0.45  # 190 pairs, 4.5 standard deviations: by chance wrong for one seed in 700
    assert (drawn[:, 1:] == drawn[:, :-1]).mean() == pytest.approx(1 / PLACES, abs=0.03)  # 4.4 standard deviations


def test_one_more_sample_than_the_window_gives_two_places_and_none_more_gives_one(packed, sounds):
    clips = packed()[1]
    clips = clips[clips["num_samples"].isin([WINDOW, WINDOW + 1])]
    drawn = starts(packed(), clips, epochs=range(40))
    lengths = {int(name[:4]): len(sounds[name]) for name in clips["name"]}
    assert {start for name, start in drawn if lengths[name] == WINDOW} == {0}
    assert {start for name, start in drawn if lengths[name] == WINDOW + 1} == {0, 1}


def test_where_a_window_starts_does_not_depend_on_the_shards(packed):
    one, another = (windows(packed("pcm", clips_per_shard), epochs=range(1, 2)) for clips_per_shard in (4, 128))
    assert [name for name, _ in one] != [name for name, _ in another]
    assert same(sorted(one, key=lambda clip: clip[0]), sorted(another, key=lambda clip: clip[0]))


def test_a_clip_s_window_does_not_depend_on_which_others_are_in_the_table(packed):
    clips = packed()[1]
    some = clips.sample(frac=0.4, random_state=0)
    everything = dict(windows(packed()))
    heard = windows(packed(), some)
    assert sorted(name for name, _ in heard) == sorted(some["name"])  # and no other
    for name, window in heard:
        np.testing.assert_array_equal(window, everything[name])


def test_neighbours_in_the_shards_are_not_always_neighbours_in_the_batches(packed):
    orders = [[name for name, _ in windows(packed(), epochs=range(epoch, epoch + 1))] for epoch in range(4)]
    pairs = [set(pairwise(order)) for order in orders]
    for index, some in enumerate(pairs):
        for others in pairs[:index]:
            assert len(some & others) < 8  # of 44, one expected


# Evaluation


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_clip_is_heard_whole_and_once(packed, sounds, codec, batch_size):
    heard = [*whole_clips(packed(codec), packed(codec)[1], batch_size)]
    assert sorted(name for name, _ in heard) == sorted(sounds)
    for name, pcm in heard:
        np.testing.assert_array_equal(pcm, sounds[name])


def test_a_row_says_where_a_clip_stands_in_the_table_that_was_given(packed, sounds):
    some = packed()[1].sample(n=13, random_state=1)
    heard = dict(whole_clips(packed(), some, batch_size=5))
    assert heard.keys() == set(some["name"])
    for name, pcm in heard.items():
        np.testing.assert_array_equal(pcm, sounds[name])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_have_few_lengths_and_hold_no_more_sound_than_a_batch_of_windows(packed, batch_size):
    manifest, clips = packed()
    batches = evaluation_batches(manifest, clips, window_samples=WINDOW, batch_size=batch_size)
    shapes = [waveform.shape for waveform, _ in batches]
    assert batches.cardinality() == len(shapes)
    assert {length for _, length in shapes} == {100, 142, 200, 283, 400, 566, 800, 1_132, 2_263}  # half octaves
    assert all(count == 1 or count * length <= batch_size * WINDOW for count, length in shapes)
    assert (min(batch_size, 11), WINDOW) in shapes  # 11 clips are no longer than a window


# What is not right


@pytest.mark.parametrize("batches", [training_batches, evaluation_batches])
def test_clips_that_are_not_in_the_records_are_refused(packed, batches):
    manifest, clips = packed()
    clips = clips.assign(name=["other.wav", "another.wav", *clips["name"][2:]])
    options = {"truth": np.eye(45), "short_clips": "zeros", "seed": 0, "epochs": range(1)}
    with pytest.raises(DataError, match="2 clips are not in these records, such as other.wav"):
        batches(
            manifest, clips, window_samples=WINDOW, batch_size=4, **(options if batches is training_batches else {})
        )


def test_a_batch_of_more_clips_than_there_are_is_refused(packed):
    with pytest.raises(DataError, match="45 clips do not fill a batch of 46. Give more clips or a smaller batch_size"):
        windows(packed(), batch_size=46)


@pytest.fixture
def spoilt(heard, tmp_path):
    """A function: what to do with a shard's records → the records with that shard changed, unknown to the manifest."""

    def spoil(change):
        write_records(heard[0], tmp_path, sample_rate=RATE, workers=0, clips_per_shard=8)
        manifest = read_manifest(tmp_path)
        path = tmp_path / manifest.shards[2].file
        content = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
        with tf.io.TFRecordWriter(str(path)) as shard:
            for record in change(content):
                shard.write(record)
        return manifest, read_clips(tmp_path / "clips.csv")

    return spoil


@pytest.mark.parametrize(
    "change", [lambda content: content[:-1], lambda content: content + content[:1]], ids=["missing", "twice"]
)
def test_a_record_that_is_missing_or_there_twice_is_noticed(spoilt, change):
    packed = spoilt(change)
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 45 elements"):
        list(whole_clips(packed, packed[1]))
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 45 elements"):
        windows(packed, batch_size=7)


def test_a_flipped_bit_in_a_record_stops_the_reading(spoilt):
    manifest, clips = packed = spoilt(lambda content: content)
    path = manifest.directory / manifest.shards[2].file
    content = bytearray(path.read_bytes())
    for place in np.linspace(0, len(content) - 1, 6, dtype=int):
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
            list(whole_clips(packed, clips))
        content[place] ^= 1
    path.write_bytes(content)
    assert len(list(whole_clips(packed, clips))) == 45
    path.unlink()
    with pytest.raises(tf.errors.NotFoundError):
        windows(packed)


# Ogg and MP3 as they are


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
        if untagged:  # the first frame says how much delay the encoder added; some encoders do not write it
            content = path.read_bytes()
            path.write_bytes(content[content.index(content[:2], 4) :])
        decoded = sf.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
        sounds[f"hum/{path.name}"] = to_pcm(decoded)
    options = {"sample_rate": RATE, "codec": "source", "clips_per_shard": 4, "workers": 0}
    manifest = write_records(find_clips(folder / "in"), folder / "out", **options)
    return (manifest, read_clips(folder / "out" / "clips.csv")), sounds


def test_packed_files_are_heard_as_soundfile_decodes_them(coded):
    packed, sounds = coded
    heard = dict(whole_clips(packed, packed[1], batch_size=400))
    assert heard.keys() == sounds.keys()
    for name, pcm in heard.items():
        # MP3 and Vorbis have no exact samples: two decoders may round one of 16 bits differently.
        np.testing.assert_allclose(pcm, sounds[name], rtol=0, atol=0 if name.endswith("wav") else 1)


def test_windows_of_packed_files_are_slices_of_the_whole(coded):
    packed, _ = coded
    whole = dict(whole_clips(packed, packed[1], batch_size=400))
    for name, window in windows(packed, epochs=range(30)):
        if len(whole[name]) >= WINDOW:
            assert len(starts_in(whole[name], window)) >= 1
        else:
            np.testing.assert_array_equal(window, np.resize(whole[name], WINDOW))


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_no_place_in_a_file_is_decoded_otherwise_than_in_the_whole(kind):
    sound = np.random.default_rng(0).standard_normal(80_000).cumsum()
    file = io.BytesIO()
    sf.write(file, 0.9 * sound / np.abs(sound).max(), RATE, format=kind)
    whole = pipeline._decode_with_soundfile(file.getvalue(), 0, len(sound))
    for start in range(0, 78_000, 450):
        window = pipeline._decode_with_soundfile(file.getvalue(), start, 2_000)
        np.testing.assert_array_equal(window, whole[start : start + 2_000])


# Both ways to decode


def kinds_of_operations(dataset):
    """The names of all operations that a dataset runs, also those inside its functions."""
    variant = tf.data.experimental.to_variant(dataset)
    graph = tf.compat.v1.GraphDef.FromString(tf.raw_ops.DatasetToGraphV2(input_dataset=variant).numpy())
    return set(re.findall(r'\bop: "([\w>]+)"', str(graph)))


def datasets(packed):
    manifest, clips = packed
    truth = np.eye(len(clips))
    yield evaluation_batches(manifest, clips, window_samples=WINDOW, batch_size=4)
    yield training_batches(
        manifest, clips, truth, window_samples=WINDOW, short_clips="repeat", batch_size=4, seed=0, epochs=range(1)
    )


def test_pcm_is_read_without_python(packed):
    for dataset in datasets(packed("pcm")):
        kinds = kinds_of_operations(dataset)
        assert "ParseSingleExample" in kinds or "ParseExampleV2" in kinds
        assert not any("PyFunc" in kind for kind in kinds)


@with_tensorflow_io
def test_with_tensorflow_io_no_codec_needs_python(packed, coded):
    for records in (packed("flac"), coded[0]):
        for dataset in datasets(records):
            kinds = kinds_of_operations(dataset)
            assert {"IO>AudioDecodeFlac", "IO>AudioDecodeVorbis", "IO>AudioDecodeMP3"} <= kinds
            assert not any("PyFunc" in kind for kind in kinds)


@with_tensorflow_io
def test_both_ways_decode_to_the_same_windows(packed, coded, monkeypatch):
    ways = []
    for tfio in (pipeline.tfio, None):
        monkeypatch.setattr(pipeline, "tfio", tfio)
        ways.append([windows(records, epochs=range(5)) for records in (packed("flac"), coded[0])])
    (flac, mixed), (flac_in_python, mixed_in_python) = ways
    assert same(flac, flac_in_python)
    assert [name for name, _ in mixed] == [name for name, _ in mixed_in_python]
    for (name, window), (_, another) in zip(mixed, mixed_in_python):
        np.testing.assert_allclose(window, another, rtol=0, atol=0 if name.endswith("wav") else 1)


# The stopwatch


def waiting(batches, seconds):
    """The same batches, each so much later."""
    return batches.map(lambda batch: tf.numpy_function(lambda b: (time.sleep(seconds), b)[1], [batch], tf.int64))


def test_a_slow_source_is_waited_for():
    stopwatch = Stopwatch()
    started = time.monotonic()
    assert [int(n) for n in stopwatch.timed(waiting(tf.data.Dataset.range(8), 0.05))] == [*range(8)]
    assert 8 * 0.05 <= stopwatch.seconds <= time.monotonic() - started


def test_a_source_that_is_ready_in_time_is_hardly_waited_for():
    stopwatch = Stopwatch()
    for _ in stopwatch.timed(tf.data.Dataset.range(20).prefetch(20)):  # a second in all
        time.sleep(0.05)
    assert stopwatch.seconds < 0.3


def test_waiting_adds_up_over_epochs():
    stopwatch = Stopwatch()
    timed = stopwatch.timed(waiting(tf.data.Dataset.range(2), 0.05))
    list(timed)
    assert 0.1 <= stopwatch.seconds
    list(timed)
    assert 0.2 <= stopwatch.seconds


def test_the_stopwatch_lets_batches_and_their_number_through(packed):
    for dataset in datasets(packed()):
        timed = Stopwatch().timed(dataset)
        assert timed.element_spec == dataset.element_spec and timed.cardinality() == dataset.cardinality()
        for one, another in zip(timed.as_numpy_iterator(), dataset.as_numpy_iterator()):
            np.testing.assert_array_equal(one[0], another[0])


# Training: draws with replacement


def draws(packed, shares, *, steps, epochs=range(1), batch_size=10, seed=1, clips=None):
    manifest, table = packed
    clips = table if clips is None else clips
    batches = training_batches(
        manifest, clips, np.eye(len(clips)), window_samples=WINDOW, short_clips="repeat", batch_size=batch_size,
        seed=seed, epochs=epochs, shares=shares, steps=steps,
    )  # fmt: skip
    assert len(batches) == len(epochs) * steps
    return heard_in(batches, clips)


@pytest.mark.parametrize("codec", CODECS)
def test_clips_are_drawn_as_often_as_their_shares_say(packed, codec):
    clips = packed(codec)[1]
    shares = np.arange(1, len(clips) + 1) / np.arange(1, len(clips) + 1).sum()
    heard = Counter(name for name, _ in draws(packed(codec), shares, steps=300))
    counts = [heard[name] for name in clips["name"]]
    assert sum(counts) == 3_000
    assert chisquare(counts, 3_000 * shares).pvalue > 1e-3


def test_a_clip_without_a_share_is_never_drawn(packed):
    shares = np.ones(len(packed()[1]))
    shares[:40] = 0
    assert {name for name, _ in draws(packed(), shares, steps=20)} == set(packed()[1]["name"][40:])


def test_two_draws_of_a_clip_are_two_windows(packed, sounds):
    shares = (packed()[1]["num_samples"] == 2_000).astype(float)
    heard = draws(packed(), shares, steps=5)
    starts = [int(starts_in(sounds[name], window)[0]) for name, window in heard]
    assert len(starts) == 50 and len(set(starts)) > 40


def test_draws_are_mixed_within_an_epoch(packed):
    names = [name for name, _ in draws(packed(), np.ones(45), steps=45)]  # ten rounds of 45 draws
    assert sum(one == other for one, other in pairwise(names)) < 45
    assert all(len(set(names[start : start + 45])) > 20 for start in range(0, 450, 45))


def test_draws_follow_from_seed_and_epoch_and_go_on_after_a_stop(packed):
    whole = draws(packed(), np.ones(45), steps=7, epochs=range(3))
    assert same(whole, draws(packed(), np.ones(45), steps=7, epochs=range(3)))
    assert same(whole[140:], draws(packed(), np.ones(45), steps=7, epochs=range(2, 3)))
    assert not same(whole, draws(packed(), np.ones(45), steps=7, epochs=range(3), seed=2))


def test_only_the_clips_given_are_drawn_from_shards_that_hold_others(packed):
    clips = packed()[1].iloc[::3].reset_index(drop=True)
    assert {name for name, _ in draws(packed(), np.ones(len(clips)), steps=20, clips=clips)} == set(clips["name"])


@pytest.mark.parametrize("shares", [None, np.ones(45)])
def test_the_seed_of_the_whole_program_changes_nothing(packed, shares):
    hear = (lambda: windows(packed())) if shares is None else (lambda: draws(packed(), shares, steps=3))
    series = []
    for seed in (None, 0, 1):
        tf.random.set_seed(seed)
        series.append(hear())
    tf.random.set_seed(None)
    assert same(series[0], series[1]) and same(series[0], series[2])
