"""Recordings in, shards of records out: decoded once, in any number of processes, with the same bytes."""

import contextlib
import hashlib
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from audiotag import files, progress
from audiotag.data import audio, silence
from audiotag.data import workers as crew
from audiotag.data.clips import COLUMNS, write_clips
from audiotag.data.manifest import NAME, Manifest, Shard, damaged_shards, digest, read_manifest, write_manifest
from audiotag.errors import DataError

CODECS = ("pcm", "flac", "source")  # int16, lossless FLAC, Ogg and MP3 files as they are and FLAC for the rest
PACKED = {("OGG", "VORBIS"): "ogg", ("MP3", "MPEG_LAYER_III"): "mp3"}  # what tensorflow-io decodes; it has no Opus
TABLES = ("clips.csv", "rejects.csv")
WORK = ".work"  # holds what is known of finished shards until the manifest does
SHOWN = 5  # bad clips named in an error; rejects.csv names them all
HEARD_AHEAD = 20  # clips whose headers tell how large the records will be


# The record, and both directions across it


@dataclass(frozen=True)
class Record:
    """What one record holds: a clip's name and its sound.

    Args:
        name: The clip's name, which joins it with its row in a table of clips.
        audio: Little-endian int16 PCM, or the bytes of a FLAC, Ogg or MP3 file.
        codec: "pcm", "flac", "ogg" or "mp3".
        sample_rate: In Hz.
        num_samples: How many samples `audio` decodes to.
    """

    name: str
    audio: bytes
    codec: str
    sample_rate: int
    num_samples: int


def encode(record):
    """A `Record` as the bytes of a `tf.train.Example`."""
    import tensorflow as tf

    text = lambda value: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    number = lambda value: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    features = {
        "name": text(record.name.encode()),
        "audio": text(record.audio),
        "codec": text(record.codec.encode()),
        "sample_rate": number(record.sample_rate),
        "num_samples": number(record.num_samples),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def decode(serialised):
    """The bytes of a record → a dict of scalar tensors with the fields of `Record`."""
    import tensorflow as tf

    kinds = {
        "name": tf.string,
        "audio": tf.string,
        "codec": tf.string,
        "sample_rate": tf.int64,
        "num_samples": tf.int64,
    }
    return tf.io.parse_single_example(serialised, {key: tf.io.FixedLenFeature([], kind) for key, kind in kinds.items()})


# One clip, in a worker process


def prepare(path, *, sample_rate, codec, trim, trim_db, peak_db):
    """What becomes of one audio file, whatever it holds.

    Returns:
        (audio, codec, facts): the record's bytes, how they are coded, and the columns of clips.csv
        that are `clips.MEASURES`. Or a str: the reason why there is no record.
    """
    path = Path(path)
    try:
        data = audio.read_bytes(path)
        whole, rate = audio.decode_file(data, path=path)  # [N]
        waveform, (start, end), gain_db = audio.treat(
            whole, rate, path=path, sample_rate=sample_rate, trim=trim, trim_db=trim_db, peak_db=peak_db
        )
    except DataError as error:
        return str(error)
    pcm = audio.to_pcm(waveform)  # [N]
    facts = {
        "num_samples": len(pcm),
        "seconds": round(len(pcm) / sample_rate, 6),
        "peak": round(float(np.abs(waveform).max()), 6),
        "rms": round(float(np.sqrt(np.mean(np.square(waveform, dtype="float64")))), 6),
        "trimmed_start_seconds": round(start / rate, 6),
        "trimmed_end_seconds": round((len(whole) - end) / rate, 6),
        "gain_db": round(gain_db, 6),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if codec == "pcm":
        return pcm.tobytes(), "pcm", facts
    if codec == "source" and len(whole) == end - start and gain_db == 0:
        info = sf.info(io.BytesIO(data))
        packed = PACKED.get((info.format, info.subtype))
        if packed and rate == sample_rate:
            return data, packed, facts
    flac = io.BytesIO()
    sf.write(flac, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    return flac.getvalue(), "flac", facts


# All clips


def write_records(
    source,
    out,
    *,
    sample_rate=44_100,
    codec="pcm",
    trim=None,
    trim_db=60.0,
    peak_db=None,
    workers=None,
    clips_per_shard=128,
    keep_known_bad=False,
    skip_bad=False,
    overwrite=False,
):
    """Writes the recordings of a source as shards, with manifest.json, clips.csv and rejects.csv.

    Which clip goes into which shard, and in which order, follows from the names of the clips
    alone, so the bytes do not depend on the number of workers or the order of the tables. A run
    that was killed goes on where it stopped; a finished directory is left alone.

    Args:
        source: A `layouts.Source`: the table of clips, the vocabulary, the clips known to be bad.
        out: The directory to make.
        sample_rate: Rate of the records in Hz.
        codec: One of `CODECS`. With "source", a clip that is trimmed or made louder or softer is written as FLAC.
        trim: What to cut off both ends of a clip, at the file's own rate: "loudest" as in `silence.trim_to_loudest`,
            "level" as in `silence.trim_to_level`, None for nothing. Nothing inside a clip is cut.
        trim_db: How far below the loudest frame silence lies, in dB; for "loudest".
        peak_db: The peak of every record in dBFS, -60 to 0; None leaves the recordings' own. Set after trimming and
            resampling, so that it is the record's; digital silence stays as it is.
        workers: Number of processes that decode; None is one a core. 0 decodes in this process, which then is at
            the mercy of what a file does to its decoder.
        clips_per_shard: Clips in a shard, at most; a shard holds clips of one subset.
        keep_known_bad: Keep the clips that `source.excluded` names.
        skip_bad: Leave clips out that cannot be decoded, instead of stopping after the last one.
        overwrite: Remove other records in `out` first, once it is known that there is room for these.

    Returns:
        The `Manifest`.

    Raises:
        DataError: Clips that cannot be decoded, a directory that holds the recordings, other records or others'
            tables, no room for the records, or a wrong option.
    """
    out = Path(out)
    sound = _checked_sound(sample_rate, codec, trim, trim_db, peak_db)
    known_bad = {} if keep_known_bad else dict(source.excluded)
    options = {"layout": source.layout, **sound, "clips_per_shard": clips_per_shard}
    options |= {"keep_known_bad": keep_known_bad, "skip_bad": skip_bad}
    plan = planned_shards(source.clips[~source.clips["name"].isin(known_bad)], clips_per_shard)
    fingerprint = _fingerprint(options, source, known_bad)
    # Of what is unfinished: bad clips may be left out of it later.
    begun = _fingerprint(options | {"skip_bad": False}, source, known_bad)

    _refuse_a_taken_place(out, source.clips)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        if (out / NAME).exists() and not overwrite:
            return _same_records(out, fingerprint)
        finished = {} if overwrite else _finished_shards(out, begun, skip_bad)
        todo = {name: clips for name, clips in plan.items() if name not in finished}
        _check_room(out, [path for clips in todo.values() for path in clips["path"]], sample_rate, codec, overwrite)
        if overwrite:
            _remove_records(out)
        _write_note(out / WORK / "plan.json", begun)
        finished |= _write_shards(out, todo, begun, sound, workers, skip_bad)
        shards = [finished[name] for name in plan]
        tables = _write_tables(out, source.clips, shards, known_bad, skip_bad)
        for known in shards:
            if not known["clips"]:  # all of them were bad
                (out / known["shard"]["file"]).unlink()
        manifest = Manifest(
            directory=out,
            options=options,
            plan=fingerprint,
            vocabulary=tuple(source.vocabulary),
            shards=tuple(Shard(**known["shard"]) for known in shards if known["clips"]),
            tables=tables,
        )
        write_manifest(manifest)
    return manifest


def planned_shards(clips, clips_per_shard):
    """{file name: its clips}: subset by subset, in the order of the hash of their names."""
    order = clips.assign(hash=[hashlib.sha256(name.encode()).hexdigest() for name in clips["name"]])
    order = order.sort_values(["subset", "hash"])
    groups = [
        subset.iloc[start : start + clips_per_shard]
        for _, subset in order.groupby("subset", sort=True)
        for start in range(0, len(subset), clips_per_shard)
    ]
    return {f"clips-{index:05d}-of-{len(groups):05d}.tfrecord": group for index, group in enumerate(groups)}


def check_records(directory):
    """Reads every byte of a directory of records; yields a sentence for each file that is not what was written."""
    manifest = read_manifest(directory)
    shards = progress.bar(manifest.shards, total=len(manifest.shards), unit="shard", label="check-records")
    yield from damaged_shards(Manifest(**{**vars(manifest), "shards": shards}))


# How it is done


def _checked_sound(sample_rate, codec, trim, trim_db, peak_db):
    """The options that decide how a record sounds, or a DataError."""
    if codec not in CODECS:
        raise DataError(f"codec {codec!r}: expected one of {', '.join(CODECS)}.")
    if trim not in (None, *silence.TRIMS):
        raise DataError(f"trim {trim!r}: expected {' or '.join(silence.TRIMS)}; leave it out to cut nothing off.")
    if not 0 < trim_db <= 120:
        raise DataError(f"trim_db {trim_db}: expected a number of dB above 0, at most 120.")
    if trim_db != 60 and trim != "loudest":
        raise DataError(f"trim_db {trim_db}: only trim 'loudest' listens to it, and trim is {trim!r}. Leave it out.")
    if peak_db is not None and not -60 <= peak_db <= 0:
        raise DataError(f"peak_db {peak_db}: expected -60 to 0 dBFS; 0 is full scale, above which sound is clipped.")
    peak_db = None if peak_db is None else float(peak_db)
    return {"sample_rate": sample_rate, "codec": codec, "trim": trim, "trim_db": float(trim_db), "peak_db": peak_db}


def _fingerprint(options, source, known_bad):
    """SHA-256 of all that decides the records."""
    return digest([options, source.vocabulary, source.clips[[*COLUMNS]].astype(str).values.tolist(), known_bad])


def _refuse_a_taken_place(out, clips):
    """Refuses a directory that the recordings lie in, or that holds tables of others under our names."""
    if clips["path"].str.startswith(f"{out.resolve()}{os.sep}").any():
        raise DataError(f"{out}: the recordings lie in it. Choose another --out, of the records alone.")
    ours = (out / NAME).exists() or (out / WORK).exists() or any(out.glob("clips-*.tfrecord"))
    for table in (out / name for name in TABLES):
        if table.exists() and not ours:
            raise DataError(f"{table}: no records lie beside it, so it is somebody's own. Choose another --out.")


@contextlib.contextmanager
def _locked(out):
    """One writer a directory; what it knows of finished shards goes when the manifest is there."""
    (out / WORK).mkdir(exist_ok=True)
    refusal = f"{out}: another make-records is writing here. Wait for it, or choose another --out."
    with files.locked(out / WORK / "lock", refusal):
        try:
            yield
        finally:
            if (out / NAME).exists():
                shutil.rmtree(out / WORK)


def _same_records(out, fingerprint):
    """The manifest of the finished records in a directory, if they are those that are wanted."""
    manifest = read_manifest(out)
    if manifest.plan != fingerprint:
        raise DataError(
            f"{out}: holds finished records of other clips or options. Choose another --out, or --overwrite."
        )
    return manifest


def _records_in(out):
    """Paths of what finished or unfinished records consist of, the manifest first."""
    notes = (out / WORK).glob("*.json")
    return [out / NAME, *out.glob("clips-*.tfrecord"), *notes, *(out / name for name in TABLES)]


def _remove_records(out):
    """Takes records away, in an order in which no moment looks whole."""
    for path in _records_in(out):
        path.unlink(missing_ok=True)
    _sweep(out)


def _sweep(out):
    """Removes what killed writers left unfinished."""
    files.sweep(out)
    files.sweep(out / WORK)


def _write_note(path, plan, known=None):
    """Writes down, for the run that may have to go on, that something belongs to a plan, and what is known of it."""
    files.write_text(path, json.dumps({"plan": plan, "known": known, "sha256": digest([plan, known])}))


def _read_note(path):
    """(plan, known) as `_write_note` was given them; (None, None) where it wrote nothing, or something else."""
    try:
        note = json.loads(path.read_bytes())
        if note["sha256"] == digest([note["plan"], note["known"]]):
            return note["plan"], note["known"]
    except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return None, None


def _finished_shards(out, fingerprint, skip_bad):
    """{file name: what is known of it} of the shards that an earlier run of the same plan finished."""
    plan, _ = _read_note(out / WORK / "plan.json")
    if plan not in (None, fingerprint):
        raise DataError(
            f"{out}: an unfinished run with other clips or options lies here. Choose another --out, or --overwrite."
        )
    _sweep(out)
    finished = {}
    for path in (out / WORK).glob("clips-*.json"):
        plan, known = _read_note(path)
        if plan == fingerprint and (skip_bad or not known["rejects"]):
            shard = out / known["shard"]["file"]
            if shard.is_file() and files.sha256(shard) == known["shard"]["sha256"]:
                finished[shard.name] = known
    return finished


def _check_room(out, paths, sample_rate, codec, overwrite):
    """Refuses to begin where the disk is too full for what, by the headers of some clips, is to be written."""
    sizes = [os.stat(path).st_size for path in paths]
    samples, read = 0, 0
    for path in paths[:: max(1, len(paths) // HEARD_AHEAD)]:
        with contextlib.suppress(DataError):  # a bad clip is told of when its turn comes
            data = audio.read_bytes(path)
            header = audio.read_header(data)
            if header.num_samples:
                samples += header.num_samples * sample_rate / header.sample_rate
                read += len(data)
    needed = 2 * samples * sum(sizes) / max(read, 1) * (1 if codec == "pcm" else 0.4)
    free = shutil.disk_usage(out).free
    if overwrite:
        free += sum(path.stat().st_size for path in _records_in(out) if path.exists())
    if needed > free:
        raise DataError(
            f"{out}: about {needed / 1e9:.1f} GB are to be written, and {free / 1e9:.1f} GB are free there. Make room, "
            f"choose another --out, a lower --sample-rate, or --codec flac, which takes half the disk."
        )


def _write_shards(out, plan, fingerprint, sound, workers, skip_bad):
    """Writes the planned shards; {file name: {"shard", "clips", "rejects"}}."""
    clips = [(shard, clip) for shard, group in plan.items() for clip in group.itertuples()]
    results = _prepared([clip.path for _, clip in clips], sound, workers)
    results = progress.bar(results, total=len(clips), unit="clip", label="make-records")
    written = {}
    with contextlib.closing(results):
        for name, group in plan.items():
            written[name] = known = _write_shard(out / name, group, results, sound["sample_rate"])
            if skip_bad or not known["rejects"]:  # a shard with unwanted gaps is made again, once its clips are mended
                _write_note(out / WORK / f"{name}.json", fingerprint, known)
        next(results, None)  # lets the progress bar come to its end
    return written


def _write_shard(path, clips, results, sample_rate):
    """Writes one shard from the next results; what is known of it."""
    import tensorflow as tf

    known = {"clips": [], "rejects": []}
    with files.whole_file(path) as unfinished, _told_by_tensorflow(path):
        with tf.io.TFRecordWriter(str(unfinished)) as shard:
            for clip in clips.itertuples():
                result = next(results)
                if isinstance(result, str):
                    known["rejects"].append({"name": clip.name, "reason": result.replace(clip.path, clip.name)})
                    continue
                sound, coded, facts = result
                shard.write(encode(Record(clip.name, sound, coded, sample_rate, facts["num_samples"])))
                known["clips"].append({"name": clip.name, **facts})
        size, sha256 = unfinished.stat().st_size, files.sha256(unfinished)
    names = tuple(clip["name"] for clip in known["clips"])
    known["shard"] = asdict(Shard(path.name, clips["subset"].iloc[0], size, sha256, names))
    return known


@contextlib.contextmanager
def _told_by_tensorflow(path):
    """Turns TensorFlow's complaint about a full or broken disk into an error that names the shard."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise DataError(
            f"{path}: cannot be written: {error.message}. Nothing half-written is left. Make room and run the same "
            f"command again: it goes on where it stopped."
        ) from error


def _prepared(paths, sound, workers):
    """What `prepare` answers for each path, in order; the reason why there is no record where its decoder died."""
    function = partial(prepare, **sound)
    if workers == 0:
        yield from map(function, paths)
        return
    answers = crew.in_order(function, paths, workers=workers or os.cpu_count())
    with contextlib.closing(answers):
        for path, (answer, reason) in zip(paths, answers):
            yield f"{path}: {reason}. Take it off the list, or convert it with another program." if reason else answer


def _write_tables(out, clips, shards, known_bad, skip_bad):
    """Writes rejects.csv, and clips.csv unless bad clips stop the run; {name: SHA-256} of the two."""
    expected = [{"name": name, "reason": reason} for name, reason in known_bad.items()]
    rejects = [reject for known in shards for reject in known["rejects"]]
    _write_rejects(out, clips, expected + rejects)
    if rejects and not skip_bad:
        raise DataError(_bad_clips(out, clips, rejects))
    facts = [clip for known in shards for clip in known["clips"]]
    if not facts:
        raise DataError(f"{out}: none of the {len(clips)} clips can be used; {out / 'rejects.csv'} says why.")
    table = clips[[*COLUMNS]].merge(pd.DataFrame(facts), on="name", validate="one_to_one")
    rejected = len(expected) + len(rejects)
    if len(table) + rejected != len(clips):
        raise DataError(
            f"{out}: {len(clips)} clips in, {len(table)} written and {rejected} rejected, "
            f"which do not add up. Please report this."
        )
    write_clips(out / "clips.csv", table)
    return {name: files.sha256(out / name) for name in TABLES}


def _write_rejects(out, clips, rejects):
    """Writes rejects.csv: which clips are left out, of which subset, and why."""
    rows = {clip.name: clip for clip in clips.itertuples()}
    table = pd.DataFrame(
        [{"name": r["name"], "subset": rows[r["name"]].subset, "reason": r["reason"]} for r in rejects],
        columns=["name", "subset", "reason"],
    )
    files.write_text(out / "rejects.csv", files.csv_text(table.sort_values("name")))


def _bad_clips(out, clips, rejects):
    """The sentence that stops a run with clips that cannot be decoded."""
    rows = dict(zip(clips["name"], clips["row"]))
    shown = "\n".join(f"  {rows[r['name']]}: {r['reason']}" for r in rejects[:SHOWN])
    more = f"\n  and {len(rejects) - SHOWN} more" if len(rejects) > SHOWN else ""
    return (
        f"{len(rejects)} of {len(clips)} clips cannot be used:\n{shown}{more}\n"
        f"{out / 'rejects.csv'} names them all. Mend them and run make-records again, or leave them out with "
        f"--skip-bad: finished shards are kept. A list without them is another one, and needs --overwrite."
    )
