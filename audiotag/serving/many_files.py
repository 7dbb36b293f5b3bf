"""Tables and label files of any number of recordings, in constant memory."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import progress
from audiotag.beam import Beam
from audiotag.errors import DataError
from audiotag.evaluation.score_tables import scores_table, write_in_parts
from audiotag.inference import event_labels, journal
from audiotag.inference.audio_files import FileScores, events_table, score_each
from audiotag.inference.events import AS_THEY_ARE, EventSettings, thresholds_of
from audiotag.inference.predictor import Predictor
from audiotag.serving.beam_scoring import score_with_beam

FILES_PER_PART = 256  # of a table in memory
Item = TypeVar("Item")


@dataclass(frozen=True)
class Outputs:
    """Where predictions are written; None writes none.

    Args:
        scores: A table of the probabilities and logits of each file, .csv or .parquet.
        labels: A table of the classes that are predicted for each file, .csv or .parquet.
        events: A table of when each class is detected, .csv or .parquet.
        raven: A folder for a selection table of Raven per file.
        audacity: A folder for a label track of Audacity per file.
    """

    scores: Path | None = None
    labels: Path | None = None
    events: Path | None = None
    raven: Path | None = None
    audacity: Path | None = None

    @property
    def decides(self) -> bool:
        """Whether thresholds are needed."""
        return self.labels is not None or self.finds_events

    @property
    def finds_events(self) -> bool:
        """Whether events are to be found."""
        return any((self.events, self.raven, self.audacity))

    def beside(self, ending: str) -> Path | None:
        """The path of a file beside the first output; None without outputs."""
        for path in (self.scores, self.labels, self.events, self.raven, self.audacity):
            if path is not None:
                return path.with_name((path.stem if path.suffix else path.name) + ending)
        return None

    @property
    def rejects(self) -> Path | None:
        """The table of the files that cannot be predicted, beside the first output."""
        return self.beside(".rejects.csv")


def predict_files(
    predictor: Predictor,
    names: Sequence[str],
    outputs: Outputs,
    *,
    key: dict[str, Any],
    threshold: float | None = None,
    settings: EventSettings = AS_THEY_ARE,
    show: Callable[[str, np.ndarray], None],
    beam: Beam | None = None,
    load: Callable[[], Predictor] | None = None,
) -> None:
    """Scores files and writes the outputs.

    A file that cannot be predicted is a row of `outputs.rejects`. Scores are kept in a journal beside the first output
    until all are written: the same call continues after a kill, and writes the same bytes.

    Args:
        predictor: A `Predictor`.
        names: The files.
        outputs: What to write.
        key: What identifies the model. Scores of another one are not continued.
        threshold: The probability from which a class is predicted; None is that of each class, `predictor.thresholds`.
        settings: How detections become events; its thresholds replace those for events.
        show: Called with the name and the logits [K] of each file that is predicted, in order.
        beam: Score the files on the workers of Apache Beam, as `score_with_beam` does; needs an output. None scores
            them here.
        load: Loads the predictor there.

    Raises:
        DataError: Some files cannot be predicted; the others are. Or another process writes the same outputs, or the
            disk is full.
    """
    if threshold is None:
        thresholds = predictor.class_thresholds()  # [K]
    else:
        thresholds = np.full(len(predictor.vocabulary), threshold)
    detected_from = thresholds_of(settings, predictor.vocabulary, thresholds)
    options: dict[str, Any] = {"threshold": detected_from if outputs.finds_events else None, "settings": settings}
    score: Callable[[Sequence[str]], Iterator[FileScores]] = partial(score_each, predictor, **options)
    path = outputs.beside(".progress")
    if path is None:
        num_rejected, first = _show_all(score(names), len(names), show)
    else:
        key = key | {"thresholds": detected_from.tolist() if outputs.finds_events else None}
        if settings != AS_THEY_ARE:
            key = key | {"events": settings.model_dump()}
        if beam is not None and load is not None:
            folder = path.with_suffix(".parts")
            score = partial(score_with_beam, beam=beam, load=load, folder=folder, key=key, options=options)
        path.parent.mkdir(parents=True, exist_ok=True)
        with journal.continued(path, key, names, score) as scores:
            num_rejected, first = _show_all(scores, len(names), show)
            _write(outputs, path, predictor, thresholds, names)
        journal.delete(path)
    if path is None and num_rejected == 1:
        raise DataError(first)
    if num_rejected:
        where = f": {outputs.rejects}" if path else f". The first: {first}"
        raise DataError(f"{num_rejected} of {len(names)} files cannot be predicted{where}")


def _show_all(scores, number, show):
    """Shows all scores; (how many files were rejected, why the first was)."""
    num_rejected, first = 0, ""
    for each in progress.bar(scores, total=number, unit="file", label="predict"):
        if each.rejected is None:
            show(each.name, each.logits)
            continue
        first = first or each.rejected
        num_rejected += 1
    return num_rejected, first


def _write(outputs, path, predictor, thresholds, names):
    """Writes all outputs from the journal at a path."""
    vocabulary = predictor.vocabulary
    if outputs.scores:
        write_in_parts(outputs.scores, (_scores_part(part, vocabulary) for part in _parts(_predicted(path))))
    if outputs.labels:
        parts = _parts(_predicted(path))
        write_in_parts(outputs.labels, (_labels_part(part, vocabulary, thresholds) for part in parts))
    if outputs.events:
        write_in_parts(outputs.events, map(events_table, _parts(_predicted(path))))
    if outputs.raven:
        high_hz = predictor.audio_config["sample_rate"] / 2
        text = lambda each: event_labels.raven_text(each.events, fname=each.name, high_hz=high_hz)
        event_labels.write_per_recording(outputs.raven, _predicted(path), names, ending=event_labels.RAVEN, text=text)
    if outputs.audacity:
        event_labels.write_per_recording(
            outputs.audacity,
            _predicted(path),
            names,
            ending=event_labels.AUDACITY,
            text=lambda each: event_labels.audacity_text(each.events),
        )
    rejects = (each for each in journal.read(path) if each.rejected is not None)
    first = next(rejects, None)
    if first is None:
        outputs.rejects.unlink(missing_ok=True)
    else:
        write_in_parts(outputs.rejects, map(_rejects_part, _parts(itertools.chain([first], rejects))))


def _predicted(path):
    return (each for each in journal.read(path) if each.rejected is None)


def _parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of the next items, at least one list, which may be empty."""
    items = iter(items)
    yield [*itertools.islice(items, FILES_PER_PART)]
    while part := [*itertools.islice(items, FILES_PER_PART)]:
        yield part


def _scores_part(scores, vocabulary):
    logits = np.array([each.logits for each in scores]).reshape(-1, len(vocabulary))
    return scores_table([each.name for each in scores], logits, vocabulary)


def _labels_part(scores, vocabulary, thresholds):
    labels = [",".join(np.array(vocabulary)[expit(each.logits) >= thresholds]) for each in scores]
    return pd.DataFrame({"fname": [each.name for each in scores], "labels": labels}, dtype=object)


def _rejects_part(scores):
    return pd.DataFrame({"fname": [each.name for each in scores], "reason": [each.rejected for each in scores]})
