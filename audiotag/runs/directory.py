"""The directory of a run: its files, and how it is created, opened and locked.

runs/NAME/
  experiment.json      the experiment, every default filled in
  environment.json     versions, processor, cores, the SHA-256 of components from outside audiotag
  data.json            which records: audio options, vocabulary, fingerprint
  folds.csv            the fold of every clip that is ever held out
  corrections.csv      a copy of the experiment's corrections
  fold-K/STAGE/        see `StageFiles`
  embeddings/          embeddings of clips that a stage has stored; may be removed, and are then computed again
  learning_curve/      what `advise` measured
  report.html, saved_model/, submission.csv
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from audiotag import __version__, files
from audiotag.config.components import Section
from audiotag.config.custom import source_hashes
from audiotag.config.loading import dump, load
from audiotag.config.schema import SCHEMA_VERSION, Experiment, SchemaVersion, Stage, expand_rounds
from audiotag.config.signatures import nearest
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.data.records.manifest import MANIFEST_FILE, Manifest, load_manifest, read_manifest
from audiotag.errors import ConfigError, DataError, shortened
from audiotag.remote import is_url

PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "librosa", "soundfile", "soxr")
RETRAIN = "Retrain with --restart."
MAX_SHOWN = 3  # changed keys in a message
OWN_FILES = {  # what a run holds beside its folds
    *("experiment.json", "environment.json", "data.json", "folds.csv", "corrections.csv"),
    *("report.html", "saved_model", "submission.csv", "embeddings", "learning_curve"),
}
PREVIOUS = "previous-"  # before the name of a file: the version before the current one
DESCRIPTIONS = {"about", "command", "quick_command", "expect"}  # keys of an experiment that may change afterwards
RECORDS_FOLDER = "tfrecords"  # where make-records writes
SHOWN_DIGITS = 12  # of a fingerprint in a message


class RunData(Section):
    """data.json: which records a run trains on."""

    schema_version: SchemaVersion
    audio_config: AudioConfig
    vocabulary: tuple[str, ...] = Field(min_length=1)
    fingerprint: str


class StageResult(Section):
    """result.json: how a stage ended."""

    schema_version: SchemaVersion
    weights: str  # a file name in the stage's folder
    sha256: str  # of that file
    epochs: int
    best_epoch: int  # from 0: the epoch of these weights; -1 before the first, with 0 epochs
    monitor: str  # the monitor of the experiment, such as val_lwlrap
    value: float  # of the monitor, after that epoch
    seconds: float  # spent on training and validation, over all processes
    resumed: bool  # whether more than one process trained the stage
    round: int | None = None  # the best of several, from 1
    initial_head: dict[str, Any] | None = None  # what was chosen for it


@dataclass(frozen=True)
class StageFiles:
    """The files of one stage in one fold.

    Args:
        folder: runs/NAME/fold-K/STAGE.
    """

    folder: Path

    @property
    def result(self) -> Path:
        """How the stage ended; a stage without it is not finished."""
        return self.folder / "result.json"

    @property
    def training_state(self) -> Path:
        """Where an unfinished stage resumes."""
        return self.folder / "training_state.npz"

    @property
    def history(self) -> Path:
        """A row of logs per epoch."""
        return self.folder / "history.csv"

    @property
    def best_weights(self) -> Path:
        """The weights of the best epoch so far."""
        return self.folder / "best.weights.h5"

    @property
    def last_weights(self) -> Path:
        """The weights after the last epoch."""
        return self.folder / "last.weights.h5"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's logs."""
        return self.folder / "tensorboard"

    @property
    def training_clips(self) -> Path:
        """The clips that the stage trained on, with their labels and weights."""
        return self.folder / "training_clips.csv"

    @property
    def start_from(self) -> Path:
        """The weights from outside with which the stage started: a `WarmStart`."""
        return self.folder / "start_from.json"

    @property
    def source_clips(self) -> Path:
        """The clips of another run that trained the weights it started with."""
        return self.folder / "source_clips.csv"

    @property
    def initial_head(self) -> Path:
        """What was chosen for the head that the stage started with."""
        return self.folder / "initial_head.json"

    @property
    def embeddings(self) -> Path:
        """Which embeddings the stage has stored."""
        return self.folder / "embeddings.json"

    @property
    def baselines(self) -> Path:
        """What the published weights reach on the validation clips without training."""
        return self.folder / "baselines.json"

    @property
    def selected_clips(self) -> Path:
        """The noisy clips that the stage's selection kept, as a table of corrections."""
        return self.folder / "selected_clips.csv"

    @property
    def teacher_scores(self) -> Path:
        """What the teachers of the stage predict for its training clips."""
        return self.folder / "teacher_scores.csv"

    def oof_scores(self, subset: str | None = None, for_stage: str | None = None) -> Path:
        """Out-of-fold scores of the validation clips, or of a subset of noisy clips.

        They are scored as `predict` says, or as another stage's selection asks.
        """
        subset = "" if subset is None else f"_{subset}"
        suffix = "" if for_stage is None else f"_for_{for_stage.replace('/', '-')}"
        return self.folder / f"oof{subset}{suffix}.csv"


@dataclass(frozen=True)
class Run:
    """A run and its files.

    Args:
        folder: runs/NAME.
        experiment: The experiment, every default filled in.
        audio_config: How files were read into the records: the keys of `AudioConfig`.
        vocabulary: The K class names.
        fingerprint: The fingerprint of the records.
    """

    folder: Path
    experiment: Experiment
    audio_config: dict[str, Any]
    vocabulary: tuple[str, ...]
    fingerprint: str

    @property
    def sample_rate(self) -> int:
        """Sample rate of the records in Hz."""
        return self.audio_config["sample_rate"]

    @property
    def window_samples(self) -> int:
        """Samples of a training window."""
        return window_samples(self.experiment, self.sample_rate)

    @property
    def folds_file(self) -> Path:
        """The fold of every clip that is ever held out."""
        return self.folder / "folds.csv"

    @property
    def corrections_file(self) -> Path:
        """The run's copy of the experiment's corrections."""
        return self.folder / "corrections.csv"

    @property
    def embeddings_folder(self) -> Path:
        """Where embeddings of clips are stored, for all folds."""
        return self.folder / "embeddings"

    @property
    def learning_curve_folder(self) -> Path:
        """What `advise` measured and forecast."""
        return self.folder / "learning_curve"

    @property
    def environment_file(self) -> Path:
        """Versions, processor and cores."""
        return self.folder / "environment.json"

    @property
    def saved_model(self) -> Path:
        """The folder of the SavedModel that `fit` exports."""
        return self.folder / "saved_model"

    @property
    def report(self) -> Path:
        """The page that `report` writes."""
        return self.folder / "report.html"

    @property
    def submission(self) -> Path:
        """The file that `make-submission` writes."""
        return self.folder / "submission.csv"

    def fold_folder(self, fold: int) -> Path:
        """The folder of all stages of a fold."""
        return self.folder / f"fold-{fold}"

    def stage_files(self, fold: int, stage: str) -> StageFiles:
        """The files of a stage, or of one of its rounds."""
        return StageFiles(self.fold_folder(fold) / stage)

    def stage_name(self, stage: str | None = None) -> str:
        """The name of a stage, or of one of its rounds, if the experiment has it.

        None is the last stage.

        Raises:
            DataError: There is no such stage.
        """
        stages = [known.name for known in self.experiment.stages]
        names = dict.fromkeys([*stages, *(known.name for known in expand_rounds(self.experiment))])
        stage = stages[-1] if stage is None else stage
        if stage not in names:
            hint = nearest(stage, names)
            raise DataError(f"{self.folder}: has no stage {stage!r}. {hint}Accepted: {', '.join(names)}.")
        return stage

    def result(self, fold: int, stage: str) -> dict[str, Any] | None:
        """The result of a stage; None if the stage is not finished.

        It has the keys of `StageResult`.
        """
        path = self.stage_files(fold, stage).result
        return read_section(path, StageResult) if path.is_file() else None

    def weights(self, fold: int, stage: str) -> Path:
        """The weights that a finished stage ended with.

        Raises:
            DataError: The stage is not finished, or the weights are missing or damaged.
        """
        result = self.result(fold, stage)
        if result is None:
            raise DataError(
                f"{self.folder}: stage {stage!r} of fold {fold} is not trained yet. Finish it with: audiotag fit"
            )
        path = self.stage_files(fold, _best_round(stage, result)).folder / Path(result["weights"]).name
        if not path.is_file() or files.sha256(path) != result["sha256"]:
            raise DataError(
                f"{path}: missing or damaged: its SHA-256 is not that in {self.stage_files(fold, stage).result.name}. "
                f"{RETRAIN}"
            )
        return path

    def history(self, fold: int = 0, stage: str | None = None) -> pd.DataFrame:
        """The logs of a stage as CSVLogger wrote them, a row per epoch.

        Args:
            fold: The fold.
            stage: A stage, or one of its rounds; None is the last stage. Of a repeated stage, it is its best round.

        Returns:
            A table with the columns epoch (from 0), loss, val_lwlrap, …

        Raises:
            DataError: There is no such stage, or it has no history.
        """
        stage = self.stage_name(stage)
        path = self.stage_files(fold, _best_round(stage, self.result(fold, stage) or {})).history
        if not path.is_file():
            raise DataError(
                f"{path}: there is no history. Training writes it if the stage's callbacks have CSVLogger. Folds that "
                f"have finished the stage: {', '.join(map(str, self.trained_folds(stage))) or 'none'}."
            )
        return pd.read_csv(path)

    def changed_components(self) -> list[str]:
        """The components from outside audiotag that changed since the run began.

        Their source files have another SHA-256.

        Raises:
            ConfigError: One is not allowed here, or cannot be imported.
        """
        now = source_hashes(self.experiment)
        before = json.loads(self.environment_file.read_text()).get("components", {})
        return [name for name, sha256 in now.items() if before.get(name) != sha256]

    def trained_folds(self, stage: str) -> list[int]:
        """The folds whose model has finished a stage."""
        return [fold for fold in range(self.experiment.num_folds) if self.result(fold, stage)]


def _best_round(stage, result):
    """The name of a stage, or, if it was repeated, of the round that its result chose."""
    return stage if result.get("round") is None else f"{stage}/{result['round']}"


def find_records(run: Run) -> Manifest:
    """The records of a run, wherever they are now.

    A run knows its records by their fingerprint. They are where its experiment says; or, if they were moved, renamed
    or copied, beside that place, or in tfrecords/ of the working directory or of the directory that holds runs/.

    Raises:
        DataError: They are not there, or damaged.
    """
    place: str | Path = run.experiment.records
    place = place if is_url(place) else Path(place)
    try:
        found = load_manifest(place).fingerprint
    except DataError as error:
        reason = str(error)
    else:
        if found == run.fingerprint:
            return read_manifest(place)
        reason = f"{place}: has other records, with the fingerprint {found[:SHOWN_DIGITS]}."
    bases = (Path(), run.folder.resolve().parent.parent)
    folders = [base / RECORDS_FOLDER for base in bases]
    if not is_url(place):
        folders = [folder for base, made in zip(bases, folders) for folder in ((base / place).parent, made)]
    folders = [*{folder.resolve(): folder for folder in reversed(folders)}.values()][::-1]
    for folder in folders:
        for manifest in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
            with contextlib.suppress(DataError, OSError):  # other records, or an incomplete copy
                if load_manifest(manifest.parent).fingerprint == run.fingerprint:
                    records = read_manifest(manifest.parent)
                    _say_once(f"{run.folder}: its records are now in {records.directory}, and were in {place}.")
                    return records
    raise DataError(
        f"{reason} {run.folder} was trained on records with the fingerprint {run.fingerprint[:SHOWN_DIGITS]}, which "
        f"are not there and not in a folder of {', '.join(map(str, folders))} either. Move them to one of these, or "
        f"give their place with --records."
    )


@cache
def _say_once(sentence):
    print(sentence, file=sys.stderr, flush=True)


def with_records(run: Run, records: str | Path | None) -> Run:
    """A run whose records were moved to a known place.

    Args:
        run: A `Run`.
        records: The directory of its records; None returns the run unchanged.

    Raises:
        DataError: The directory has no records, or those of another fingerprint.
    """
    if records is None:
        return run
    fingerprint = load_manifest(records).fingerprint
    if fingerprint != run.fingerprint:
        raise DataError(
            f"{records}: has records with the fingerprint {fingerprint[:SHOWN_DIGITS]}, and {run.folder} was trained "
            f"on those with {run.fingerprint[:SHOWN_DIGITS]}. Give the place of these."
        )
    return replace(run, experiment=run.experiment.model_copy(update={"records": str(records)}))


def with_records_among(runs: Iterable[Run], places: Iterable[str | Path]) -> list[Run]:
    """Runs of which some records were moved to known places.

    Args:
        runs: Some `Run`.
        places: Directories with records. Each run takes those that it was trained on, if they are among them.

    Raises:
        DataError: A directory has no records, or those of no run.
    """
    runs = list(runs)
    for place in places:
        fingerprint = load_manifest(place).fingerprint
        if fingerprint not in {run.fingerprint for run in runs}:
            raise DataError(
                f"{place}: has records with the fingerprint {fingerprint[:SHOWN_DIGITS]}, and none of the runs was "
                "trained on these. Leave it out, or give the place of theirs."
            )
        runs = [with_records(run, place) if run.fingerprint == fingerprint else run for run in runs]
    return runs


def window_samples(experiment: Experiment, sample_rate: int) -> int:
    """Samples of a training window at a sample rate in Hz."""
    return round(experiment.window.seconds * sample_rate)


def steps_per_epoch(stage: Stage, num_clips: int) -> int:
    """Batches of an epoch of a stage that trains on so many clips."""
    return stage.steps_per_epoch or max(1, num_clips // stage.batch_size)


def experiment_file(folder: Path) -> Path:
    """The file that holds a run's experiment."""
    return Path(folder) / "experiment.json"


def data_file(folder: Path) -> Path:
    """The file that is written last, so its presence marks a complete run directory."""
    return Path(folder) / "data.json"


def previous(path: Path) -> Path:
    """Where the version before the current one of a file is kept."""
    return path.with_name(f"{PREVIOUS}{path.name}")


def is_run(folder: str | Path) -> bool:
    """Whether a directory is that of a run."""
    return data_file(Path(folder)).is_file()


def is_trained(folder: str | Path) -> bool:
    """Whether an epoch of some stage of a run is done."""
    stage = StageFiles(Path())
    names = {stage.result.name, stage.training_state.name, previous(stage.training_state).name}
    return any(path.name in names for path in Path(folder).glob("fold-*/**/*.*"))


@contextmanager
def start_run(
    folder: str | Path, experiment: Experiment, manifest: Manifest, *, restart: bool = False
) -> Iterator[Run]:
    """Creates the directory of a run, or opens it to continue.

    An existing run continues only on the same records, wherever they are now, and with the same
    experiment, except for stages that no fold has begun: these may be others now. Another run is
    replaced if `restart` says so, or if no epoch of it is done. During the block other processes may
    train other folds of this run, and none may replace or change it.

    Yields:
        The `Run`.

    Raises:
        DataError: The run was trained with another experiment or on other records; or another process trains here.
    """
    folder = Path(folder)
    place = folder.resolve()
    if not manifest.is_at(experiment.records):
        experiment = experiment.model_copy(update={"records": manifest.place})
    if restart and (experiment_file(place).is_file() or data_file(place).is_file()):
        _refuse_others(folder)
        files.remove_unless_locked(place, folder / ".lock", _busy(folder))
    files.delete_leftovers(place)
    if not is_run(place) and (left := sorted(place.glob("fold-*"))):
        raise DataError(f"{left[0]}: belongs to an incomplete run. Remove {folder}, or choose another --run.")
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(files.Busy), _exclusive_lock(folder):
        for place_of_files in (folder, *folder.glob("embeddings/*/")):
            files.delete_unfinished(place_of_files)
        if not is_run(folder) or not is_trained(folder) and _difference(open_run(folder), experiment, manifest):
            _create(folder, experiment, manifest)
        elif open_run(folder).experiment != experiment and not _difference(
            open_run(folder), experiment, manifest, num_stages=_num_begun(folder)
        ):  # other commands find moved records here, too
            files.write_text(experiment_file(folder), dump(experiment))
    with shared_lock(folder):
        run = open_run(folder)
        if difference := _difference(run, experiment, manifest):
            raise DataError(
                f"{folder}: was trained {difference}. Choose another name with --run, or retrain with --restart. "
                f"To continue this run, undo the change.{_may_change(run)}"
            )
        yield run


def _refuse_others(folder):
    """Refuses to remove what is no file of a run."""
    others = [path.name for path in sorted(folder.iterdir()) if not path.name.startswith((".", "fold-"))]
    if others := [name for name in others if name not in OWN_FILES]:
        raise DataError(
            f"{folder}: --restart would remove {', '.join(others[:MAX_SHOWN])}"
            f"{', …' if len(others) > MAX_SHOWN else ''}, which fit did not write. Move it, or choose another --run."
        )


def shared_lock(folder: Path) -> AbstractContextManager[None]:
    """A lock on a run: during the block no other process replaces it."""
    return files.locked(folder / ".lock", _busy(folder), shared=True)


def _exclusive_lock(folder):
    """A lock on a run: during the block no other process trains or replaces it."""
    return files.locked(folder / ".lock", _busy(folder))


def _busy(folder):
    return f"{folder}: another fit is training here. Wait for it, or choose another --run."


def _num_begun(folder):
    """The number of stages up to the last that some fold of a run has begun."""
    names = [stage.name for stage in open_run(folder).experiment.stages]
    return max((number for number, name in enumerate(names, 1) if any(folder.glob(f"fold-*/{name}"))), default=0)


def _may_change(run):
    """A sentence about the stages of a run that may still change."""
    free = [stage.name for stage in run.experiment.stages[_num_begun(run.folder) :]]
    return f" Only stages that no fold has begun may change: {', '.join(free)}." if free else ""


def _difference(run, experiment, manifest, *, num_stages=None):
    """How a run differs from the one that is asked for, in all or its first stages; None if it does not.

    The place of the records may differ.
    """
    before, now = (each.model_dump(exclude=DESCRIPTIONS | {"records"}) for each in (run.experiment, experiment))
    before["stages"], now["stages"] = before["stages"][:num_stages], now["stages"][:num_stages]
    if changed := list(changed_keys(before, now)):
        more = f", and {len(changed) - MAX_SHOWN} more" if len(changed) > MAX_SHOWN else ""
        return f"with another experiment: {', '.join(changed[:MAX_SHOWN])}{more}"
    if changed := run.changed_components():
        return f"with another version of {changed[0]}: its source file has changed"
    if run.fingerprint != manifest.fingerprint:
        return f"on other records than {manifest.place}: {_records_difference(run, manifest)}"
    return None


def changed_keys(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yields what differs between two dumps of experiments.

    Each is a text such as "stages.noisy.epochs is now 20 and was 10".

    Args:
        before: A dump, or a value in one.
        now: Another.
        place: Where in the experiment they are.
    """
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        for key in before:
            yield from changed_keys(before[key], now[key], f"{place}.{key}" if place else key)
    elif isinstance(before, tuple) and isinstance(now, tuple) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now)):
            name = old.get("name", index) if isinstance(old, dict) else index
            yield from changed_keys(old, new, f"{place}.{name}")
    elif before != now:
        yield f"{place} is now {shortened(repr(now))} and was {shortened(repr(before))}"


def _records_difference(run, manifest):
    """How records differ from those of a run with another fingerprint, as far as the run stores it."""
    if run.audio_config != manifest.audio_config:
        pairs = [(key, manifest.audio_config[key], value) for key, value in run.audio_config.items()]
        return ", ".join(f"{key} is now {now!r} and was {before!r}" for key, now, before in pairs if now != before)
    if tuple(run.vocabulary) != tuple(manifest.vocabulary):
        return "they have other classes"
    return "the audio of the recordings, their labels or other options of make-records differ"


def _create(folder, experiment, manifest):
    """Writes the first files of a run, in place of those of a run that never finished an epoch."""
    if is_run(folder):
        for path in [*folder.glob("fold-*"), folder / "embeddings", folder / "folds.csv", folder / "corrections.csv"]:
            files.remove(path)
    files.write_text(experiment_file(folder), dump(experiment))
    described = environment() | {"components": source_hashes(experiment)}
    files.write_text(folder / "environment.json", json.dumps(described, indent=2) + "\n")
    data = {
        "schema_version": SCHEMA_VERSION,
        "audio_config": manifest.audio_config,
        "vocabulary": manifest.vocabulary,
        "fingerprint": manifest.fingerprint,
    }
    files.write_text(data_file(folder), json.dumps(data, indent=2) + "\n")


def open_run(folder: str | Path) -> Run:
    """The run in a directory.

    Raises:
        DataError: There is none, or it is damaged, or of another schema version.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise DataError(
            f"{folder}: not the directory of a run: it has no {data_file(folder).name}. "
            "Train one with: audiotag fit EXPERIMENT"
        )
    data = read_section(data_file(folder), RunData)
    return Run(
        folder=folder,
        experiment=load(experiment_file(folder)),
        audio_config=data["audio_config"],
        vocabulary=data["vocabulary"],
        fingerprint=data["fingerprint"],
    )


def read_section(path: Path, kind: type[Section]) -> dict[str, Any]:
    """The content of a JSON file of a run.

    Raises:
        DataError: The file is damaged, or of another schema version.
    """
    try:
        return load(path, kind=kind).model_dump()
    except ConfigError as error:
        said = str(error).rstrip(".")
        raise DataError(f"{said}. Damaged, or written by another version of audiotag. {RETRAIN}") from error


def num_cores() -> int:
    """The number of cores that this process may use.

    The order of additions depends on it, and so do the last bits of weights.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """What trains this run: versions, processor, cores."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": num_cores(),
        "packages": {"audiotag": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES},
    }
