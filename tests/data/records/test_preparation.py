import io

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import soxr
from record_folders import OPTIONS, RATE, by_name, tree

from audiotag.data.audio import trimming
from audiotag.data.clips import read_clips
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips
from audiotag.errors import DataError

# Samples


def test_a_record_holds_the_samples_of_its_file(source, complete):
    written = by_name(complete)
    for name, path in zip(source.clips["name"], source.clips["path"]):
        samples, record = sf.read(path, dtype="int16")[0], written[name]
        np.testing.assert_array_equal(np.frombuffer(record["audio"], "<i2"), samples)
        assert (record["codec"], record["sample_rate"], record["num_samples"]) == (b"pcm", RATE, len(samples))


def test_digital_silence_is_written_like_other_clips(recordings, tmp_path):
    source, _ = recordings(tmp_path / "in", [500, 500])
    sf.write(tmp_path / "in" / "audio" / "0000.wav", np.zeros(700, "int16"), RATE)
    write_records(source, tmp_path / "out", **OPTIONS)
    clip = read_clips(tmp_path / "out" / "clips.csv").iloc[0]
    assert (clip["num_samples"], clip["peak"], clip["rms"]) == (700, 0.0, 0.0)


@pytest.mark.check("C1")
def test_a_clip_too_loud_for_float32_is_one_bad_clip(copy, tmp_path):
    square = np.where(np.arange(9_000) % 7 < 3, 3.3e38, -3.3e38).astype("float32")
    stereo = np.stack([square, square], axis=1)
    for name, waveform, rate in (("0007", stereo, RATE), ("0008", square, 44_100), ("0009", square, RATE)):
        sf.write(copy / "audio" / f"{name}.wav", waveform, rate, subtype="FLOAT")
    write_records(find_clips(copy), tmp_path / "out", skip_bad=True, peak_db=0.0, **OPTIONS)
    reasons = dict(pd.read_csv(tmp_path / "out" / "rejects.csv")[["name", "reason"]].values)
    assert reasons == {
        "0007.wav": "0007.wav: 9000 samples after 0 s are NaN or infinite, or too loud to be mixed. Export it again.",
        "0008.wav": "0008.wav: too loud to be resampled. Export it again.",
    }
    pcm = np.frombuffer(by_name(tmp_path / "out")["0009.wav"]["audio"], "<i2")
    assert set(pcm) == {-32_768, 32_767}
    write_records(find_clips(copy), tmp_path / "plain", skip_bad=True, **OPTIONS)
    reasons = dict(pd.read_csv(tmp_path / "plain" / "rejects.csv")[["name", "reason"]].values)
    assert "0009.wav: its peak is 3.3e+38, and full scale is 1" in reasons["0009.wav"]


# Trimming and peak


TREATED = {"trim": "absolute", "peak_db": -0.1}


@pytest.fixture(scope="module")
def quiet_ends(tmp_path_factory):
    """Clips at 44.1 kHz with silence at both ends, inside, at one end, after a fade, nowhere, and everywhere."""
    folder = tmp_path_factory.mktemp("quiet") / "in"
    (folder / "hum").mkdir(parents=True)
    square = np.sign(np.sin(2 * np.pi * 1_000 * np.arange(22_050) / 44_100)) * 16_000  # overshoots when resampled
    silence = np.zeros(11_000)
    waveforms = {
        "both": [silence, square, silence[:5_000]],
        "inside": [silence, square, silence, square / 2],
        "end": [square, silence],
        "fading": [square * np.linspace(0, 1, len(square)) ** 4, silence],
        "nowhere": [square * 2],
        "everywhere": [silence],
    }
    for name, pieces in waveforms.items():
        sf.write(folder / "hum" / f"{name}.wav", np.concatenate(pieces).astype("int16"), 44_100)
    return find_clips(folder)


@pytest.fixture(scope="module")
def treated(quiet_ends, tmp_path_factory):
    """Their records at 16 kHz, trimmed by absolute level, with peaks at -0.1 dBFS."""
    out = tmp_path_factory.mktemp("quiet") / "out"
    write_records(quiet_ends, out, **OPTIONS, **TREATED)
    return out


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("peak_db", [-0.1, -12.0])
@pytest.mark.parametrize("trim", [None, "relative"])
def test_the_peak_of_a_record_is_the_requested_one_after_resampling(quiet_ends, tmp_path, sample_rate, peak_db, trim):
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
    pcm = np.frombuffer(by_name(tmp_path)["hum/nowhere.wav"]["audio"], "<i2")
    assert (pcm.max(), pcm.min()) == (32_767, -32_768)


@pytest.mark.parametrize(
    "options, ends",
    [
        ({"trim": "absolute"}, lambda waveform: trimming.trim_absolute(waveform, sample_rate=44_100)),
        ({"trim": "relative"}, trimming.trim_relative),
        ({"trim": "relative", "trim_db": 3.0}, lambda waveform: trimming.trim_relative(waveform, trim_db=3.0)),
        (TREATED, lambda waveform: trimming.trim_absolute(waveform, sample_rate=44_100)),
    ],
)
def test_a_clip_is_trimmed_at_its_own_rate_then_resampled_then_scaled(quiet_ends, tmp_path, options, ends):
    write_records(quiet_ends, tmp_path, **OPTIONS, **options)
    clips, written = read_clips(tmp_path / "clips.csv").set_index("name"), by_name(tmp_path)
    for name, path in zip(quiet_ends.clips["name"], quiet_ends.clips["path"]):
        waveform, clip = sf.read(path, dtype="float32")[0], clips.loc[name]
        start, end = ends(waveform)
        expected = soxr.resample(waveform[start:end], 44_100, RATE, quality="HQ") * 10 ** (clip["gain_db"] / 20)
        pcm = np.frombuffer(written[name]["audio"], "<i2")
        assert len(pcm) == clip["num_samples"] == len(expected)
        np.testing.assert_allclose(pcm, np.clip(expected * 32_768, -32_768, 32_767), rtol=0, atol=0.6)
        assert clip["trimmed_start_seconds"] == pytest.approx(start / 44_100, abs=1e-6)
        assert clip["trimmed_end_seconds"] == pytest.approx((len(waveform) - end) / 44_100, abs=1e-6)
        length = clip["trimmed_start_seconds"] + clip["seconds"] + clip["trimmed_end_seconds"]
        assert length == pytest.approx(len(waveform) / 44_100, abs=1 / RATE)


def test_only_silent_ends_are_trimmed_and_a_silent_clip_is_kept(treated):
    clips = read_clips(treated / "clips.csv").set_index("name")
    trimmed = dict(zip(clips.index, clips[["trimmed_start_seconds", "trimmed_end_seconds"]].round(2).values.tolist()))
    assert trimmed == {
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


@pytest.mark.parametrize("other", [{}, {"trim": "relative", "peak_db": -0.1}, {"trim": "absolute", "peak_db": -1}])
def test_another_trim_or_peak_is_another_fingerprint(quiet_ends, treated, other):
    assert write_records(quiet_ends, treated, **OPTIONS, **TREATED).options.items() >= TREATED.items()
    with pytest.raises(DataError, match="out: holds finished records of other clips or options"):
        write_records(quiet_ends, treated, **OPTIONS, **other)


# Codecs


def test_flac_records_hold_the_same_samples_as_pcm(source, complete, tmp_path):
    write_records(source, tmp_path / "flac", codec="flac", **OPTIONS)
    pcm, flac = by_name(complete), by_name(tmp_path / "flac")
    assert pcm.keys() == flac.keys()
    for name, record in flac.items():
        samples, sample_rate = sf.read(io.BytesIO(record["audio"]), dtype="int16")
        assert (record["codec"], sample_rate) == (b"flac", RATE)
        np.testing.assert_array_equal(samples, np.frombuffer(pcm[name]["audio"], "<i2"))
    assert (tmp_path / "flac" / "clips.csv").read_bytes() == (complete / "clips.csv").read_bytes()


def test_codec_source_keeps_vorbis_and_mp3_of_the_same_rate_and_writes_the_rest_as_flac(tmp_path):
    sources = {
        "vorbis.ogg": (RATE, "VORBIS", b"ogg"),
        "layer3.mp3": (RATE, "MPEG_LAYER_III", b"mp3"),
        "opus.ogg": (RATE, "OPUS", b"flac"),  # tensorflow-io cannot decode it
        "fast.ogg": (44_100, "VORBIS", b"flac"),
        "plain.wav": (RATE, "PCM_16", b"flac"),
    }
    folder = tmp_path / "in" / "hum"
    folder.mkdir(parents=True)
    for name, (sample_rate, encoding, _) in sources.items():
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(sample_rate) / sample_rate)
        sf.write(folder / name, tone, sample_rate, format=name[-3:], subtype=encoding)
    write_records(find_clips(tmp_path / "in"), tmp_path / "out", codec="source", **OPTIONS)
    written = by_name(tmp_path / "out")
    for name, (_, _, codec) in sources.items():
        record = written[f"hum/{name}"]
        assert (record["codec"], record["sample_rate"], record["num_samples"]) == (codec, RATE, RATE)
        assert (record["audio"] == (folder / name).read_bytes()) == (codec in (b"ogg", b"mp3"))
        assert len(sf.read(io.BytesIO(record["audio"]))[0]) == RATE


@pytest.mark.parametrize(
    "options, kept",
    [({"trim": "relative"}, {"hum/untrimmed.ogg", "hum/silent.ogg"}), ({"peak_db": -0.1}, {"hum/silent.ogg"})],
)
def test_codec_source_writes_trimmed_and_scaled_clips_as_flac(tmp_path, options, kept):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    folder = tmp_path / "in" / "hum"
    folder.mkdir(parents=True)
    for name, waveform in {"untrimmed": tone, "silent": 0 * tone, "tail": np.concatenate([tone, 0 * tone])}.items():
        sf.write(folder / f"{name}.ogg", waveform, RATE, format="OGG", subtype="VORBIS")
    write_records(find_clips(tmp_path / "in"), tmp_path / "out", codec="source", **OPTIONS, **options)
    written, clips = by_name(tmp_path / "out"), read_clips(tmp_path / "out" / "clips.csv").set_index("name")
    assert {name for name, record in written.items() if record["codec"] == b"ogg"} == kept
    for name, record in written.items():
        waveform = sf.read(io.BytesIO(record["audio"]))[0]
        assert len(waveform) == record["num_samples"] == clips.loc[name, "num_samples"]
        assert abs(waveform).max() == pytest.approx(clips.loc[name, "peak"], abs=1e-4)
