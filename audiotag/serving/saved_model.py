"""A SavedModel for serving: waveforms in, scores and embeddings out.

It also holds the class names, audio options, thresholds and a model card.
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
from audiotag.backend import on_tensorflow, refuse_other_backends
from audiotag.config.components import Section
from audiotag.config.custom import NotAllowed
from audiotag.config.loading import load, parse
from audiotag.config.schema import Pool
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.data.records.manifest import digest
from audiotag.ensembling.members import (
    EnsembleConfig,
    EnsemblePredictor,
    fit_calibration,
    load_ensemble,
    open_model,
    out_of_fold_predictions_if_any,
)
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.evaluation import thresholds as thresholding
from audiotag.inference.blocks import predict_frames
from audiotag.inference.predictor import Predictor
from audiotag.runs.directory import Run, experiment_file
from audiotag.serving import model_card, rebuilding
from audiotag.serving.warmup import write_warmup
from audiotag.serving.window_models import window_predictor

WARMUP_CLIPS = 8  # of the larger warm-up requests


class WindowConfig(Section):
    """How a `Predictor` places and pools windows on long recordings."""

    window_samples: int = Field(gt=0)
    hop: int = Field(gt=0)
    pool: Pool


def export(
    model: Run | EnsemblePredictor, folder: str | Path, *, overwrite: bool = False, license_name: str | None = None
) -> Path:
    """Writes the SavedModel of a run's last stage, or of an ensemble.

    The model of a run is the mean of its folds.

    Beside the graph, in assets.extra/audiotag, is what `load_predictor` rebuilds it from. Waveforms are in -1 to 1 at
    the model's sample rate. B and N may be 0: a clip without samples is silence. Its signatures:
      - `serving_default(waveform float32 [B, N])` → {"probabilities": float32 [B, K], "logits": the same
        before the sigmoid, to rank by}. Zeros at the end of a clip are padding.
      - `padded(waveform float32 [B, N], num_samples int32 [B])` → the same, whatever is in a clip after its
        `num_samples`. A server that batches requests pads them with other values than zeros.
      - `frames(waveform, num_samples)` → {"probabilities": float32 [B, W, K], "start": float32 [B, W] in seconds,
        "num_windows": int32 [B]}: the windows of each clip, as of long recordings. Those from `num_windows` on are
        beyond the end of the clip; their numbers are 0.
      - `embeddings(waveform, num_samples)` → {"embeddings": float32 [B, D]}: what enters the last layers of the
        network, the mean over the windows of a clip; of several models one after the other. A network that does not
        tell what its last layers are has no such signature: see `Tagger.backbone`.
      - `class_names()` → string [K], also the lines of assets/class_names.txt.
      - `sample_rate()` → int32, in Hz.
      - `thresholds()` → float32 [K], the logit from which each class is predicted, fitted to out-of-fold predictions;
        0, probability 1/2, without these.
      - `temperature()` → float32; the sigmoid of the logits divided by it is a calibrated probability.
      - `audio_config()` → string: JSON of how files were read into the records (sample_rate, trim, trim_db, peak_db).
      - `window_config()` → string: JSON of how long recordings are scored (window_samples, hop, pool).

    assets.extra/model_card.md describes the model, and assets.extra/tf_serving_warmup_requests warms it up.

    Args:
        model: A trained `Run`, or an `EnsemblePredictor`.
        folder: The folder to write.
        overwrite: Replace a SavedModel that is there.
        license_name: The license of the model for its card, as an SPDX identifier; None if it is not known.

    Raises:
        DataError: The folder exists or cannot be written, or the run is not trained.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise DataError(f"{folder}: exists already. Choose another folder, or --overwrite.")
    if folder.exists() and not (folder / "saved_model.pb").is_file():
        raise DataError(f"{folder}: exists and is not a SavedModel, so it is not overwritten. Choose another folder.")
    return write_saved_model(model, folder, license_name=license_name)


def write_saved_model(model: Run | EnsemblePredictor, folder: Path, *, license_name: str | None = None) -> Path:
    """`export` into a folder whose content, whatever it is, may be replaced."""
    refuse_other_backends(f"{folder}: exporting")
    held_out = out_of_fold_predictions_if_any(model)
    trained = _calibrated(load_ensemble(model), held_out)
    combined = trained.predictor()
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
        waveform = tf.TensorSpec([None, None], tf.float32, name="waveform")
        num_samples = tf.TensorSpec([None], tf.int32, name="num_samples")
        endpoints = _endpoints(trained)
        _add_endpoint(archive, "serving_default", endpoints.pop("serving_default"), waveform)
        for name, function in endpoints.items():
            _add_endpoint(archive, name, function, waveform, num_samples)
        numbers = tf.range(len(combined.vocabulary), dtype=tf.int64)
        archive.add_endpoint("class_names", lambda: names.lookup(numbers), input_signature=[])
        for name, value in _constants(trained).items():
            archive.add_endpoint(name, _constant(value), input_signature=[])
        with files.atomic_folder(folder) as unfinished:
            try:
                archive.write_out(str(unfinished), verbose=False)
                write_warmup(unfinished, _warmup_requests(combined, endpoints))
            except tf.errors.OpError as error:  # what TensorFlow raises for a full disk, too
                reason = (error.message or type(error).__name__).splitlines()[0].split("}} ")[-1]  # without the node
                raise DataError(
                    f"{folder}: cannot be written: {reason}. No partial file is left, existing files are unchanged. "
                    "Free some space, or choose another folder, and run the same command again."
                ) from error
            rebuilding.write_parts(trained, unfinished)
            card = model_card.model_card(model, trained, held_out, license_name=license_name)
            files.write_text(unfinished / model_card.FILE, card)
    return folder


def _add_endpoint(archive, name, function, *signature):
    """Adds a signature, traced once: what is added itself is traced again when TensorFlow saves it."""
    traced = tf.function(function, autograph=False).get_concrete_function(*signature)
    archive.add_endpoint(name, lambda *tensors: traced(*tensors), input_signature=list(signature))


def _endpoints(trained):
    """The signatures that take waveforms, {name: function of tensors}."""
    predictor = trained.predictor()
    rate = predictor.audio_config["sample_rate"]
    any_size = tf.TensorSpec([None, None], tf.float32)
    shared = tf.function(predictor.logits, input_signature=[any_size], autograph=False)  # one graph in three signatures
    predictor = dataclasses.replace(predictor, logits=shared)

    def without_padding(waveform, num_samples):
        return tf.where(tf.range(tf.shape(waveform)[1]) < num_samples[:, None], waveform, 0.0)  # [B, N]

    def serving_default(waveform):
        logits = predictor.logits(waveform)
        return {"probabilities": tf.sigmoid(logits), "logits": logits}

    def padded(waveform, num_samples):
        return serving_default(without_padding(waveform, num_samples))

    def frames(waveform, num_samples):
        num_samples = tf.clip_by_value(num_samples, 1, tf.maximum(tf.shape(waveform)[1], 1))  # [B]
        logits, start, num_windows = predict_frames(predictor, waveform, num_samples)
        inside = tf.sequence_mask(num_windows, tf.shape(start)[1])  # [B, W]
        return {
            "probabilities": tf.where(inside[:, :, None], tf.sigmoid(logits), 0.0),
            "start": tf.where(inside, tf.cast(start, tf.float32) / rate, 0.0),
            "num_windows": num_windows,
        }

    def embeddings(waveform, num_samples):
        return {"embeddings": trained.embeddings(without_padding(waveform, num_samples))}

    endpoints = {"serving_default": serving_default, "padded": padded, "frames": frames}
    return endpoints | ({"embeddings": embeddings} if all(map(_has_embeddings, trained.taggers())) else {})


def _has_embeddings(tagger):
    try:
        tagger.embeddings(tf.zeros([1, tagger.window_samples]))
    except ValueError:
        return False
    return True


def _constants(trained):
    """What signatures without inputs return, {name: value}."""
    predictor, calibration = trained.predictor(), trained.calibration
    window_config = {"window_samples": predictor.window_samples, "hop": predictor.hop, "pool": predictor.pool}
    thresholds = predictor.thresholds or [thresholding.DEFAULT_LOGIT] * len(predictor.vocabulary)
    return {
        "sample_rate": predictor.audio_config["sample_rate"],
        "audio_config": json.dumps(predictor.audio_config),
        "window_config": json.dumps(window_config),
        "thresholds": np.array(thresholds, "float32"),
        "temperature": np.float32(1 if calibration is None else calibration.temperature),
    }


def _warmup_requests(predictor, names):
    """A request for each signature, alone and in a batch: one window of silence."""
    for num_clips in (1, WARMUP_CLIPS):
        waveform = np.zeros((num_clips, predictor.window_samples), "float32")
        yield "serving_default", {"waveform": waveform}
        for name in names:
            num_samples = np.full(num_clips, predictor.window_samples, "int32")
            yield name, {"waveform": waveform, "num_samples": num_samples}


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
    thresholds: bool = False,
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
        thresholds: Fit the thresholds of a run or an ensemble to its out-of-fold predictions. A SavedModel has them.

    Raises:
        DataError: It is none of them, or damaged, or a SavedModel that cannot be rebuilt.
        ConfigError: An override is not valid; or one, a stage or a fold is given for a SavedModel.
    """
    if isinstance(folder, Run) or not (Path(folder) / "saved_model.pb").is_file():
        model = open_model(folder, overrides)
        trained = load_ensemble(model, stage=stage, fold=fold)
        return _traced(
            _calibrated(trained, out_of_fold_predictions_if_any(model, stage=stage)) if thresholds else trained
        )
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


def _calibrated(trained, held_out):
    """A `TrainedEnsemble` with what is fitted to its out-of-fold predictions (clips, logits), if there are any."""
    if held_out is None:
        return trained
    return dataclasses.replace(trained, calibration=fit_calibration(*held_out, trained.vocabulary))


def identity(model: str | Path) -> str:
    """What identifies a model on the disk, a SHA-256: it changes with the weights.

    Args:
        model: A SavedModel, the directory of a run, or an ensemble's file.
    """
    model = Path(model)
    if model.is_file():
        members = load(model, kind=EnsembleConfig).members
        return digest([files.sha256(model), *(identity(member.run) for member in members)])
    if (model / "saved_model.pb").is_file():
        parts = [model / name for name in ("saved_model.pb", "variables/variables.index")]
        parts.append(model / rebuilding.FOLDER / rebuilding.MODEL)
    else:
        parts = [experiment_file(model), *sorted(model.glob("fold-*/**/result.json"))]
    return digest([files.sha256(path) for path in parts if path.is_file()])


def _traced(trained):
    """The `Predictor` of a `TrainedEnsemble`, whose logits are a function of arrays."""
    if not on_tensorflow():
        return window_predictor(trained)
    predictor = trained.predictor()
    functions = {"logits": predictor.logits, "embeddings": predictor.embeddings}
    return dataclasses.replace(
        predictor,
        **{name: _of_arrays(of, predictor.window_samples) for name, of in functions.items() if of is not None},
    )


def _of_arrays(function, window_samples):
    """A function of tensors as one of arrays, traced once for single windows and once for other lengths."""
    one_window, others = (
        tf.function(function, input_signature=[tf.TensorSpec([None, samples], tf.float32)])
        for samples in (window_samples, None)
    )

    def of_arrays(waveform):
        traced = one_window if waveform.shape[1] == window_samples else others
        return traced(tf.constant(waveform, tf.float32)).numpy()

    return of_arrays


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
    thresholds = tuple(model.thresholds().numpy().tolist()) if hasattr(model, "thresholds") else None
    return Predictor(logits, audio_config.model_dump(), names, **window_config.model_dump(), thresholds=thresholds)
