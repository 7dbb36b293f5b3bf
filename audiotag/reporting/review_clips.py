"""The clips of `audiotag review`: order, predictions, sounds, spectrograms."""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag.crossval.label_issues import disagreement, rank_label_issues, scored_training_clips
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot, split_labels
from audiotag.data.records.offsets import find_offsets
from audiotag.errors import DataError
from audiotag.evaluation.scoring import score_test_clips
from audiotag.reporting.page import image_png, mel_axes, mel_decibels
from audiotag.reporting.sample_clips import waveforms_of_records
from audiotag.runs.directory import Run, find_records

SOUND_SECONDS = 60.0  # of a clip that are played and shown
PLAYED_RATES = (8_000, 96_000)  # Hz, which every browser plays
NUM_BANDS, NUM_FRAMES = 128, 1_000  # of a spectrogram
NUM_PREDICTIONS = 5
NUM_EXAMPLES = 3  # of a class
NUM_CACHED = 16  # clips whose samples stay in memory
Reader = Callable[[str], tuple[np.ndarray, float]]  # of a clip's first SOUND_SECONDS, float32 [N], and all its seconds


@dataclass(frozen=True, eq=False)
class ReviewQueue:
    """Clips in the order of their review.

    Args:
        table: The columns `clip`, `labels` (those of the records), `subset`, `fold` (from 0; -1 for none) and `margin`,
            a row per clip.
        scores: Probabilities [clips, K], NaN for clips that were not scored.
        about: What the order is, for the source of a correction.
    """

    table: pd.DataFrame
    scores: np.ndarray
    about: str


def training_queue(
    run: Run,
    *,
    stage: str | None = None,
    order: Literal["suspicion", "usefulness"] = "suspicion",
    by: Literal["margin", "cleanlab"] = "margin",
) -> ReviewQueue:
    """The training clips of a run as `rank_label_issues` ranks them.

    It has the same arguments.

    Raises:
        DataError: As for `rank_label_issues`.
    """
    stage = run.stage_name(stage)
    ranked = rank_label_issues(run, stage=stage, order=order, by=by)
    clips, scores = scored_training_clips(run, stage=stage)
    probabilities = pd.DataFrame(scores, index=clips["name"]).reindex(ranked["clip"]).to_numpy()
    fold = clips.set_index("name")["fold"].reindex(ranked["clip"]).fillna(-1).astype(int)
    labels = read_clips(find_records(run).directory / "clips.csv").set_index("name")["labels"]
    table = ranked[["clip", "subset", "margin"]].assign(labels=labels[ranked["clip"]].to_numpy(), fold=fold.to_numpy())
    return ReviewQueue(table, probabilities, f"review of {run.folder.resolve().name}, stage {stage}")


def test_queue(run: Run, *, stage: str | None = None) -> ReviewQueue:
    """The test clips of a run, first those whose labels its models contradict most.

    Raises:
        DataError: There are no test clips, or the run is not trained.
    """
    clips, logits = score_test_clips(run, stage=stage)
    scores = expit(logits)
    table = disagreement(clips.assign(weight=1.0), scores, run.vocabulary).assign(fold=-1)
    order = np.lexsort((table["clip"], -table["margin"]))
    table = table.iloc[order].reset_index(drop=True)
    about = f"review of {run.folder.resolve().name}, stage {run.stage_name(stage)}, test clips"
    return ReviewQueue(table[["clip", "subset", "margin", "labels", "fold"]], scores[order], about)


class ReviewClips:
    """The clips of a queue: labels, predictions, sounds and spectrograms.

    Args:
        queue: What to review.
        vocabulary: The K class names.
        sample_rate: That of the sounds in Hz.
        read: Reads the sound of a clip.
    """

    def __init__(self, queue: ReviewQueue, vocabulary: Sequence[str], sample_rate: int, read: Reader) -> None:
        self.queue, self.vocabulary, self.sample_rate = queue, tuple(vocabulary), sample_rate
        self.names = queue.table["clip"].tolist()
        self.index_of = {name: index for index, name in enumerate(self.names)}
        self._truth = multi_hot(queue.table["labels"], vocabulary) > 0  # [clips, K]
        self._lock = threading.Lock()  # of the cache: two requests for a clip read it once
        self._cached = functools.lru_cache(NUM_CACHED)(read)

    def summary(self) -> dict[str, Any]:
        """Columns of the queue for the page.

        `top` is the number of the most probable class, or null.
        """
        table, scores = self.queue.table, self.queue.scores
        scored = ~np.isnan(scores).any(axis=1)
        top = np.where(scored, np.nan_to_num(scores).argmax(axis=1), -1)
        return {
            "names": self.names,
            "labels": [list(split_labels(labels)) for labels in table["labels"]],
            "subsets": table["subset"].tolist(),
            "folds": table["fold"].tolist(),
            "margins": [float(margin) if np.isfinite(margin) else None for margin in table["margin"]],
            "top": [int(label) if label >= 0 else None for label in top],
        }

    def details(self, index: int) -> dict[str, Any]:
        """What the page shows of a clip beside its image and sound.

        Raises:
            DataError: The clip cannot be read.
        """
        waveform, seconds = self._sound(index)
        shown = len(waveform) / self.sample_rate
        return {
            "seconds": shown,
            "cut": f"first {SOUND_SECONDS:g} s of {seconds:.0f} s" if shown < seconds - 1 / self.sample_rate else "",
            "axes": mel_axes(shown, self.sample_rate),
        }

    def labels_of(self, index: int) -> list[str]:
        """The labels of a clip before its review."""
        return [self.vocabulary[label] for label in np.flatnonzero(self._truth[index])]

    def reason(self, index: int) -> str:
        """The probabilities of a clip that make its labels doubtful.

        They are of the most probable class and of the labels, such as "Bark 0.93, Meow 0.02".
        """
        predictions, labels = self.predictions(index), self.labels_of(index)
        named = [name for name, _ in predictions[:1]] + labels
        probabilities = dict(predictions)
        return ", ".join(f"{name} {probabilities[name]:.2f}" for name in dict.fromkeys(named) if name in probabilities)

    def predictions(self, index: int) -> list[tuple[str, float]]:
        """The most probable classes of a clip with their probabilities.

        Its labels follow if they are not among them.
        """
        scores = self.queue.scores[index]
        if np.isnan(scores).any():
            return []
        top = np.argsort(-scores, kind="stable")[:NUM_PREDICTIONS].tolist()
        top += [label for label in np.flatnonzero(self._truth[index]).tolist() if label not in top]
        return [(self.vocabulary[label], float(scores[label])) for label in top]

    def examples(self, name: str, *, but: int) -> list[int]:
        """Clips that have a label and are predicted as it most confidently.

        Args:
            name: The class.
            but: A clip to leave out.
        """
        return [index for index in self._examples_of(name) if index != but][:NUM_EXAMPLES]

    @functools.cached_property
    def _confident(self):
        """Of each clip, whether a label is its most probable class: [clips]."""
        scores = np.nan_to_num(self.queue.scores)
        return self._truth[np.arange(len(scores)), scores.argmax(axis=1)]

    def _examples_of(self, name):
        label = self.vocabulary.index(name)
        rows = np.flatnonzero(self._truth[:, label] & self._confident)
        return rows[np.argsort(-self.queue.scores[rows, label], kind="stable")][: NUM_EXAMPLES + 1].tolist()

    def image(self, index: int) -> bytes:
        """The log-mel spectrogram of a clip as PNG."""
        waveform, _ = self._sound(index)
        return image_png(mel_decibels(waveform, self.sample_rate, num_bands=NUM_BANDS, num_frames=NUM_FRAMES))

    def sound(self, index: int) -> bytes:
        """The samples of a clip at `played_rate` as little-endian int16."""
        import soxr

        (waveform, _), rate = self._sound(index), self.sample_rate
        if played_rate(rate) != rate:
            waveform = soxr.resample(waveform, rate, played_rate(rate))
        return (np.clip(waveform, -1, 1) * 32767).round().astype("<i2").tobytes()

    def _sound(self, index):
        """What the reader returns for a clip; raises DataError if it cannot be read."""
        with self._lock:
            return self._cached(self.names[index])


def clips_of_records(run: Run, queue: ReviewQueue) -> ReviewClips:
    """The clips of a queue, read from the records of a run."""
    manifest = find_records(run)
    shards = find_offsets(manifest)
    places = {name: (shard.file, i) for shard in manifest.shards for i, name in enumerate(shard.clips)}

    def read(name):
        file, place = places[name]
        try:
            if shards is None:
                return _beginning(waveforms_of_records(manifest, [name])[name], run.sample_rate)
            pcm = np.empty(shards[file].num_samples[place], "<i2")
            shards[file].read(place, 0, pcm)
        except (DataError, ValueError, OSError) as error:
            raise DataError(
                f"{name}: cannot be read: {str(error).rstrip('.')}. If the records were moved, start audiotag review "
                "again with --records and their place; what you decided is saved."
            ) from error
        return _beginning(pcm.astype("float32") / 32768, run.sample_rate)

    return ReviewClips(queue, run.vocabulary, run.sample_rate, read)


def _beginning(waveform, sample_rate):
    """What a `Reader` returns for a waveform."""
    return waveform[: round(SOUND_SECONDS * sample_rate)], len(waveform) / sample_rate


def played_rate(sample_rate: int) -> int:
    """The sample rate in Hz at which a browser plays clips of another rate in Hz."""
    return sample_rate if PLAYED_RATES[0] <= sample_rate <= PLAYED_RATES[1] else 44_100
