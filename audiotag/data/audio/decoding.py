"""From an audio file to a mono waveform at the wanted rate, or a sentence that says why not."""

import contextlib
import io
import itertools
import math
import mmap
import os
import stat
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from audiotag.data.audio import trimming
from audiotag.data.audio.headers import MOST_SAMPLES, SUFFIXES, Header, check_size, read_header
from audiotag.errors import DataError

FULL_SCALE = 32_768.0
MOST_BYTES = 1 << 30
BLOCK = 1 << 16  # samples a channel to decode at a time: what a header promises may not fit into memory


def read_waveform(path, *, sample_rate, trim=None, trim_db=60.0, peak_db=None):
    """Decodes an audio file, mixes it to mono, trims, resamples and scales it: what make-records does to a clip.

    Args:
        path: A WAV, FLAC, Ogg, MP3 or AIFF file of any bit depth and channel count.
        sample_rate: Rate of the answer in Hz; soxr's high-quality filter gets it there.
        trim: Whether silence is cut off both ends: None, "loudest" or "level", as `data.silence` has them.
        trim_db: For "loudest", in dB.
        peak_db: Peak of the answer in dBFS; None is the recording's own.

    Returns:
        float32 [N], N >= 1, -1 to 1: what lies beyond is clipped, as records are.

    Raises:
        DataError: The file is absent, empty, cut short, holds no samples, holds NaN or
            infinity, claims an absurd rate, or is not what its name says.
    """
    path = Path(path)
    whole, rate = decode_file(read_bytes(path), path=path)
    options = {"sample_rate": sample_rate, "trim": trim, "trim_db": trim_db, "peak_db": peak_db}
    return np.clip(treat(whole, rate, path=path, **options)[0], -1, 1)


def treat(whole, rate, *, path, sample_rate, trim, trim_db, peak_db):
    """Trims, resamples and scales a whole recording; the options are those of `read_waveform`.

    Returns:
        (waveform float32 [N], the samples kept of the recording as (start, end), gain in dB).
    """
    start, end = 0, len(whole)
    # At the file's own rate: what is silence does not depend on the rate of the records.
    if trim == "loudest":
        start, end = trimming.trim_to_loudest(whole, trim_db=trim_db)
    if trim == "level":
        start, end = trimming.trim_to_level(whole, sample_rate=rate)
    waveform, gain_db = resample(whole[start:end], rate=rate, sample_rate=sample_rate, path=path), 0.0
    if peak_db is not None:  # last, as resampling moves peaks
        waveform, gain_db = normalise(waveform, peak_db=peak_db)
    return waveform, (start, end), gain_db


@contextlib.contextmanager
def opened(path):
    """A file that holds something, open for reading; a pipe or a device, which might never end, is refused."""
    try:
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{path}: cannot be read: a device or a pipe, not a file. Expected an audio file.")
            if not found.st_size:
                raise DataError(f"{path}: the file is empty (0 bytes). Fetch it again or take it off the list.")
            yield file
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", error)
        raise DataError(f"{path}: cannot be read: {reason}. Expected an audio file.") from error


def read_bytes(path):
    """The bytes of a file that is no larger than a clip may be."""
    with opened(path) as file:
        return bytes_of(file, path=path)


def bytes_of(file, *, path):
    """`read_bytes` of a file that is open; `path` is for the messages."""
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise DataError(f"{path}: {size} bytes; a clip has {MOST_BYTES} at most. Cut it into clips.")
    return file.read(MOST_BYTES)


def header_at(path):
    """The `Header` of a clip's file, of which little more than the header is read."""
    with opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return checked_header(data, path=Path(path))


def decode_file(data, *, path):
    """The mono waveform of a file whose bytes are `data`, and its rate; `path` is for the messages."""
    header = checked_header(data, path=path)
    blocks, samples = [], 0
    for block in mono_blocks(io.BytesIO(data), header, path=path):
        blocks.append(block)
        samples += len(block)
        if samples > MOST_SAMPLES:  # of a file that does not tell
            raise DataError(f"{path}: too long: more than {MOST_SAMPLES} samples. Cut it into clips.")
    return np.concatenate(blocks), header.sample_rate


@contextlib.contextmanager
def open_recording(path):
    """A recording of any length, behind the same gate of headers: its `Header` and its sound, as `mono_blocks`."""
    with opened(path) as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = checked_header(data, path=Path(path), any_length=True)
        yield header, mono_blocks(file, header, path=path)


def checked_header(data, *, path, any_length=False):
    """`read_header` of a file that its name does not belie; `path` is for the messages, too."""
    try:
        header = read_header(data, any_length=any_length)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if SUFFIXES.get(path.suffix.lower(), header.kind) != header.kind:
        raise DataError(
            f"{path}: the name says {path.suffix}, but the content is {header.kind}. "
            f"Give the file its right suffix or convert it."
        )
    return header


def mono_blocks(file, header, *, path):
    """Decodes an open file block by block and yields the mean of its channels, float32 [n].

    Raises:
        DataError: At the block that is wrong; at the end, where fewer samples came than were promised.
    """
    head, heard = file.read(12), 0
    file.seek(0)
    try:
        with sf.SoundFile(file) as sound:
            if (sound.samplerate, sound.channels) != (header.sample_rate, header.channels):
                raise DataError(
                    f"{path}: libsndfile reads another rate or number of channels than its header tells. Write it anew."
                )
            promised = 0 if header.guessed else sound.frames
            while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):  # [n, channels]
                with np.errstate(over="ignore", invalid="ignore"):
                    mono = block.mean(axis=1)  # [n]
                if bad := np.count_nonzero(~np.isfinite(mono)):
                    seconds = heard / header.sample_rate
                    raise DataError(
                        f"{path}: {bad} samples after {seconds:.0f} s are NaN or infinite, or too loud to be mixed. "
                        f"Export it anew."
                    )
                heard += len(block)
                yield mono
    except sf.LibsndfileError as error:
        raise DataError(
            f"{path}: libsndfile cannot decode it and says {error.error_string!r}; it begins with {head}. "
            f"Fetch it again, convert it or take it off the list."
        ) from error
    if not heard:
        raise DataError(f"{path}: a header but no samples. Fetch it again or take it off the list.")
    if heard < promised:
        raise DataError(
            f"{path}: {promised} samples are promised, {heard} are there: the file is cut short. "
            f"Fetch it again, or write it anew with another program."
        )


def resample(waveform, *, rate, sample_rate, path):
    """A waveform of one rate at another; `path` is for the messages."""
    if rate == sample_rate:
        return waveform
    try:
        check_size(Header("", rate, 1, len(waveform)), sample_rate=sample_rate)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    resampled = _finite(soxr.resample(waveform, rate, sample_rate, quality="HQ"), path)  # [N]
    if not len(resampled):
        raise _too_short(path, len(waveform), rate, sample_rate)
    return resampled


def resampled_blocks(blocks, *, rate, sample_rate, path):
    """Yields what `resample` makes of a sound that comes in blocks, in blocks of other lengths."""
    stream = soxr.ResampleStream(rate, sample_rate, 1, quality="HQ")
    came = went = 0
    for block in itertools.chain(blocks, [np.zeros(0, "float32")]):
        resampled = _finite(stream.resample_chunk(block, last=not len(block)), path)
        came, went = came + len(block), went + len(resampled)
        yield resampled
    if not went:
        raise _too_short(path, came, rate, sample_rate)


def _finite(resampled, path):
    if not np.isfinite(resampled).all():
        raise DataError(f"{path}: too loud to be resampled. Export it anew.")
    return resampled


def _too_short(path, num_samples, rate, sample_rate):
    return DataError(
        f"{path}: too short: {num_samples} samples at {rate} Hz leave none at {sample_rate} Hz. Take it off the list."
    )


def gain_to(peak_db, *, peak):
    """What brings a sound of such a peak, 1 at full scale, to a peak of `peak_db` dBFS.

    It is 1 for digital silence, and for what 16 bits cannot tell from it: the traces
    that a decoder or a resampler leaves are not to be made a sound.
    """
    return 10 ** (peak_db / 20) / peak if peak >= 0.5 / FULL_SCALE else 1.0


def normalise(waveform, *, peak_db):
    """Brings the peak of a waveform to `peak_db` dBFS; silence stays as it is.

    Returns:
        (waveform float32 [N], gain in dB); the gain is 0 for silence.

    Example:
        >>> normalise(np.array([0.25, -0.5], "float32"), peak_db=0)
        (array([ 0.5, -1. ], dtype=float32), 6.02...)
    """
    gain = gain_to(peak_db, peak=float(np.abs(waveform).max()))
    return waveform * gain, 20 * math.log10(gain)


def to_pcm(waveform):
    """float32 [N] in -1 to 1 → little-endian int16 [N]; exact for what came from 16 bits."""
    with np.errstate(over="ignore"):
        return np.clip(np.round(waveform * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")
