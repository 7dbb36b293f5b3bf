"""predict on the workers of Apache Beam: each scores a few files at a time.

Each file is scored alone, so its scores do not depend on the number of workers, nor on how often it is scored.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from audiotag.beam import Beam
from audiotag.data.records.manifest import digest
from audiotag.errors import DataError
from audiotag.inference import journal
from audiotag.inference.audio_files import FileScores, score_each
from audiotag.inference.predictor import Predictor

FILES_PER_ITEM = 32  # that a worker scores at a time
_predictors: dict[str, Predictor] = {}  # of this process, by the digest of their key
_lock = threading.Lock()


def score_with_beam(
    names: Sequence[str], *, beam: Beam, load: Callable[[], Predictor], folder: Path, key: Any, options: dict[str, Any]
) -> Iterator[FileScores]:
    """Yields the scores of audio files, in their order.

    What an earlier call has scored is kept, unless the files have changed since.

    Args:
        names: The files. All workers must see them, the model and `folder` at the same paths as this process.
        beam: The runner.
        load: Loads the model; a function of a module, or a partial of one.
        folder: Where the workers write; it is removed at the end.
        key: What the scores depend on besides the files.
        options: Those of `score_each`.

    Raises:
        DataError: The pipeline failed, or left no scores of some files.
    """
    parts = [list(names[start : start + FILES_PER_ITEM]) for start in range(0, len(names), FILES_PER_ITEM)]
    paths = [folder.resolve() / f"{digest([key, part])}.jsonl" for part in parts]
    folder.mkdir(parents=True, exist_ok=True)
    todo = [(str(path), part) for path, part in zip(paths, parts) if journal.read_part(path, part) is None]
    beam.run(partial(_score_part, load=load, identity=digest(key), options=options), todo)
    for path, part in zip(paths, parts):
        scores = journal.read_part(path, part)
        if scores is None:
            raise DataError(
                f"{path}: Beam's workers left no scores of {part[0]} and the files after it, or these changed "
                f"meanwhile. All workers must see this place at the same path: write to a shared disk. Then run the "
                f"same command again."
            )
        yield from scores
    shutil.rmtree(folder)


def _score_part(
    item: tuple[str, list[str]], *, load: Callable[[], Predictor], identity: str, options: dict[str, Any]
) -> None:
    """Scores some files and writes what is found; in a worker of Beam."""
    path, names = item
    journal.write_part(Path(path), names, score_each(_predictor(load, identity), names, **options))


def _predictor(load, identity):
    """The model, loaded once in a process."""
    with _lock:
        if identity not in _predictors:
            _predictors[identity] = load()
        return _predictors[identity]
