"""From one audio file to the bytes of its record; runs in worker processes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from audiotag.data.audio import decoding
from audiotag.data.audio.headers import is_decoded_as_it_is
from audiotag.data.records import source_hashes
from audiotag.errors import DataError

KEPT = {("OGG", "VORBIS"): "ogg", ("MP3", "MPEG_LAYER_III"): "mp3"}  # tensorflow-io decodes these; it has no Opus
Prepared = tuple[bytes, str, dict[str, Any]]  # audio, codec, measures


Entry = str | Path | tuple[str, float, float]  # a file, or a part of it: the file, start and end in seconds


def prepare(entry: Entry, **options: Any) -> tuple[source_hashes.Identity, Prepared | str]:
    """Reads one audio file and makes its record; never raises for a bad file.

    Args:
        entry: The file, or a part of it.
        options: sample_rate, codec, trim, trim_db and peak_db, as for `write_records`.

    Returns:
        The file's identity, as `source_hashes.identify` returns it, and (audio, codec, measures): the record's bytes,
        its codec, and the columns of clips.csv that are `clips.MEASURES`. Or, in place of the three, a str: the
        reason why the file is rejected.
    """
    path = Path(entry[0] if isinstance(entry, tuple) else entry)
    try:
        if isinstance(entry, tuple):
            data, identity = None, source_hashes.identify_once(str(path))
            decoded = decoding.decode_excerpt(*entry)
        else:
            data, identity = source_hashes.read(path)
            decoded = None
    except DataError as error:
        return source_hashes.identify(path), str(error)
    return identity, _prepare_decoded(data, decoded, path, identity[1], **options)


def _prepare_decoded(data, decoded, path, sha256, *, sample_rate, codec, trim, trim_db, peak_db):
    """(audio, codec, measures) of the bytes of a file or a decoded part, or the reason why it is rejected."""
    try:
        recording, rate = decoded or decoding.decode_file(data, path=path)  # [N]
        waveform, (start, end), gain_db = decoding.trim_resample_scale(
            recording, rate, path=path, sample_rate=sample_rate, trim=trim, trim_db=trim_db, peak_db=peak_db
        )
    except DataError as error:
        return str(error)
    pcm = decoding.to_pcm(waveform)  # [N]
    measures = {
        "num_samples": len(pcm),
        "seconds": round(len(pcm) / sample_rate, 6),
        "peak": round(float(np.abs(waveform).max()), 6),
        "rms": round(float(np.sqrt(np.mean(np.square(waveform, dtype="float64")))), 6),
        "trimmed_start_seconds": round(start / rate, 6),
        "trimmed_end_seconds": round((len(recording) - end) / rate, 6),
        "gain_db": round(gain_db, 6),
        "sha256": sha256,
    }
    if codec == "pcm":
        return pcm.tobytes(), "pcm", measures
    if codec == "source" and data and len(recording) == end - start and gain_db == 0 and is_decoded_as_it_is(data):
        info = sf.info(io.BytesIO(data))
        kept = KEPT.get((info.format, info.subtype))
        if kept and rate == sample_rate:
            return data, kept, measures
    flac = io.BytesIO()
    sf.write(flac, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    return flac.getvalue(), "flac", measures
