"""make-records: decodes recordings and writes shards of records.

Worker processes decode the recordings.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from audiotag import files, progress
from audiotag.beam import Beam
from audiotag.data.audio import decoding, trimming
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.data.clips import COLUMNS, TEST, write_clips
from audiotag.data.labels import split_labels
from audiotag.data.records import source_hashes
from audiotag.data.records.beam_writing import write_shards_with_beam
from audiotag.data.records.comparison import Request, describe_change, difference
from audiotag.data.records.manifest import (
    MANIFEST_FILE,
    Manifest,
    Shard,
    damaged_shards,
    load_manifest,
    read_manifest,
    write_manifest,
)
from audiotag.data.records.schema import CODECS
from audiotag.data.records.shard_writing import (
    WORK,
    entries,
    prepare_all,
    read_metadata,
    unchanged,
    write_metadata,
    write_shard,
)
from audiotag.data.sources import Source
from audiotag.errors import DataError
from audiotag.remote import Store, cache_folder, in_parallel, is_url, local_name

TABLES = ("clips.csv", "rejects.csv")
LOCK = "lock"
UPLOADED = ".uploaded"  # the names of the shards that were copied to a URL
FLAC_HZ = 655_350  # the highest rate of a FLAC file
MAX_SHOWN = 5  # bad clips named in an error; rejects.csv names them all
BYTES_PER_SECOND = 16_000  # of a file whose header has no length: 128 kbit/s


def write_records(
    source: Source,
    out: str | Path,
    *,
    sample_rate: int = 44_100,
    codec: str = "pcm",
    trim: str | None = None,
    trim_db: float = 60.0,
    peak_db: float | None = None,
    workers: int | None = None,
    clips_per_shard: int = 128,
    keep_known_bad: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
    beam: Beam | None = None,
) -> Manifest:
    """Writes the recordings of a source as shards of records, with their tables.

    The tables are manifest.json, clips.csv and rejects.csv. The shard of a clip, and the order in a
    shard, depend only on the names of the clips, so the bytes do not depend on the number of workers
    or the order of the tables. Everything is written below `out/.work` and renamed once it is
    complete; until then the previous records stay. A run that was killed continues where it stopped;
    finished records of the same recordings are left as they are.

    Args:
        source: A `Source`: the table of clips, the vocabulary, the clips known to be bad.
        out: The directory to write. Or a URL such as s3://bucket/records: the records are then made in the cache,
            copied to the URL, the manifest last, and removed from the cache.
        sample_rate: Sample rate of the records in Hz.
        codec: One of `CODECS`. With "source", a clip that is trimmed or scaled is written as FLAC.
        trim: How silence is cut off both ends of a clip, at the file's own sample rate: "relative" as in
            `trimming.trim_relative`, "absolute" as in `trimming.trim_absolute`, None for not at all.
        trim_db: For "relative": frames this many dB below the loudest one are silence.
        peak_db: The peak of every record in dBFS, -60 to 0; None keeps the recordings' own. It is set after trimming
            and resampling; digital silence stays silent.
        workers: Number of processes that decode; None is one per core. 0 decodes in this process, which a broken
            file may then crash.
        clips_per_shard: Maximum number of clips in a shard; all are of one subset.
        keep_known_bad: Keep the clips that `source.excluded` names.
        skip_bad: Leave out clips that cannot be decoded, instead of stopping after the last one.
        overwrite: Replace other records in `out`, once these are complete.
        beam: Write the shards on the workers of Apache Beam, one process for each; `workers` is then not used. They
            must see the recordings, and `out` unless it is a URL, at the same paths as this process. None writes them
            here.

    Returns:
        The `Manifest`.

    Raises:
        DataError: Clips cannot be decoded; the directory is in the dataset, or holds records of other clips, options or
            audio, or tables that make-records did not write; recordings change while it runs; the disk is full; or
            an option is wrong.
    """
    audio_options = _check_audio_options(sample_rate, codec, trim, trim_db, peak_db)
    known_bad = {} if keep_known_bad else dict(source.excluded)
    options = {"layout": source.layout, **audio_options, "clips_per_shard": clips_per_shard}
    options |= {"keep_known_bad": keep_known_bad, "skip_bad": skip_bad}
    request = Request(source, options, known_bad)
    if beam is not None:
        beam.check()
    if is_url(out):
        return _write_remote(Store(str(out)), request, workers, overwrite, beam)
    return _write(Path(out), request, workers, overwrite, beam)


def _write(out, request, workers, overwrite, beam, store=None):
    """Writes records into a directory, or keeps those that are there; their manifest."""
    _refuse_foreign_files(out, request.source)
    if (out / MANIFEST_FILE).exists() and not overwrite:
        return _keep_finished(out, request)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        manifest = _finish_publishing(out, request, overwrite)
        if manifest is None and (out / MANIFEST_FILE).exists() and not overwrite:  # another process was faster
            manifest = _same_records(out, request)
        return manifest or _make(out, request, workers, overwrite, beam, store)


def _write_remote(store, request, workers, overwrite, beam):
    """Writes records to a URL, or keeps those that are there; their manifest."""
    if store.read(MANIFEST_FILE) is not None and not overwrite:
        return _same_records(store.url, request)
    made = cache_folder() / "outgoing" / local_name(store.url, request.work_fingerprint)
    if beam is not None:  # its workers write the shards to the URL
        store.remove(MANIFEST_FILE)
        shutil.rmtree(made, ignore_errors=True)
    of_other_audio = (made / MANIFEST_FILE).exists() and difference(read_manifest(made), request) is not None
    _upload(_write(made, request, workers, of_other_audio, beam, store), store)
    shutil.rmtree(made)
    return read_manifest(store.url)


def _upload(manifest, store):
    """Copies finished records to a URL, the manifest last; what an earlier call copied is not copied again."""
    made, content = manifest.directory, (manifest.directory / MANIFEST_FILE).read_bytes()
    if store.read(MANIFEST_FILE) != content:
        store.remove(MANIFEST_FILE)  # first, so that the records never look complete when they are not
    sizes, done = store.sizes(), made / UPLOADED
    copied = {*done.read_text(encoding="utf-8").splitlines()} if done.exists() else set()
    todo = [shard for shard in manifest.shards if shard.file not in copied or sizes.get(shard.file) != shard.bytes]
    todo = [shard for shard in todo if (made / shard.file).exists()]
    uploads = in_parallel(lambda shard: store.upload(made / shard.file, shard.file), todo)
    for shard, _ in zip(todo, progress.bar(uploads, total=len(todo), unit="shard", label="upload")):
        with open(done, "a", encoding="utf-8") as file:
            file.write(f"{shard.file}\n")
    for name in manifest.tables:
        store.upload(made / name, name)
    sizes = store.sizes()
    if wrong := [shard.file for shard in manifest.shards if sizes.get(shard.file) != shard.bytes]:
        raise DataError(
            f"{store.url}: {len(wrong)} shards have another size than was copied, such as {wrong[0]}. Does another "
            f"make-records write there? Run the same command again."
        )
    store.write(MANIFEST_FILE, content)
    files_now = {shard.file for shard in manifest.shards}
    for name in sizes:
        if name.startswith(f"{WORK}/") or name.endswith(".tfrecord") and "/" not in name and name not in files_now:
            store.remove(name)  # metadata of Beam's workers, and shards of the records before


def planned_shards(clips: pd.DataFrame, clips_per_shard: int) -> dict[str, pd.DataFrame]:
    """{file name: its clips}: subset by subset, ordered by the hash of their names."""
    order = clips.assign(hash=[hashlib.sha256(name.encode()).hexdigest() for name in clips["name"]])
    order = order.sort_values(["subset", "hash"])
    groups = [
        subset.iloc[start : start + clips_per_shard]
        for _, subset in order.groupby("subset", sort=True)
        for start in range(0, len(subset), clips_per_shard)
    ]
    return {f"clips-{index:05d}-of-{len(groups):05d}.tfrecord": group for index, group in enumerate(groups)}


def check_records(directory: str | Path) -> Iterator[str]:
    """Reads every byte of a directory of records; yields a sentence per damaged file."""
    manifest = read_manifest(directory)
    shards = progress.bar(manifest.shards, total=len(manifest.shards), unit="shard", label="check-records")
    yield from damaged_shards(Manifest(**{**vars(manifest), "shards": shards}))


def _check_audio_options(sample_rate, codec, trim, trim_db, peak_db):
    """The options that determine the audio of the records, or a DataError."""
    if codec not in CODECS:
        raise DataError(f"codec {codec!r}: expected one of {', '.join(CODECS)}.")
    if codec != "pcm" and sample_rate > FLAC_HZ:
        raise DataError(
            f"codec {codec!r}: FLAC has at most {FLAC_HZ} Hz. Choose the codec pcm, or a lower sample rate."
        )
    if trim not in (None, *trimming.TRIMS):
        raise DataError(f"trim {trim!r}: expected {' or '.join(trimming.TRIMS)}; leave it out to keep the silence.")
    if not 0 < trim_db <= 120:
        raise DataError(f"trim_db {trim_db}: expected a number of dB above 0, at most 120.")
    if trim_db != 60 and trim != "relative":
        raise DataError(f"trim_db {trim_db}: only trim 'relative' uses it, and trim is {trim!r}. Leave it out.")
    if peak_db is not None and not -60 <= peak_db <= 0:
        raise DataError(f"peak_db {peak_db}: expected -60 to 0 dBFS; 0 is full scale, above which samples are clipped.")
    peak_db = None if peak_db is None else float(peak_db)
    return {"sample_rate": sample_rate, "codec": codec, "trim": trim, "trim_db": float(trim_db), "peak_db": peak_db}


def _refuse_foreign_files(out, source):
    """Refuses a directory in the dataset, or with its recordings, or with tables that make-records did not write."""
    if source.folder is not None and out.resolve().is_relative_to(source.folder.resolve()):
        raise DataError(
            f"{out}: is in {source.folder}, the folder of the dataset. Choose another --out, for the records alone."
        )
    if source.clips["path"].str.startswith(f"{out.resolve()}{os.sep}").any():
        raise DataError(f"{out}: the recordings are in it. Choose another --out, for the records alone.")
    ours = (out / MANIFEST_FILE).exists() or (out / WORK).exists() or any(out.glob("clips-*.tfrecord"))
    for table in (out / name for name in TABLES):
        if table.exists() and not ours:
            raise DataError(
                f"{table}: there are no records beside it, so make-records did not write it. Choose another --out."
            )


@contextlib.contextmanager
def _locked(out):
    """Allows one writer per directory; removes the work folder if it is empty then."""
    work, refusal = out / WORK, f"{out}: another make-records is writing here. Wait for it, or choose another --out."
    work.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(work / LOCK, refusal))
        except FileNotFoundError:  # another process has just removed the folder
            raise files.Busy(refusal) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if os.listdir(work) == [LOCK]:
                    (work / LOCK).unlink()
                    work.rmdir()


def _clear(work):
    """Removes all unfinished work, as far as possible; the lock stays."""
    for path in work.iterdir():
        if path.name != LOCK:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _keep_finished(out, request):
    """The manifest of finished records, if they are as requested; needs no write access."""
    with contextlib.ExitStack() as stack:
        leftover = None
        if (out / WORK).exists():
            with contextlib.suppress(OSError):  # a read-only disk
                stack.enter_context(_locked(out))
                leftover = out / WORK
        manifest = _same_records(out, request)
        if leftover:
            _clear(leftover)
    return manifest


def _same_records(out, request):
    """The manifest of the finished records in a directory, if they are as requested."""
    manifest = read_manifest(out)
    if found := difference(manifest, request):
        raise DataError(f"{out}: {found}")
    return manifest


def _make(out, request, workers, overwrite, beam, store):
    """Writes the records below `out/.work`, and publishes them; their manifest."""
    work, sample_rate = out / WORK, request.options["sample_rate"]
    options = {key: request.options[key] for key in ("codec", *AudioConfig.model_fields)}
    _refuse_other_work(out, request, overwrite)
    plan = planned_shards(request.clips, request.options["clips_per_shard"])
    finished = _finished_shards(work, request)
    todo = {name: clips for name, clips in plan.items() if name not in finished}
    if beam is None:
        _check_room(out, [entry for clips in todo.values() for entry in entries(clips)], sample_rate, options["codec"])
    write_metadata(work / "fingerprint.json", request.work_fingerprint)
    if beam is None:
        finished |= _write_shards(work, todo, request, options, workers)
    else:
        finished |= write_shards_with_beam(work, todo, request, options, beam=beam, store=store)
    shards = [finished[name] for name in plan]
    tables = _write_tables(out, request, shards)
    identities = {name: tuple(identity) for metadata in shards for name, identity in metadata["identities"].items()}
    identities = _refuse_change(request, identities)
    source_hashes.write_cache(work / source_hashes.CACHE, identities)
    manifest = Manifest(
        directory=work,
        options=request.options,
        fingerprint=request.fingerprint(identities),
        vocabulary=tuple(request.source.vocabulary),
        shards=tuple(Shard(**metadata["shard"]) for metadata in shards if metadata["clips"]),
        tables=tables,
    )
    write_manifest(manifest)
    return _publish(out, manifest)


def _refuse_change(request, identities):
    """The identities of the recordings now, if their bytes are those that were read."""
    now = source_hashes.identify_all(request.paths, identities)
    if changed := source_hashes.changed(identities, now):
        raise DataError(
            f"{len(changed)} of {len(now)} recordings changed while make-records ran, "
            f"{describe_change(request.paths[changed[0]], now[changed[0]])}. Run the same command again when nothing "
            f"writes to them: only their shards are made again."
        )
    return now


def _finish_publishing(out, request, overwrite):
    """Publishes complete records that a killed run left; their manifest, or None.

    If the old manifest is already removed, they are published whatever is requested now.
    """
    manifest = _complete_work(out)
    if manifest and not (out / MANIFEST_FILE).exists():
        manifest = _publish(out, manifest)
        return None if difference(manifest, request) else manifest
    if manifest and overwrite and not difference(manifest, request):
        return _publish(out, manifest)
    return None


def _complete_work(out):
    """The manifest of complete records that are not published yet, or None."""
    work = out / WORK
    if not (work / MANIFEST_FILE).exists():
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
    """Moves complete records into `out` by renames only, which need no space and can be repeated."""
    work, names = out / WORK, [*(shard.file for shard in manifest.shards), *manifest.tables, source_hashes.CACHE]
    (out / MANIFEST_FILE).unlink(missing_ok=True)  # first, so that the directory never looks complete when it is not
    files.sync(out)
    for path in out.glob("clips-*.tfrecord"):
        if path.name not in names:
            path.unlink()
    for name in names:
        if (work / name).exists():
            files.rename(work / name, out / name)
    files.sync(out)
    files.rename(work / MANIFEST_FILE, out / MANIFEST_FILE)
    files.sync(out)
    files.delete_unfinished(out)
    _clear(work)
    return replace(manifest, directory=out)


def _refuse_other_work(out, request, overwrite):
    """Refuses unfinished work for another request, or removes it."""
    work = out / WORK
    fingerprint, _ = read_metadata(work / "fingerprint.json")
    if fingerprint not in (None, request.work_fingerprint):
        if not overwrite:
            raise DataError(
                f"{out}: has unfinished records of other clips or options. Choose another --out, or --overwrite."
            )
        _clear(work)
    (work / MANIFEST_FILE).unlink(missing_ok=True)  # of other audio, or damaged
    files.delete_unfinished(work)
    files.delete_unfinished(out)


def _finished_shards(work, request):
    """{file name: metadata} of finished shards whose recordings have not changed since."""
    finished = {}
    for path in work.glob("clips-*.json"):
        fingerprint, metadata = read_metadata(path)
        if fingerprint != request.work_fingerprint or metadata["rejects"] and not request.skip_bad:
            continue
        shard = work / metadata["shard"]["file"]
        if shard.is_file() and files.sha256(shard) == metadata["shard"]["sha256"]:
            finished[shard.name] = metadata
    return unchanged(finished, request)


def _check_room(out, paths, sample_rate, codec):
    """Refuses to begin if the disk has no room for the records, according to the headers of the clips."""
    samples = sum(_expected_samples(path, sample_rate) for path in paths)
    needed = 2 * samples * (1 if codec == "pcm" else 0.4)
    free = shutil.disk_usage(out).free
    if needed > free:
        kept = " The old records stay until the new ones are complete." if (out / MANIFEST_FILE).exists() else ""
        raise DataError(
            f"{out}: about {_size(needed)} are to be written, and {_size(free)} are free there.{kept} Make room, "
            f"choose another --out, a lower --sample-rate, or --codec flac, which takes half the disk."
        )


def _expected_samples(path, sample_rate):
    """The approximate number of samples of a record; 0 for a file that is rejected."""
    if isinstance(path, tuple):
        return (path[2] - path[1]) * sample_rate
    try:
        header, size = decoding.header_at(path), os.stat(path).st_size
    except (DataError, OSError):  # it is reported when it is decoded
        return 0
    if header.num_samples is None:
        return size / BYTES_PER_SECOND * sample_rate
    return header.num_samples * sample_rate / header.sample_rate


def _size(number):
    """A number of bytes as text."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _write_shards(work, plan, request, options, workers):
    """Writes the planned shards; {file name: metadata} with the keys shard, clips, rejects and identities."""
    clips = [(shard, clip) for shard, group in plan.items() for clip in group.itertuples()]
    results = prepare_all([entry for group in plan.values() for entry in entries(group)], options, workers)
    results = progress.bar(results, total=len(clips), unit="clip", label="make-records")
    written = {}
    with contextlib.closing(results):
        for name, group in plan.items():
            written[name] = metadata = write_shard(work / name, group, results, options["sample_rate"])
            # A shard that misses clips is made again once they are fixed.
            if request.skip_bad or not metadata["rejects"]:
                write_metadata(work / f"{name}.json", request.work_fingerprint, metadata)
        next(results, None)  # lets the progress bar finish
    return written


def _write_tables(out, request, shard_metadata):
    """Writes rejects.csv, and clips.csv unless bad clips stop the run; {name: SHA-256} of the two."""
    work, clips = out / WORK, request.source.clips
    expected = [{"name": name, "reason": reason} for name, reason in request.known_bad.items()]
    rejects = [reject for metadata in shard_metadata for reject in metadata["rejects"]]
    written = [clip for metadata in shard_metadata for clip in metadata["clips"]]
    stopped = rejects and not request.skip_bad or not written
    # Without finished records in `out`, the table that the error names is written there.
    path = (out if stopped and not (out / MANIFEST_FILE).exists() else work) / "rejects.csv"
    _write_rejects(path, clips, expected + rejects)
    if rejects and not request.skip_bad:
        raise DataError(_bad_clips_message(path, clips, rejects))
    if not written:
        raise DataError(f"{out}: none of the {len(clips)} clips can be used; {path} says why.")
    table = clips[[*COLUMNS]].merge(pd.DataFrame(written), on="name", validate="one_to_one")
    _refuse_lost_classes(clips, table, path)
    rejected = len(expected) + len(rejects)
    if len(table) + rejected != len(clips):
        raise DataError(
            f"{out}: {len(clips)} clips in, {len(table)} written and {rejected} rejected, "
            f"which do not add up. Please report this."
        )
    write_clips(work / "clips.csv", table)
    return {name: files.sha256(work / name) for name in TABLES}


def _refuse_lost_classes(clips, kept, rejects):
    """Refuses records without a training clip of a class because all of them are left out.

    Raises:
        DataError: Names the classes.
    """
    labels = lambda table: {name for text in table["labels"][table["subset"] != TEST] for name in split_labels(text)}
    if lost := sorted(labels(clips) - labels(kept)):
        raise DataError(
            f"all training clips of {len(lost)} classes are left out: {', '.join(lost[:5])}. {rejects} says why. "
            "Replace the files, or remove the classes from the dataset."
        )


def _write_rejects(path, clips, rejects):
    """Writes rejects.csv: which clips are left out, of which subset, and why."""
    rows = {clip.name: clip for clip in clips.itertuples()}
    table = pd.DataFrame(
        [{"name": r["name"], "subset": rows[r["name"]].subset, "reason": r["reason"]} for r in rejects],
        columns=["name", "subset", "reason"],
    )
    files.write_text(path, files.csv_text(table.sort_values("name")))


def _bad_clips_message(path, clips, rejects):
    """The message of a run that stops because clips cannot be decoded."""
    rows = dict(zip(clips["name"], clips["row"]))
    # A row without a table is called by its name, with which the reason begins.
    shown = "\n".join(
        f"  {rows[r['name']]}: {r['reason'].removeprefix(rows[r['name']] + ': ')}" for r in rejects[:MAX_SHOWN]
    )
    more = f"\n  and {len(rejects) - MAX_SHOWN} more" if len(rejects) > MAX_SHOWN else ""
    return (
        f"{len(rejects)} of {len(clips)} clips cannot be used:\n{shown}{more}\n"
        f"{path} names them all. Fix them and run make-records again, or leave them out with --skip-bad: finished "
        f"shards are kept. If you remove the files, or their rows from the table, add --overwrite."
    )
