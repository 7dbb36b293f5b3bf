"""A request to make-records, and how finished records differ from it."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from audiotag import files
from audiotag.data.clips import COLUMNS, read_clips
from audiotag.data.records import source_hashes
from audiotag.data.records.manifest import Manifest, digest
from audiotag.data.sources import Source
from audiotag.errors import DataError


@dataclass(frozen=True)
class Request:
    """The source and the options of a call of make-records.

    Args:
        source: The recordings and their labels.
        options: Every option that determines the records.
        known_bad: {name: reason} of clips to leave out.
    """

    source: Source
    options: dict[str, Any]
    known_bad: dict[str, str]

    @property
    def skip_bad(self) -> bool:
        """Whether clips that cannot be decoded are left out."""
        return self.options["skip_bad"]

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The table of clips without those known to be bad."""
        clips = self.source.clips
        return clips[~clips["name"].isin(self.known_bad)]

    @cached_property
    def paths(self) -> dict[str, str]:
        """{name: path} of these clips."""
        return dict(zip(self.clips["name"], self.clips["path"]))

    @cached_property
    def work_fingerprint(self) -> str:
        """SHA-256 that recognizes unfinished records of the same options and clips.

        It leaves out the audio, which is compared shard by shard, and `skip_bad`, which may change in between.
        """
        return self._digest(self.options | {"skip_bad": False})

    def fingerprint(self, identities: Mapping[str, source_hashes.Identity]) -> str:
        """SHA-256 of everything that determines the records, the audio included.

        `identities` has for each clip (size, times and inode of its file, SHA-256 of its bytes or "" if unreadable).
        """
        sha256 = {name: identities[name][1] for name in self.paths}
        return digest([self._digest(self.options), sha256])

    def _digest(self, options):
        rows = self.source.clips[[*COLUMNS]].astype(str).values.tolist()
        return digest([options, self.source.vocabulary, rows, self.known_bad])


def difference(manifest: Manifest, request: Request) -> str | None:
    """How finished records differ from a request, and the remedy; None if equal."""
    cache = manifest.directory / source_hashes.CACHE
    cached = source_hashes.read_cache(cache)
    now = source_hashes.identify_all(request.paths, cached)
    if request.fingerprint(now) == manifest.fingerprint:
        if now != cached:
            with contextlib.suppress(OSError, DataError):  # without the cache, files are hashed again
                source_hashes.write_cache(cache, now)
        return None
    table = read_clips(manifest.directory / "clips.csv")
    written = {name: (None, sha256) for name, sha256 in zip(table["name"], table["sha256"])}
    for rejected in (cached, {}):  # the tables have no hashes of rejected clips
        then = now | {name: identity for name, identity in (rejected | written).items() if name in now}
        if request.fingerprint(then) == manifest.fingerprint:
            changed = source_hashes.changed(then, now)
            return (
                f"the records are of other audio: {len(changed)} of {len(now)} recordings have changed since, "
                f"{describe_change(request.paths[changed[0]], now[changed[0]])}. Make the records again with "
                f"--overwrite, or choose another --out."
            )
    return (
        f"holds finished records of other clips or options. Choose another --out, or --overwrite. "
        f"The difference: {_differing_setting(manifest, table, request)}."
    )


def describe_change(path: str, identity: source_hashes.Identity) -> str:
    """The first of several changed recordings, as part of a sentence."""
    if not os.path.lexists(path):
        return f"the first is {path}, which is no longer there"
    return f"the first is {path}" if identity[1] else f"the first is {path}, which cannot be read"


def _differing_setting(manifest, table, request):
    """The first difference between finished records and a request, except audio."""
    options = [
        f"{key} is {manifest.options.get(key)!r} in the finished records and {value!r} in this command"
        for key, value in request.options.items()
        if manifest.options.get(key) != value
    ]
    if options:
        return ", ".join(options)
    if tuple(manifest.vocabulary) != tuple(request.source.vocabulary):
        return "the classes"
    rejects = pd.read_csv(manifest.directory / "rejects.csv", dtype=str, keep_default_na=False)["name"]
    there, here = {*table["name"], *map(files.from_cell, rejects)}, set(request.source.clips["name"])
    for names, place in ((there - here, "only in the records"), (here - there, "only in the source")):
        if names:
            return f"clips {place}: {len(names)}, the first is {min(names)}"
    return "labels, subsets or other columns of the clips"
