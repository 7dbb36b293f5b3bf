"""The directory of a run: what was trained on what, and where each stage's weights lie."""

import contextlib
import importlib.metadata
import json
import os
import platform
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from audiotag import files
from audiotag.config.components import Section
from audiotag.config.loading import dump, load
from audiotag.config.schema import Experiment, passes
from audiotag.config.signatures import nearest
from audiotag.errors import ConfigError, DataError

PACKAGES = ("audiotag", "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "librosa", "soundfile", "soxr")
SOMETHING_DONE = ("finished.json", "state.npz", "before-state.npz")


class Hearing(Section):
    """How files were read into the records: the options of `data.audio.read_waveform`."""

    sample_rate: int = Field(gt=0)
    trim: Literal["loudest", "level"] | None
    trim_db: float | None
    peak_db: float | None


class Records(Section):
    """records.json: which records a run hears."""

    hearing: Hearing
    vocabulary: tuple[str, ...] = Field(min_length=1)
    plan: str


class Finished(Section):
    """finished.json: how a stage ended."""

    weights: str
    sha256: str
    epochs: int
    best_epoch: int
    val_lwlrap: float
    round: int = 0  # of several, that was the best


@dataclass(frozen=True)
class Run:
    """A run and its files.

    Args:
        folder: runs/NAME.
        experiment: What was asked for, every default filled in: experiment.json.
        hearing: How files were read into the records: the options of `data.audio.read_waveform`.
        vocabulary: The K class names.
        plan: The fingerprint of the records.
    """

    folder: Path
    experiment: Experiment
    hearing: dict
    vocabulary: tuple[str, ...]
    plan: str

    @property
    def sample_rate(self):
        """Rate of the records in Hz."""
        return self.hearing["sample_rate"]

    def known_stage(self, stage=None):
        """The name of a stage, or of one of its rounds, once the experiment has it; None is the last stage's.

        Raises:
            DataError: There is no such stage.
        """
        stages = [known.name for known in self.experiment.stages]
        names = dict.fromkeys([*stages, *(known.name for known in passes(self.experiment))])
        stage = stages[-1] if stage is None else stage
        if stage not in names:
            hint = nearest(stage, names)
            raise DataError(f"{self.folder}: has no stage {stage!r}. {hint}Accepted: {', '.join(names)}.")
        return stage

    def stage_folder(self, fold, stage):
        """Where a stage keeps its state, history and weights."""
        return self.folder / f"fold-{fold}" / stage

    def finished(self, fold, stage):
        """What is known of a finished stage, with the keys of `Finished`, or None."""
        path = self.stage_folder(fold, stage) / "finished.json"
        return _notes(path, Finished) if path.is_file() else None

    def weights(self, fold, stage):
        """The weights that a finished stage ended with: its best, or else its last.

        Raises:
            DataError: The stage is not finished, or its weights are not those it wrote.
        """
        known = self.finished(fold, stage)
        if known is None:
            raise DataError(
                f"{self.folder}: stage {stage!r} of fold {fold} is not trained yet. Finish it with: audiotag fit"
            )
        folder = self.stage_folder(fold, f"{stage}/{known['round']}" if "round" in known else stage)
        path = folder / Path(known["weights"]).name
        if not path.is_file() or files.sha256(path) != known["sha256"]:
            raise DataError(
                f"{path}: missing or damaged: its SHA-256 is not that in finished.json. Train anew with --restart."
            )
        return path

    def trained_folds(self, stage):
        """The folds whose model has finished a stage."""
        return [fold for fold in range(self.experiment.folds.count) if self.finished(fold, stage)]


def is_run(folder):
    """Whether a directory is that of a run, whole from its first moment on."""
    return (Path(folder) / "records.json").is_file()


def is_trained(folder):
    """Whether a run has got anywhere: an epoch of some stage is done."""
    return any(path.name in SOMETHING_DONE for path in Path(folder).glob("fold-*/**/*.*"))


@contextmanager
def start_run(folder, experiment, manifest, *, restart=False):
    """Makes the directory of a run, or opens it to go on with the same experiment on the same records.

    Another run is replaced where `restart` says so, and where no epoch of it is done. During the block other
    processes may train other folds of this one, and none may replace it.

    Yields:
        The `Run`.

    Raises:
        DataError: Another experiment, or other records, were used here before; or another process trains here.
    """
    folder = Path(folder)
    place = folder.resolve()
    if restart and any((place / name).is_file() for name in ("experiment.json", "records.json")):  # nobody's home
        with _alone(folder):
            files.remove(place)
    files.end_removal(place)
    if not is_run(place) and (left := sorted(place.glob("fold-*"))):
        raise DataError(f"{left[0]}: of a run that is no longer whole. Remove {folder}, or choose another --run.")
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(files.Busy), _alone(folder):
        files.sweep(folder)
        if not is_run(folder) or not is_trained(folder) and _other(open_run(folder), experiment, manifest):
            _begin(folder, experiment, manifest)
    with held(folder):
        run = open_run(folder)
        if other := _other(run, experiment, manifest):
            anew = "Give the run another name with --run, or train it anew with --restart."
            raise DataError(f"{folder}: was trained {other}. {anew}")
        yield run


def held(folder):
    """A lock on a run: during the block nobody replaces it, or sweeps it."""
    return files.locked(folder / ".lock", _busy(folder), shared=True)


def _alone(folder):
    """A lock on a run in which nobody else trains."""
    return files.locked(folder / ".lock", _busy(folder))


def _busy(folder):
    return f"{folder}: another fit is training here. Wait for it, or choose another --run."


def _other(run, experiment, manifest):
    """How a run differs from the one that is asked for; None where it does not."""
    said = {"about", "command", "in_minutes", "expect"}  # words about the run; they may change
    if run.experiment.model_dump(exclude=said) != experiment.model_dump(exclude=said):
        return "with another experiment than this one"
    if run.plan != manifest.plan:
        return f"on other records than {manifest.directory}: {_other_records(run, manifest)}"
    return None


def _other_records(run, manifest):
    """How records differ from those of a run whose fingerprint is another, as far as the run tells."""
    if run.hearing != manifest.hearing:
        pairs = [(key, manifest.hearing[key], value) for key, value in run.hearing.items()]
        return ", ".join(f"{key} is {there!r} there and was {was!r}" for key, there, was in pairs if there != was)
    if tuple(run.vocabulary) != tuple(manifest.vocabulary):
        return "they have other classes"
    return "the audio of the recordings, their labels or other options of make-records differ"


def _begin(folder, experiment, manifest):
    """Writes what a run begins with, in the place of what one wrote that got nowhere."""
    if is_run(folder):
        for path in [*folder.glob("fold-*"), folder / "folds.csv", folder / "corrections.csv"]:
            files.remove(path)
    files.write_text(folder / "experiment.json", dump(experiment))
    files.write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    known = {"hearing": manifest.hearing, "vocabulary": manifest.vocabulary, "plan": manifest.plan}
    files.write_text(folder / "records.json", json.dumps(known, indent=2) + "\n")


def open_run(folder):
    """The run in a directory.

    Raises:
        DataError: There is none, or it is damaged, or an older version's.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise DataError(
            f"{folder}: not the directory of a run: it has no records.json. Train one with: audiotag fit EXPERIMENT"
        )
    known = _notes(folder / "records.json", Records)
    return Run(folder=folder, experiment=load(folder / "experiment.json"), **known)


def _notes(path, kind):
    """What a run has written down in a JSON file, as a `Section` has it."""
    try:
        return load(path, kind=kind).model_dump(exclude_unset=True)
    except ConfigError as error:
        said = str(error).rstrip(".")
        raise DataError(f"{said}. Damaged, or an older audiotag's: train the run anew with --restart.") from error


def environment():
    """What trained this run: versions, processor, cores."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
