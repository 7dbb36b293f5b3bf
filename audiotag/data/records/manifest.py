"""What a directory of records holds: written last, so its presence means that the rest is whole."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from audiotag import files
from audiotag.errors import DataError

NAME = "manifest.json"
ANEW = "Make the records anew with --overwrite"  # the way out of all damage
SCHEMA_VERSION = 3  # from 3 on, the fingerprint covers the audio of the recordings


@dataclass(frozen=True)
class Shard:
    """One file of records: its clips' names stand in the order of its records."""

    file: str
    subset: str
    bytes: int
    sha256: str
    clips: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """The table of contents of a directory of records.

    Args:
        directory: Where the records lie; not written into the file.
        options: What make-records was told: sample_rate in Hz, codec, and so on.
        plan: The fingerprint: SHA-256 of all that decided the records, which is the options, the table of clips and
            the bytes of the recordings.
        vocabulary: The K class names, in the order of the columns of truth and scores.
        shards: The files of records.
        tables: SHA-256 of clips.csv and rejects.csv by name.
    """

    directory: Path
    options: dict
    plan: str
    vocabulary: tuple[str, ...]
    shards: tuple[Shard, ...]
    tables: dict

    @property
    def sample_rate(self):
        """Samples per second of every record."""
        return self.options["sample_rate"]

    @property
    def hearing(self):
        """How `read_waveform` makes of a file what these records hold: its options."""
        return {key: self.options[key] for key in ("sample_rate", "trim", "trim_db", "peak_db")}

    def count_clips(self):
        """{subset: number of clips}."""
        counts = {}
        for shard in self.shards:
            counts[shard.subset] = counts.get(shard.subset, 0) + len(shard.clips)
        return counts

    def paths_holding(self, names):
        """Paths of the shards that hold at least one of the clips named."""
        names = set(names)
        return [str(self.directory / shard.file) for shard in self.shards if not names.isdisjoint(shard.clips)]


def canonical(content):
    """The one JSON text of some content, as bytes, so that equal content has equal bytes."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def digest(content):
    """SHA-256 of the canonical text of some content."""
    return hashlib.sha256(canonical(content)).hexdigest()


def write_manifest(manifest):
    """Writes manifest.json, with its own SHA-256 inside, into the manifest's directory."""
    content = {key: value for key, value in asdict(manifest).items() if key != "directory"}
    content["schema_version"] = SCHEMA_VERSION
    content = json.loads(canonical(content))  # tuples become lists, as they will be when read
    content["sha256"] = digest(content)
    with files.whole_file(manifest.directory / NAME) as unfinished:
        unfinished.write_bytes(canonical(content))


def read_manifest(directory):
    """The manifest of a directory of records, after a quick check that everything it names is there.

    Checks the manifest's and the tables' hashes and every shard's size, which takes
    milliseconds; `check_records` also reads every byte of the sound.

    Raises:
        DataError: The directory is absent, unfinished, of another schema, altered, or misses a file.
    """
    manifest = load_manifest(directory)
    directory, again = manifest.directory, _again(directory)
    for shard in manifest.shards:
        place = directory / shard.file
        found = place.stat().st_size if place.is_file() else None
        if found != shard.bytes:
            what = "is missing" if found is None else f"has {found} bytes"
            raise DataError(
                f"{place}: {what}; the manifest expects {shard.bytes} bytes and {len(shard.clips)} clips. {again}"
            )
    for name, expected in manifest.tables.items():
        place = directory / name
        if not place.is_file() or files.sha256(place) != expected:
            what = "altered" if place.is_file() else "missing"
            raise DataError(f"{place}: {what}: its SHA-256 is not the manifest's. {again}")
    return manifest


def load_manifest(directory):
    """The manifest of a directory of records; nothing of what it names is looked at.

    Raises:
        DataError: The directory is absent or unfinished, or the manifest of another schema or altered.
    """
    directory = Path(directory)
    path = directory / NAME
    if not directory.is_dir():
        raise DataError(
            f"{directory}: no such directory of records. Make it with: audiotag make-records SOURCE --out {directory}"
        )
    if not path.is_file():
        raise DataError(
            f"{directory}: no {NAME}, so make-records has not finished here. Run it again: it goes on where it stopped."
        )
    again = _again(directory)
    data = path.read_bytes()
    try:
        content = json.loads(data)
        untouched = data == canonical(content)
        expected = content.pop("sha256")
        untouched = untouched and expected == digest(content)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):  # not JSON, or JSON of another shape
        untouched = False
    if not untouched:
        raise DataError(f"{path}: altered since make-records wrote it: its own SHA-256 does not match. {again}")
    schema_version = content.pop("schema_version")
    if schema_version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: written by another version of audiotag, in schema {schema_version}; this one reads schema "
            f"{SCHEMA_VERSION}, whose fingerprint covers the audio of the recordings. {again}"
        )
    return Manifest(
        directory=directory,
        options=content["options"],
        plan=content["plan"],
        vocabulary=tuple(content["vocabulary"]),
        shards=tuple(Shard(**{**shard, "clips": tuple(shard["clips"])}) for shard in content["shards"]),
        tables=content["tables"],
    )


def _again(directory):
    return f"{ANEW}, or fetch {directory} again."


def refuse_replaced(manifest):
    """Refuses records that are no longer those of this manifest: make-records has written others in their place.

    Raises:
        DataError: The manifest in the directory is another one, or gone.
    """
    try:
        plan = load_manifest(manifest.directory).plan
    except DataError:
        plan = None
    if plan != manifest.plan:
        found = f"those that are there now have {plan[:12]}" if plan else "no complete records are there now"
        raise DataError(
            f"{manifest.directory}: the records were replaced while they were in use: they had the fingerprint "
            f"{manifest.plan[:12]}, and {found}. What was saved before stays as it is. Wait until make-records is "
            f"done and run the same command again: it goes on with the same records, and refuses others."
        )


def refuse_damage(manifest, subset=None):
    """Reads every byte of the shards, or of those of one subset.

    Raises:
        DataError: Names those that are not what make-records wrote.
    """
    if damage := list(damaged_shards(manifest, subset)):
        raise damage_error(damage)


def damage_error(damage):
    """The DataError that names what is damaged, a sentence each, and the way out."""
    return DataError("\n".join([*damage, f"{ANEW}."]))


def damaged_shards(manifest, subset=None):
    """Yields a sentence for every shard, or each of a subset, whose bytes are not those that make-records wrote."""
    for shard in manifest.shards:
        if subset not in (None, shard.subset):
            continue
        path = manifest.directory / shard.file
        if files.sha256(path) != shard.sha256:
            yield (
                f"{path}: damaged: its SHA-256 is not the manifest's. It holds {len(shard.clips)} {shard.subset} "
                f"clips, {shard.clips[0]} to {shard.clips[-1]}. {_first_damage(path, shard.clips)}"
            )


def _first_damage(path, clips):
    """Which record of a damaged shard is the first that is not there as it was written."""
    import tensorflow as tf

    names = []
    try:
        for serialised in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(serialised.numpy()).features.feature
            names.append(features["name"].bytes_list.value[0].decode())
    except Exception:  # TensorFlow's and protobuf's own kinds: the record after those that were read
        pass
    for expected, name in zip(clips, [*names, None]):
        if name != expected:
            return f"The first record that is not right is that of {expected}."
    return "Every record can be read: bytes were added or altered, with new checksums."
