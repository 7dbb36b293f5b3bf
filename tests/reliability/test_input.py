"""C: untrusted audio files and tables are read correctly or refused with a reason; nothing crashes or hangs."""

import io
import os
import random
import resource
import struct
import sys
import time
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from tiers import law

from audiotag.data.audio.decoding import read_waveform
from audiotag.data.audio.headers import MOST_SAMPLES, read_header
from audiotag.data.audio.worker_pool import in_order
from audiotag.data.records.preparation import prepare
from audiotag.data.records.writing import planned_shards, write_records
from audiotag.data.sources import find_clips
from audiotag.errors import DataError
from audiotag.inference.long_recordings import predict_windows
from audiotag.inference.predictor import Predictor
from audiotag.models.tagger import Tagger

AS_RECORDS = {"sample_rate": 16_000, "codec": "pcm", "trim": None, "trim_db": 60.0, "peak_db": None}
FORMATS = {"WAV": "wav", "WAVEX": "wav", "RF64": "wav", "AIFF": "aiff", "FLAC": "flac", "OGG": "ogg", "MP3": "mp3"}
PLAIN = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "VORBIS", "OPUS"}
PLAIN.add("MPEG_LAYER_III")


def written(sound, rate, **options):
    file = io.BytesIO()
    sf.write(file, sound, rate, **options)
    return file.getvalue()


SOUND = np.random.default_rng(0).normal(size=3_000) / 10
SEEDS = {
    "wav": written(SOUND, 16_000, format="WAV"),
    "flac": written(SOUND, 16_000, format="FLAC"),
    "ogg": written(SOUND, 16_000, format="OGG"),
    "mp3": written(SOUND, 16_000, format="MP3"),
    "aiff": written(SOUND, 16_000, format="AIFF"),
}


# C2: randomly changed files


def mutated(seed, rng):
    """A file with a few bytes changed, removed, repeated or replaced by extreme values."""
    data = bytearray(seed)
    for _ in range(rng.randrange(1, 8)):
        at, length = rng.randrange(len(data) or 1), rng.randrange(1, 9)
        change = rng.randrange(5)
        if change == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            data[at : at + length] = rng.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * length
        elif change == 2:
            del data[at : at + length]
        elif change == 3:
            data[at:at] = data[at : at + 64]
        else:
            at = rng.randrange(min(64, len(data)) or 1)  # in the header
            data[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 65_535, 44_100]))
    return bytes(data)


@pytest.mark.check("C2")
def test_changed_files_do_not_crash_or_hang(tier, tally, tmp_path):
    rng, num_files, paths = random.Random(0), tier(2_000, 100_000), []
    accepted = died = 0
    for first in range(0, num_files, 2_000):
        paths = []
        for number in range(first, min(first + 2_000, num_files)):
            suffix = rng.choice(list(SEEDS))
            paths.append(str(tmp_path / f"{number}.{suffix}"))
            with open(paths[-1], "wb") as file:
                file.write(mutated(SEEDS[suffix], rng))
        begun, slowest = time.monotonic(), 0.0
        for path, (result, reason) in zip(paths, in_order(partial(prepare, **AS_RECORDS), paths, workers=2)):
            slowest, begun = max(slowest, time.monotonic() - begun), time.monotonic()
            with tally.trial(path):
                died += reason is not None
                if reason is None and not isinstance(result[1], str):
                    accepted += 1
                    _, (pcm, _, measures) = result
                    assert len(pcm) == 2 * measures["num_samples"] and 0 < measures["num_samples"] <= MOST_SAMPLES
                    assert np.isfinite([measures["peak"], measures["rms"]]).all()
        with tally.trial("no hang"):
            assert slowest < 5 + 10 * (first == 0), f"{slowest} s"
        for file in tmp_path.iterdir():
            file.unlink()
    refused = num_files - accepted - died
    tally.say(f"{num_files} changed files: {accepted} accepted, {refused} refused, {died} crashed their decoder")


# C3: small files whose headers promise much


def chunk(kind, content, size=None, order="<"):
    return kind + struct.pack(f"{order}I", len(content) if size is None else size) + content


def wav(rate=16_000, channels=1, bits=16, data=bytes(64), size=None, before=b"", kind=b"RIFF"):
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    return kind + bytes(4) + b"WAVE" + before + chunk(b"fmt ", form) + chunk(b"data", data, size)


def flac(total, rate=16_000):
    """A FLAC file whose header promises `total` samples."""
    data = bytearray(SEEDS["flac"])
    head = rate << 44 | 15 << 36 | total
    data[18:26] = struct.pack(">Q", head)
    return bytes(data)


BOMBS = {
    "WAV of 4 GB": ("wav", wav(size=2**32 - 2)),
    "WAV of 4 GB with a little sound": ("wav", wav(size=2**32 - 2, data=bytes(4_096))),
    "RF64 of 2**62 bytes": (
        "wav",
        wav(kind=b"RF64", size=2**32 - 1, before=chunk(b"ds64", struct.pack("<QQQI", 2**62, 2**62, 2**60, 0))),
    ),
    "FLAC without a length": ("flac", flac(0)),
    "FLAC of 2**36 - 1 samples": ("flac", flac(2**36 - 1)),
    "FLAC of 67,108,865 samples": ("flac", flac(MOST_SAMPLES + 1)),
    "WAV of 1 Hz": ("wav", wav(rate=1)),
    "WAV of 4,294,967,295 Hz": ("wav", wav(rate=2**32 - 1)),
    "WAV of 65,535 channels": ("wav", wav(channels=65_535, bits=8)),
    "ten million chunks": ("wav", b"RIFF" + bytes(4) + b"WAVE" + chunk(b"JUNK", b"") * 10_000_000),
    "nested lists": (
        "wav", b"RIFF" + bytes(4) + b"WAVE" + chunk(b"LIST", b"INFO" + chunk(b"LIST", b"INFO") * 1_000_000)
    ),
    "a chunk of 4 GB": ("wav", b"RIFF" + bytes(4) + b"WAVE" + chunk(b"JUNK", b"", 2**32 - 2)),
    "AIFF of 2**32 - 1 samples": (
        "aiff",
        b"FORM" + bytes(4) + b"AIFF"
        + chunk(b"COMM", struct.pack(">hIh", 1, 2**32 - 1, 16) + b"\x40\x0c\xfa\0\0\0\0\0\0\0", order=">")
        + chunk(b"SSND", bytes(64), order=">"),
    ),
    "FLAC of silence, 10,000 to 1": ("flac", flac(MOST_SAMPLES + 5, 96_000)),
    "WAV longer than a clip, resampled": ("wav", wav(rate=4_000, data=bytes(2 * (MOST_SAMPLES // 4 + 10)))),
    "an ID3 tag of 256 MB": ("mp3", b"ID3\3\0\0\x7f\x7f\x7f\x7f" + bytes(64)),
    "zeros": ("mp3", bytes(1 << 28)),
    "an Ogg page of nothing": ("ogg", b"OggS" + bytes(23) + b"\xff" + bytes(255)),
}  # fmt: skip


def as_clip(path, what):
    read_waveform(path, sample_rate=16_000 if "resampled" not in what else 96_000)


def as_recording(path, what):
    predictor = Predictor(lambda windows: windows[:, :1], AS_RECORDS, ("a",), 16_000, 16_000, "max")
    predict_windows(predictor, path)


@pytest.mark.check("C3")
@pytest.mark.parametrize("read", [as_clip, as_recording])
def test_decompression_bombs_are_refused_quickly(read, tally, tmp_path):
    for what, (suffix, content) in BOMBS.items():
        if read is as_recording and "resampled" in what:
            continue  # the promised samples are there
        path = tmp_path / f"bomb.{suffix}"
        path.write_bytes(content)
        with tally.trial(what):
            memory, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
            with pytest.raises(DataError, match=f"bomb.{suffix}: "):
                read(path, what)
            assert time.monotonic() - begun < 2
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 512 * 1024


# C4: our header reader against libsndfile


@pytest.mark.check("C4")
def test_headers_are_read_as_libsndfile_reads_them(tally, tmp_path):
    rng = np.random.default_rng(4)
    for format, suffix in FORMATS.items():
        for encoding in PLAIN.intersection(sf.available_subtypes(format)):
            for rate in (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000):
                for channels in (1, 2, 6):
                    sound = rng.normal(size=(int(rng.integers(600, 3_000)), channels)) / 10
                    try:
                        data = written(sound, rate, format=format, subtype=encoding)
                    except sf.LibsndfileError:  # no such combination
                        continue
                    with tally.trial(f"{format} {encoding} {rate} {channels}"):
                        header = read_header(data)
                        with sf.SoundFile(io.BytesIO(data)) as file:
                            assert (header.sample_rate, header.channels) == (file.samplerate, file.channels)
                            assert header.num_samples in (None, file.frames)
                            reference = file.read(dtype="float64", always_2d=True).mean(axis=1)
                        path = tmp_path / f"clip.{suffix}"
                        path.write_bytes(data)
                        waveform = read_waveform(path, sample_rate=rate)
                        np.testing.assert_allclose(waveform, reference, rtol=0, atol=1 / 32_768)


# C6: names that lead to other folders


NAMES = [
    "../secret.wav", "../../secret.wav", "a/../../secret.wav", "/etc/passwd", "//etc/passwd", "./../secret.wav",
    "..\\secret.wav", "C:\\secret.wav", "c:/secret.wav", "\\\\host\\share\\x.wav", "file:///etc/passwd",
    "gs://bucket/x.wav", "s3://bucket/x.wav", "https://host/x.wav", "link.wav", "folder/secret.wav", "deep/link.wav",
    "zero.wav", "fifo.wav", "here", ".", "..", "", " ", "x" * 300 + ".wav", "~/.bashrc", "$HOME/x.wav",
    "secret.wav\u202e",
    "a//b.wav", "a/./b.wav", "a/", "/", "|cat /etc/passwd", "`id`.wav", "%2e%2e/secret.wav", "\u2025/secret.wav",
]  # fmt: skip


@pytest.mark.check("C6")
def test_no_name_in_a_table_leads_out_of_the_folder(tally, tmp_path):
    secret, source = tmp_path / "secret.wav", tmp_path / "source"
    secret.write_bytes(SEEDS["wav"])
    for folder in ("audio", "audio/deep", "audio/here"):
        (source / folder).mkdir(parents=True)
    (source / "audio" / "good.wav").write_bytes(SEEDS["wav"])
    (source / "audio" / "link.wav").symlink_to(secret)
    (source / "audio" / "deep" / "link.wav").symlink_to("../../../secret.wav")
    (source / "audio" / "folder").symlink_to(tmp_path)
    (source / "audio" / "zero.wav").symlink_to("/dev/zero")
    os.mkfifo(source / "audio" / "fifo.wav")
    opened, watching = [], [True]

    def watch(event, arguments):
        if watching[0] and event == "open" and isinstance(arguments[0], (str, bytes)):
            opened.append(os.path.realpath(os.fsdecode(arguments[0])))

    sys.addaudithook(watch)  # cannot be removed, so it is switched off after this test
    for name in NAMES:
        quoted = name.replace('"', '""')
        (source / "labels.csv").write_text(f'fname,labels\ngood.wav,a\n"{quoted}",b\n', encoding="utf-8")
        opened.clear()
        with tally.trial(repr(name)):
            with pytest.raises(DataError, match="labels.csv line 3|clips are not there|leads out of"):
                found = find_clips(source)
                write_records(found, tmp_path / "out", sample_rate=16_000, workers=0)
            outside = [path for path in opened if path in (str(secret), "/etc/passwd", "/dev/zero")]
            assert not outside, outside
    watching[0] = False


# C8: properties


@law
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from(["curated", "noisy", "test"])),
        min_size=1,
        max_size=60,
        unique_by=lambda clip: clip[0],
    ),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
def test_every_clip_is_planned_once_in_any_order(clips, most, rng):
    table = pd.DataFrame([{"name": f"{number}.wav", "subset": subset} for number, subset in clips])
    plan = planned_shards(table, most)
    planned = [name for shard in plan.values() for name in shard["name"]]
    assert sorted(planned) == sorted(table["name"])
    assert all(1 <= len(shard) <= most and shard["subset"].nunique() == 1 for shard in plan.values())
    mixed = planned_shards(table.sample(frac=1, random_state=rng.randrange(2**31)), most)
    assert [shard["name"].tolist() for shard in mixed.values()] == [shard["name"].tolist() for shard in plan.values()]


@law
@given(st.integers(1, 4_000), st.integers(1, 3_000), st.sampled_from(["repeat", "zeros"]))
def test_windows_contain_every_sample_and_nothing_else(samples, window, pad):
    tagger = Tagger(None, None, num_classes=1, window_samples=window, pad=pad)
    clip = np.arange(1, samples + 1, dtype="float32")
    windows, mask = map(keras.ops.convert_to_numpy, tagger.windows(clip[None]))
    assert windows.shape[2] == window and mask.all()
    inside = windows[windows != 0]
    assert set(inside) == set(clip)
