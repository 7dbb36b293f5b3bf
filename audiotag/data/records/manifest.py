"""manifest.json: the contents of a directory of records.

It is written last, so its presence means that the records are complete.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from audiotag import files
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.data.records.remote import RemoteShards
from audiotag.errors import DataError
from audiotag.remote import Store, is_url

MANIFEST_FILE = "manifest.json"  # written last: a directory of records with it is complete
REMAKE = "Make the records again with --overwrite"  # the remedy for all damage
SCHEMA_VERSION = 3  # since 3, the fingerprint covers the audio of the recordings


@dataclass(frozen=True)
class Shard:
    """One file of records; `clips` are the clips' names in the order of its records."""

    file: str
    subset: str
    bytes: int
    sha256: str
    clips: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """The contents of a directory of records.

    Args:
        directory: Where the records are, or, of records at a URL, the folder of the cache with their copies; not
            written into the file.
        options: The options of make-records: sample_rate in Hz, codec, and so on.
        fingerprint: SHA-256 of everything that determines the records: the options, the table of clips and the bytes
            of the recordings.
        vocabulary: The K class names, in the order of the columns of labels and scores.
        shards: The files of records.
        tables: SHA-256 of clips.csv and rejects.csv by name.
        remote: The shards of records at a URL; not written into the file.
    """

    directory: Path
    options: dict[str, Any]
    fingerprint: str
    vocabulary: tuple[str, ...]
    shards: tuple[Shard, ...]
    tables: dict[str, str]
    remote: RemoteShards | None = field(default=None, compare=False)

    @property
    def place(self) -> str:
        """Where the records are: a directory, or a URL."""
        return str(self.directory) if self.remote is None else self.remote.store.url

    def is_at(self, place: str | Path) -> bool:
        """Whether the records are at a place, such as the one in an experiment."""
        if is_url(place) or self.remote is not None:
            return str(place).rstrip("/") == self.place
        return Path(place) == self.directory

    @property
    def sample_rate(self) -> int:
        """Sample rate of every record in Hz."""
        return self.options["sample_rate"]

    @property
    def audio_config(self) -> dict[str, Any]:
        """The options of the records that are fields of `AudioConfig`."""
        return {key: self.options[key] for key in AudioConfig.model_fields}

    def count_clips(self) -> dict[str, int]:
        """{subset: number of clips}."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.subset] = counts.get(shard.subset, 0) + len(shard.clips)
        return counts

    def paths_holding(self, names: Iterable[str]) -> list[str]:
        """Paths of the shards that hold at least one of the named clips."""
        names = set(names)
        return [str(self.directory / shard.file) for shard in self.shards if not names.isdisjoint(shard.clips)]


def canonical(content: Any) -> bytes:
    """The canonical JSON text of some content: equal content has equal bytes."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON text of some content."""
    return hashlib.sha256(canonical(content)).hexdigest()


def write_manifest(manifest: Manifest) -> None:
    """Writes manifest.json, with its own SHA-256, into the manifest's directory."""
    content = {key: value for key, value in asdict(manifest).items() if key not in ("directory", "remote")}
    content["schema_version"] = SCHEMA_VERSION
    content = json.loads(canonical(content))  # tuples become lists, as in what is read
    content["sha256"] = digest(content)
    with files.atomic_file(manifest.directory / MANIFEST_FILE) as unfinished:
        unfinished.write_bytes(canonical(content))


def read_manifest(directory: str | Path) -> Manifest:
    """The manifest of a directory of records, after a quick check of its files.

    The check covers the hashes of the manifest and the tables and the size of every shard, which takes
    milliseconds; `check_records` also reads every byte of the audio.

    Args:
        directory: The directory, or a URL such as s3://bucket/records. The tables are then copied into the cache.

    Raises:
        DataError: The directory is absent, unfinished, of another schema, altered, or a file is missing.
    """
    manifest = load_manifest(directory)
    place, remedy, remote = manifest.place, _remedy(directory), manifest.remote
    sizes = _sizes(manifest) if remote is None else remote.store.sizes()
    for shard in manifest.shards:
        size = sizes.get(shard.file)
        if size != shard.bytes:
            what = "is missing" if size is None else f"has {size} bytes"
            raise DataError(
                f"{place}/{shard.file}: {what}; the manifest expects {shard.bytes} bytes and {len(shard.clips)} clips. "
                f"{remedy}"
            )
    for name, expected in manifest.tables.items():
        path = manifest.directory / name
        if remote is not None:
            remote.fetch_table(name, expected)
        if not path.is_file() or files.sha256(path) != expected:
            what = "altered" if path.is_file() else "missing"
            raise DataError(f"{place}/{name}: {what}: its SHA-256 is not the manifest's. {remedy}")
    return manifest


def _sizes(manifest):
    """{file name: bytes} of the shards that are there."""
    paths = {shard.file: manifest.directory / shard.file for shard in manifest.shards}
    return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}


def load_manifest(directory: str | Path) -> Manifest:
    """The manifest of records in a directory or at a URL; its files are not checked.

    Raises:
        DataError: The directory is absent or unfinished, or the manifest is of another schema or altered.
    """
    store = Store(str(directory)) if is_url(directory) else None
    if store is not None:
        data = store.read(MANIFEST_FILE)
    else:
        directory = Path(directory)
        if not directory.is_dir():
            raise DataError(
                f"{directory}: no such directory of records. Make it with: audiotag make-records SOURCE --out "
                f"{directory}"
            )
        path = directory / MANIFEST_FILE
        data = path.read_bytes() if path.is_file() else None
    if data is None:
        raise DataError(
            f"{directory}: no {MANIFEST_FILE}, so make-records has not finished here. Run it again: it continues where "
            "it stopped."
        )
    content = _parse_manifest(data, directory)
    shards = tuple(Shard(**{**shard, "clips": tuple(shard["clips"])}) for shard in content["shards"])
    remote = None if store is None else RemoteShards(store, shards, content["fingerprint"])
    return Manifest(
        directory=Path(directory) if remote is None else remote.folder,
        options=content["options"],
        fingerprint=content["fingerprint"],
        vocabulary=tuple(content["vocabulary"]),
        shards=shards,
        tables=content["tables"],
        remote=remote,
    )


def _parse_manifest(data, directory):
    """The content of a manifest's bytes, or a DataError."""
    remedy = _remedy(directory)
    try:
        content = json.loads(data)
        unaltered = data == canonical(content)
        expected = content.pop("sha256")
        unaltered = unaltered and expected == digest(content)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):  # not JSON, or JSON of another shape
        unaltered = False
    if not unaltered:
        raise DataError(
            f"{directory}/{MANIFEST_FILE}: altered since make-records wrote it: its own SHA-256 does not match. "
            f"{remedy}"
        )
    schema_version = content.pop("schema_version")
    if schema_version != SCHEMA_VERSION:
        raise DataError(
            f"{directory}/{MANIFEST_FILE}: written by another version of audiotag, in schema {schema_version}; this "
            f"one reads schema {SCHEMA_VERSION}, whose fingerprint covers the audio of the recordings. {remedy}"
        )
    return content


def _remedy(directory):
    return f"{REMAKE}, or fetch {directory} again."


def refuse_replaced(manifest: Manifest) -> None:
    """Refuses records that make-records has replaced since this manifest was read.

    Raises:
        DataError: The manifest in the directory is another one, or gone.
    """
    try:
        fingerprint = load_manifest(manifest.place).fingerprint
    except DataError:
        fingerprint = None
    if fingerprint != manifest.fingerprint:
        found = f"the records there now have {fingerprint[:12]}" if fingerprint else "there are no complete records now"
        raise DataError(
            f"{manifest.place}: the records were replaced while they were in use: they had the fingerprint "
            f"{manifest.fingerprint[:12]}, and {found}. What was saved before is unchanged. Wait until make-records is "
            f"done and run the same command again: it continues if the records are the same."
        )


def refuse_damage(manifest: Manifest, subset: str | None = None) -> None:
    """Reads every byte of the shards, or of those of one subset.

    Shards at a URL are verified when they are copied into the cache, and not here.

    Raises:
        DataError: Names the shards that differ from what make-records wrote.
    """
    if manifest.remote is not None:
        return
    if damage := list(damaged_shards(manifest, subset)):
        raise damage_error(damage)


def damage_error(damage: Sequence[str]) -> DataError:
    """The DataError that lists what is damaged, a sentence each, and the remedy."""
    return DataError("\n".join([*damage, f"{REMAKE}."]))


def damaged_shards(manifest: Manifest, subset: str | None = None) -> Iterator[str]:
    """Yields a sentence per damaged shard, of one subset or of all."""
    for shard in manifest.shards:
        if subset not in (None, shard.subset):
            continue
        if manifest.remote is not None:
            try:
                manifest.remote.fetch(shard.file)
            except DataError as error:
                yield str(error)
            continue
        path = manifest.directory / shard.file
        clips = f"{len(shard.clips)} {shard.subset} clips, {shard.clips[0]} to {shard.clips[-1]}"
        if not path.is_file():
            yield f"{path}: is missing; it held {clips}."
        elif files.sha256(path) != shard.sha256:
            yield (
                f"{path}: damaged: its SHA-256 is not the manifest's. It holds {clips}. "
                f"{_first_damage(path, shard.clips)}"
            )


def _first_damage(path, clips):
    """A sentence about the first damaged record of a shard."""
    import tensorflow as tf

    names = []
    try:
        for serialized in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(serialized.numpy()).features.feature
            names.append(features["name"].bytes_list.value[0].decode())
    except Exception:  # TensorFlow's and protobuf's own kinds: the damage is after the records that were read
        pass
    for expected, name in zip(clips, [*names, None]):
        if name != expected:
            return f"The first damaged record is that of {expected}."
    return "Every record can be read: bytes were added or altered, with new checksums."
