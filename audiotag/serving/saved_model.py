"""A SavedModel for serving: waveforms in, probabilities by name out, class names inside."""

import dataclasses
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field

from audiotag import files
from audiotag.config.components import Section
from audiotag.config.loading import checked
from audiotag.config.schema import Predict
from audiotag.ensembling.members import listener, open_model
from audiotag.errors import ConfigError, DataError
from audiotag.inference.predictor import Listener
from audiotag.runs.directory import Hearing
from audiotag.serving.screening import foreign_operations


class Listening(Section):
    """How long recordings are heard by a `Listener`."""

    window_samples: int = Field(gt=0)
    hop: int = Field(gt=0)
    pool: Predict.model_fields["pool"].annotation


def export(model, folder, *, overwrite=False):
    """Writes the SavedModel of a run's last stage, the mean of its folds, or of an ensemble.

    Its signatures:
      - `serving_default(waveform float32 [B, N])` → {"probabilities": float32 [B, K], "logits": the same
        before the sigmoid, to rank by}, for any N >= 1.
        Waveforms are in -1 to 1 at the model's rate; zeros at the end of the shorter clips of a batch are not heard.
      - `class_names()` → string [K], also the lines of assets/class_names.txt.
      - `sample_rate()` → int32, in Hz.
      - `hearing()` → string: as JSON, how files were read into the records (sample_rate, trim, trim_db, peak_db).
      - `listening()` → string: as JSON, how long recordings are heard (window_samples, hop, pool).

    Raises:
        DataError: The folder exists, or the run is not trained. With `overwrite` it may be a SavedModel.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise DataError(f"{folder}: exists already. Choose another folder, or --overwrite.")
    if folder.exists() and not (folder / "saved_model.pb").is_file():
        raise DataError(f"{folder}: exists and is no SavedModel, so it is not overwritten. Choose another folder.")
    return write_saved_model(model, folder)


def write_saved_model(model, folder):
    """`export` into a folder whose content, whatever it is, may be replaced."""
    taggers, ear = listener(model)
    listening = {"window_samples": ear.window_samples, "hop": ear.hop, "pool": ear.pool}

    def answers(waveform):
        logits = ear.logits(waveform)
        return {"probabilities": tf.sigmoid(logits), "logits": logits}

    archive = keras.export.ExportArchive()
    for tagger in taggers:
        archive.track(tagger)
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "class_names.txt"
        lines.write_text("".join(f"{name}\n" for name in ear.vocabulary), encoding="utf-8")
        names = tf.lookup.StaticHashTable(  # reads the asset, so that the two cannot differ
            tf.lookup.TextFileInitializer(
                str(lines), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
            ),
            default_value="",
        )
        archive.track(names)
        archive.add_endpoint(
            "serving_default",
            answers,
            input_signature=[tf.TensorSpec([None, None], tf.float32, name="waveform")],
        )
        numbers = tf.range(len(ear.vocabulary), dtype=tf.int64)
        archive.add_endpoint("class_names", lambda: names.lookup(numbers), input_signature=[])
        archive.add_endpoint("sample_rate", lambda: tf.constant(ear.hearing["sample_rate"]), input_signature=[])
        archive.add_endpoint("hearing", lambda: tf.constant(json.dumps(ear.hearing)), input_signature=[])
        archive.add_endpoint("listening", lambda: tf.constant(json.dumps(listening)), input_signature=[])
        with files.whole_folder(folder) as unfinished:
            archive.write_out(str(unfinished), verbose=False)
    return folder


def load_listener(folder, overrides=(), *, trust=False):
    """The `Listener` in a SavedModel that `export` wrote, in the directory of a run, or of an ensemble's file.

    Args:
        folder: Any of them.
        overrides: Texts such as "predict.pool=max", for a run.
        trust: Whether a SavedModel may have operations that those of `export` never have.

    Raises:
        DataError: It is none of them, or damaged, or a SavedModel that would do more than compute.
        ConfigError: An override says what audiotag cannot do, or is meant for a SavedModel.
    """
    folder = Path(folder)
    if not (folder / "saved_model.pb").is_file():
        _, ear = listener(open_model(folder, overrides))
        traced = tf.function(ear.logits, reduce_retracing=True)
        return dataclasses.replace(ear, logits=lambda waveform: traced(tf.constant(waveform)).numpy())
    if overrides:
        raise ConfigError(f"{folder}: a SavedModel hears as it was exported. Give the directory of its run instead.")
    if not trust and (foreign := foreign_operations(folder)):
        raise DataError(
            f"{folder}: a SavedModel is a program, and this one does what audiotag's own never do: "
            f"{', '.join(foreign)}. If you know who made it and trust them, say --trust."
        )
    try:
        return _served(tf.saved_model.load(str(folder)))
    except Exception as error:  # TensorFlow raises a dozen kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{folder}: damaged, or a SavedModel that this audiotag did not export: {reason}") from error


def _served(model):
    """The `Listener` that a SavedModel of `export` is."""
    serve = model.signatures["serving_default"]
    logits = lambda waveform: serve(waveform=tf.constant(waveform))["logits"].numpy()
    names = tuple(name.decode() for name in model.class_names().numpy())
    hearing = checked(json.loads(model.hearing().numpy()), Hearing, "hearing")
    listening = checked(json.loads(model.listening().numpy()), Listening, "listening")
    named, shape = len(set(names) - {""}), logits(np.zeros((1, 1), "float32")).shape
    if named < len(names) or shape != (1, named):
        raise DataError(f"it names {named} classes, and answers in the shape {shape}.")
    return Listener(logits, hearing.model_dump(), names, **listening.model_dump())
