"""make-records on the workers of Apache Beam: each writes whole shards.

A shard depends only on its clips, so its bytes do not depend on the number of workers, nor on how often it is written.
"""

import contextlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from audiotag import files
from audiotag.beam import Beam
from audiotag.data.records.comparison import Request
from audiotag.data.records.shard_writing import (
    WORK,
    entries,
    metadata_text,
    parse_metadata,
    prepare_all,
    unchanged,
    write_shard,
)
from audiotag.errors import DataError
from audiotag.remote import Store, in_parallel


def write_shards_with_beam(
    work: Path,
    plan: dict[str, pd.DataFrame],
    request: Request,
    options: dict[str, Any],
    *,
    beam: Beam,
    store: Store | None,
) -> dict[str, Any]:
    """Writes the planned shards; what an earlier call wrote to a URL is kept.

    Args:
        work: The work folder of the records.
        plan: {file name: its clips}.
        request: What is asked for.
        options: Those of `prepare`.
        beam: The runner.
        store: Where the shards go; None for the work folder.

    Returns:
        {file name: metadata} as in make-records on one machine.

    Raises:
        DataError: The pipeline failed, or left no metadata.
    """
    finished = {} if store is None else _finished(store, plan, request)
    todo = {name: clips for name, clips in plan.items() if name not in finished}
    place = str(work.resolve()) if store is None else store.url
    function = partial(
        _write_one, place=place, in_store=store is not None, options=options, fingerprint=request.work_fingerprint
    )
    beam.run(function, todo.items())
    for name, data in zip(todo, in_parallel(partial(_metadata_of, work, store), todo)):
        fingerprint, metadata = (None, None) if data is None else parse_metadata(data)
        if fingerprint != request.work_fingerprint:
            raise DataError(
                f"{place}: Beam's workers left no metadata of {name}. All must see this place at the same path: "
                f"choose an --out on a shared disk, or a URL."
            )
        finished[name] = metadata
    return finished


def _write_one(item: tuple[str, pd.DataFrame], *, place: str, in_store: bool, options: Any, fingerprint: str) -> None:
    """Writes a shard and its metadata; in a worker of Beam.

    Files get their names when they are complete, so it does not matter whether another worker does the same.
    """
    name, clips = item
    with contextlib.ExitStack() as stack:
        # Decoded in a process of its own, which a file may crash.
        results = stack.enter_context(contextlib.closing(prepare_all(entries(clips), options, workers=1)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if in_store else place)
        metadata = write_shard(folder / name, clips, results, options["sample_rate"])
        text = metadata_text(fingerprint, metadata)
        if in_store:
            store = Store(place)
            store.upload(folder / name, name)
            store.write(f"{WORK}/{name}.json", text.encode())
        else:
            files.write_text(folder / f"{name}.json", text)


def _metadata_of(work, store, name):
    """The bytes of a shard's metadata, or None."""
    if store is not None:
        return store.read(f"{WORK}/{name}.json")
    path = work / f"{name}.json"
    return path.read_bytes() if path.is_file() else None


def _finished(store, plan, request):
    """{file name: metadata} of the shards that an earlier call has written to a URL."""
    sizes = store.sizes()
    names = [name for name in plan if name in sizes and f"{WORK}/{name}.json" in sizes]
    finished = {}
    for name, data in zip(names, in_parallel(partial(_metadata_of, None, store), names)):
        fingerprint, metadata = parse_metadata(data or b"")
        is_kept = fingerprint == request.work_fingerprint and (request.skip_bad or not metadata["rejects"])
        if is_kept and metadata["shard"]["bytes"] == sizes[name]:
            finished[name] = metadata
    return unchanged(finished, request)
