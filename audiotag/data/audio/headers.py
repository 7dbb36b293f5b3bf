"""Reads and checks the headers of untrusted audio files.

A decoder that fails on a malformed file may crash or exhaust memory, so this runs first.
"""

import mmap
import struct
from dataclasses import dataclass

from audiotag.errors import DataError

LOWEST_HZ, HIGHEST_HZ = 4_000, 384_000  # one file on Freesound claims 1 Hz: 85 GB once resampled
MOST_CHANNELS = 8
MOST_SAMPLES = 1 << 26  # per channel, as recorded and as resampled: 25 minutes at 44.1 kHz
MOST_CHUNKS = 10_000  # a usual file has a handful; scanning millions would take long
MOST_PADDING = 1 << 20  # zeros before the first frame of an MP3
# {suffix: content}
SUFFIXES = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aiff": "AIFF", ".aif": "AIFF"}
KINDS = "WAV, FLAC, Ogg (Vorbis or Opus), MP3 and AIFF"

# The encodings of WAV and AIFF that are decoded: uncompressed samples, and A-law and mu-law by a table of 256 values.
INTEGER, FLOAT, ALAW, ULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
WAV_DEPTHS = {INTEGER: (8, 16, 24, 32), FLOAT: (32, 64), ALAW: (8,), ULAW: (8,)}
AIFF_PLAIN = b"NONE twos sowt in24 in32 raw  fl32 FL32 fl64 FL64 ulaw ULAW alaw ALAW"
MP3_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by MPEG version


@dataclass(frozen=True)
class Header:
    """The properties of an audio file according to its header.

    Args:
        kind: "WAV", "AIFF", "FLAC", "OGG" or "MP3".
        sample_rate: In Hz.
        channels: Number of channels.
        num_samples: Samples per channel; None if the header lacks it and only the decoder can determine it.
        guessed: Whether even the decoder only estimates it.
    """

    kind: str
    sample_rate: int
    channels: int
    num_samples: int | None
    guessed: bool = False


def read_header(data: bytes | mmap.mmap, *, any_length: bool = False) -> Header:
    """Reads the `Header` of a file and checks its format and size.

    Args:
        data: The bytes of the file, or an `mmap` of it.
        any_length: Whether it may be longer than a clip, as a recording that is decoded block by block.

    Raises:
        DataError: Another format or encoding, a sample rate out of range, too many channels or samples, or fewer
            bytes than the header promises. The message does not name the file.

    Example:
        >>> form = struct.pack("<4sIHHIIHH", b"fmt ", 16, INTEGER, 1, 16_000, 32_000, 2, 16)
        >>> read_header(b"RIFF" + bytes(4) + b"WAVE" + form + b"data" + struct.pack("<I", 2) + bytes(2))
        Header(kind='WAV', sample_rate=16000, channels=1, num_samples=1, guessed=False)
    """
    try:
        header = _reader(data)(data)
    except struct.error:
        raise DataError("its header is cut short. Download it again, or leave this file out.") from None
    check_size(header, any_length=any_length)
    return header


def check_size(header: Header, *, sample_rate: int | None = None, any_length: bool = False) -> None:
    """Raises DataError if the sample rate, channels or length are out of range.

    With `sample_rate`, in Hz, the length counts as resampled to it.
    """
    if not LOWEST_HZ <= header.sample_rate <= HIGHEST_HZ:
        raise DataError(
            f"sample rate {header.sample_rate} Hz; expected {LOWEST_HZ} to {HIGHEST_HZ} Hz. "
            f"Its header is probably wrong: correct it, or leave this file out."
        )
    if not 1 <= header.channels <= MOST_CHANNELS:
        raise DataError(f"{header.channels} channels; expected 1 to {MOST_CHANNELS}. Mix it down first.")
    samples = header.num_samples
    if samples is not None and sample_rate:
        samples = round(samples * sample_rate / header.sample_rate)
    if samples == 0 and not sample_rate:
        raise DataError("a header but no samples. Download it again, or leave this file out.")
    if samples is not None and samples > MOST_SAMPLES and not any_length:
        raise DataError(
            f"too long: {samples} samples at {sample_rate or header.sample_rate} Hz; a clip has {MOST_SAMPLES} at "
            f"most. Cut it into clips, or leave this file out."
        )


def _reader(data):
    """The function that reads the header of this format."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return _wav
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return _aiff
    if data[(start := _tag_length(data)) : start + 4] == b"fLaC":
        return _flac
    if data[:4] == b"OggS":
        return _ogg
    if _mp3_frame(data, _first_frame(data)):
        return _mp3
    raise DataError(
        f"audiotag cannot decode it: it begins with {data[:12]}. Expected {KINDS}. "
        f"Download it again, convert it or leave this file out."
    )


def _tag_length(data):
    """Length in bytes of the ID3 tag at the start of a file; 0 without one."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0)))
    return 10 + size


# Chunked formats


def _chunks(data, order, sound):
    """Yields (kind, start, size) of each chunk, up to the samples."""
    at, size_in_ds64 = 12, None
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(data):
            raise DataError(
                f"a header without a {sound.decode()} chunk: nothing was recorded, or the file is cut short. "
                f"Download it again, or leave this file out."
            )
        kind, size = struct.unpack_from(f"{order}4sI", data, at)
        if kind == b"ds64":  # RF64 keeps a size above 32 bits here
            size_in_ds64 = struct.unpack_from("<Q", data, at + 16)[0]
        if kind == sound and size == 0xFFFFFFFF and size_in_ds64 is not None:
            size = size_in_ds64
        yield kind, at + 8, size
        if kind == sound:
            return
        at += 8 + size + size % 2
    raise DataError(f"more than {MOST_CHUNKS} chunks before its sound. Export it again with another program.")


def _check_data_size(size, available):
    if size > available or size == 0 < available:
        raise DataError(
            f"its header promises {size} bytes of sound, {available} bytes follow: the file is cut short, "
            f"or a recorder or a stream never wrote the length. Download it again, or export it again with "
            f"another program."
        )


def _wav(data):
    form = None
    for kind, start, size in _chunks(data, "<", b"data"):  # noqa: B007, size is used below
        if kind == b"fmt " and form is None:
            form = struct.unpack_from("<HHIIHH", data, start)
            encoding = form[0]
            if encoding == EXTENSIBLE:
                encoding = struct.unpack_from("<H", data, start + 24)[0]
    _check_data_size(size, len(data) - start)
    if form is None:
        raise DataError("no fmt chunk before its sound. Export it again with another program.")
    _, channels, sample_rate, _, frame, bits = form
    if bits not in WAV_DEPTHS.get(encoding, ()):
        raise DataError(
            f"WAV encoding {encoding} with {bits} bits; expected 8, 16, 24 or 32 bits, float, A-law or mu-law. "
            f"Convert it, say to 16 bits or to FLAC."
        )
    if channels and frame != channels * bits // 8:
        raise DataError(f"{frame} bytes for {channels} samples of {bits} bits: a wrong header. Export it again.")
    return Header("WAV", sample_rate, channels, size // frame if frame else 0)


def _aiff(data):
    form = None
    for kind, start, size in _chunks(data, ">", b"SSND"):  # noqa: B007, size is used below
        if kind == b"COMM" and form is None:
            form = struct.unpack_from(">HIHHQ", data, start)
            packed = data[start + 18 : start + 22] if data[8:12] == b"AIFC" else b"NONE"
    _check_data_size(size, len(data) - start)
    if form is None:
        raise DataError("no COMM chunk before its sound. Export it again with another program.")
    channels, num_samples, bits, exponent, mantissa = form
    if packed not in AIFF_PLAIN or not 1 <= bits <= 64:
        raise DataError(f"AIFF encoding {packed} with {bits} bits. Convert it, say to WAV or FLAC.")
    # An 80-bit float: a sign, 15 bits of exponent and 64 bits of mantissa.
    shift = 63 - ((exponent & 0x7FFF) - 16_383)
    sample_rate = mantissa >> shift if 0 <= shift < 64 else 0
    needed = num_samples * channels * ((bits + 7) // 8)
    if needed > max(size - 8, 0) and packed not in (b"ulaw", b"ULAW", b"alaw", b"ALAW"):
        raise DataError(
            f"its header promises {num_samples} samples, {max(size - 8, 0)} bytes of sound follow: the file is cut "
            f"short. Download it again, or export it again with another program."
        )
    return Header("AIFF", sample_rate, channels, num_samples)


# Compressed formats


def _flac(data):
    start = _tag_length(data) + 4
    kind, _, _, size, _, packed = struct.unpack_from(">BBBB10sQ", data, start)
    if kind & 0x7F or size < 34:
        raise DataError("a FLAC file that does not begin with STREAMINFO. Export it again.")
    sample_rate, channels = packed >> 44, (packed >> 41 & 7) + 1
    num_samples = packed & (1 << 36) - 1
    if not num_samples:
        raise DataError("a FLAC file whose header has no length: a stream, or cut short. Export it again.")
    return Header("FLAC", sample_rate, channels, num_samples)


def _ogg(data):
    first = data[27 + data[26] : 57 + data[26]] if len(data) > 26 else b""
    last = data.rfind(b"OggS")
    flags, granule = struct.unpack_from("<Bq", data, last + 5)
    lengths = data[last + 27 : last + 27 + data[last + 26]]
    if not flags & 4 or last + 27 + len(lengths) + sum(lengths) > len(data):
        raise DataError("its last page is not marked as the end: the file is cut short. Download it again.")
    if first[:7] == b"\x01vorbis":
        channels, sample_rate = struct.unpack_from("<BI", first, 11)
        return Header("OGG", sample_rate, channels, granule if granule >= 0 else None)
    if first[:8] == b"OpusHead":
        channels, skipped, sample_rate = struct.unpack_from("<BHI", first, 9)
        # As libsndfile does: the rate before encoding, if Opus supports it.
        sample_rate = sample_rate if sample_rate in (8_000, 12_000, 16_000, 24_000) else 48_000
        return Header("OGG", sample_rate, channels, max(granule - skipped, 0) * sample_rate // 48_000)
    raise DataError(f"an Ogg file that is neither Vorbis nor Opus: {first[:8]}. Convert it.")


def _first_frame(data):
    """Where the first frame of an MP3 may start: after the tag and zero padding."""
    start = _tag_length(data)
    padding = data[start : start + MOST_PADDING]
    return start + len(padding) - len(padding.lstrip(b"\0"))


def _mp3_frame(data, start):
    """(sample rate in Hz, channels) of a layer III frame, or None."""
    word = int.from_bytes(data[start : start + 4], "big")
    version, layer, kbits, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer != 1 or rate == 3 or kbits == 15:
        return None
    return MP3_HZ[version][rate], 1 if word >> 6 & 3 == 3 else 2


def _mp3(data):
    start = _first_frame(data)
    sample_rate, channels = _mp3_frame(data, start)
    head = data[start : start + 4096]
    # Without a Xing or Info header, libsndfile estimates the length of an MP3.
    return Header("MP3", sample_rate, channels, None, guessed=not (b"Xing" in head or b"Info" in head))
