import io
import os
import struct

import librosa
import numpy as np
import pytest
import soundfile as sf
from waveforms import from_pcm

from audiotag.data.audio import decoding, headers
from audiotag.data.audio.decoding import normalize, read_waveform, to_pcm
from audiotag.errors import DataError

RATE = 16_000
LSB = 1 / 32_768
INTEGER, FLOAT = 1, 3  # what a WAV header calls its samples
SOUND = np.random.default_rng(0).integers(-(2**15), 2**15, 1_000).astype("<i2")  # [N]


# WAV files byte by byte, so that libsndfile does not check itself


def chunk(kind, content, size=None):
    return kind + struct.pack("<I", len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


def fmt(bits=16, channels=1, sample_rate=RATE, samples_are=INTEGER):
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", samples_are, channels, sample_rate, sample_rate * frame, frame, bits))


def riff(*chunks, size=None):
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content) if size is None else size) + content


def data(samples=SOUND, size=None):
    return chunk(b"data", samples.tobytes(), size)


def written(waveform, **options):
    """A file as libsndfile writes it."""
    file = io.BytesIO()
    sf.write(file, waveform, options.pop("sample_rate", RATE), **options)
    return file.getvalue()


def three_bytes(samples):
    """int32 [N] → 24-bit little-endian, uint8 [N, 3]."""
    return samples.astype("<i4").view("uint8").reshape(-1, 4)[:, :3]


@pytest.fixture
def decoded(tmp_path):
    """A function: bytes and name of a file → its waveform."""

    def read(content, name="1.wav", sample_rate=RATE):
        (tmp_path / name).write_bytes(content)
        return read_waveform(tmp_path / name, sample_rate=sample_rate)

    return read


# What is accepted


def test_16_bits_are_decoded_exactly(decoded):
    waveform = decoded(riff(fmt(), data()))
    assert waveform.dtype == np.float32 and waveform.shape == SOUND.shape
    np.testing.assert_array_equal(to_pcm(waveform), SOUND)


def test_all_65536_values_survive_the_round_trip():
    pcm = np.arange(-(2**15), 2**15).astype("<i2")
    waveform = from_pcm(pcm)
    np.testing.assert_array_equal(waveform, pcm / 32_768)
    assert waveform.dtype == np.float32 and to_pcm(waveform).dtype == np.dtype("<i2")
    np.testing.assert_array_equal(to_pcm(waveform), pcm)


def test_samples_beyond_full_scale_are_clipped_and_do_not_wrap():
    waveform = np.array([1.0, 1.5, 40.0, -1.0, -1.5, -40.0, 32_767.4 * LSB, 32_767.6 * LSB], "float32")
    assert to_pcm(waveform).tolist() == [32_767, 32_767, 32_767, -32_768, -32_768, -32_768, 32_767, 32_767]


@pytest.mark.check("C1")
def test_a_float_file_beyond_full_scale_is_clipped(decoded):
    loud = np.array([0.5, 1.0, 3.0, -1.0, -3.0], "<f4")
    waveform = decoded(riff(fmt(32, samples_are=FLOAT), data(loud)))
    np.testing.assert_array_equal(waveform, [0.5, 1.0, 1.0, -1.0, -1.0])
    assert to_pcm(loud).tolist() == [16_384, 32_767, 32_767, -32_768, -32_768]


@pytest.mark.parametrize("peak_db, level", [(0.0, 32_767), (-0.1, 32_393), (-20.0, 3_277), (-60.0, 33)])
@pytest.mark.parametrize("peak", [-7.5, 1.0, -0.2, 20 * LSB])
def test_normalize_scales_the_peak_to_the_given_decibels_and_returns_the_gain(peak_db, level, peak):
    sound = peak * np.array([0.1, -0.5, 1.0, 0.0], "float32")
    waveform, gain_db = normalize(sound, peak_db=peak_db)
    assert waveform.dtype == np.float32
    assert abs(to_pcm(waveform)[2] - np.sign(peak) * level) <= 1  # positive full scale is one step lower
    np.testing.assert_allclose(waveform, sound * 10 ** (gain_db / 20), rtol=1e-6)
    assert gain_db == pytest.approx(peak_db - 20 * np.log10(abs(peak)), abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-38, 0.49 * LSB])
def test_normalize_does_not_amplify_silence_or_the_residue_of_decoders(level):
    waveform, gain_db = normalize(np.array([level, -level, 0.0], "float32"), peak_db=-0.1)
    assert gain_db == 0.0
    assert to_pcm(waveform).tolist() == [0, 0, 0]


rng = np.random.default_rng(1)
INT24, INT32 = rng.integers(-(2**23), 2**23, 1_000), rng.integers(-(2**31), 2**31, 1_000)
UINT8, REAL = rng.integers(0, 2**8, 1_000), rng.uniform(-1, 1, 1_000)


@pytest.mark.check("C4")
@pytest.mark.parametrize(
    "header, samples, reference",
    [
        (fmt(8), UINT8.astype("uint8"), (UINT8 - 128) / 2**7),
        (fmt(24), three_bytes(INT24), INT24 / 2**23),
        (fmt(32), INT32.astype("<i4"), INT32 / 2**31),
        (fmt(32, samples_are=FLOAT), REAL.astype("<f4"), REAL),
        (fmt(64, samples_are=FLOAT), REAL.astype("<f8"), REAL),
    ],
    ids=["8 bits", "24 bits", "32 bits", "float", "double"],
)
def test_every_bit_depth_is_exact_to_16_bits(decoded, header, samples, reference):
    np.testing.assert_allclose(decoded(riff(header, data(samples))), reference, rtol=0, atol=LSB)


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_mixed_to_their_mean(decoded, channels):
    sound = np.random.default_rng(2).integers(-(2**15), 2**15, (500, channels)).astype("<i2")  # [N, channels]
    waveform = decoded(riff(fmt(channels=channels), data(sound)))
    np.testing.assert_allclose(waveform, sound.mean(axis=1) / 32_768, rtol=0, atol=LSB)


@pytest.mark.check("C1")
def test_opposite_channels_cancel_without_an_error(decoded):
    sound = np.stack([SOUND // 2, -(SOUND // 2)], axis=1)
    np.testing.assert_array_equal(decoded(riff(fmt(channels=2), data(sound))), np.zeros(len(SOUND)))


JUNK, LIST = chunk(b"JUNK", bytes(27)), chunk(b"LIST", b"INFOISFT\x0d\0\0\0Lavf58.76.100\0")


@pytest.mark.check("C1")
@pytest.mark.parametrize(
    "chunks",
    [
        (JUNK, fmt(), data()),
        (LIST, JUNK, fmt(), data()),
        (chunk(b"bext", bytes(603)), fmt(), chunk(b"fact", bytes(4)), data()),
        (fmt(), LIST, data(), LIST),
        (fmt(), data(), chunk(b"LIST", b"", size=1_000)),
    ],
    ids=["JUNK first", "LIST and JUNK", "odd bext", "LIST on both sides", "cut short after the sound"],
)
def test_other_chunks_are_skipped(decoded, chunks):
    np.testing.assert_array_equal(to_pcm(decoded(riff(*chunks))), SOUND)


@pytest.mark.check("C1")
@pytest.mark.parametrize("size", [0, 36, 0xFFFFFFFF])
def test_the_length_of_the_riff_chunk_is_ignored(decoded, size):
    np.testing.assert_array_equal(to_pcm(decoded(riff(fmt(), data(), size=size))), SOUND)


@pytest.mark.check("C4")
@pytest.mark.parametrize(
    "name, options",
    [
        ("1.wav", {"format": "WAVEX"}),
        ("1.wav", {"format": "RF64"}),
        ("1.WAV", {"format": "WAV"}),
        ("1.flac", {"format": "FLAC"}),
        ("1.flac", {"format": "FLAC", "subtype": "PCM_24"}),
        ("1.aif", {"format": "AIFF"}),
        ("1.aiff", {"format": "AIFF", "subtype": "PCM_32"}),
    ],
)
def test_lossless_formats_are_decoded_exactly(decoded, name, options):
    np.testing.assert_array_equal(to_pcm(decoded(written(SOUND, **options), name)), SOUND)


@pytest.mark.check("C1")
@pytest.mark.parametrize("name, encoding", [("1.ogg", "VORBIS"), ("1.ogg", "OPUS"), ("1.mp3", "MPEG_LAYER_III")])
def test_lossy_formats_keep_length_and_alignment(decoded, name, encoding):
    sweep = librosa.chirp(fmin=200, fmax=3_000, sr=48_000, duration=1.0) * 0.5
    waveform = decoded(written(sweep, sample_rate=48_000, format=name[2:], subtype=encoding), name, sample_rate=48_000)
    assert len(waveform) == len(sweep)
    assert np.sqrt(np.mean((waveform - sweep) ** 2)) < 0.05 * np.sqrt(np.mean(sweep**2))


@pytest.mark.check("C1")
def test_an_mp3_without_a_length_in_its_header_is_decoded(decoded):
    tagged = written(SOUND.repeat(3), format="MP3", bitrate_mode="CONSTANT")
    untagged = tagged[tagged.index(tagged[:2], 4) :]  # without the first frame, which has the length
    assert len(decoded(tagged, "1.mp3")) == 3_000
    assert len(decoded(untagged, "1.mp3")) > 3_000  # the padding of the encoder stays, too


@pytest.mark.parametrize("encoding", ["ULAW", "ALAW"])
def test_a_law_and_mu_law_are_decoded(decoded, encoding):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000) / RATE)
    waveform = decoded(written(tone, format="WAV", subtype=encoding))
    assert np.corrcoef(waveform, tone)[0, 1] > 0.9


@pytest.mark.check("C1")
def test_digital_silence_is_kept(decoded):
    np.testing.assert_array_equal(decoded(riff(fmt(), data(np.zeros(300, "<i2")))), np.zeros(300))
    silence = decoded(riff(fmt(sample_rate=44_100), data(np.zeros(44_100, "<i2"))))
    np.testing.assert_array_equal(silence, np.zeros(RATE))


@pytest.mark.check("C1")
def test_one_sample_is_a_valid_clip(decoded):
    assert decoded(riff(fmt(), data(SOUND[:1]))).shape == (1,)


@pytest.mark.parametrize(
    "rate, sample_rate", [(44_100, 16_000), (96_000, 44_100), (8_000, 44_100), (48_000, 32_000), (11_025, 16_000)]
)
@pytest.mark.parametrize("samples", [2, 10, 1_001, 30_000])
def test_resampling_agrees_with_librosas_soxr_hq(decoded, rate, sample_rate, samples):
    sound = np.random.default_rng(3).integers(-(2**14), 2**14, samples).astype("<i2")
    waveform = decoded(riff(fmt(sample_rate=rate), data(sound)), sample_rate=sample_rate)
    reference = librosa.resample(from_pcm(sound), orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    assert abs(len(waveform) - samples * sample_rate / rate) < 1
    shared = min(len(waveform), len(reference))  # librosa adds a zero for a last fraction of a sample
    np.testing.assert_allclose(waveform[:shared], reference[:shared], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [headers.LOWEST_HZ, 2_000, 96_000, 500_000, headers.HIGHEST_HZ])
def test_a_waveform_at_the_right_rate_is_unchanged(decoded, sample_rate):
    waveform = decoded(riff(fmt(sample_rate=sample_rate), data()), sample_rate=sample_rate)
    np.testing.assert_array_equal(to_pcm(waveform), SOUND)


def test_several_blocks_are_all_decoded(decoded, monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK", 300)
    np.testing.assert_array_equal(to_pcm(decoded(riff(fmt(), data()))), SOUND)


# What is refused: each message names the file, what was found, and the fix

COMPLETE = riff(fmt(), data())
NAN, INFINITE = (np.array([0.1, bad, bad], "<f4") for bad in (np.nan, np.inf))
MP3, FLAC, AIFF = (written(SOUND.repeat(20), format=kind) for kind in ("MP3", "FLAC", "AIFF"))
TAG = b"ID3\4\0\0" + bytes((0, 0, 64, 0)) + bytes(64 << 7)  # as long as a cover image makes it
BAD_WAVS = {
    "empty": (b"", r"the file is empty \(0 bytes\). Download it again, or leave this file out"),
    "header only": (riff(fmt(), data(SOUND[:0])), "a header but no samples. Download it again, or leave this file out"),
    "header that promises": (
        COMPLETE[:44],
        "promises 2000 bytes of sound, 0 bytes follow: .* cut short.* Download it again",
    ),
    "no data chunk": (riff(fmt()), "without a data chunk: nothing was recorded, or the file is cut short. Download"),
    "nothing after RIFF": (riff(), "without a data chunk"),
    "cut in the header": (COMPLETE[:30], "its header is cut short. Download it again"),
    "truncated": (COMPLETE[:-600], "promises 2000 bytes of sound, 1400 bytes follow: .* cut short.* Download it again"),
    "one byte short": (COMPLETE[:-1], "promises 2000 bytes of sound, 1999 bytes follow"),
    "never closed": (
        riff(fmt(), data(size=0), size=36),
        "promises 0 bytes of sound, 2000 bytes follow: .* a recorder .* never wrote the length.* export it again",
    ),
    "NaN": (riff(fmt(32, samples_are=FLOAT), data(NAN)), "2 samples after 0 s are NaN or infinite, .*Export it again"),
    "infinity": (riff(fmt(32, samples_are=FLOAT), data(INFINITE)), "2 samples after 0 s are NaN or infinite"),
    "1 Hz": (riff(fmt(sample_rate=1), data()), "sample rate 1 Hz; expected 200 to 1000000 Hz. .* correct it, or leave"),
    "2 MHz": (riff(fmt(sample_rate=2_000_000), data()), "sample rate 2000000 Hz; expected 200 to 1000000 Hz"),
    "no rate": (riff(fmt(sample_rate=0), data()), "sample rate 0 Hz; expected 200 to"),
    "no channel": (riff(fmt(channels=0), data()), "0 channels; expected 1 to 8. Mix it down first"),
    "too many channels": (riff(fmt(channels=1_000), data()), "1000 channels; expected 1 to 8"),
    "no fmt chunk": (riff(data()), "no fmt chunk before its sound. Export it again"),
    "MP3": (MP3, "the name says .wav, but the content is MP3. Rename it with the right suffix or convert it"),
    "FLAC": (FLAC, "the name says .wav, but the content is FLAC"),
    "text": (b"Not a sound.", "audiotag cannot decode it: it begins with b'Not a sound.'. Expected WAV, .* convert it"),
    "a web page": (b"<!DOCTYPE html>", "begins with b'<!DOCTYPE ht'"),
}


@pytest.mark.check("C1")
@pytest.mark.parametrize("content, message", BAD_WAVS.values(), ids=BAD_WAVS)
def test_a_bad_wav_is_refused_with_the_reason_and_the_fix(decoded, content, message):
    with pytest.raises(DataError, match=f"1.wav: .*{message}"):
        decoded(content)


@pytest.mark.check("C1")
@pytest.mark.parametrize(
    "name, content, message",
    [
        ("1.mp3", MP3[:-300], "promises 20000 samples, [0-9]+ follow: the file is cut short. Download it again"),
        ("1.mp3", TAG + MP3[:-300], "promises 20000 samples, [0-9]+ follow"),
        ("1.mp3", MP3[:100], "libsndfile cannot decode it"),
        ("1.flac", FLAC[:-300], "libsndfile cannot decode it and says .*lost sync"),
        ("1.flac", FLAC[:21] + bytes([FLAC[21] & 0xF0]) + bytes(4) + FLAC[26:], "header has no length: a stream"),
        ("1.flac", FLAC[:21] + bytes([FLAC[21] | 0x0F]) + b"\xff" * 4 + FLAC[26:], "too long: 687[0-9]+ samples at"),
        ("1.aiff", AIFF[:-300], "promises 40008 bytes of sound, 39708 bytes follow: the file is cut short"),
        ("1.aiff", written(SOUND[:0], format="AIFF"), "a header but no samples"),
        ("1.ogg", COMPLETE, "the name says .ogg, but the content is WAV. Rename it with the right suffix"),
    ],
    ids="MP3,MP3 with a tag,MP3 header,FLAC,FLAC of no length,FLAC of 512 GiB,AIFF,empty AIFF,WAV as Ogg".split(","),
)
def test_bad_files_of_other_formats_are_refused(decoded, name, content, message):
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        decoded(content, name)


@pytest.mark.check("C1")
@pytest.mark.parametrize(
    "name, message",
    [
        ("absent.wav", "No such file"),
        ("folder.wav", "Is a directory"),
        ("pipe.wav", "a device or a pipe, not a file"),
        ("zero.wav", "a device or a pipe, not a file"),
        ("nul\0.wav", "embedded null byte"),
    ],
)
def test_anything_but_a_file_is_refused(tmp_path, name, message):
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=f"{name}: cannot be read: {message}.*Expected an audio file"):
        read_waveform(tmp_path / name, sample_rate=RATE)


@pytest.mark.check("C1")
def test_a_clip_too_short_for_the_rate_is_refused(decoded):
    with pytest.raises(DataError, match="1.wav: too short: 1 samples at 96000 Hz leave none at 16000 Hz. Leave"):
        decoded(riff(fmt(sample_rate=96_000), data(SOUND[:1])))


@pytest.mark.check("C1")
def test_a_clip_too_long_once_resampled_is_refused(decoded, monkeypatch):
    monkeypatch.setattr(headers, "MOST_SAMPLES", 1_500)
    assert len(decoded(riff(fmt(), data()))) == 1_000
    with pytest.raises(DataError, match="1.wav: too long: 2000 samples at 32000 Hz; a clip has 1500 at most. Cut it"):
        decoded(riff(fmt(), data()), sample_rate=32_000)


@pytest.mark.check("C1")
def test_a_file_without_a_length_is_read_up_to_the_limit_only(decoded, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_SAMPLES", 10_000)
    monkeypatch.setattr(decoding, "BLOCK", 5_000)
    with pytest.raises(DataError, match="1.mp3: too long: more than 10000 samples. Cut it into clips"):
        decoded(MP3, "1.mp3")


@pytest.mark.check("C1")
def test_every_truncation_of_a_wav_is_refused(decoded):
    content = riff(JUNK, fmt(), data(SOUND[:50]))
    for length in range(len(content)):
        with pytest.raises(DataError, match="1.wav: "):
            decoded(content[:length])
