import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import soxr
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tiers import law

from audiotag.data.audio import trimming
from audiotag.data.clips import read_clips
from audiotag.data.records import source_hashes, writing
from audiotag.data.records.manifest import read_manifest
from audiotag.data.records.schema import Record, decode, encode
from audiotag.data.records.source_hashes import CACHE
from audiotag.data.records.writing import check_records, write_records
from audiotag.data.sources.fsdkaggle2019 import KNOWN_BAD
from audiotag.data.sources.layouts import find_clips
from audiotag.errors import DataError

RATE = 16_000
OPTIONS = {"sample_rate": RATE, "clips_per_shard": 8, "workers": 0}
SUBSETS = ("curated", "noisy", "test")


@pytest.fixture(scope="module")
def source(recordings, tmp_path_factory):
    return recordings(tmp_path_factory.mktemp("sixty") / "in", 400 + np.arange(60), subsets=SUBSETS)[0]


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """The records of `source`, by one worker."""
    out = tmp_path_factory.mktemp("sixty") / "out"
    write_records(source, out, **OPTIONS)
    return out


@pytest.fixture
def copy(source, tmp_path):
    """A copy of the recordings of `source` for a test to spoil."""
    return shutil.copytree(Path(source.clips["path"][0]).parents[1], tmp_path / "in")


def tree(folder):
    """{path: bytes} of everything below a folder, hidden or not, but for the cache, which is a machine's own."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != CACHE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def under_final_names(folder):
    """{name: bytes} of the files that a reader might take for finished."""
    return {name: content for name, content in tree(folder).items() if not name.startswith(".")}


def read_shards(out):
    """{shard: [record, ...]} of every shard in a directory, by TensorFlow alone."""
    return {
        path.name: [
            {key: value.numpy() for key, value in decode(serialised).items()}
            for serialised in tf.data.TFRecordDataset(str(path))
        ]
        for path in sorted(out.glob("clips-*.tfrecord"))
    }


def by_name(out):
    """{name: record} of all records in a directory."""
    return {record["name"].decode(): record for shard in read_shards(out).values() for record in shard}


# The record


@law
@given(
    name=st.text(min_size=1),
    audio=st.binary(max_size=300),
    codec=st.sampled_from(["pcm", "flac", "ogg", "mp3"]),
    sample_rate=st.integers(4_000, 384_000),
    num_samples=st.integers(1, 2**40),
)
def test_decoding_gives_back_what_was_encoded(**fields):
    decoded = decode(encode(Record(**fields)))
    assert {key: value.numpy() for key, value in decoded.items()} == {
        key: value.encode() if isinstance(value, str) else value for key, value in fields.items()
    }


def test_a_record_is_a_plain_example_that_anyone_can_read():
    example = tf.train.Example.FromString(encode(Record("1.wav", b"\1\0", "pcm", RATE, 1)))
    assert sorted(example.features.feature) == ["audio", "codec", "name", "num_samples", "sample_rate"]
    assert example.features.feature["name"].bytes_list.value == [b"1.wav"]
    assert example.features.feature["sample_rate"].int64_list.value == [RATE]


# What is written


def test_every_clip_is_in_exactly_one_shard_and_only_with_its_subset(source, whole):
    subset = dict(zip(source.clips["name"], source.clips["subset"]))
    shards = read_shards(whole)
    names = [record["name"].decode() for shard in shards.values() for record in shard]
    assert sorted(names) == sorted(source.clips["name"])
    for shard in shards.values():
        assert 1 <= len(shard) <= 8
        assert len({subset[record["name"].decode()] for record in shard}) == 1


def test_the_manifest_lists_the_records_in_their_order(whole):
    manifest = read_manifest(whole)
    shards = read_shards(whole)
    assert [shard.file for shard in manifest.shards] == list(shards)
    for shard in manifest.shards:
        content = (whole / shard.file).read_bytes()
        assert list(shard.clips) == [record["name"].decode() for record in shards[shard.file]]
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest.sample_rate == RATE and manifest.vocabulary == ("a", "b")


def test_a_record_holds_the_samples_of_its_file(source, whole):
    written = by_name(whole)
    for name, path in zip(source.clips["name"], source.clips["path"]):
        sound, record = sf.read(path, dtype="int16")[0], written[name]
        np.testing.assert_array_equal(np.frombuffer(record["audio"], "<i2"), sound)
        assert (record["codec"], record["sample_rate"], record["num_samples"]) == (b"pcm", RATE, len(sound))


def test_clips_csv_measures_every_clip(source, whole):
    clips = read_clips(whole / "clips.csv").set_index("name")
    assert len(clips) == len(source.clips)
    for name, path in zip(source.clips["name"], source.clips["path"]):
        sound = sf.read(path, dtype="int16")[0] / 32_768
        clip = clips.loc[name]
        assert clip["num_samples"] == len(sound)
        assert clip["seconds"] == pytest.approx(len(sound) / RATE, abs=1e-6)
        assert clip["peak"] == pytest.approx(abs(sound).max(), abs=1e-6)
        assert clip["rms"] == pytest.approx(np.sqrt(np.mean(sound**2)), abs=1e-6)
        assert clip[["trimmed_start_seconds", "trimmed_end_seconds", "gain_db"]].tolist() == [0.0, 0.0, 0.0]
        assert clip["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_nothing_else_is_left_in_the_directory(whole):
    shards = {shard.file for shard in read_manifest(whole).shards}
    assert tree(whole).keys() == shards | {"manifest.json", "clips.csv", "rejects.csv"}
    assert (whole / "rejects.csv").read_text() == "name,subset,reason\n"


def test_digital_silence_is_a_clip_like_others(recordings, tmp_path):
    source, _ = recordings(tmp_path / "in", [500, 500])
    sf.write(tmp_path / "in" / "audio" / "0000.wav", np.zeros(700, "int16"), RATE)
    write_records(source, tmp_path / "out", **OPTIONS)
    clip = read_clips(tmp_path / "out" / "clips.csv").iloc[0]
    assert (clip["num_samples"], clip["peak"], clip["rms"]) == (700, 0.0, 0.0)


# The same bytes


@pytest.mark.check("A6")
def test_two_workers_and_another_order_of_rows_give_the_same_bytes(source, whole, copy, tmp_path):
    header, *rows = (copy / "labels.csv").read_text().splitlines()
    (copy / "labels.csv").write_text("\n".join([header, *np.random.default_rng(0).permutation(rows)]) + "\n")
    write_records(find_clips(copy), tmp_path / "out", **{**OPTIONS, "workers": 2})
    assert tree(tmp_path / "out") == tree(whole)


def test_other_recordings_or_options_give_other_bytes(source, whole, tmp_path):
    write_records(source, tmp_path / "out", **{**OPTIONS, "sample_rate": 8_000})
    assert not tree(tmp_path / "out").items() & tree(whole).items() - {("rejects.csv", b"name,subset,reason\n")}


# Trimming and peak


TREATED = {"trim": "level", "peak_db": -0.1}


@pytest.fixture(scope="module")
def quiet_ends(tmp_path_factory):
    """Clips at 44.1 kHz with silence at both ends, inside, at one end, at no border, nowhere, and everywhere."""
    folder = tmp_path_factory.mktemp("quiet") / "in"
    (folder / "hum").mkdir(parents=True)
    square = np.sign(np.sin(2 * np.pi * 1_000 * np.arange(22_050) / 44_100)) * 16_000  # overshoots when resampled
    nothing = np.zeros(11_000)
    sounds = {
        "both": [nothing, square, nothing[:5_000]],
        "inside": [nothing, square, nothing, square / 2],
        "end": [square, nothing],
        "fading": [square * np.linspace(0, 1, len(square)) ** 4, nothing],
        "nowhere": [square * 2],
        "everywhere": [nothing],
    }
    for name, parts in sounds.items():
        sf.write(folder / "hum" / f"{name}.wav", np.concatenate(parts).astype("int16"), 44_100)
    return find_clips(folder)


@pytest.fixture(scope="module")
def treated(quiet_ends, tmp_path_factory):
    """Their records at 16 kHz, trimmed by level, with peaks at -0.1 dBFS."""
    out = tmp_path_factory.mktemp("quiet") / "out"
    write_records(quiet_ends, out, **OPTIONS, **TREATED)
    return out


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("peak_db", [-0.1, -12.0])
@pytest.mark.parametrize("trim", [None, "loudest"])
def test_the_record_s_peak_is_the_one_asked_for_whatever_resampling_does(
    quiet_ends, tmp_path, sample_rate, peak_db, trim
):
    options = {**OPTIONS, "sample_rate": sample_rate}
    write_records(quiet_ends, tmp_path, trim=trim, peak_db=peak_db, **options)
    clips = read_clips(tmp_path / "clips.csv").set_index("name")
    for name, record in by_name(tmp_path).items():
        peak = np.abs(np.frombuffer(record["audio"], "<i2").astype("int32")).max()
        if name == "hum/everywhere.wav":
            assert (peak, clips.loc[name, "gain_db"]) == (0, 0.0)
        else:
            assert peak == round(32_768 * 10 ** (peak_db / 20))
            assert clips.loc[name, "peak"] == pytest.approx(10 ** (peak_db / 20), abs=1e-6)


def test_without_a_peak_resampling_overshoots_and_is_clipped(quiet_ends, tmp_path):
    write_records(quiet_ends, tmp_path, **OPTIONS)
    sound = np.frombuffer(by_name(tmp_path)["hum/nowhere.wav"]["audio"], "<i2")
    assert (sound.max(), sound.min()) == (32_767, -32_768)


@pytest.mark.parametrize(
    "options, ends",
    [
        ({"trim": "level"}, lambda waveform: trimming.trim_to_level(waveform, sample_rate=44_100)),
        ({"trim": "loudest"}, trimming.trim_to_loudest),
        ({"trim": "loudest", "trim_db": 3.0}, lambda waveform: trimming.trim_to_loudest(waveform, trim_db=3.0)),
        (TREATED, lambda waveform: trimming.trim_to_level(waveform, sample_rate=44_100)),
    ],
)
def test_a_clip_is_cut_at_its_own_rate_then_resampled_then_made_louder(quiet_ends, tmp_path, options, ends):
    write_records(quiet_ends, tmp_path, **OPTIONS, **options)
    clips, written = read_clips(tmp_path / "clips.csv").set_index("name"), by_name(tmp_path)
    for name, path in zip(quiet_ends.clips["name"], quiet_ends.clips["path"]):
        waveform, clip = sf.read(path, dtype="float32")[0], clips.loc[name]
        start, end = ends(waveform)
        sound = soxr.resample(waveform[start:end], 44_100, RATE, quality="HQ") * 10 ** (clip["gain_db"] / 20)
        stored = np.frombuffer(written[name]["audio"], "<i2")
        assert len(stored) == clip["num_samples"] == len(sound)
        np.testing.assert_allclose(stored, np.clip(sound * 32_768, -32_768, 32_767), rtol=0, atol=0.6)
        assert clip["trimmed_start_seconds"] == pytest.approx(start / 44_100, abs=1e-6)
        assert clip["trimmed_end_seconds"] == pytest.approx((len(waveform) - end) / 44_100, abs=1e-6)
        length = clip["trimmed_start_seconds"] + clip["seconds"] + clip["trimmed_end_seconds"]
        assert length == pytest.approx(len(waveform) / 44_100, abs=1 / RATE)


def test_only_silent_ends_are_cut_and_a_silent_clip_is_kept(treated):
    clips = read_clips(treated / "clips.csv").set_index("name")
    cut = dict(zip(clips.index, clips[["trimmed_start_seconds", "trimmed_end_seconds"]].round(2).values.tolist()))
    assert cut == {
        "hum/both.wav": [0.25, 0.11],
        "hum/inside.wav": [0.25, 0.0],
        "hum/end.wav": [0.0, 0.25],
        "hum/fading.wav": [0.11, 0.25],
        "hum/nowhere.wav": [0.0, 0.0],
        "hum/everywhere.wav": [0.0, 0.0],
    }
    assert clips.loc["hum/everywhere.wav", "seconds"] == pytest.approx(11_000 / 44_100, abs=1e-4)
    assert clips.loc["hum/inside.wav", "seconds"] == pytest.approx((2 * 22_050 + 11_000) / 44_100, abs=1e-4)


@pytest.mark.check("A6")
def test_trimmed_records_are_the_same_bytes_with_two_workers(quiet_ends, treated, tmp_path):
    write_records(quiet_ends, tmp_path, **{**OPTIONS, "workers": 2}, **TREATED)
    assert tree(tmp_path) == tree(treated)


@pytest.mark.parametrize("other", [{}, {"trim": "loudest", "peak_db": -0.1}, {"trim": "level", "peak_db": -1}])
def test_another_trim_or_peak_is_another_plan(quiet_ends, treated, other):
    assert write_records(quiet_ends, treated, **OPTIONS, **TREATED).options.items() >= TREATED.items()
    with pytest.raises(DataError, match="out: holds finished records of other clips or options"):
        write_records(quiet_ends, treated, **OPTIONS, **other)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"trim": "both"}, "trim 'both': expected loudest or level; leave it out to cut nothing off"),
        ({"trim": "loudest", "trim_db": 0}, "trim_db 0: expected a number of dB above 0, at most 120"),
        ({"trim": "loudest", "trim_db": float("nan")}, "trim_db nan: expected a number of dB"),
        ({"trim": "level", "trim_db": 40}, "trim_db 40: only trim 'loudest' listens to it, and trim is 'level'. Leave"),
        ({"trim_db": 40}, "trim_db 40: only trim 'loudest' listens to it, and trim is None"),
        ({"peak_db": 0.1}, "peak_db 0.1: expected -60 to 0 dBFS; 0 is full scale, above which sound is clipped"),
        ({"peak_db": float("nan")}, "peak_db nan: expected -60 to 0 dBFS"),
    ],
)
def test_a_wrong_trim_or_peak_is_refused(source, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        write_records(source, tmp_path / "out", **OPTIONS, **options)
    assert not (tmp_path / "out").exists()


# Codecs


def test_flac_records_hold_the_same_samples_as_pcm(source, whole, tmp_path):
    write_records(source, tmp_path / "flac", codec="flac", **OPTIONS)
    pcm, flac = by_name(whole), by_name(tmp_path / "flac")
    assert pcm.keys() == flac.keys()
    for name, record in flac.items():
        sound, sample_rate = sf.read(io.BytesIO(record["audio"]), dtype="int16")
        assert (record["codec"], sample_rate) == (b"flac", RATE)
        np.testing.assert_array_equal(sound, np.frombuffer(pcm[name]["audio"], "<i2"))
    assert (tmp_path / "flac" / "clips.csv").read_bytes() == (whole / "clips.csv").read_bytes()


def test_source_packs_vorbis_and_mp3_of_the_right_rate_as_they_are_and_the_rest_as_flac(tmp_path):
    files = {
        "vorbis.ogg": (RATE, "VORBIS", b"ogg"),
        "layer3.mp3": (RATE, "MPEG_LAYER_III", b"mp3"),
        "opus.ogg": (RATE, "OPUS", b"flac"),  # tensorflow-io cannot decode it
        "fast.ogg": (44_100, "VORBIS", b"flac"),
        "plain.wav": (RATE, "PCM_16", b"flac"),
    }
    folder = tmp_path / "in" / "hum"
    folder.mkdir(parents=True)
    for name, (sample_rate, encoding, _) in files.items():
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(sample_rate) / sample_rate)
        sf.write(folder / name, tone, sample_rate, format=name[-3:], subtype=encoding)
    write_records(find_clips(tmp_path / "in"), tmp_path / "out", codec="source", **OPTIONS)
    written = by_name(tmp_path / "out")
    for name, (_, _, codec) in files.items():
        record = written[f"hum/{name}"]
        assert (record["codec"], record["sample_rate"], record["num_samples"]) == (codec, RATE, RATE)
        assert (record["audio"] == (folder / name).read_bytes()) == (codec in (b"ogg", b"mp3"))
        assert len(sf.read(io.BytesIO(record["audio"]))[0]) == RATE


@pytest.mark.parametrize(
    "options, kept",
    [({"trim": "loudest"}, {"hum/whole.ogg", "hum/silent.ogg"}), ({"peak_db": -0.1}, {"hum/silent.ogg"})],
)
def test_source_packs_as_flac_what_was_cut_or_made_louder(tmp_path, options, kept):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    folder = tmp_path / "in" / "hum"
    folder.mkdir(parents=True)
    for name, sound in {"whole": tone, "silent": 0 * tone, "tail": np.concatenate([tone, 0 * tone])}.items():
        sf.write(folder / f"{name}.ogg", sound, RATE, format="OGG", subtype="VORBIS")
    write_records(find_clips(tmp_path / "in"), tmp_path / "out", codec="source", **OPTIONS, **options)
    written, clips = by_name(tmp_path / "out"), read_clips(tmp_path / "out" / "clips.csv").set_index("name")
    assert {name for name, record in written.items() if record["codec"] == b"ogg"} == kept
    for name, record in written.items():
        sound = sf.read(io.BytesIO(record["audio"]))[0]
        assert len(sound) == record["num_samples"] == clips.loc[name, "num_samples"]
        assert abs(sound).max() == pytest.approx(clips.loc[name, "peak"], abs=1e-4)


def test_an_unknown_codec_is_refused(source, tmp_path):
    with pytest.raises(DataError, match="codec 'wav': expected one of pcm, flac, source"):
        write_records(source, tmp_path / "out", codec="wav")


# Clips known to be bad


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    """FSDKaggle2019 in miniature: its six bad clips and two good ones."""
    folder = tmp_path_factory.mktemp("kaggle")
    (folder / "train_curated").mkdir()
    names = [*KNOWN_BAD, "00000001.wav", "00000002.wav"]
    for name in names:
        sf.write(folder / "train_curated" / name, np.zeros(500, "int16"), RATE)
    (folder / "train_curated.csv").write_text("fname,labels\n" + "".join(f"{name},Bark\n" for name in names))
    (folder / "sample_submission.csv").write_text("fname,Bark\nx.wav,0\n")
    return find_clips(folder)


@pytest.mark.check("A8")
def test_known_bad_clips_are_left_out_and_listed_with_the_reason(kaggle, tmp_path):
    write_records(kaggle, tmp_path, **OPTIONS)
    assert sorted(by_name(tmp_path)) == ["00000001.wav", "00000002.wav"]
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    assert dict(zip(rejects["name"], rejects["reason"])) == KNOWN_BAD
    assert len(read_clips(tmp_path / "clips.csv")) + len(rejects) == len(kaggle.clips)


def test_known_bad_clips_can_be_kept(kaggle, tmp_path):
    write_records(kaggle, tmp_path, keep_known_bad=True, **OPTIONS)
    assert by_name(tmp_path).keys() == {*KNOWN_BAD, "00000001.wav", "00000002.wav"}
    assert len(pd.read_csv(tmp_path / "rejects.csv")) == 0


# Clips that turn out to be bad


def spoil(folder):
    """Spoils eight of the sixty recordings in four ways; their names."""
    bad = [f"{index:04d}.wav" for index in range(3, 60, 8)]
    for name, content in zip(bad, [b"", b"no sound", b"RIFF" + bytes(4) + b"WAVE", b"ID3"] * 2):
        (folder / "audio" / name).write_bytes(content)
    return bad


def test_bad_clips_stop_the_run_at_its_end_with_file_row_and_reason(copy, tmp_path):
    bad, out = spoil(copy), tmp_path / "out"
    with pytest.raises(DataError) as error:
        write_records(find_clips(copy), out, **OPTIONS)
    message = str(error.value)
    assert message.startswith("8 of 60 clips cannot be used:\n  labels.csv line ")
    assert "\n  and 3 more\n" in message and str(out / "rejects.csv") in message and "--skip-bad" in message
    rejects = pd.read_csv(out / "rejects.csv")
    assert rejects["name"].tolist() == bad
    for index, (name, reason) in enumerate(zip(rejects["name"], rejects["reason"])):
        expected = ["is empty", "cannot decode", "without a data chunk", "cannot decode"][index % 4]
        assert reason.startswith(f"{name}: ") and expected in reason
    for line in message.splitlines()[1:6]:
        row, name, _ = line.strip().split(": ", 2)
        assert name in bad and row == f"labels.csv line {int(name[:4]) + 2}"
    assert not (out / "manifest.json").exists() and not (out / "clips.csv").exists()
    with pytest.raises(DataError, match="has not finished here. Run it again"):
        read_manifest(out)


def test_once_they_are_mended_the_run_finishes_and_whole_shards_are_not_made_again(source, whole, copy, tmp_path):
    out = tmp_path / "out"
    sound = {name: (copy / "audio" / name).read_bytes() for name in ("0007.wav", "0008.wav")}
    for name in sound:
        (copy / "audio" / name).write_bytes(b"")
    with pytest.raises(DataError, match="2 of 60 clips"):
        write_records(find_clips(copy), out, **OPTIONS)
    before = {path.name: path.stat().st_mtime_ns for path in (out / ".work").glob("clips-*.tfrecord")}
    for name, content in sound.items():
        (copy / "audio" / name).write_bytes(content)
    manifest = write_records(find_clips(copy), out, **OPTIONS)
    assert tree(out) == tree(whole)
    for shard in manifest.shards:
        untouched = (out / shard.file).stat().st_mtime_ns == before[shard.file]
        assert untouched == sound.keys().isdisjoint(shard.clips)


@pytest.mark.check("A8")
def test_skip_bad_leaves_them_out_and_says_why(copy, tmp_path):
    bad, out = spoil(copy), tmp_path / "out"
    write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    rejects, clips = pd.read_csv(out / "rejects.csv"), read_clips(out / "clips.csv")
    assert rejects["name"].tolist() == bad and rejects["subset"].isin(SUBSETS).all()
    assert len(clips) == 52 and by_name(out).keys() == set(clips["name"])
    assert list(check_records(out)) == []


@pytest.mark.check("A8")
def test_a_shard_of_bad_clips_alone_is_no_shard(copy, tmp_path):
    spoil(copy)
    out = tmp_path / "out"
    manifest = write_records(find_clips(copy), out, skip_bad=True, **{**OPTIONS, "clips_per_shard": 1})
    assert len(manifest.shards) == 52 and list(check_records(out)) == []
    assert len([*out.glob("clips-*.tfrecord")]) == 52


@pytest.mark.check("A8")
def test_a_run_that_bad_clips_stopped_goes_on_without_them(copy, tmp_path):
    for name in ("0007.wav", "0008.wav"):
        (copy / "audio" / name).write_bytes(b"")
    out, source = tmp_path / "out", find_clips(copy)
    with pytest.raises(DataError, match="(?s)2 of 60 clips .*, or leave them out with --skip-bad.* needs --overwrite"):
        write_records(source, out, **OPTIONS)
    before = {path.name: path.stat().st_mtime_ns for path in (out / ".work").glob("clips-*.tfrecord")}
    manifest = write_records(source, out, skip_bad=True, **OPTIONS)
    write_records(source, tmp_path / "at once", skip_bad=True, **OPTIONS)
    assert tree(out) == tree(tmp_path / "at once")
    kept = [shard.file for shard in manifest.shards if (out / shard.file).stat().st_mtime_ns == before[shard.file]]
    assert len(kept) >= len(manifest.shards) - 2


def test_what_was_left_out_is_heard_again_without_skip_bad(source, whole, copy, tmp_path):
    out, bad = tmp_path / "out", copy / "audio" / "0007.wav"
    content = bad.read_bytes()
    bad.write_bytes(b"")
    stop_after(find_clips(copy), out, 59, skip_bad=True)
    bad.write_bytes(content)
    write_records(find_clips(copy), out, **OPTIONS)
    assert tree(out) == tree(whole)


@pytest.mark.check("C1")
def test_a_clip_too_loud_for_numbers_is_one_bad_clip(copy, tmp_path):
    square = np.where(np.arange(9_000) % 7 < 3, 3.3e38, -3.3e38).astype("float32")
    both = np.stack([square, square], axis=1)
    for name, sound, rate in (("0007", both, RATE), ("0008", square, 44_100), ("0009", square, RATE)):
        sf.write(copy / "audio" / f"{name}.wav", sound, rate, subtype="FLOAT")
    write_records(find_clips(copy), tmp_path / "out", skip_bad=True, **OPTIONS)
    reasons = dict(pd.read_csv(tmp_path / "out" / "rejects.csv")[["name", "reason"]].values)
    assert reasons == {
        "0007.wav": "0007.wav: 9000 samples after 0 s are NaN or infinite, or too loud to be mixed. Export it anew.",
        "0008.wav": "0008.wav: too loud to be resampled. Export it anew.",
    }
    pcm = np.frombuffer(by_name(tmp_path / "out")["0009.wav"]["audio"], "<i2")
    assert set(pcm) == {-32_768, 32_767}


def test_bad_clips_alone_are_no_records(recordings, tmp_path):
    source, _ = recordings(tmp_path / "in", [500, 500])
    for name in source.clips["name"]:
        (tmp_path / "in" / "audio" / name).write_bytes(b"")
    with pytest.raises(DataError, match="out: none of the 2 clips can be used; .*rejects.csv says why"):
        write_records(source, tmp_path / "out", skip_bad=True, **OPTIONS)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_disk_that_is_too_full_is_told_before_anything_is_decoded(source, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "prepare", None)
    usage = shutil.disk_usage(tmp_path)
    needed = sum(2 * clip for clip in 400 + np.arange(60))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed // 2))
    with pytest.raises(DataError, match="out: about 0.1 MB are to be written, and 0.0 MB are free there. Make"):
        write_records(source, tmp_path / "out", **OPTIONS)
    assert not tree(tmp_path / "out")


@pytest.mark.check("A7")
def test_a_decoder_that_dies_is_one_bad_clip(source, tmp_path, monkeypatch):
    def in_order(function, paths, *, workers):
        for path in paths:
            yield (None, "its decoder died of SIGSEGV") if path.endswith("0007.wav") else (function(path), None)

    monkeypatch.setattr(writing.crew, "in_order", in_order)
    write_records(source, tmp_path, skip_bad=True, **{**OPTIONS, "workers": 1})
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    way_out = "Take it off the list, or convert it with another program."
    assert rejects[["name", "reason"]].values.tolist() == [
        ["0007.wav", f"0007.wav: its decoder died of SIGSEGV. {way_out}"]
    ]


# A directory that is taken


def test_a_finished_directory_is_left_alone_at_once(source, whole, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    content = tree(whole)
    monkeypatch.setattr(writing, "prepare", None)  # nothing is decoded
    assert write_records(source, whole, **OPTIONS) == read_manifest(whole)
    assert tree(whole) == content
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_other_options_are_refused_and_overwrite_replaces(source, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    other = {**OPTIONS, "clips_per_shard": 30}
    with pytest.raises(DataError, match="out: holds finished records of other clips or options. Choose another --out"):
        write_records(source, out, **other)
    assert tree(out) == tree(whole)
    write_records(source, out, overwrite=True, **other)
    assert len(read_manifest(out).shards) == 3 and len([*out.glob("clips-*.tfrecord")]) == 3
    write_records(source, out, overwrite=True, **OPTIONS)
    assert tree(out) == tree(whole)


def test_an_unfinished_directory_of_other_options_is_refused_and_overwrite_replaces(source, whole, tmp_path):
    stop_after(source, tmp_path, 30)
    with pytest.raises(DataError, match="an unfinished run with other clips or options lies here.*--overwrite"):
        write_records(source, tmp_path, **{**OPTIONS, "sample_rate": 8_000})
    write_records(source, tmp_path, overwrite=True, **OPTIONS)
    assert tree(tmp_path) == tree(whole)


def test_overwrite_leaves_the_old_records_where_the_new_ones_do_not_fit(source, whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "out")
    usage, needed = shutil.disk_usage(out), sum(2 * clip for clip in 400 + np.arange(60))
    for free in (0, needed - 1):  # what is there makes no room: it stays
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
        with pytest.raises(DataError, match="0.1 MB are to be written, .* The records that are there stay until the"):
            write_records(source, out, overwrite=True, **OPTIONS, peak_db=-1)
        assert tree(out) == tree(whole)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    write_records(source, out, overwrite=True, **OPTIONS, peak_db=-1)
    assert list(check_records(out)) == [] and read_manifest(out).options["peak_db"] == -1


def test_the_header_of_every_clip_counts_for_the_room(recordings, tmp_path, monkeypatch):
    source, _ = recordings(tmp_path / "in", [500] * 100)
    sf.write(tmp_path / "in" / "audio" / "long.flac", np.zeros(9_500_000, "int16"), 44_100, format="FLAC")
    (tmp_path / "in" / "audio" / "long.flac").rename(tmp_path / "in" / "audio" / "0037.flac")
    (tmp_path / "in" / "audio" / "0037.wav").unlink()
    table = tmp_path / "in" / "labels.csv"
    table.write_text(table.read_text().replace("0037.wav", "0037.flac"))
    assert (tmp_path / "in" / "audio" / "0037.flac").stat().st_size < 40_000  # and 19 MB as PCM
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=15_000_000))
    with pytest.raises(DataError, match=r"out: about 19\.3 MB are to be written, and 15\.0 MB are free"):
        write_records(find_clips(tmp_path / "in"), tmp_path / "out", **{**OPTIONS, "sample_rate": 44_100})
    assert not tree(tmp_path / "out")


def test_overwrite_leaves_nothing_of_a_killed_writer(source, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / ".unfinished-99-clips.csv").touch()
    write_records(source, out, overwrite=True, **OPTIONS)
    assert tree(out) == tree(whole)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("table", ["clips.csv", "rejects.csv"])
def test_a_table_of_somebody_else_is_not_replaced(source, tmp_path, table, overwrite):
    (tmp_path / table).write_text("fname,labels,note\na.wav,X,mine\n")
    with pytest.raises(DataError, match=f"{table}: no records lie beside it, so it is somebody's own. Choose"):
        write_records(source, tmp_path, overwrite=overwrite, **OPTIONS)
    assert tree(tmp_path) == {table: b"fname,labels,note\na.wav,X,mine\n"}


@pytest.mark.parametrize("place", [".", "audio"])
def test_records_do_not_lie_among_the_recordings(copy, place):
    before = tree(copy)
    with pytest.raises(DataError, match="the recordings lie in it. Choose another --out, of the records alone"):
        write_records(find_clips(copy), copy / place, overwrite=True, **OPTIONS)
    assert tree(copy) == before


@pytest.mark.check("A5")
def test_a_second_writer_at_once_is_refused(source, whole, tmp_path):
    (tmp_path / ".work").mkdir()
    with open(tmp_path / ".work" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another make-records is writing here. Wait for it, or choose another"):
            write_records(source, tmp_path, overwrite=True, **OPTIONS)
    assert tree(tmp_path).keys() == {".work/lock"}
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(whole)


# A run that stops


def stop_after(source, out, clips, **options):
    """Writes records until so many clips are decoded, and then something goes wrong."""
    decoded = iter(range(clips))

    def prepare(*args, **sound):
        if next(decoded, None) is None:
            raise KeyboardInterrupt
        return whole_prepare(*args, **sound)

    with pytest.MonkeyPatch.context() as patch:
        whole_prepare = writing.prepare
        patch.setattr(writing, "prepare", prepare)
        with pytest.raises(KeyboardInterrupt):
            write_records(source, out, **OPTIONS, **options)


@pytest.mark.check("A1")
@pytest.mark.parametrize("clips", range(0, 60, 7))
def test_a_run_that_stops_anywhere_leaves_whole_files_and_goes_on_to_the_same_bytes(source, whole, tmp_path, clips):
    stop_after(source, tmp_path, clips)
    assert under_final_names(tmp_path).items() <= tree(whole).items()
    assert not under_final_names(tmp_path)
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(whole)


@pytest.mark.check("A1")
def test_a_shard_spoilt_while_the_run_lay_still_is_made_again(source, whole, tmp_path):
    stop_after(source, tmp_path, 30)
    shard = min((tmp_path / ".work").glob("clips-*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(whole)


@pytest.mark.check("A1")
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_broken_notes_of_a_run_are_as_none(source, whole, tmp_path, content):
    stop_after(source, tmp_path, 30)
    notes = sorted((tmp_path / ".work").glob("*.json"))
    assert len(notes) == 5 and notes[-1].name == "plan.json"
    for note in (notes[0], notes[-1]):
        note.write_bytes(content)
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(whole)


@pytest.mark.check("A1")
def test_notes_of_another_plan_are_not_believed(source, whole, tmp_path):
    stop_after(source, tmp_path, 30)
    (tmp_path / ".work" / "plan.json").unlink()
    write_records(source, tmp_path, **OPTIONS, peak_db=-1.0)
    assert {record["num_samples"] for record in by_name(tmp_path).values()} == set(range(400, 460))
    assert read_clips(tmp_path / "clips.csv")["peak"].round(3).unique() == [0.891]


# Recordings that change under the same names


@pytest.fixture
def made(copy, tmp_path):
    """The records of `copy`, finished."""
    time.sleep(0.05)  # a file that was written just now is hashed again
    write_records(find_clips(copy), tmp_path / "out", **OPTIONS)
    return tmp_path / "out"


def replace_recording(path, seed=9):
    """Other sound of the same length under the same name, with the same size and time of change."""
    before = path.stat()
    samples = np.random.default_rng(seed).integers(-(2**15), 2**15, (before.st_size - 44) // 2).astype("int16")
    sf.write(path, samples, RATE)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def hashed(monkeypatch):
    """The paths that are read for nothing but their hash, as they come."""
    paths, identify = [], source_hashes.identify
    monkeypatch.setattr(source_hashes, "identify", lambda path: paths.append(Path(path).name) or identify(path))
    return paths


@pytest.mark.check("A9")
def test_recordings_that_were_all_replaced_under_their_names_are_refused_and_overwrite_takes_them(copy, made):
    before = tree(made)
    for path in (copy / "audio").iterdir():
        replace_recording(path, int(path.stem) + 1_000)
    message = (
        "out: the records are of other audio: 60 of 60 recordings are not what they were made of, the first is "
        ".*0000.wav. Make the records again with --overwrite, or choose another --out."
    )
    with pytest.raises(DataError, match=message):
        write_records(find_clips(copy), made, **OPTIONS)
    assert tree(made) == before
    write_records(find_clips(copy), made, overwrite=True, **OPTIONS)
    for name, record in by_name(made).items():
        sound = sf.read(copy / "audio" / name, dtype="int16")[0]
        np.testing.assert_array_equal(np.frombuffer(record["audio"], "<i2"), sound)


@pytest.mark.check("A9", 4)
def test_a_recording_that_was_replaced_is_found_whatever_its_size_and_time_say(copy, made, tmp_path):
    path = copy / "audio" / "0007.wav"
    content = path.read_bytes()
    other = tmp_path / "other.wav"
    other.write_bytes(content)
    replace_recording(other)

    def copied_over():  # as cp -p does it, and mv
        shutil.copy2(other, path)

    def moved_over():
        shutil.copy2(other, tmp_path / "moved.wav")
        os.replace(tmp_path / "moved.wav", path)

    def cut_short():
        path.write_bytes(content[:-2])

    for change in (lambda: replace_recording(path), copied_over, moved_over, cut_short):
        change()
        with pytest.raises(DataError, match="1 of 60 recordings are not what they were made of, the first is .*0007"):
            write_records(find_clips(copy), made, **OPTIONS)
        path.write_bytes(content)
        write_records(find_clips(copy), made, **OPTIONS)


@pytest.mark.check("A9")
def test_a_recording_that_is_gone_or_has_another_name_is_told(copy, made):
    found, path = find_clips(copy), copy / "audio" / "0007.wav"
    path.rename(copy / "audio" / "7.wav")
    with pytest.raises(DataError, match="1 of 60 recordings .*, the first is .*0007.wav, which is no longer there"):
        write_records(found, made, **OPTIONS)
    table = copy / "labels.csv"
    table.write_text(table.read_text().replace("0007.wav", "7.wav"))
    message = "other clips or options. .* differs: clips in the records alone: 1, the first is 0007.wav"
    with pytest.raises(DataError, match=message):
        write_records(find_clips(copy), made, **OPTIONS)


def test_what_differs_is_said_of_options_and_labels_too(copy, made):
    with pytest.raises(DataError, match="differs: sample_rate is 16000 there and 8000 here, trim is None there and"):
        write_records(find_clips(copy), made, **{**OPTIONS, "sample_rate": 8_000, "trim": "level"})
    table = copy / "labels.csv"
    table.write_text(table.read_text().replace("0007.wav,b", "0007.wav,a"))
    with pytest.raises(DataError, match="differs: labels, subsets or other columns of the clips"):
        write_records(find_clips(copy), made, **OPTIONS)
    table.write_text(table.read_text().replace("0007.wav,a", "0007.wav,c"))
    with pytest.raises(DataError, match="differs: the classes"):
        write_records(find_clips(copy), made, **OPTIONS)


@pytest.mark.check("A9")
def test_a_clip_that_was_rejected_and_can_be_read_now_is_other_audio(copy, tmp_path):
    bad, out = copy / "audio" / "0007.wav", tmp_path / "out"
    content = bad.read_bytes()
    bad.write_bytes(b"no sound")
    write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    bad.write_bytes(content)
    with pytest.raises(DataError, match="1 of 60 recordings are not what they were made of, the first is .*0007.wav"):
        write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    (out / CACHE).unlink()  # nothing else holds the hash of a rejected clip
    with pytest.raises(DataError, match="out: holds finished records of other clips or options"):
        write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)


def test_records_of_the_same_recordings_are_left_alone_and_unchanged_files_are_not_read_twice(copy, made, hashed):
    for _ in range(2):
        write_records(find_clips(copy), made, **OPTIONS)
    assert hashed == []
    (copy / "audio" / "0007.wav").touch()
    for _ in range(2):
        time.sleep(0.05)
        write_records(find_clips(copy), made, **OPTIONS)
    assert hashed == ["0007.wav"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 100_000, b'{"files": {}, "sha256": "0"}'])
def test_a_lost_or_damaged_cache_costs_time_alone(copy, made, hashed, content):
    (made / CACHE).unlink() if content is None else (made / CACHE).write_bytes(content)
    for _ in range(2):
        write_records(find_clips(copy), made, **OPTIONS)
    assert sorted(hashed) == sorted(path.name for path in (copy / "audio").iterdir())


def test_a_hash_in_the_cache_that_was_altered_is_not_believed(copy, made, hashed):
    known = (made / CACHE).read_text()
    sha256 = source_hashes.identify(copy / "audio" / "0007.wav")[1]
    (made / CACHE).write_text(known.replace(sha256, sha256[::-1]))
    write_records(find_clips(copy), made, **OPTIONS)
    assert len(hashed) == 61


@pytest.mark.check("A9")
def test_a_copy_of_the_recordings_has_the_same_fingerprint(copy, made, tmp_path, hashed):
    other = shutil.copytree(copy, tmp_path / "elsewhere", copy_function=shutil.copy)  # with times of its own
    before = tree(made)
    assert write_records(find_clips(other), made, **OPTIONS).plan == read_manifest(made).plan
    assert tree(made) == before and len(hashed) == 60
    write_records(find_clips(other), tmp_path / "again", **OPTIONS)
    assert tree(tmp_path / "again") == before


def test_finished_records_need_no_place_to_write(copy, made, monkeypatch):
    before = tree(made)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (copy / "audio" / "0007.wav").touch()
    (made / ".work").mkdir()
    for place, name in ((os, "mkdir"), (os, "unlink"), (os, "rmdir"), (os, "replace"), (writing.files, "locked")):
        monkeypatch.setattr(place, name, refuse)
    monkeypatch.setattr(writing.files, "whole_file", refuse)
    assert write_records(find_clips(copy), made, **OPTIONS) == read_manifest(made)
    assert tree(made) == before
    monkeypatch.undo()
    write_records(find_clips(copy), made, **OPTIONS)
    assert not (made / ".work").exists()  # of a run that was killed


@pytest.mark.check("A9")
def test_a_recording_replaced_between_kill_and_resume_is_made_again_with_its_shard_alone(copy, tmp_path):
    stop_after(find_clips(copy), tmp_path / "out", 40)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".work").glob("clips-*.tfrecord")}
    first = json.loads((tmp_path / "out" / ".work" / f"{min(before)}.json").read_text())["known"]["clips"][0]["name"]
    replace_recording(copy / "audio" / first)
    write_records(find_clips(copy), tmp_path / "out", **OPTIONS)
    write_records(find_clips(copy), tmp_path / "at once", **OPTIONS)
    assert tree(tmp_path / "out") == tree(tmp_path / "at once")
    kept = [name for name in before if (tmp_path / "out" / name).stat().st_mtime_ns == before[name]]
    assert len(before) >= 4 and kept == [name for name in before if name != min(before)]


@pytest.mark.check("A9")
def test_a_recording_replaced_while_records_are_made_stops_them_and_the_next_run_makes_its_shard_again(
    copy, tmp_path, monkeypatch
):
    out, done, true_prepare = tmp_path / "out", [], writing.prepare

    def prepare(path, **sound):
        done.append(path)
        if len(done) == 20:
            replace_recording(Path(done[0]))
        return true_prepare(path, **sound)

    monkeypatch.setattr(writing, "prepare", prepare)
    with pytest.raises(DataError) as error:
        write_records(find_clips(copy), out, **OPTIONS)
    assert str(error.value) == (
        f"1 of 60 recordings changed while make-records ran, the first is {done[0]}. Run the same command again when "
        "nothing writes to them: it makes only the shards again that hold them."
    )
    assert not under_final_names(out)
    write_records(find_clips(copy), out, **OPTIONS)
    assert 60 < len(done) <= 68
    write_records(find_clips(copy), tmp_path / "at once", **OPTIONS)
    assert tree(out) == tree(tmp_path / "at once")


# A set that is replaced


def test_bad_clips_under_overwrite_are_told_beside_the_old_records(copy, made):
    before = tree(made)
    (copy / "audio" / "0007.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 60 clips cannot be used(?s:.*)out/\.work/rejects\.csv names them all"):
        write_records(find_clips(copy), made, overwrite=True, **OPTIONS)
    assert before.items() <= tree(made).items() and list(check_records(made)) == []
    assert pd.read_csv(made / ".work" / "rejects.csv")["name"].tolist() == ["0007.wav"]


def test_overwrite_that_was_stopped_goes_on_from_its_shards_and_the_old_set_is_there_meanwhile(source, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    stop_after(source, out, 30, overwrite=True, peak_db=-1.0)
    assert under_final_names(out) == under_final_names(whole)
    made = {path.name: path.stat().st_mtime_ns for path in (out / ".work").glob("clips-*.tfrecord")}
    assert len(made) >= 3
    write_records(source, out, overwrite=True, peak_db=-1.0, **OPTIONS)
    assert {name: (out / name).stat().st_mtime_ns for name in made} == made
    write_records(source, tmp_path / "at once", peak_db=-1.0, **OPTIONS)
    assert tree(out) == tree(tmp_path / "at once")


def test_overwrite_for_something_else_discards_unfinished_work_and_without_it_the_old_set_is_left_alone(
    source, whole, tmp_path
):
    out = shutil.copytree(whole, tmp_path / "out")
    stop_after(source, out, 30, overwrite=True, peak_db=-1.0)
    write_records(source, out, **OPTIONS)
    assert tree(out) == tree(whole)  # and the work is gone
    stop_after(source, out, 30, overwrite=True, peak_db=-1.0)
    stop_after(source, out, 10, overwrite=True, peak_db=-2.0)
    assert under_final_names(out) == under_final_names(whole)
    assert len([*(out / ".work").glob("clips-*.tfrecord")]) == 1
    with pytest.raises(DataError, match="holds finished records of other clips or options.*peak_db is None there and"):
        write_records(source, out, peak_db=-2.0, **OPTIONS)
    assert under_final_names(out) == under_final_names(whole)


def stop_before_publishing(source, out, **options):
    """Writes records until they are complete, and stops before any is in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_publish", None)
        with pytest.raises(TypeError):
            write_records(source, out, **OPTIONS, **options)
    assert (out / ".work" / "manifest.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_complete_records_are_put_in_their_place_without_decoding(source, whole, tmp_path, monkeypatch, overwrite):
    out = tmp_path / "out"
    if overwrite:
        write_records(source, out, **OPTIONS, peak_db=-1)
    stop_before_publishing(source, out, overwrite=overwrite)
    monkeypatch.setattr(writing, "prepare", None)
    write_records(source, out, overwrite=overwrite, **OPTIONS)
    assert tree(out) == tree(whole)


def test_complete_records_do_not_take_the_place_of_others_without_overwrite(source, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    stop_before_publishing(source, out, overwrite=True, peak_db=-1)
    with pytest.raises(DataError, match="holds finished records of other clips or options.*peak_db is None there and"):
        write_records(source, out, peak_db=-1, **OPTIONS)
    assert under_final_names(out) == under_final_names(whole)


@pytest.mark.parametrize("damaged", ["manifest.json", "clips.csv", "clips-00001-of-00009.tfrecord"])
def test_complete_records_that_were_damaged_before_they_were_in_their_place_are_made_again(
    source, whole, tmp_path, damaged
):
    stop_before_publishing(source, tmp_path)
    path = tmp_path / ".work" / damaged
    path.write_bytes(path.read_bytes()[:-1])
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(whole)


@pytest.mark.check("A9")
def test_a_recording_replaced_after_a_set_was_complete_and_before_it_was_in_its_place_is_made_again(copy, made):
    stop_before_publishing(find_clips(copy), made, overwrite=True, peak_db=-1)
    replace_recording(copy / "audio" / "0007.wav")
    write_records(find_clips(copy), made, overwrite=True, peak_db=-1, **OPTIONS)
    sha256 = read_clips(made / "clips.csv").set_index("name").loc["0007.wav", "sha256"]
    assert sha256 == hashlib.sha256((copy / "audio" / "0007.wav").read_bytes()).hexdigest()
