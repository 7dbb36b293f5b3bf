"""Recordings in, shards of records out: decoded once, in any number of processes, with the same bytes."""

import contextlib
import hashlib
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from audiotag import files, progress
from audiotag.data.audio import decoding, trimming, worker_pool
from audiotag.data.clips import COLUMNS, read_clips, write_clips
from audiotag.data.records import source_hashes
from audiotag.data.records.manifest import (
    NAME,
    Manifest,
    Shard,
    damaged_shards,
    digest,
    load_manifest,
    read_manifest,
    write_manifest,
)
from audiotag.data.records.schema import CODECS, Record, encode
from audiotag.data.sources.layouts import Source
from audiotag.errors import DataError

PACKED = {("OGG", "VORBIS"): "ogg", ("MP3", "MPEG_LAYER_III"): "mp3"}  # what tensorflow-io decodes; it has no Opus
TABLES = ("clips.csv", "rejects.csv")
WORK = ".work"  # holds all that is written until it is complete
LOCK = "lock"
SHOWN = 5  # bad clips named in an error; rejects.csv names them all
BYTES_PER_SECOND = 16_000  # of a file whose header does not tell its length: 128 kbit/s


# The record, and both directions across it


# One clip, in a worker process


def prepare(path, *, sample_rate, codec, trim, trim_db, peak_db):
    """What becomes of one audio file, whatever it holds.

    Returns:
        The file's identity, as `sources.identify` has it; and (audio, codec, facts): the record's bytes, how they
        are coded, and the columns of clips.csv that are `clips.MEASURES`. Or a str: the reason why there is no record.
    """
    path = Path(path)
    try:
        data, identity = source_hashes.read(path)
    except DataError as error:
        return source_hashes.identify(path), str(error)
    options = {"sample_rate": sample_rate, "codec": codec, "trim": trim, "trim_db": trim_db, "peak_db": peak_db}
    return identity, _made_of(data, path, identity[1], **options)


def _made_of(data, path, sha256, *, sample_rate, codec, trim, trim_db, peak_db):
    """What becomes of the bytes of one audio file: (audio, codec, facts), or the reason why there is no record."""
    try:
        whole, rate = decoding.decode_file(data, path=path)  # [N]
        waveform, (start, end), gain_db = decoding.treat(
            whole, rate, path=path, sample_rate=sample_rate, trim=trim, trim_db=trim_db, peak_db=peak_db
        )
    except DataError as error:
        return str(error)
    pcm = decoding.to_pcm(waveform)  # [N]
    facts = {
        "num_samples": len(pcm),
        "seconds": round(len(pcm) / sample_rate, 6),
        "peak": round(float(np.abs(waveform).max()), 6),
        "rms": round(float(np.sqrt(np.mean(np.square(waveform, dtype="float64")))), 6),
        "trimmed_start_seconds": round(start / rate, 6),
        "trimmed_end_seconds": round((len(whole) - end) / rate, 6),
        "gain_db": round(gain_db, 6),
        "sha256": sha256,
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
    alone, so the bytes do not depend on the number of workers or the order of the tables. All of
    it is written below `out/.work` and moved to its place once it is complete: until then the
    records that were there stay. A run that was killed goes on where it stopped; finished records
    of the same recordings are left alone.

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
        overwrite: Replace other records in `out`, once these are complete.

    Returns:
        The `Manifest`.

    Raises:
        DataError: Clips that cannot be decoded, a directory that holds the recordings, other records, records of
            other audio or others' tables, recordings that change meanwhile, no room, or a wrong option.
    """
    out = Path(out)
    sound = _checked_sound(sample_rate, codec, trim, trim_db, peak_db)
    known_bad = {} if keep_known_bad else dict(source.excluded)
    options = {"layout": source.layout, **sound, "clips_per_shard": clips_per_shard}
    options |= {"keep_known_bad": keep_known_bad, "skip_bad": skip_bad}
    request = _Request(source, options, known_bad)

    _refuse_a_taken_place(out, source.clips)
    if (out / NAME).exists() and not overwrite:
        return _left_alone(out, request)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        manifest = _published_before(out, request, overwrite)
        if manifest is None and (out / NAME).exists() and not overwrite:  # another process was faster
            manifest = _same_records(out, request)
        return manifest or _make(out, request, workers, overwrite)


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
    if trim not in (None, *trimming.TRIMS):
        raise DataError(f"trim {trim!r}: expected {' or '.join(trimming.TRIMS)}; leave it out to cut nothing off.")
    if not 0 < trim_db <= 120:
        raise DataError(f"trim_db {trim_db}: expected a number of dB above 0, at most 120.")
    if trim_db != 60 and trim != "loudest":
        raise DataError(f"trim_db {trim_db}: only trim 'loudest' listens to it, and trim is {trim!r}. Leave it out.")
    if peak_db is not None and not -60 <= peak_db <= 0:
        raise DataError(f"peak_db {peak_db}: expected -60 to 0 dBFS; 0 is full scale, above which sound is clipped.")
    peak_db = None if peak_db is None else float(peak_db)
    return {"sample_rate": sample_rate, "codec": codec, "trim": trim, "trim_db": float(trim_db), "peak_db": peak_db}


@dataclass(frozen=True)
class _Request:
    """What make-records is asked for."""

    source: Source
    options: dict
    known_bad: dict

    @property
    def skip_bad(self):
        return self.options["skip_bad"]

    @cached_property
    def clips(self):
        """The table of clips without those known to be bad."""
        clips = self.source.clips
        return clips[~clips["name"].isin(self.known_bad)]

    @cached_property
    def paths(self):
        """{name: path} of these clips."""
        return dict(zip(self.clips["name"], self.clips["path"]))

    @cached_property
    def begun(self):
        """SHA-256 of all but the audio, of unfinished work: bad clips may be left out of it later."""
        return self._digest(self.options | {"skip_bad": False})

    def fingerprint(self, identities):
        """SHA-256 of all that decides the records, the bytes of the recordings among it."""
        sha256 = {name: identities[name][1] for name in self.paths}
        return digest([self._digest(self.options), sha256])

    def _digest(self, options):
        rows = self.source.clips[[*COLUMNS]].astype(str).values.tolist()
        return digest([options, self.source.vocabulary, rows, self.known_bad])


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
    """One writer a directory; its folder for work goes when nothing is left in it."""
    work, refusal = out / WORK, f"{out}: another make-records is writing here. Wait for it, or choose another --out."
    work.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.locked(work / LOCK, refusal))
        except FileNotFoundError:  # another process has just removed it
            raise files.Busy(refusal) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if os.listdir(work) == [LOCK]:
                    (work / LOCK).unlink()
                    work.rmdir()


def _clear(work):
    """Removes all work, as far as it goes; the lock stays."""
    for path in work.iterdir():
        if path.name != LOCK:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


# Finished records


def _left_alone(out, request):
    """The manifest of finished records, if they are those that are asked for; nothing need be written for it."""
    with contextlib.ExitStack() as held:
        left = None
        if (out / WORK).exists():
            with contextlib.suppress(OSError):  # a disk that cannot be written to
                held.enter_context(_locked(out))
                left = out / WORK
        manifest = _same_records(out, request)
        if left:
            _clear(left)
    return manifest


def _same_records(out, request):
    """The manifest of the finished records in a directory, if they are those that are asked for."""
    manifest = read_manifest(out)
    if difference := _difference(manifest, request):
        raise DataError(f"{out}: {difference}")
    return manifest


def _difference(manifest, request):
    """What sets finished records apart from those that are asked for, and the way out; None if nothing does."""
    cache = manifest.directory / source_hashes.CACHE
    known = source_hashes.read_cache(cache)
    now = source_hashes.identify_all(request.paths, known)
    if request.fingerprint(now) == manifest.plan:
        if now != known:
            with contextlib.suppress(OSError, DataError):  # it saves time, and no more
                source_hashes.write_cache(cache, now)
        return None
    table = read_clips(manifest.directory / "clips.csv")
    written = {name: (None, sha256) for name, sha256 in zip(table["name"], table["sha256"])}
    for rejected in (known, {}):  # the tables hold no hashes of rejected clips
        then = now | {name: identity for name, identity in (rejected | written).items() if name in now}
        if request.fingerprint(then) == manifest.plan:
            others = source_hashes.changed(then, now)
            return (
                f"the records are of other audio: {len(others)} of {len(now)} recordings are not what they were made "
                f"of, {_seen(request.paths[others[0]], now[others[0]])}. Make the records again with --overwrite, or "
                f"choose another --out."
            )
    return (
        f"holds finished records of other clips or options. Choose another --out, or --overwrite. "
        f"What differs: {_what_differs(manifest, table, request)}."
    )


def _seen(path, identity):
    """The first of some recordings that changed, in words."""
    if not os.path.lexists(path):
        return f"the first is {path}, which is no longer there"
    return f"the first is {path}" if identity[1] else f"the first is {path}, which cannot be read"


def _what_differs(manifest, table, request):
    """What sets finished records apart from a request, but for their audio."""
    options = [
        f"{key} is {manifest.options.get(key)!r} there and {value!r} here"
        for key, value in request.options.items()
        if manifest.options.get(key) != value
    ]
    if options:
        return ", ".join(options)
    if tuple(manifest.vocabulary) != tuple(request.source.vocabulary):
        return "the classes"
    rejects = pd.read_csv(manifest.directory / "rejects.csv", dtype=str, keep_default_na=False)["name"]
    there, here = {*table["name"], *map(files.from_cell, rejects)}, set(request.source.clips["name"])
    for names, place in ((there - here, "in the records alone"), (here - there, "in the source alone")):
        if names:
            return f"clips {place}: {len(names)}, the first is {min(names)}"
    return "labels, subsets or other columns of the clips"


# New records


def _make(out, request, workers, overwrite):
    """Writes the records below `out/.work`, and moves them to their place; their manifest."""
    work, sound = out / WORK, request.options
    sound = {key: sound[key] for key in ("sample_rate", "codec", "trim", "trim_db", "peak_db")}
    _refuse_other_work(out, request, overwrite)
    plan = planned_shards(request.clips, request.options["clips_per_shard"])
    finished = _finished_shards(work, request)
    todo = {name: clips for name, clips in plan.items() if name not in finished}
    _check_room(out, [path for clips in todo.values() for path in clips["path"]], sound["sample_rate"], sound["codec"])
    _write_note(work / "plan.json", request.begun)
    finished |= _write_shards(work, todo, request.begun, sound, workers, request.skip_bad)
    shards = [finished[name] for name in plan]
    tables = _write_tables(out, request, shards)
    identities = {name: tuple(identity) for known in shards for name, identity in known["sources"].items()}
    identities = _refuse_change(request, identities)
    source_hashes.write_cache(work / source_hashes.CACHE, identities)
    manifest = Manifest(
        directory=work,
        options=request.options,
        plan=request.fingerprint(identities),
        vocabulary=tuple(request.source.vocabulary),
        shards=tuple(Shard(**known["shard"]) for known in shards if known["clips"]),
        tables=tables,
    )
    write_manifest(manifest)
    return _publish(out, manifest)


def _refuse_change(request, identities):
    """The identities of the recordings as they are now, if their bytes are still those that were read."""
    now = source_hashes.identify_all(request.paths, identities)
    if others := source_hashes.changed(identities, now):
        raise DataError(
            f"{len(others)} of {len(now)} recordings changed while make-records ran, "
            f"{_seen(request.paths[others[0]], now[others[0]])}. Run the same command again when nothing writes to "
            f"them: it makes only the shards again that hold them."
        )
    return now


def _published_before(out, request, overwrite):
    """Ends the work of a run that was killed when its records were complete; their manifest, or None.

    Where the old manifest is gone already, nothing else may come first, whatever is asked for now.
    """
    manifest = _complete_work(out)
    if manifest and not (out / NAME).exists():
        manifest = _publish(out, manifest)
        return None if _difference(manifest, request) else manifest
    if manifest and overwrite and not _difference(manifest, request):
        return _publish(out, manifest)
    return None


def _complete_work(out):
    """The manifest of complete records that are not yet all in their place, or None."""
    work = out / WORK
    if not (work / NAME).exists():
        return None
    try:
        manifest = load_manifest(work)
    except DataError:
        return None
    expected = {shard.file: shard.sha256 for shard in manifest.shards} | manifest.tables
    for name, sha256 in expected.items():
        place = work / name if (work / name).exists() else out / name
        if not place.is_file() or files.sha256(place) != sha256:
            return None
    return manifest


def _publish(out, manifest):
    """Puts complete records in the place of what is there, by names alone: that needs no room and may be repeated."""
    work, names = out / WORK, [*(shard.file for shard in manifest.shards), *manifest.tables, source_hashes.CACHE]
    (out / NAME).unlink(missing_ok=True)  # first, so that no moment looks complete that is not
    files.sync(out)
    for path in out.glob("clips-*.tfrecord"):
        if path.name not in names:
            path.unlink()
    for name in names:
        if (work / name).exists():
            os.replace(work / name, out / name)
    files.sync(out)
    os.replace(work / NAME, out / NAME)
    files.sync(out)
    files.sweep(out)
    _clear(work)
    return replace(manifest, directory=out)


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


def _refuse_other_work(out, request, overwrite):
    """Refuses unfinished work for another request, or removes it; what it leaves was begun for this one."""
    work = out / WORK
    plan, _ = _read_note(work / "plan.json")
    if plan not in (None, request.begun):
        if not overwrite:
            raise DataError(
                f"{out}: an unfinished run with other clips or options lies here. Choose another --out, or --overwrite."
            )
        _clear(work)
    (work / NAME).unlink(missing_ok=True)  # of other audio, or damaged
    files.sweep(work)
    files.sweep(out)


def _finished_shards(work, request):
    """{file name: what is known of it} of finished shards whose recordings are those they were made of."""
    finished = {}
    for path in work.glob("clips-*.json"):
        plan, known = _read_note(path)
        if plan != request.begun or "sources" not in known or known["rejects"] and not request.skip_bad:
            continue
        shard = work / known["shard"]["file"]
        if shard.is_file() and files.sha256(shard) == known["shard"]["sha256"]:
            finished[shard.name] = known
    before = {name: tuple(identity) for known in finished.values() for name, identity in known["sources"].items()}
    now = source_hashes.identify_all({name: request.paths[name] for name in before}, before)
    others = set(source_hashes.changed(before, now))
    for known in finished.values():
        known["sources"] = {name: now[name] for name in known["sources"]}
    return {name: known for name, known in finished.items() if others.isdisjoint(known["sources"])}


def _check_room(out, paths, sample_rate, codec):
    """Refuses to begin where the disk is too full for what, by the headers of the clips, is to be written."""
    samples = sum(_expected_samples(path, sample_rate) for path in paths)
    needed = 2 * samples * (1 if codec == "pcm" else 0.4)
    free = shutil.disk_usage(out).free
    if needed > free:
        stay = " The records that are there stay until the new ones are complete." if (out / NAME).exists() else ""
        raise DataError(
            f"{out}: about {_size(needed)} are to be written, and {_size(free)} are free there.{stay} Make room, "
            f"choose another --out, a lower --sample-rate, or --codec flac, which takes half the disk."
        )


def _expected_samples(path, sample_rate):
    """How many samples the record of a clip will have, about; 0 for a file that will be rejected."""
    try:
        header, size = decoding.header_at(path), os.stat(path).st_size
    except (DataError, OSError):  # it is named when its turn comes
        return 0
    if header.num_samples is None:
        return size / BYTES_PER_SECOND * sample_rate
    return header.num_samples * sample_rate / header.sample_rate


def _size(number):
    """A number of bytes in words."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _write_shards(work, plan, begun, sound, workers, skip_bad):
    """Writes the planned shards; {file name: {"shard", "clips", "rejects", "sources"}}."""
    clips = [(shard, clip) for shard, group in plan.items() for clip in group.itertuples()]
    results = _prepared([clip.path for _, clip in clips], sound, workers)
    results = progress.bar(results, total=len(clips), unit="clip", label="make-records")
    written = {}
    with contextlib.closing(results):
        for name, group in plan.items():
            written[name] = known = _write_shard(work / name, group, results, sound["sample_rate"])
            if skip_bad or not known["rejects"]:  # a shard that lacks clips is made again, once they can be read
                _write_note(work / f"{name}.json", begun, known)
        next(results, None)  # lets the progress bar come to its end
    return written


def _write_shard(path, clips, results, sample_rate):
    """Writes one shard from the next results; what is known of it."""
    import tensorflow as tf

    known = {"clips": [], "rejects": [], "sources": {}}
    with files.whole_file(path) as unfinished, _told_by_tensorflow(path):
        with tf.io.TFRecordWriter(str(unfinished)) as shard:
            for clip in clips.itertuples():
                known["sources"][clip.name], result = next(results)
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
    """What `prepare` answers for each path, in order, also where its decoder died."""
    function = partial(prepare, **sound)
    if workers == 0:
        yield from map(function, paths)
        return
    answers = worker_pool.in_order(function, paths, workers=workers or os.cpu_count())
    with contextlib.closing(answers):
        for path, (answer, reason) in zip(paths, answers):
            if reason:
                said = f"{path}: {reason}. Take it off the list, or convert it with another program."
                answer = source_hashes.identify(path), said
            yield answer


def _write_tables(out, request, shards):
    """Writes rejects.csv, and clips.csv unless bad clips stop the run; {name: SHA-256} of the two."""
    work, clips = out / WORK, request.source.clips
    expected = [{"name": name, "reason": reason} for name, reason in request.known_bad.items()]
    rejects = [reject for known in shards for reject in known["rejects"]]
    facts = [clip for known in shards for clip in known["clips"]]
    stopped = rejects and not request.skip_bad or not facts
    # Where no finished records lie, it is put before the reader of the error.
    place = (out if stopped and not (out / NAME).exists() else work) / "rejects.csv"
    _write_rejects(place, clips, expected + rejects)
    if rejects and not request.skip_bad:
        raise DataError(_bad_clips(place, clips, rejects))
    if not facts:
        raise DataError(f"{out}: none of the {len(clips)} clips can be used; {place} says why.")
    table = clips[[*COLUMNS]].merge(pd.DataFrame(facts), on="name", validate="one_to_one")
    rejected = len(expected) + len(rejects)
    if len(table) + rejected != len(clips):
        raise DataError(
            f"{out}: {len(clips)} clips in, {len(table)} written and {rejected} rejected, "
            f"which do not add up. Please report this."
        )
    write_clips(work / "clips.csv", table)
    return {name: files.sha256(work / name) for name in TABLES}


def _write_rejects(path, clips, rejects):
    """Writes rejects.csv: which clips are left out, of which subset, and why."""
    rows = {clip.name: clip for clip in clips.itertuples()}
    table = pd.DataFrame(
        [{"name": r["name"], "subset": rows[r["name"]].subset, "reason": r["reason"]} for r in rejects],
        columns=["name", "subset", "reason"],
    )
    files.write_text(path, files.csv_text(table.sort_values("name")))


def _bad_clips(place, clips, rejects):
    """The sentence that stops a run with clips that cannot be decoded."""
    rows = dict(zip(clips["name"], clips["row"]))
    shown = "\n".join(f"  {rows[r['name']]}: {r['reason']}" for r in rejects[:SHOWN])
    more = f"\n  and {len(rejects) - SHOWN} more" if len(rejects) > SHOWN else ""
    return (
        f"{len(rejects)} of {len(clips)} clips cannot be used:\n{shown}{more}\n"
        f"{place} names them all. Mend them and run make-records again, or leave them out with "
        f"--skip-bad: finished shards are kept. A list without them is another one, and needs --overwrite."
    )
