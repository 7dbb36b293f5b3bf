"""Decodes audio files to mono waveforms at a given sample rate."""

import contextlib
import io
import itertools
import math
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile as sf
import soxr

from audiotag import files
from audiotag.data.audio import ffmpeg, trimming
from audiotag.data.audio.headers import (
    MOST_SAMPLES,
    SUFFIXES,
    Header,
    check_size,
    needs_ffmpeg,
    needs_libsndfile,
    read_header,
)
from audiotag.errors import DataError

FULL_SCALE = 32_768.0
MOST_BYTES = 1 << 30
LOUDEST = 10.0  # 20 dB above full scale: louder samples are 16-bit integers written as floats, or of another scale
BLOCK = 1 << 16  # samples per channel to decode at a time: all that a header promises may not fit into memory


def read_waveform(
    path: str | Path,
    *,
    sample_rate: int,
    trim: Literal["relative", "absolute"] | None = None,
    trim_db: float | None = 60.0,
    peak_db: float | None = None,
) -> np.ndarray:
    """Decodes an audio file, mixes it to mono, trims, resamples and scales it.

    make-records trims, resamples and scales clips in the same way, so a model reads files as its records were made.

    Args:
        path: A file in a format of `headers.KINDS`, of any bit depth and channel count.
        sample_rate: Rate of the result in Hz; soxr's high-quality filter resamples to it.
        trim: Cuts silence off both ends: "relative" is `trimming.trim_relative`, "absolute" is
            `trimming.trim_absolute`, None keeps it.
        trim_db: Threshold of "relative", in dB below the loudest frame; None does not trim.
        peak_db: Peak of the result in dBFS; None keeps the recording's peak.

    Returns:
        float32 [N], N >= 1, clipped to -1 to 1 as records are.

    Raises:
        DataError: The file is absent, empty, truncated, without samples, contains NaN or infinity, is far above full
            scale while `peak_db` is None, has several streams or a sample rate out of range, or its content does not
            match its suffix.
    """
    path = Path(path)
    recording, rate = decode_file(read_bytes(path), path=path)
    waveform, _, _ = trim_resample_scale(
        recording, rate, path=path, sample_rate=sample_rate, trim=trim, trim_db=trim_db, peak_db=peak_db
    )
    return np.clip(waveform, -1, 1)


def trim_resample_scale(
    recording: np.ndarray,
    rate: int,
    *,
    path: str | Path,
    sample_rate: int,
    trim: Literal["relative", "absolute"] | None,
    trim_db: float | None,
    peak_db: float | None,
) -> tuple[np.ndarray, tuple[int, int], float]:
    """Trims, resamples and scales a decoded recording.

    Args:
        recording: float32 [N], mono.
        rate: Its sample rate in Hz.
        path: Its file, for error messages. The other options are those of `read_waveform`.

    Returns:
        (waveform float32 [N], the samples kept of the recording as (start, end), gain in dB).
    """
    start, end = 0, len(recording)
    # At the file's own rate: what is silence does not depend on the rate of the records.
    if trim == "relative" and trim_db is not None:
        start, end = trimming.trim_relative(recording, trim_db=trim_db)
    if trim == "absolute":
        start, end = trimming.trim_absolute(recording, sample_rate=rate)
    if peak_db is None:
        refuse_too_loud(recording[start:end], path=path)
    waveform, gain_db = resample(recording[start:end], rate=rate, sample_rate=sample_rate, path=path), 0.0
    if peak_db is not None:  # last, as resampling moves peaks
        waveform, gain_db = normalize(waveform, peak_db=peak_db)
    return waveform, (start, end), gain_db


def refuse_too_loud(waveform: np.ndarray, *, path: str | Path) -> None:
    """Refuses a waveform [N] far above full scale, which clipping makes a square.

    Raises:
        DataError: Its peak is above `LOUDEST`.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak > LOUDEST:
        raise DataError(
            f"{path}: its peak is {peak:.6g}, and full scale is 1: these are not samples from -1 to 1. Divide them by "
            "their full scale, such as 32768, or scale every clip to one peak with --peak-db."
        )


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file that is not empty; refuses pipes and devices, which may never end."""
    try:
        with open(path, "rb", opener=files.open_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{path}: cannot be read: a device or a pipe, not a file. Expected an audio file.")
            if not found.st_size:
                raise DataError(f"{path}: the file is empty (0 bytes). Download it again, or leave this file out.")
            yield file
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", error)
        raise DataError(f"{path}: cannot be read: {reason}. Expected an audio file.") from error


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a clip's file.

    Raises:
        DataError: The file cannot be read, is empty, or is larger than a clip may be.
    """
    with opened(path) as file:
        return bytes_of(file, path=path)


def bytes_of(file: BinaryIO, *, path: str | Path) -> bytes:
    """`read_bytes` of an open file."""
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise DataError(f"{path}: {size} bytes; a clip has at most {MOST_BYTES}. Cut it into clips.")
    return file.read(MOST_BYTES)


def header_at(path: str | Path) -> Header:
    """The `Header` of a clip's file, of which little more than the header is read.

    No decoder sees the file, as one might crash.

    Raises:
        DataError: The file is refused, or only a decoder can read its header.
    """
    with opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if kind := needs_libsndfile(data):
            raise DataError(f"{path}: only a decoder reads the header of {kind}.")
        return checked_header(data, path=Path(path), whole=False)


def decode_file(data: bytes, *, path: Path) -> tuple[np.ndarray, int]:
    """Decodes the bytes of a file: (mono waveform float32 [N], sample rate in Hz)."""
    if kind := needs_ffmpeg(data):
        with ffmpeg.decoded(path, kind) as file:
            data, path = file.read(), path.with_suffix(".wav")
    header = checked_header(data, path=path)
    blocks, samples = [], 0
    for block in mono_blocks(io.BytesIO(data), header, path=path):
        blocks.append(block)
        samples += len(block)
        if samples > MOST_SAMPLES:  # its header has no length
            raise DataError(f"{path}: too long: more than {MOST_SAMPLES} samples. Cut it into clips.")
    return np.concatenate(blocks), header.sample_rate


def decode_excerpt(path: str | Path, start_seconds: float, end_seconds: float) -> tuple[np.ndarray, int]:
    """Decodes a part of a recording of any length.

    Returns (mono waveform float32 [N], sample rate in Hz).

    It ends with the recording if `end_seconds` is later.

    Raises:
        DataError: The recording is refused, or ends before the part begins, or the part is longer than a clip.
    """
    with open_recording(path, start_seconds) as (header, blocks):
        rate = header.sample_rate
        wanted = round(end_seconds * rate) - round(start_seconds * rate)
        if wanted > MOST_SAMPLES:
            raise DataError(f"{path}: too long: {wanted} samples from {start_seconds:g} s. A clip has {MOST_SAMPLES}.")
        waveform = first_samples(blocks, wanted)
    if not len(waveform):
        raise DataError(f"{path}: ends before {start_seconds:g} s, where a clip begins. Correct the table.")
    return waveform, rate


def first_samples(blocks: Iterable[np.ndarray], num_samples: int) -> np.ndarray:
    """The first samples of a waveform in blocks: float32 [N], N <= num_samples."""
    taken, room = [np.zeros(0, "float32")], num_samples
    for block in blocks:
        taken.append(block[:room])
        room -= len(taken[-1])
        if not room:
            break
    return np.concatenate(taken)


@contextlib.contextmanager
def open_recording(path: str | Path, start_seconds: float = 0.0) -> Iterator[tuple[Header, Iterator[np.ndarray]]]:
    """Opens a recording of any length: its `Header` and its `mono_blocks`."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(opened(path))
        if kind := needs_ffmpeg(file.read(64)):
            file, path = stack.enter_context(ffmpeg.decoded(Path(path), kind)), Path(path).with_suffix(".wav")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = checked_header(data, path=Path(path), any_length=True)
        yield header, mono_blocks(file, header, path=path, start=round(start_seconds * header.sample_rate))


def checked_header(data: bytes | mmap.mmap, *, path: Path, any_length: bool = False, whole: bool = True) -> Header:
    """`read_header` that also checks that the suffix of the file matches."""
    try:
        header = read_header(data, any_length=any_length, whole=whole)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    expected = SUFFIXES.get(path.suffix.lower(), header.kind)
    if header.kind != expected and (header.kind, expected) != ("NIST", "WAV"):  # TIMIT calls its files .WAV
        raise DataError(
            f"{path}: the name says {path.suffix}, but the content is {header.kind}. "
            f"Rename it with the right suffix or convert it."
        )
    return header


def mono_blocks(file: BinaryIO, header: Header, *, path: str | Path, start: int = 0) -> Iterator[np.ndarray]:
    """Decodes a file block by block; yields the mean of its channels, float32 [n].

    It begins with the sample `start`.

    Raises:
        DataError: A block is invalid; or, at the end, the file has fewer samples than its header promises.
    """
    head, decoded = file.read(12), 0
    file.seek(0)
    try:
        with sf.SoundFile(_Prefixed(file, header) if header.prefix or header.skip else file) as sound:
            if (sound.samplerate, sound.channels) != (header.sample_rate, header.channels):
                raise DataError(
                    f"{path}: libsndfile finds another sample rate or channel count than the header. Export it again."
                )
            promised = 0 if header.guessed else sound.frames
            if start:
                promised = 0
                sound.seek(min(start, sound.frames))
            while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):  # [n, channels]
                with np.errstate(over="ignore", invalid="ignore"):
                    mono = block.mean(axis=1)  # [n]
                if bad := np.count_nonzero(~np.isfinite(mono)):
                    seconds = decoded / header.sample_rate
                    raise DataError(
                        f"{path}: {bad} samples after {seconds:.0f} s are NaN or infinite, or too loud to be mixed. "
                        f"Export it again."
                    )
                decoded += len(block)
                yield mono
    except sf.LibsndfileError as error:
        raise DataError(
            f"{path}: libsndfile cannot decode it and says {error.error_string!r}; it begins with {head!r}. "
            f"Replace it by an intact copy, convert it or leave this file out."
        ) from error
    if not decoded and not start:
        raise DataError(f"{path}: a header but no samples. Download it again, or leave this file out.")
    if decoded < promised:
        raise DataError(
            f"{path}: its header promises {promised} samples, {decoded} follow: the file is cut short. "
            f"Download it again, or export it again with another program."
        )


class _Prefixed:
    """A file with a prefix in place of its first bytes, for libsndfile."""

    def __init__(self, file, header):
        self.file, self.prefix, self.shift = file, header.prefix, header.skip - len(header.prefix)
        self.at = 0

    def seek(self, offset, whence=os.SEEK_SET):
        if whence == os.SEEK_END:
            offset += self.file.seek(0, os.SEEK_END) - self.shift
        self.at = offset + (self.at if whence == os.SEEK_CUR else 0)
        return self.at

    def tell(self):
        return self.at

    def read(self, size=-1):
        head = self.prefix[self.at :][: None if size < 0 else size]
        self.file.seek(max(self.at + len(head) + self.shift, 0))
        data = head + self.file.read(size - len(head) if size >= 0 else -1)
        self.at += len(data)
        return data

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def resample(waveform: np.ndarray, *, rate: int, sample_rate: int, path: str | Path) -> np.ndarray:
    """Resamples a waveform [N] from `rate` to `sample_rate`, both in Hz."""
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


def resampled_blocks(
    blocks: Iterable[np.ndarray], *, rate: int, sample_rate: int, path: str | Path
) -> Iterator[np.ndarray]:
    """`resample` for a waveform in blocks; yields blocks of other lengths."""
    stream = soxr.ResampleStream(rate, sample_rate, 1, quality="HQ")
    num_in = num_out = 0
    for block in itertools.chain(blocks, [np.zeros(0, "float32")]):
        resampled = _finite(stream.resample_chunk(block, last=not len(block)), path)
        num_in, num_out = num_in + len(block), num_out + len(resampled)
        yield resampled
    if not num_out:
        raise _too_short(path, num_in, rate, sample_rate)


def _finite(resampled, path):
    if not np.isfinite(resampled).all():
        raise DataError(f"{path}: too loud to be resampled. Export it again.")
    return resampled


def _too_short(path, num_samples, rate, sample_rate):
    return DataError(
        f"{path}: too short: {num_samples} samples at {rate} Hz leave none at {sample_rate} Hz. Leave this file out."
    )


def gain_to(peak_db: float, *, peak: float) -> float:
    """The factor that scales a peak of `peak`, 1 at full scale, to `peak_db` dBFS.

    It is 1 for digital silence and for anything that 16 bits round to it, so that the residue of a decoder or a
    resampler is not amplified.
    """
    return 10 ** (peak_db / 20) / peak if peak >= 0.5 / FULL_SCALE else 1.0


def normalize(waveform: np.ndarray, *, peak_db: float) -> tuple[np.ndarray, float]:
    """Scales a waveform to a peak of `peak_db` dBFS; silence is unchanged.

    Returns:
        (waveform float32 [N], gain in dB); the gain is 0 for silence.

    Example:
        >>> normalize(np.array([0.25, -0.5], "float32"), peak_db=0)
        (array([ 0.5, -1. ], dtype=float32), 6.02...)
    """
    gain = gain_to(peak_db, peak=float(np.abs(waveform).max()))
    return waveform * gain, 20 * math.log10(gain)


def to_pcm(waveform: np.ndarray) -> np.ndarray:
    """float32 [N] in -1 to 1 → little-endian int16 [N]; exact for 16-bit sources."""
    with np.errstate(over="ignore"):
        return np.clip(np.round(waveform * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")
