"""From an audio file to a mono waveform at the wanted rate, or a sentence that says why not."""

import io
import math
import struct
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from audiotag.data import silence
from audiotag.errors import DataError

SUFFIXES = {  # what libsndfile may find inside a file of that name
    ".wav": {"WAV", "WAVEX", "RF64"},
    ".flac": {"FLAC"},
    ".ogg": {"OGG"},
    ".mp3": {"MP3", "MPEG"},
    ".aif": {"AIFF"},
    ".aiff": {"AIFF"},
}
LOWEST_HZ, HIGHEST_HZ = 4_000, 384_000  # one file on Freesound claims 1 Hz: 85 GB once resampled
FULL_SCALE = 32_768.0
SOUND_CHUNKS = {  # files in chunks, by their kind: the byte order of sizes and the chunk that holds the sound
    b"WAVE": ("<", b"data"),
    b"AIFF": (">", b"SSND"),
    b"AIFC": (">", b"SSND"),
}
BLOCK = 1 << 20  # samples a channel to decode at a time: what a header promises may not fit into memory


def read_waveform(path, *, sample_rate, trim=None, trim_db=60.0, peak_db=None):
    """Decodes an audio file, mixes it to mono, trims, resamples and scales it: what make-records does to a clip.

    Args:
        path: A WAV, FLAC, Ogg, MP3 or AIFF file of any bit depth and channel count.
        sample_rate: Rate of the answer in Hz; soxr's high-quality filter gets it there.
        trim: Whether silence is cut off both ends: None, "loudest" or "level", as `data.silence` has them.
        trim_db: For "loudest", in dB.
        peak_db: Peak of the answer in dBFS; None is the recording's own.

    Returns:
        float32 [N], N >= 1, finite; -1 to 1 except where a float file goes beyond.

    Raises:
        DataError: The file is absent, empty, cut short, holds no samples, holds NaN or
            infinity, claims an absurd rate, or is not what its name says.
    """
    path = Path(path)
    whole, rate = decode_file(read_bytes(path), path=path)
    return treat(whole, rate, path=path, sample_rate=sample_rate, trim=trim, trim_db=trim_db, peak_db=peak_db)[0]


def treat(whole, rate, *, path, sample_rate, trim, trim_db, peak_db):
    """Trims, resamples and scales a whole recording; the options are those of `read_waveform`.

    Returns:
        (waveform float32 [N], the samples kept of the recording as (start, end), gain in dB).
    """
    start, end = 0, len(whole)
    # At the file's own rate: what is silence does not depend on the rate of the records.
    if trim == "loudest":
        start, end = silence.trim_to_loudest(whole, trim_db=trim_db)
    if trim == "level":
        start, end = silence.trim_to_level(whole, sample_rate=rate)
    waveform, gain_db = resample(whole[start:end], rate=rate, sample_rate=sample_rate, path=path), 0.0
    if peak_db is not None:  # last, as resampling moves peaks
        waveform, gain_db = normalise(waveform, peak_db=peak_db)
    return waveform, (start, end), gain_db


def read_bytes(path):
    """The bytes of a file."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Expected an audio file.") from error


def decode_file(data, *, path):
    """The mono waveform of a file whose bytes are `data`, and its rate; `path` is for the messages."""
    if not data:
        raise DataError(f"{path}: the file is empty (0 bytes). Fetch it again or take it off the list.")
    check_length(data, path)
    try:
        with sf.SoundFile(io.BytesIO(data)) as file:
            accepted = SUFFIXES.get(path.suffix.lower(), {file.format})
            if file.format not in accepted:
                raise DataError(
                    f"{path}: the name says {path.suffix}, but the content is {file.format}. "
                    f"Give the file its right suffix or convert it."
                )
            if not LOWEST_HZ <= file.samplerate <= HIGHEST_HZ:
                raise DataError(
                    f"{path}: sample rate {file.samplerate} Hz; expected {LOWEST_HZ} to {HIGHEST_HZ} Hz. "
                    f"Its header is probably wrong: correct it or take the file off the list."
                )
            # Without a Xing or Info header, libsndfile guesses how long an MP3 is.
            guessed = file.format == "MP3" and not (b"Xing" in data[:4096] or b"Info" in data[:4096])
            rate, promised = file.samplerate, 0 if guessed else file.frames
            channels = read_blocks(file)  # [N, channels]
    except sf.LibsndfileError as error:
        raise DataError(
            f"{path}: libsndfile cannot decode it and says {error.error_string!r}; it begins with {data[:12]}. "
            f"Fetch it again, convert it or take it off the list."
        ) from error
    if not len(channels):
        raise DataError(f"{path}: a header but no samples. Fetch it again or take it off the list.")
    if len(channels) < promised:
        raise DataError(
            f"{path}: {promised} samples are promised, {len(channels)} are there: the file is cut short. "
            f"Fetch it again, or write it anew with another program."
        )
    if not np.isfinite(channels).all():
        raise DataError(
            f"{path}: {np.count_nonzero(~np.isfinite(channels))} samples are NaN or infinite. Export it anew."
        )
    return channels.mean(axis=1), rate  # [N]


def read_blocks(file):
    """All samples of an open `SoundFile`: float32 [N, channels]."""
    blocks = []
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        blocks.append(block)
    return np.concatenate(blocks) if blocks else block


def check_length(data, path):
    """Refuses a WAV or AIFF file that holds less than it promises; libsndfile would play what is there."""
    if data[:4] not in (b"RIFF", b"FORM") or data[8:12] not in SOUND_CHUNKS:
        return
    order, sound = SOUND_CHUNKS[data[8:12]]
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}4sI", data, at)
        held = len(data) - at - 8
        if kind == sound:
            if size > held or size == 0 < held:
                raise DataError(
                    f"{path}: its header promises {size} bytes of sound, {held} bytes follow: the file is cut short, "
                    f"or a recorder or a stream never wrote the length. Fetch it again, or write it anew with "
                    f"another program."
                )
            return
        at += 8 + size + size % 2
    raise DataError(
        f"{path}: a header without a {sound.decode()} chunk: nothing was recorded, or the file is cut short. "
        f"Fetch it again or take it off the list."
    )


def resample(waveform, *, rate, sample_rate, path):
    """A waveform of one rate at another; `path` is for the message."""
    if rate == sample_rate:
        return waveform
    resampled = soxr.resample(waveform, rate, sample_rate, quality="HQ")  # [N]
    if not len(resampled):
        raise DataError(
            f"{path}: too short: {len(waveform)} samples at {rate} Hz leave none at {sample_rate} Hz. "
            f"Take it off the list."
        )
    return resampled


def normalise(waveform, *, peak_db):
    """Brings the peak of a waveform to `peak_db` dBFS.

    Digital silence stays as it is, and so does what 16 bits cannot tell from it:
    the traces that a decoder or a resampler leaves are not to be made a sound.

    Returns:
        (waveform float32 [N], gain in dB); the gain is 0 for silence.

    Example:
        >>> normalise(np.array([0.25, -0.5], "float32"), peak_db=0)
        (array([ 0.5, -1. ], dtype=float32), 6.02...)
    """
    peak = float(np.abs(waveform).max())
    if peak < 0.5 / FULL_SCALE:
        return waveform, 0.0
    gain = 10 ** (peak_db / 20) / peak
    return waveform * gain, 20 * math.log10(gain)


def to_pcm(waveform):
    """float32 [N] in -1 to 1 → little-endian int16 [N]; exact for what came from 16 bits."""
    return np.clip(np.round(waveform * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def from_pcm(pcm):
    """int16 [N] → float32 [N] in -1 to 1."""
    return pcm.astype("float32") / FULL_SCALE
