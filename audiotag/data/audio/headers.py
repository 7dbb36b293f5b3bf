"""Reads and checks the headers of untrusted audio files.

A decoder that fails on a malformed file may crash or exhaust memory, so this runs first.
"""

import io
import mmap
import re
import struct
from dataclasses import dataclass

import soundfile as sf

from audiotag.errors import DataError

LOWEST_HZ, HIGHEST_HZ = 200, 1_000_000  # one file on Freesound claims 1 Hz: 85 GB once resampled
MOST_CHANNELS = 8
MOST_SAMPLES = 1 << 26  # per channel, as recorded and as resampled: 25 minutes at 44.1 kHz
MOST_CHUNKS = 10_000  # a usual file has a handful; scanning millions would take long
MOST_PADDING = 1 << 20  # zeros before the first frame of an MP3
# {suffix: content}
SUFFIXES = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aiff": "AIFF", ".aif": "AIFF"}
SUFFIXES |= {".wave": "WAV", ".bwf": "WAV", ".rf64": "WAV", ".aifc": "AIFF", ".oga": "OGG", ".opus": "OGG"}
SUFFIXES |= {".au": "AU", ".snd": "AU", ".caf": "CAF", ".w64": "W64", ".voc": "VOC", ".sph": "NIST", ".nist": "NIST"}
SUFFIXES |= {".avr": "AVR", ".paf": "PAF", ".pvf": "PVF", ".sf": "IRCAM", ".ircam": "IRCAM", ".svx": "SVX"}
SUFFIXES |= {".8svx": "SVX", ".wve": "WVE", ".sds": "SDS"}
# Files of these are read if ffmpeg is installed.
FFMPEG_SUFFIXES = {".m4a": "MP4", ".m4b": "MP4", ".mp4": "MP4", ".mov": "MP4", ".3gp": "MP4", ".aac": "AAC"}
FFMPEG_SUFFIXES |= {".wma": "ASF", ".webm": "Matroska", ".mka": "Matroska", ".mkv": "Matroska", ".amr": "AMR"}
FFMPEG_SUFFIXES |= {".ape": "Monkey's Audio", ".wv": "WavPack", ".mp2": "MP2", ".spx": "OGG", ".tta": "TTA"}
KINDS = "WAV, FLAC, Ogg (Vorbis or Opus), MP3, AIFF and what else libsndfile decodes; with ffmpeg M4A, AAC, WMA, WebM"
# {kind: what its files begin with}, of formats whose headers libsndfile reads, and of those that need ffmpeg.
OTHER_STARTS = {
    "AU": rb"\.snd|dns\.",
    "CAF": rb"caff",
    "W64": rb"riff\x2e\x91\xcf\x11",
    "VOC": rb"Creative Voice File",
    "NIST": rb"NIST_1A",
    "AVR": rb"2BIT",
    "PAF": rb" paf|fap ",
    "PVF": rb"PVF1\n",
    "IRCAM": rb"\x64\xa3[\x00-\x04]\x00|\x00[\x00-\x04]\xa3\x64",
    "SVX": rb"FORM.{4}(8SVX|16SV)",
    "WVE": rb"ALawSoundFile",
    "SDS": rb"\xf0\x7e.\x01",
}
FFMPEG_STARTS = {
    "MP4": rb".{4}ftyp",
    "Matroska": rb"\x1a\x45\xdf\xa3",
    "ASF": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "AAC": rb"\xff[\xf0\xf1\xf8\xf9]",
    "MP2": rb"\xff[\xfc\xfd\xf4\xf5]",
    "AMR": rb"#!AMR",
    "Monkey's Audio": rb"MAC ",
    "WavPack": rb"wvpk",
    "TTA": rb"TTA[12]",
}

# The encodings of WAV and AIFF that are decoded: uncompressed samples, and A-law and mu-law by a table of 256 values.
INTEGER, FLOAT, ALAW, ULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
WAV_DEPTHS = {INTEGER: (8, 16, 24, 32), FLOAT: (32, 64), ALAW: (8,), ULAW: (8,)}
AIFF_PLAIN = b"NONE twos sowt in24 in32 raw  fl32 FL32 fl64 FL64 ulaw ULAW alaw ALAW"
MP3_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by MPEG version
MP3_KBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_KBITS[0] = MP3_KBITS[2]
SEVERAL = "several streams, one after another, of which decoders read only the first. Split it, or export it again."
UNKNOWN = 0xFFFFFFFF  # the size of sound that is written to a pipe
NEARLY_UNKNOWN = (range(0x7FFFF000, 0x80000100), range(0xFFFFF000, UNKNOWN))  # or these, if the file's is such, too


@dataclass(frozen=True)
class Header:
    """The properties of an audio file according to its header.

    Args:
        kind: A value of `SUFFIXES`, such as "WAV".
        sample_rate: In Hz.
        channels: Number of channels.
        num_samples: Samples per channel; None if the header lacks it and only the decoder can determine it.
        guessed: Whether even the decoder only estimates it.
        prefix: What the decoder has to find in place of the first `skip` bytes: a frame with the length of an MP3 that
            has none, of which libsndfile decodes only as much as the bit rate of its first frames suggests.
        skip: The bytes of several tags, of which libsndfile knows only one.
    """

    kind: str
    sample_rate: int
    channels: int
    num_samples: int | None
    guessed: bool = False
    prefix: bytes = b""
    skip: int = 0


def needs_ffmpeg(data: bytes | mmap.mmap) -> str | None:
    """The kind of a file that only ffmpeg decodes, as MP4; None for others."""
    for kind, start in FFMPEG_STARTS.items():
        if re.match(start, data[:16], re.DOTALL):
            return kind
    if data[:4] == b"OggS":
        first = data[27 + data[26] : 57 + data[26]] if len(data) > 26 else b""
        return "Ogg with FLAC or Speex" if first.startswith((b"\x7fFLAC", b"Speex")) else None
    return None


def needs_libsndfile(data: bytes | mmap.mmap) -> str | None:
    """The kind of a file whose header libsndfile reads, as AU; None for others."""
    return next((kind for kind, start in OTHER_STARTS.items() if re.match(start, data[:20], re.DOTALL)), None)


def is_decoded_as_it_is(data: bytes) -> bool:
    """Whether libsndfile decodes a file that `read_header` accepts as it is."""
    if needs_ffmpeg(data):
        return False
    header = read_header(data)
    return not header.prefix and not header.skip


def read_header(data: bytes | mmap.mmap, *, any_length: bool = False, whole: bool = True) -> Header:
    """Reads the `Header` of a file and checks its format and size.

    Args:
        data: The bytes of the file, or an `mmap` of it.
        any_length: Whether it may be longer than a clip, as a recording that is decoded block by block.
        whole: Whether compressed files are looked through for further streams, which reads all of them.

    Raises:
        DataError: Another format or encoding, a sample rate out of range, too many channels or samples, or fewer
            bytes than the header promises. The message does not name the file.

    Example:
        >>> form = struct.pack("<4sIHHIIHH", b"fmt ", 16, INTEGER, 1, 16_000, 32_000, 2, 16)
        >>> read_header(b"RIFF" + bytes(4) + b"WAVE" + form + b"data" + struct.pack("<I", 2) + bytes(2))
        Header(kind='WAV', sample_rate=16000, channels=1, num_samples=1, ...)
    """
    try:
        reader = _reader(data)
        header = reader(data, whole) if reader in (_flac, _ogg, _mp3) else reader(data)
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
    if needs_libsndfile(data):
        return _other
    raise DataError(
        f"audiotag cannot decode it: it begins with {data[:12]}. Expected {KINDS}. "
        f"Download it again, convert it or leave this file out."
    )


def _tag_length(data, start=0):
    """Length in bytes of the ID3 tags at a place of a file; 0 without one."""
    at = start
    for _ in range(MOST_CHUNKS):
        tag = data[at : at + 10]
        if tag[:3] != b"ID3" or len(tag) < 10:
            break
        size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0)))
        at += 10 + size + (10 if tag[5] & 0x10 else 0)  # a footer
    return at - start


def _tags_to_skip(data):
    """The length of the ID3 tags at the start, if libsndfile does not skip them: several, or one with a footer."""
    length = _tag_length(data)
    one = bytes(data[:10])
    return length if length and (one[5] & 0x10 or _tag_length(one) != length) else 0


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


def _data_size(data, size, start, *, pipe=None):
    """The bytes of sound that follow, of the `size` that the header promises.

    `pipe` is the size of the file according to its header. Where it and `size` are numbers that stand for an unknown
    size, the sound ends with the file.
    """
    available = len(data) - start
    if (
        pipe is not None
        and size > available
        and (size == UNKNOWN or any(size in sizes and (pipe in sizes or pipe == UNKNOWN) for sizes in NEARLY_UNKNOWN))
    ):
        return available
    if size > available or size == 0 < available:
        raise DataError(
            f"its header promises {size} bytes of sound, {available} bytes follow: the file is cut short, "
            f"or a recorder or a stream never wrote the length. Download it again, or export it again with "
            f"another program."
        )
    end = start + size + size % 2
    if data[end : end + 4] in (b"RIFF", b"RF64", b"FORM") and data[end + 8 : end + 12] in (b"WAVE", b"AIFF", b"AIFC"):
        raise DataError(SEVERAL)
    return size


def _wav(data):
    form = None
    for kind, start, size in _chunks(data, "<", b"data"):  # noqa: B007, size is used below
        if kind == b"fmt " and form is None:
            form = struct.unpack_from("<HHIIHH", data, start)
            encoding = form[0]
            if encoding == EXTENSIBLE:
                encoding = struct.unpack_from("<H", data, start + 24)[0]
    size = _data_size(data, size, start, pipe=struct.unpack_from("<I", data, 4)[0])
    if form is None:
        raise DataError("no fmt chunk before its sound. Export it again with another program.")
    _, channels, sample_rate, _, _, bits = form
    if bits not in WAV_DEPTHS.get(encoding, ()):  # such as ADPCM, if libsndfile knows it
        return Header("WAV", sample_rate, channels, None)
    frame = channels * bits // 8  # not the header's number, which libsndfile ignores too
    return Header("WAV", sample_rate, channels, size // frame if frame else 0)


def _aiff(data):
    form = None
    for kind, start, size in _chunks(data, ">", b"SSND"):  # noqa: B007, size is used below
        if kind == b"COMM" and form is None:
            form = struct.unpack_from(">HIHHQ", data, start)
            packed = data[start + 18 : start + 22] if data[8:12] == b"AIFC" else b"NONE"
    size = _data_size(data, size, start)
    if form is None:
        raise DataError("no COMM chunk before its sound. Export it again with another program.")
    channels, num_samples, bits, exponent, mantissa = form
    # An 80-bit float: a sign, 15 bits of exponent and 64 bits of mantissa.
    shift = 63 - ((exponent & 0x7FFF) - 16_383)
    sample_rate = mantissa >> shift if 0 <= shift < 64 else 0
    if packed not in AIFF_PLAIN or not 1 <= bits <= 64:  # such as ADPCM, if libsndfile knows it
        return Header("AIFF", sample_rate, channels, None)
    needed = num_samples * channels * ((bits + 7) // 8)
    if needed > max(size - 8, 0) and packed not in (b"ulaw", b"ULAW", b"alaw", b"ALAW"):
        raise DataError(
            f"its header promises {num_samples} samples, {max(size - 8, 0)} bytes of sound follow: the file is cut "
            f"short. Download it again, or export it again with another program."
        )
    return Header("AIFF", sample_rate, channels, num_samples)


# Compressed formats


def _flac(data, whole):
    start = _tag_length(data) + 4
    kind, _, _, size, _, packed = struct.unpack_from(">BBBB10sQ", data, start)
    if kind & 0x7F or size < 34:
        raise DataError("a FLAC file that does not begin with STREAMINFO. Export it again.")
    sample_rate, channels = packed >> 44, (packed >> 41 & 7) + 1
    num_samples = packed & (1 << 36) - 1
    if not num_samples:
        raise DataError("a FLAC file whose header has no length: a stream, or cut short. Export it again.")
    if whole and (data.find(b'fLaC\0\0\0"', start) > 0 or data.find(b'fLaC\x80\0\0"', start) > 0):
        raise DataError(SEVERAL)
    return Header("FLAC", sample_rate, channels, num_samples, skip=_tags_to_skip(data))


def _ogg(data, whole):
    first = data[27 + data[26] : 57 + data[26]] if len(data) > 26 else b""
    last = data.rfind(b"OggS")
    flags, granule = struct.unpack_from("<Bq", data, last + 5)
    lengths = data[last + 27 : last + 27 + data[last + 26]]
    if not flags & 4 or last + 27 + len(lengths) + sum(lengths) > len(data):
        raise DataError("its last page is not marked as the end: the file is cut short. Download it again.")
    if whole and _several_streams(data):
        raise DataError(SEVERAL)
    if first[:7] == b"\x01vorbis":
        channels, sample_rate = struct.unpack_from("<BI", first, 11)
        return Header("OGG", sample_rate, channels, granule if granule >= 0 else None)
    if first[:8] == b"OpusHead":
        channels, skipped, sample_rate = struct.unpack_from("<BHI", first, 9)
        # As libsndfile does: the rate before encoding, if Opus supports it.
        sample_rate = sample_rate if sample_rate in (8_000, 12_000, 16_000, 24_000) else 48_000
        return Header("OGG", sample_rate, channels, max(granule - skipped, 0) * sample_rate // 48_000)
    raise DataError(f"an Ogg file that is neither Vorbis nor Opus: {first[:8]}. Convert it.")


def _several_streams(data):
    """Whether an Ogg file has more pages than one that begin a stream."""
    at = begins = 0
    while at >= 0 and data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        begins += data[at + 5] >> 1 & 1
        if begins > 1:
            return True
        lengths = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(lengths) + sum(lengths)
        if data[at : at + 4] != b"OggS":  # a damaged page: the decoder continues at the next
            at = data.find(b"OggS", at)
    return False


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


def _mp3_frames(data, start):
    """(how many frames of one rate follow one another from `start`, where they end)."""
    lengths: dict[int, int] = {}  # by the bits of a header that determine it; 0 ends the stream
    first, at, number = _mp3_frame(data, start), start, 0
    while True:
        word = int.from_bytes(data[at : at + 4], "big")
        key = word >> 9
        if key not in lengths:
            frame, version, kbits = _mp3_frame(data, at), word >> 19 & 3, word >> 12 & 15
            known = frame and kbits and frame[0] == first[0]
            samples = 1152 if version == 3 else 576
            lengths[key] = samples // 8 * MP3_KBITS[version][kbits] * 1000 // frame[0] + (key & 1) if known else 0
        if not lengths[key] or at + lengths[key] > len(data):
            return number, at
        at, number = at + lengths[key], number + 1


def _mp3_streams(data, start):
    """Yields (start, number of frames) of each stretch of frames: one, unless the file is damaged or has several."""
    number, end = _mp3_frames(data, start)
    yield start, number
    tried = 0
    while tried < MOST_CHUNKS:
        for found in re.compile(rb"\xff[\xe0-\xff]").finditer(data, end):
            at, tried = found.start(), tried + 1
            if tried >= MOST_CHUNKS:
                return
            if _mp3_frame(data, at) and (frames := _mp3_frames(data, at))[0] >= 3:
                number, end = frames
                yield at, number
                break
        else:
            return


def _mp3_length(data, start):
    """The number of frames that a Xing or Info header in the first frame promises, 0 if unknown; None without one."""
    head = data[start : start + 200]
    mark = max(head.find(b"Xing"), head.find(b"Info"))
    if mark < 0:
        return None
    flags, frames = struct.unpack_from(">II", head, mark + 4)
    return frames if flags & 1 else 0


def _mp3(data, whole):
    start = _first_frame(data)
    sample_rate, channels = _mp3_frame(data, start)
    promised, total = _mp3_length(data, start), 0
    if not whole:
        return Header("MP3", sample_rate, channels, None, guessed=promised is None)
    for at, number in _mp3_streams(data, start):
        total += number
        other = _mp3_frame(data, at)[0] != sample_rate or at > start and _mp3_length(data, at) is not None
        if other or promised and total > promised + 2:
            raise DataError(SEVERAL)
    if promised is not None:
        return Header("MP3", sample_rate, channels, None, skip=_tags_to_skip(data))
    return Header("MP3", sample_rate, channels, None, True, _info_frame(data, start, total), start)


def _info_frame(data, start, num_frames):
    """A silent frame like the one at `start`, with an Info header that says how many frames follow."""
    word = int.from_bytes(data[start : start + 4], "big") & ~0xF200 | 0x8000 | 1 << 16  # 112 or 64 kbit/s, no checksum
    version, mono = word >> 19 & 3, word >> 6 & 3 == 3
    kbits, sample_rate = MP3_KBITS[version][word >> 12 & 15], MP3_HZ[version][word >> 10 & 3]
    length = (144 if version == 3 else 72) * kbits * 1000 // sample_rate
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return (struct.pack(">I", word) + bytes(side) + b"Info" + struct.pack(">II", 1, num_frames)).ljust(length, b"\0")


# Formats whose headers libsndfile reads


def _other(data):
    """The header of a format that is too rare to be read here, and sounds that are shorter than it promises."""
    kind = needs_libsndfile(data)
    try:
        with sf.SoundFile(io.BytesIO(data[:])) as sound:
            rate, channels, num_samples, log = sound.samplerate, sound.channels, sound.frames, sound.extra_info
    except (sf.LibsndfileError, RuntimeError) as error:
        reason = getattr(error, "error_string", error)
        raise DataError(
            f"libsndfile cannot read this {kind} file and says {reason!r}. Download it again, or convert it."
        ) from None
    promised = re.search(r"(?:Frames +:|sample_count -i) (\d+)", log + data[:1024].decode("latin-1"))
    if "should be" in log or "truncated" in log or promised and num_samples < int(promised[1]):
        raise DataError(
            "its header promises more sound than follows: the file is cut short. Download it again, or export it "
            "again with another program."
        )
    return Header(kind, rate, channels, num_samples)
