"""A SavedModel for serving: waveforms in, probabilities and logits out.

It also holds the class names and audio options.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field

from audiotag import files
from audiotag.config.components import Section
from audiotag.config.custom import NotAllowed
from audiotag.config.loading import parse
from audiotag.config.schema import Pool
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.ensembling.members import EnsemblePredictor, load_ensemble, open_model
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.inference.predictor import Predictor
from audiotag.runs.directory import Run
from audiotag.serving import rebuilding


class WindowConfig(Section):
    """How a `Predictor` places and pools windows on long recordings."""

    window_samples: int = Field(gt=0)
    hop: int = Field(gt=0)
    pool: Pool


def export(model: Run | EnsemblePredictor, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Writes the SavedModel of a run's last stage, or of an ensemble.

    The model of a run is the mean of its folds.

    Beside the graph, in assets.extra/audiotag, is what `load_predictor` rebuilds it from. Its signatures:
      - `serving_default(waveform float32 [B, N])` → {"probabilities": float32 [B, K], "logits": the same
        before the sigmoid, to rank by}, for any N >= 1.
        Waveforms are in -1 to 1 at the model's sample rate; zeros at the end of the shorter clips of a batch are
        padding.
      - `class_names()` → string [K], also the lines of assets/class_names.txt.
      - `sample_rate()` → int32, in Hz.
      - `audio_config()` → string: JSON of how files were read into the records (sample_rate, trim, trim_db, peak_db).
      - `window_config()` → string: JSON of how long recordings are scored (window_samples, hop, pool).

    Args:
        model: A trained `Run`, or an `EnsemblePredictor`.
        folder: The folder to write.
        overwrite: Replace a SavedModel that is there.

    Raises:
        DataError: The folder exists or cannot be written, or the run is not trained.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise DataError(f"{folder}: exists already. Choose another folder, or --overwrite.")
    if folder.exists() and not (folder / "saved_model.pb").is_file():
        raise DataError(f"{folder}: exists and is not a SavedModel, so it is not overwritten. Choose another folder.")
    return write_saved_model(model, folder)


def write_saved_model(model: Run | EnsemblePredictor, folder: Path) -> Path:
    """`export` into a folder whose content, whatever it is, may be replaced."""
    trained = load_ensemble(model)
    combined = trained.predictor()
    window_config = {"window_samples": combined.window_samples, "hop": combined.hop, "pool": combined.pool}

    def predict(waveform):
        logits = combined.logits(waveform)
        return {"probabilities": tf.sigmoid(logits), "logits": logits}

    archive = keras.export.ExportArchive()
    for tagger in trained.taggers():
        archive.track(tagger)
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "class_names.txt"
        lines.write_text("".join(f"{name}\n" for name in combined.vocabulary), encoding="utf-8", newline="\n")
        names = tf.lookup.StaticHashTable(  # it reads the asset, so that the two cannot differ
            tf.lookup.TextFileInitializer(
                str(lines), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
            ),
            default_value="",
        )
        archive.track(names)
        archive.add_endpoint(
            "serving_default",
            predict,
            input_signature=[tf.TensorSpec([None, None], tf.float32, name="waveform")],
        )
        numbers = tf.range(len(combined.vocabulary), dtype=tf.int64)
        constants = {
            "sample_rate": combined.audio_config["sample_rate"],
            "audio_config": json.dumps(combined.audio_config),
            "window_config": json.dumps(window_config),
        }
        archive.add_endpoint("class_names", lambda: names.lookup(numbers), input_signature=[])
        for name, value in constants.items():
            archive.add_endpoint(name, _constant(value), input_signature=[])
        with files.atomic_folder(folder) as unfinished:
            try:
                archive.write_out(str(unfinished), verbose=False)
            except tf.errors.OpError as error:  # what TensorFlow raises for a full disk, too
                reason = (error.message or type(error).__name__).splitlines()[0].split("}} ")[-1]  # without the node
                raise DataError(
                    f"{folder}: cannot be written: {reason}. No partial file is left, existing files are unchanged. "
                    "Free some space, or choose another folder, and run the same command again."
                ) from error
            rebuilding.write_parts(trained, unfinished)
    return folder


def _constant(value):
    """A function without arguments that returns a constant tensor."""
    return lambda: tf.constant(value)


def load_predictor(
    folder: str | Path | Run,
    overrides: Iterable[str] = (),
    *,
    stage: str | None = None,
    fold: int | None = None,
    allow_unsafe: bool = False,
) -> Predictor:
    """The `Predictor` of a SavedModel, of a run, or of an ensemble's file.

    A SavedModel is a program. One that `export` wrote is rebuilt from its experiment and its weights, and its graph is
    never run; any other is refused.

    Args:
        folder: A SavedModel, a run or its directory, or an ensemble's file.
        overrides: Changes such as "predict.pool=max", for a run.
        stage: The stage of a run whose weights to load; None is the last.
        fold: The only fold of a run to load; None is the mean of all trained folds.
        allow_unsafe: Run the graph of a SavedModel that cannot be rebuilt. It can do what a program can.

    Raises:
        DataError: It is none of them, or damaged, or a SavedModel that cannot be rebuilt.
        ConfigError: An override is not valid; or one, a stage or a fold is given for a SavedModel.
    """
    if isinstance(folder, Run) or not (Path(folder) / "saved_model.pb").is_file():
        return _traced(load_ensemble(open_model(folder, overrides), stage=stage, fold=fold))
    folder = Path(folder)
    if overrides or stage is not None or fold is not None:
        raise ConfigError(f"{folder}: the settings of a SavedModel are fixed. Give the directory of its run instead.")
    try:
        return _traced(rebuilding.rebuild(folder))
    except NotAllowed as error:
        raise NotAllowed(f"{folder}: {error}") from error
    except AudiotagError as error:
        if not allow_unsafe:
            raise DataError(
                f"{folder}: a SavedModel is a program, and audiotag does not run it but rebuilds the model from the "
                f"weights that its exports carry. This one cannot be rebuilt. {error} Export it again; or, if you "
                "trust its author, add --allow-unsafe (in Python: allow_unsafe=True)."
            ) from error
    try:
        return _load_served(tf.saved_model.load(str(folder)))
    except Exception as error:  # TensorFlow raises a dozen kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{folder}: damaged, or a SavedModel that this audiotag did not export: {reason}") from error


def _traced(trained):
    """The `Predictor` of a `TrainedEnsemble`, whose logits are a function of arrays."""
    predictor = trained.predictor()
    traced = tf.function(predictor.logits, reduce_retracing=True)
    return dataclasses.replace(predictor, logits=lambda waveform: traced(tf.constant(waveform)).numpy())


def _load_served(model):
    """The `Predictor` of a loaded SavedModel with the signatures of `export`."""
    serve = model.signatures["serving_default"]
    logits = lambda waveform: serve(waveform=tf.constant(waveform))["logits"].numpy()
    names = tuple(name.decode() for name in model.class_names().numpy())
    audio_config = parse(json.loads(model.audio_config().numpy()), AudioConfig, "audio_config")
    window_config = parse(json.loads(model.window_config().numpy()), WindowConfig, "window_config")
    num_names, shape = len(set(names) - {""}), logits(np.zeros((1, 1), "float32")).shape
    if num_names < len(names) or shape != (1, num_names):
        raise DataError(f"it names {num_names} classes, but its logits have the shape {shape}.")
    return Predictor(logits, audio_config.model_dump(), names, **window_config.model_dump())
