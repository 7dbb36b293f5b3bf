"""Formats beside WAV and FLAC: each is read whole, or refused."""

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile as sf

from audiotag.data.audio import headers
from audiotag.data.audio.decoding import header_at, open_recording, read_waveform
from audiotag.data.records.preparation import prepare
from audiotag.errors import DataError

RATE = 16_000
NOISE = np.random.default_rng(0).normal(size=RATE).astype("float32") / 8
AS_RECORDS = {"sample_rate": RATE, "codec": "pcm", "trim": None, "trim_db": 60.0, "peak_db": None}
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def written(seconds, kind, subtype=None, rate=RATE, **options):
    file = io.BytesIO()
    sf.write(file, np.resize(NOISE, int(seconds * rate)), rate, format=kind, subtype=subtype, **options)
    return file.getvalue()


@pytest.fixture
def decoded(tmp_path):
    """A function: bytes and name of a file → its waveform."""

    def read(content, name, sample_rate=RATE):
        (tmp_path / name).write_bytes(content)
        return read_waveform(tmp_path / name, sample_rate=sample_rate)

    return read


READ = [
    *[("WAV", "PCM_16", suffix) for suffix in ("wave", "bwf")],
    ("RF64", "PCM_16", "rf64"),
    ("AIFF", "PCM_16", "aifc"),
    *[("OGG", encoding, suffix) for encoding in ("VORBIS", "OPUS") for suffix in ("oga", "opus")],
    *[("AU", encoding, "au") for encoding in ("PCM_16", "FLOAT", "ULAW", "G721_32")],
    ("AU", "PCM_16", "snd"),
    *[("CAF", encoding, "caf") for encoding in ("PCM_16", "FLOAT", "ALAC_16")],
    *[("W64", encoding, "w64") for encoding in ("PCM_16", "IMA_ADPCM")],
    *[("NIST", "PCM_16", suffix) for suffix in ("sph", "nist", "wav", "WAV")],
    ("VOC", "PCM_16", "voc"),
    ("AVR", "PCM_16", "avr"),
    ("PAF", "PCM_16", "paf"),
    ("PVF", "PCM_16", "pvf"),
    ("IRCAM", "PCM_16", "sf"),
    ("SVX", "PCM_16", "svx"),
    ("SDS", "PCM_16", "sds"),
    *[("WAV", encoding, "wav") for encoding in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16")],
    *[("AIFF", encoding, "aifc") for encoding in ("IMA_ADPCM", "GSM610")],
]
WITHOUT_LENGTH = ("PAF", "PVF", "IRCAM")  # their headers do not say how long they are


@pytest.mark.check("C1", len(READ))
@pytest.mark.parametrize("kind, encoding, suffix", READ)
def test_what_libsndfile_decodes_is_read(decoded, kind, encoding, suffix):
    content = written(1, kind, encoding)
    reference = sf.read(io.BytesIO(content), dtype="float32")[0]
    waveform = decoded(content, f"a.{suffix}")
    assert len(waveform) >= RATE
    np.testing.assert_allclose(waveform, np.clip(reference, -1, 1), rtol=0, atol=1e-6)


@pytest.mark.check("C1", len(READ))
@pytest.mark.parametrize("kind, encoding, suffix", [each for each in READ if each[0] not in WITHOUT_LENGTH])
def test_a_file_that_was_cut_is_refused(decoded, kind, encoding, suffix):
    content = written(1, kind, encoding)
    for part in (0.3, 0.9):
        with pytest.raises(DataError, match=f"a.{suffix}: .*(cut short|cannot decode|cannot read)"):
            decoded(content[: int(part * len(content))], f"a.{suffix}")


def test_mp3_inside_wav_is_read(decoded):
    frames = written(1, "MP3", bitrate_mode="CONSTANT")
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4_000, 1, 0, 12, 1, 2, 144, 1, 0)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    chunks += b"fact" + struct.pack("<II", 4, RATE) + b"data" + struct.pack("<I", len(frames)) + frames
    content = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    assert len(decoded(content, "a.wav")) >= RATE


def test_no_decoder_sees_a_file_whose_room_is_estimated(tmp_path):
    (tmp_path / "a.au").write_bytes(written(1, "AU"))
    with pytest.raises(DataError, match="a.au: only a decoder reads the header of AU"):
        header_at(tmp_path / "a.au")


@pytest.mark.check("C1", 7)
@pytest.mark.parametrize(
    "kind, encoding", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("WAV", None), ("FLAC", None), ("AIFF", None)]
)
@pytest.mark.parametrize("rate", [RATE, 24_000])
def test_a_file_of_several_streams_is_refused(decoded, kind, encoding, rate):
    content = written(1, kind, encoding) + written(3, kind, encoding, rate)
    with pytest.raises(DataError, match=f"a.{kind.lower()}: several streams, one after another, .* Split it"):
        decoded(content, f"a.{kind.lower()}")


TAG = b"ID3\4\0\0" + bytes((0, 0, 3, 0)) + bytes(3 << 7)
ID3V1 = b"TAG" + bytes(125)
MP3 = written(1, "MP3")


def without_length(content):
    """An MP3 without its first frame, which holds its length."""
    length = next(n for n in range(24, 2_000) if headers._mp3_frames(content[:n], 0)[0])
    return content[length:]


@pytest.mark.check("C1", 5)
@pytest.mark.parametrize(
    "content",
    [
        TAG + MP3 + TAG + MP3,
        MP3 + ID3V1 + TAG + MP3,
        MP3 + without_length(written(3, "MP3")),
        without_length(MP3) + without_length(written(1, "MP3", rate=24_000)),
        MP3 + bytes(5_000) + MP3,
    ],
    ids=["tags", "both tags", "the second has no length", "neither has a length", "zeros between"],
)
def test_concatenated_mp3_is_refused_where_a_decoder_stops_early(decoded, content):
    with pytest.raises(DataError, match="a.mp3: several streams"):
        decoded(content, "a.mp3")


@pytest.mark.check("C1", 5)
@pytest.mark.parametrize(
    "before, after",
    [(TAG, b""), (TAG * 2, b""), (TAG * 5, b""), (TAG[:5] + b"\x10" + TAG[6:] + b"3DI" + bytes(7) + TAG, b"")]
    + [(TAG * 2, ID3V1), (b"", b"APETAGEX" + bytes(100))],
    ids=["one", "two", "five", "a footer", "two and ID3v1", "APE"],
)
def test_tags_of_an_mp3_are_skipped(decoded, before, after):
    assert len(decoded(before + MP3 + after, "a.mp3")) == RATE
    if not after:
        assert len(decoded(before + written(1, "FLAC"), "a.flac")) == RATE


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_of_variable_bit_rate_without_a_length_is_read_whole(tmp_path, rate, channels):
    # libsndfile alone decodes as much as the bit rate of the first frames suggests: here less than a fifth
    sound = np.concatenate([np.resize(NOISE, rate), np.zeros(8 * rate)])
    file = io.BytesIO()
    sf.write(file, np.stack([sound] * channels, axis=1), rate, format="MP3")
    content = without_length(file.getvalue())
    frames = headers._mp3_frames(content, 0)[0] * (1152 if rate > 24_000 else 576)
    for name, before in (("a.mp3", b""), ("tagged.mp3", TAG * 2)):
        (tmp_path / name).write_bytes(before + content)
        waveform = read_waveform(tmp_path / name, sample_rate=rate)
        assert frames - 1_105 <= len(waveform) <= frames and len(waveform) >= 9 * rate
        with open_recording(tmp_path / name) as (_, blocks):
            np.testing.assert_array_equal(np.clip(np.concatenate(list(blocks)), -1, 1), waveform)
    file.seek(0)
    tagged = sf.read(file, always_2d=True)[0].mean(axis=1)[2_000:4_000]
    np.testing.assert_allclose(waveform[2_576:4_576], tagged, atol=1e-3)  # later by the delay of the encoder


def patched(content, at, value):
    return content[:at] + value + content[at + len(value) :]


WAV = written(1, "WAV")


@pytest.mark.check("C1", 5)
@pytest.mark.parametrize(
    "size, whole",
    [(0xFFFFFFFF, None), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF000, 0x7FFFF024), (0x80000000, 0x80000024)]
    + [(0xFFFFFFDB, 0xFFFFFFFF)],
)
def test_a_wav_from_a_pipe_is_read_to_its_end(decoded, size, whole):
    content = patched(WAV, 40, struct.pack("<I", size))
    content = patched(content, 4, struct.pack("<I", whole)) if whole else content
    np.testing.assert_array_equal(decoded(content, "a.wav"), decoded(WAV, "a.wav"))


@pytest.mark.parametrize("size", [0, 40_000, 0x7FFFFFFF, 0xFFFFFFFE])
def test_another_wrong_length_of_a_wav_is_refused(decoded, size):
    with pytest.raises(DataError, match=f"promises {size} bytes of sound, 32000 bytes follow"):
        decoded(patched(WAV, 40, struct.pack("<I", size)), "a.wav")


@pytest.mark.check("C1", 4)
@pytest.mark.parametrize("align", [0, 1, 4, 65_535])
def test_a_wrong_block_align_is_ignored_as_libsndfile_does(decoded, align):
    np.testing.assert_array_equal(decoded(patched(WAV, 32, struct.pack("<H", align)), "a.wav"), decoded(WAV, "a.wav"))


@pytest.mark.check("C1", 4)
@pytest.mark.parametrize("kind, rate", [("AIFF", 2_000), ("WAV", 500_000), ("WAV", 200), ("CAF", 1_000_000)])
def test_rates_of_seismometers_and_of_ultrasound_are_read(decoded, kind, rate):
    assert len(decoded(written(0.5, kind, rate=rate), f"a.{kind.lower()}")) == pytest.approx(RATE / 2, abs=2)


@pytest.mark.check("C1", 5)
@pytest.mark.parametrize("scale", [32_767, 2_147_483_648, 100, 128])
@pytest.mark.parametrize("kind, encoding", [("WAV", "FLOAT"), ("AIFF", "DOUBLE"), ("CAF", "FLOAT")])
def test_samples_far_above_full_scale_need_peak_db(tmp_path, kind, encoding, scale):
    path = tmp_path / f"a.{kind.lower()}"
    sf.write(path, NOISE * scale, RATE, format=kind, subtype=encoding)
    with pytest.raises(DataError, match=r"its peak is [0-9.e+]+, and full scale is 1: .* Divide them .* --peak-db"):
        read_waveform(path, sample_rate=RATE)
    waveform = read_waveform(path, sample_rate=RATE, peak_db=0.0)
    np.testing.assert_allclose(waveform, NOISE / np.abs(NOISE).max(), rtol=0, atol=1e-5)
    _, reason = prepare(path, **AS_RECORDS)
    assert "full scale is 1" in reason


# With ffmpeg

FFMPEG_FILES = {
    "M4A": ("m4a", b"\0\0\0\x20ftypM4A "),
    "3GP": ("3gp", b"\0\0\0\x18ftyp3gp4"),
    "AAC": ("aac", b"\xff\xf1\x50\x80"),
    "WMA": ("wma", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    "WebM": ("webm", b"\x1a\x45\xdf\xa3"),
    "AMR": ("amr", b"#!AMR\n"),
    "FLAC in Ogg": ("oga", b"OggS\0\2" + bytes(20) + b"\1\x13\x7fFLAC\1\0"),
}


@pytest.mark.check("C1", len(FFMPEG_FILES))
@pytest.mark.parametrize("suffix, start", FFMPEG_FILES.values(), ids=FFMPEG_FILES)
def test_without_ffmpeg_one_sentence_says_what_to_do(decoded, monkeypatch, suffix, start):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=f"a.{suffix}: .*, which audiotag reads if ffmpeg is installed. Install it, or"):
        decoded(start + bytes(200), f"a.{suffix}")


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "aac", "wma", "webm", "mka", "mp4", "wv"])
def test_ffmpeg_decodes_what_libsndfile_does_not(tmp_path, suffix):
    sf.write(tmp_path / "a.wav", np.resize(NOISE, (2 * RATE, 2)), RATE)
    path = tmp_path / f"a.{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", path], check=True)
    waveform = read_waveform(path, sample_rate=RATE)
    assert len(waveform) == pytest.approx(2 * RATE, abs=3_000)
    with open_recording(path) as (header, blocks):
        assert header.channels == 2 and sum(map(len, blocks)) / header.sample_rate == pytest.approx(2, abs=0.2)
    identity, (audio, codec, measures) = prepare(path, **AS_RECORDS)
    assert codec == "pcm" and measures["num_samples"] == len(waveform)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"a.{suffix}: ffmpeg cannot decode this .* file and says"):
        read_waveform(path, sample_rate=RATE)


@needs_ffmpeg
def test_a_file_of_several_audio_streams_is_refused(tmp_path):
    sf.write(tmp_path / "a.wav", NOISE, RATE)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-map", "0:a", "-map", "0:a", tmp_path / "two.m4a"]
    subprocess.run(command, check=True)
    with pytest.raises(DataError, match="two.m4a: ffmpeg cannot decode .*(more than|exactly) one stream"):
        read_waveform(tmp_path / "two.m4a", sample_rate=RATE)


@pytest.mark.parametrize("name", ["a.opus", "a.au", "a.caf"])
def test_the_suffix_must_fit_the_content(decoded, name):
    with pytest.raises(DataError, match=f"the name says {name[1:]}, but the content is WAV"):
        decoded(WAV, name)


@pytest.mark.parametrize("kind", ["OGG", "MP3", "FLAC", "WAV"])
def test_a_long_recording_of_several_streams_is_refused_too(tmp_path, kind):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(written(1, kind) + bytes(50) * (kind == "MP3") + written(2, kind))
    with pytest.raises(DataError, match="several streams"), open_recording(path):
        pass
