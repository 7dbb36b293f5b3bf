"""What rebuilds an exported model without running it.

A SavedModel is a program: whoever loads one runs what its author wrote. So each export carries,
beside the graph, what the graph was made of, and `predict` rebuilds the model from that.
TensorFlow and TensorFlow Serving ignore `assets.extra`.

SAVED_MODEL/assets.extra/audiotag/
  model.json                 see `ExportedModel`
  MEMBER-MODEL.weights.h5    plain numbers, as in a run: both are counted from 0
  combiner.f64               the arrays of a fitted combiner, little-endian

These files are checked as those of an attacker. No name of a file comes from their content, their
sizes are checked before anything of that size is made, and pretrained weights are never read.
"""

import contextvars
import dataclasses
import math
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
from pydantic import Field

from audiotag import files
from audiotag.config.components import CustomComponent, Section
from audiotag.config.loading import load, parse
from audiotag.config.schema import Experiment, stage_named, stage_of
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.ensembling.combiners import FittedCombiner
from audiotag.ensembling.members import Combination, TrainedEnsemble, TrainedMember, new_combiner
from audiotag.errors import DataError
from audiotag.evaluation.thresholds import Calibration
from audiotag.runs.building import build_tagger
from audiotag.runs.directory import window_samples
from audiotag.runs.models import without_initial_weights
from audiotag.runs.weights import load_weights, save_weights

FOLDER = Path("assets.extra") / "audiotag"
MODEL, COMBINER = "model.json", "combiner.f64"
MAX_JSON_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 1 << 32  # of one file
MAX_COMPONENTS = 100  # in a list of an experiment, and options in a list of a component
MAX_NUMBERS = 1 << 26  # in a window, an image or the filters of a front end
MAX_SAMPLE_RATE = 1_000_000  # Hz

Number = Annotated[float, Field(allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ExportedMember(Section):
    """A member in model.json."""

    experiment: dict[str, Any]
    stage: str
    weight: float = Field(gt=0)
    weights: tuple[Sha256, ...] = Field(min_length=1)  # of the weights of each model


class ExportedCombiner(Combination):
    """The combiner in model.json."""

    sha256: Sha256  # of combiner.f64, which is empty if nothing was fitted


class ExportedCalibration(Section):
    """The `Calibration` in model.json."""

    thresholds: tuple[Number, ...]
    temperature: Number = Field(gt=0)


class ExportedModel(Section):
    """model.json: the members of an exported model, and their combiner."""

    export_version: Literal[1]
    audio_config: AudioConfig
    vocabulary: tuple[str, ...] = Field(min_length=1)
    members: tuple[ExportedMember, ...] = Field(min_length=1)
    combiner: ExportedCombiner | None  # None for a run
    calibration: ExportedCalibration | None = None  # None if nothing was fitted


def write_parts(model: TrainedEnsemble, saved_model: Path) -> None:
    """Writes what rebuilds a model into the folder of its SavedModel.

    Raises:
        DataError: The disk is full.
    """
    folder = saved_model / FOLDER
    folder.mkdir(parents=True)
    members = []
    for index, member in enumerate(model.members):
        hashes = [
            save_weights(tagger, folder / _weights_name(index, number)) for number, tagger in enumerate(member.taggers)
        ]
        members.append(
            ExportedMember(
                experiment=member.experiment.model_dump(),
                stage=member.stage,
                weight=member.weight,
                weights=tuple(hashes),
            )
        )
    combiner = None
    if model.combination is not None:
        combiner = ExportedCombiner(**dict(model.combination), sha256=_write_combiner(model.combine, folder / COMBINER))
    content = ExportedModel(
        export_version=1,
        audio_config=AudioConfig(**model.audio_config),
        vocabulary=model.vocabulary,
        members=tuple(members),
        combiner=combiner,
        calibration=None if model.calibration is None else ExportedCalibration(**dataclasses.asdict(model.calibration)),
    )
    files.write_text(folder / MODEL, content.model_dump_json(indent=2) + "\n")


def rebuild(saved_model: Path) -> TrainedEnsemble:
    """Rebuilds an exported model from its plain numbers; its graph is not read.

    Raises:
        DataError: Says what is missing or damaged.
        ConfigError: model.json is not valid.
    """
    folder = saved_model / FOLDER
    if not folder.is_dir():
        raise DataError(f"It has no folder {FOLDER}.")
    for place in (saved_model / FOLDER.parent, folder):
        if place.is_symlink():
            raise DataError(f"{place}: is a symbolic link. Expected a folder.")
    _check_file(folder / MODEL, MAX_JSON_BYTES)
    content = load(folder / MODEL, kind=ExportedModel)
    if content.audio_config.sample_rate > MAX_SAMPLE_RATE:
        raise DataError(f"{folder / MODEL}: audio_config.sample_rate: expected at most {MAX_SAMPLE_RATE}.")
    if len(set(content.vocabulary) - {""}) < len(content.vocabulary):
        raise DataError(f"{folder / MODEL}: vocabulary: a class is listed twice, or has no name.")
    try:
        members = tuple(_rebuild_member(content, index, folder) for index in range(len(content.members)))
        combine = None if content.combiner is None else _read_combiner(content, folder / COMBINER)
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:  # of Keras and its layers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{folder / MODEL}: its model cannot be built: {reason}") from error
    calibration = content.calibration
    if calibration is not None and len(calibration.thresholds) != len(content.vocabulary):
        raise DataError(
            f"{folder / MODEL}: calibration.thresholds: has {len(calibration.thresholds)} numbers. Expected one for "
            f"each of the {len(content.vocabulary)} classes."
        )
    return TrainedEnsemble(
        members,
        content.combiner,
        content.audio_config.model_dump(),
        content.vocabulary,
        combine=combine,
        calibration=None if calibration is None else Calibration(**dict(calibration)),
    )


def _weights_name(member, model):
    return f"{member}-{model}.weights.h5"


def _check_file(path, max_bytes, sha256=None):
    """Refuses what is not a regular file of at most this size and this hash."""
    try:
        found = path.lstat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is a link, a folder or a device. Expected a regular file.")
    if found.st_size > max_bytes:
        raise DataError(f"{path}: has {found.st_size} bytes. Expected at most {max_bytes}.")
    if sha256 is not None and files.sha256(path) != sha256:
        raise DataError(f"{path}: damaged: its SHA-256 is not that in {MODEL}.")
    return found.st_size


def _exported_experiment(content, where):
    """The experiment of a member; the only place where an export says what to build."""
    experiment = parse(content, Experiment, where)
    return without_initial_weights(experiment)


def _rebuild_member(content, index, folder):
    """The `TrainedMember` of one entry of model.json."""
    member, where = content.members[index], f"{folder / MODEL}: members[{index}].experiment"
    experiment = _exported_experiment(member.experiment, where)
    if stage_of(member.stage) not in [stage.name for stage in experiment.stages]:
        raise DataError(f"{folder / MODEL}: members[{index}].stage: the experiment has no such stage.")
    stage = stage_named(experiment, member.stage)
    options = {"sample_rate": content.audio_config.sample_rate, "num_classes": len(content.vocabulary), "stage": stage}
    _check_lengths(experiment, stage, options["sample_rate"], where)
    paths = [folder / _weights_name(index, number) for number in range(len(member.weights))]
    size = min(_check_file(path, MAX_WEIGHTS_BYTES, sha256) for path, sha256 in zip(paths, member.weights))
    # In a thread of its own, as Keras keeps what it has not initialized for the thread.
    with ThreadPoolExecutor(1) as thread:
        num_weights, image = thread.submit(contextvars.copy_context().run, _sizes, experiment, options).result()
    if 4 * num_weights > size:  # of float32 and int32
        raise DataError(f"{where}: its network has {num_weights} weights. Its file can hold at most {size // 4}.")
    if math.prod(size or 1 for size in image) > MAX_NUMBERS:
        raise DataError(f"{where}: its images have the shape {image}. Expected at most {MAX_NUMBERS} numbers.")
    taggers = []
    for path in paths:
        tagger = build_tagger(experiment, **options)
        load_weights(tagger, path)
        taggers.append(tagger)
    return TrainedMember(experiment, member.stage, member.weight, tuple(taggers))


def _check_lengths(experiment, stage, sample_rate, where):
    """Refuses lists and arrays that would take hours or all memory before the network can be measured."""
    augment = experiment.augment if stage.augment is None else stage.augment
    lists = [experiment.waveform_augment, experiment.image_preprocess, augment]
    single = [experiment.model, experiment.frontend, *([experiment.head] if experiment.head else [])]
    components = [*single, *(component for each in lists for component in each)]
    lists += [value for component in components for value in dict(component).values() if isinstance(value, tuple)]
    if max(map(len, lists)) > MAX_COMPONENTS:
        raise DataError(f"{where}: has a list of {max(map(len, lists))} entries. Expected at most {MAX_COMPONENTS}.")
    frontend = {} if isinstance(experiment.frontend, CustomComponent) else dict(experiment.frontend)
    num_bands = frontend.get("num_bands") or 20 * (
        frontend.get("bands_per_octave") or 0
    )  # 20 octaves to MAX_SAMPLE_RATE
    num_filters = frontend.get("fft_length", 0) * num_bands
    largest = max(window_samples(experiment, sample_rate), num_filters)
    if largest > MAX_NUMBERS:
        raise DataError(
            f"{where}: its window or its filter bank has {largest} numbers. Expected at most {MAX_NUMBERS}."
        )


def _sizes(experiment, options):
    """(number of weights, shape of an image) of a model, from a copy without any weight in memory."""
    with keras.StatelessScope(initialize_variables=False):
        tagger = build_tagger(experiment, **options)
    return sum(math.prod(weight.shape) for weight in tagger.variables), tagger.preprocessor.outputs[0].shape


def _combiner_arrays(combiner: Any, standardized: bool) -> Iterator[tuple[str, str]]:
    """Yields (name, shape) of the arrays of a fitted combiner, in their order in the file."""
    yield from combiner.arrays.items()
    if standardized:
        yield from {"mean": "EK", "deviation": "EK"}.items()


def _write_combiner(fitted, path):
    """Writes the arrays of a combiner and returns the SHA-256 of the file."""
    arrays = [
        getattr(fitted if name in ("mean", "deviation") else fitted.combine, name)
        for name, _ in _combiner_arrays(fitted.combine, fitted.mean is not None)
    ]
    with files.atomic_file(path) as unfinished:
        unfinished.write_bytes(b"".join(np.asarray(array, "<f8").tobytes() for array in arrays))
        return files.sha256(unfinished)


def _read_combiner(content, path):
    """The `FittedCombiner` whose arrays are in a file."""
    how, length = content.combiner, {"E": len(content.members), "K": len(content.vocabulary)}
    combine = new_combiner(how.combiner, [member.weight for member in content.members])
    shapes = {
        name: tuple(length[letter] for letter in letters)
        for name, letters in _combiner_arrays(combine, how.standardize_logits)
    }
    expected = 8 * sum(map(math.prod, shapes.values()))
    if _check_file(path, expected, how.sha256) != expected:
        raise DataError(f"{path}: expected {expected} bytes.")
    numbers, arrays = np.frombuffer(path.read_bytes(), "<f8"), {}
    for name, shape in shapes.items():
        arrays[name], numbers = numbers[: math.prod(shape)].reshape(shape), numbers[math.prod(shape) :]
    for name in combine.arrays:
        setattr(combine, name, arrays.pop(name))
    return FittedCombiner(combine, **arrays)
