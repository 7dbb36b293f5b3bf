"""Weights from outside a run: those of another run, or a file.

A stage may start with them. Only the paths that the experiment names are read. What a run stores about another is
never followed.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from pydantic import Field

from audiotag.config.components import Section
from audiotag.config.schema import SCHEMA_VERSION, Experiment, SchemaVersion, Stage, StartFrom, expand_rounds, stage_of
from audiotag.errors import AudiotagError, ConfigError, DataError, shortened
from audiotag.files import sha256
from audiotag.models.heads import is_head
from audiotag.models.tagger import Tagger
from audiotag.runs.directory import Run, changed_keys, data_file, experiment_file, open_run, read_section
from audiotag.runs.weights import check_weights, load_weights, save_weights

REMEDY = 'or choose other weights, or "start_from": null.'


class WarmStart(Section):
    """start_from.json: the weights from outside with which a stage started."""

    schema_version: SchemaVersion
    run: str | None  # the directory of another run
    run_sha256: str | None  # of its experiment.json and data.json
    stage: str | None  # of that run
    fold: int | None  # of that run
    weights: str  # the file
    sha256: str  # of that file
    stages_before: int = Field(ge=0, le=100_000)  # those that trained these weights, as far as it is known


@dataclass(frozen=True)
class Source:
    """Weights from outside a run, found and complete.

    Args:
        where: The place in the experiment, for messages.
        name: The run or the file, as the experiment names it.
        record: What the run stores of them.
        run: The other `Run`; None for a file.
    """

    where: str
    name: str
    record: WarmStart
    run: Run | None


def find_source(stage: Stage, fold: int, *, folder: str | Path | None = None) -> Source:
    """The weights from outside the run with which a stage starts in one fold.

    Those of another run are of the same fold, or of the only one that it has trained.

    Args:
        stage: A `Stage` whose `start_from` is a `StartFrom`.
        fold: The fold that is held out.
        folder: The directory of the stage's own run, which is refused as a source.

    Raises:
        ConfigError: The weights are not there, or are those of the run itself.
        DataError: The other run is not trained, or is damaged.
    """
    where, start_from = f"stages.{stage_of(stage.name)}.start_from", stage.start_from
    assert isinstance(start_from, StartFrom)
    name = start_from.run or start_from.weights or ""
    if folder is not None and Path(name).resolve().is_relative_to(Path(folder).resolve()):
        raise ConfigError(f"{where}: {name} is in {folder}, the directory of this run. Choose another --run.")
    if start_from.run is None:
        path = Path(name)
        if not path.is_file():
            raise ConfigError(
                f"{where}: {name} is not a file. Expected weights such as runs/a/fold-0/b/last.weights.h5."
            )
        record = WarmStart(
            schema_version=SCHEMA_VERSION,
            run=None,
            run_sha256=None,
            stage=None,
            fold=None,
            weights=name,
            sha256=sha256(path),
            stages_before=0,
        )
        return Source(where, name, record, None)
    try:
        run = open_run(name)
        of_stage = run.stage_name(start_from.stage)
        folds = run.trained_folds(of_stage)
        if fold not in folds and len(folds) > 1:
            raise DataError(
                f"{name}: stage {of_stage!r} is trained in the folds {', '.join(map(str, folds))}, not in fold {fold}. "
                f"Train it with: audiotag fit --fold {fold}"
            )
        of_fold = folds[0] if folds and fold not in folds else fold
        path = run.weights(of_fold, of_stage)
        stages_before = 1 + _position(run, of_stage) + num_source_stages(run, of_fold, of_stage)
    except AudiotagError as error:
        raise type(error)(f"{where}: {error}") from error
    described = experiment_file(run.folder).read_bytes() + data_file(run.folder).read_bytes()
    record = WarmStart(
        schema_version=SCHEMA_VERSION,
        run=name,
        run_sha256=hashlib.sha256(described).hexdigest(),
        stage=of_stage,
        fold=of_fold,
        weights=str(path),
        sha256=sha256(path),
        stages_before=stages_before,
    )
    return Source(where, name, record, run)


def num_source_stages(run: Run, fold: int, stage: str) -> int:
    """The number of stages of other runs that came before a stage.

    They trained the weights with which it or an earlier stage started. Seeds count them, so a stage that starts from
    another run trains as if it were that run's next one.
    """
    before = list(expand_rounds(run.experiment))[: _position(run, stage) + 1]
    records = [run.stage_files(fold, each.name).start_from for each in before if isinstance(each.start_from, StartFrom)]
    return sum(read_section(path, WarmStart)["stages_before"] for path in records)


def _position(run, stage):
    """The position of a stage in training order; of a stage of several rounds, that of the last."""
    names = [each.name for each in expand_rounds(run.experiment)]
    return max(index for index, name in enumerate(names) if stage in (name, stage_of(name)))


def load_source(
    tagger: Tagger, source: Source, experiment: Experiment, sample_rate: int, vocabulary: Sequence[str]
) -> list[str]:
    """Gives a model the weights of a source, layer by layer.

    They are the network's weights and the dataset statistics of the preprocessor. An output layer keeps its initial
    weights if the classes differ; if only their order does, its columns are copied by class.

    Args:
        tagger: A `Tagger` with initial weights, not compiled.
        source: What `find_source` returns.
        experiment: The `Experiment` of the tagger.
        sample_rate: Sample rate of its records in Hz.
        vocabulary: The K class names of its records.

    Returns:
        Sentences for the user: what was not copied as it is, and what cannot be known.

    Raises:
        ConfigError: The network, the front end or the sample rate differs.
        DataError: The weights are damaged.
    """
    path = Path(source.record.weights)
    check_weights(path)
    if source.run is not None:
        _check_front_end(source, source.run, experiment, sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / "merged.weights.h5"
        save_weights(tagger, merged)
        with h5py.File(merged, "r+") as ours, h5py.File(path, "r") as theirs:
            initial, permuted = _merge(tagger, ours, theirs, source, list(vocabulary))
        load_weights(tagger, merged)
    sentences = []
    if source.run is None:
        sentences.append(
            f"{source.where}: {source.name} does not say what its model trained on. If a fold of this run holds out "
            "some of these clips, the scores of this run are too high. audiotag cannot compare the front end, the "
            "sample rate and the classes either."
        )
    if permuted:
        sentences.append(
            f"{source.where}: {source.name} has the same classes in another order. Layers that are copied class by "
            f"class: {', '.join(permuted)}."
        )
    if initial:
        sentences.append(
            f"{source.where}: {_class_difference(source, vocabulary)}. Layers that keep their initial weights: "
            f"{', '.join(initial)}."
        )
    return sentences


def _class_difference(source, vocabulary):
    """How the classes of a source differ, as far as it is known."""
    theirs = source.run.vocabulary if source.run is not None else vocabulary
    if len(theirs) != len(vocabulary):
        return f"{source.name} has {len(theirs)} classes, and the records of this run have {len(vocabulary)}"
    if missing := set(vocabulary) - set(theirs):
        return f"{len(missing)} of the {len(vocabulary)} classes are not among those of {source.name}"
    return f"{source.name} has another number of outputs"


def _check_front_end(source, run, experiment, sample_rate):
    """Refuses a run whose images show other frequencies, which its weights do not tell."""
    if run.sample_rate != sample_rate:
        raise ConfigError(
            f"{source.where}: the records of {source.name} have a sample rate of {run.sample_rate} Hz, those of "
            f"this run {sample_rate} Hz. Make records with --sample-rate {run.sample_rate}, {REMEDY}"
        )
    before, now = run.experiment.frontend.model_dump(), experiment.frontend.model_dump()
    if changed := list(changed_keys(before, now, "frontend")):
        raise ConfigError(
            f"{source.where}: the front end of {source.name} differs: {', '.join(changed)}. Use the same front end, "
            f"{REMEDY}"
        )


def _merge(tagger, ours, theirs, source, vocabulary):
    """Copies the arrays of a file of weights to another: (names of layers not copied, and of those permuted)."""
    own, others = _layers(ours), _layers(theirs)
    names = {place: ours[place].attrs["name"] for place in own}
    preprocessor = next(
        place.removesuffix("vars")
        for place, node in _groups(ours)
        if node.attrs.get("name") == tagger.preprocessor.name and place.count("/") == 2
    )
    statistics = {layer.name for layer in tagger.weighted_layers()}
    copied = [place for place in own if not place.startswith(preprocessor) or names[place] in statistics]
    for place in others:
        if place not in own:
            raise _difference(source, place, _shown({}), _shown(others[place]))
    initial, permuted = [], []
    num_outputs = tagger.network.output_shape[-1]
    known = None if source.run is None else list(source.run.vocabulary)
    for place in copied:
        name, shapes, found = names[place], own[place], others.get(place)
        in_head = is_head(name) and not place.startswith(preprocessor)
        columns = [key for key, shape in shapes.items() if in_head and shape[-1:] == (num_outputs,)]  # one per output
        if found is None or found.keys() != shapes.keys():
            raise _difference(source, f"layer {name!r}", _shown(shapes), _shown(found))
        differ = [key for key in shapes if found[key] != shapes[key]]
        if any(key not in columns or found[key][:-1] != shapes[key][:-1] for key in differ):
            raise _difference(source, f"layer {name!r}", _shown(shapes), _shown(found))
        if differ or columns and known is not None and set(known) != set(vocabulary):
            initial.append(name)
            continue
        order = None
        if columns and known is not None and known != vocabulary:
            order = [block + known.index(label) for block in range(0, num_outputs, len(known)) for label in vocabulary]
            permuted.append(name)
        for key in shapes:
            array = theirs[place][key][()]
            if not np.isfinite(array).all():
                raise DataError(f"{source.record.weights}: layer {name!r} has a weight that is NaN or infinite.")
            ours[place][key][...] = array if order is None or key not in columns else array[..., order]
    return initial, permuted


def _layers(file):
    """{place: {key: shape}} of the layers in a file of weights that have any number but counters and random states."""
    shapes = {place: {key: node[key] for key in node} for place, node in _groups(file)}
    return {
        place: {key: array.shape for key, array in arrays.items()}
        for place, arrays in shapes.items()
        if any(array.dtype.kind == "f" for array in arrays.values())
    }


def _groups(file):
    """(place, group) of each layer in a file of weights; not those of the optimizer and the metrics."""
    found = []

    def visit(place, node):
        if place.startswith("layers/") and place.endswith("/vars") and isinstance(node, h5py.Group):
            found.append((place, node))

    file.visititems(visit)
    return found


def _shown(shapes):
    shown = " and ".join(dict.fromkeys(map(str, shapes.values()))) if shapes else ""
    return shortened(f"weights of shape {shown}" if shown else "no weights")


def _difference(source, what, own, other):
    """The error of a layer whose weights differ in shape."""
    return ConfigError(
        f"{source.where}: {shortened(what)}: found {other} in {source.name}. Expected {own}. Use the same "
        f"model, front end and image_preprocess, {REMEDY}"
    )
