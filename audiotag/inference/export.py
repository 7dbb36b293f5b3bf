"""A SavedModel for serving: waveforms in, probabilities by name out, class names inside."""

import json
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from audiotag import files
from audiotag.errors import DataError
from audiotag.inference.predict import load_taggers, probabilities
from audiotag.run import open_run


def export(run, folder, *, overwrite=False):
    """Writes the SavedModel of a run's last stage; several folds become one model, their mean.

    Its signatures:
      - `serving_default(waveform float32 [B, N])` → {"probabilities": float32 [B, K]}, for any N >= 1.
        Waveforms are in -1 to 1 at the model's rate; zeros at the end of the shorter clips of a
        batch are not heard.
      - `class_names()` → string [K], also the lines of assets/class_names.txt.
      - `sample_rate()` → int32, in Hz.
      - `hearing()` → string: as JSON, how files were read into the records (sample_rate, trim, trim_db, peak_db).

    Raises:
        DataError: The folder exists, or the run is not trained. With `overwrite` it may be a SavedModel.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise DataError(f"{folder}: exists already. Choose another folder, or --overwrite.")
    if folder.exists() and not (folder / "saved_model.pb").is_file():
        raise DataError(f"{folder}: exists and is no SavedModel, so it is not overwritten. Choose another folder.")
    taggers = load_taggers(run)
    archive = keras.export.ExportArchive()
    for tagger in taggers:
        archive.track(tagger)
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "class_names.txt"
        lines.write_text("".join(f"{name}\n" for name in run.vocabulary), encoding="utf-8")
        names = tf.lookup.StaticHashTable(  # reads the asset, so that the two cannot differ
            tf.lookup.TextFileInitializer(
                str(lines), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
            ),
            default_value="",
        )
        archive.track(names)
        archive.add_endpoint(
            "serving_default",
            lambda waveform: {"probabilities": probabilities(taggers, waveform)},
            input_signature=[tf.TensorSpec([None, None], tf.float32, name="waveform")],
        )
        numbers = tf.range(len(run.vocabulary), dtype=tf.int64)
        archive.add_endpoint("class_names", lambda: names.lookup(numbers), input_signature=[])
        archive.add_endpoint("sample_rate", lambda: tf.constant(run.sample_rate), input_signature=[])
        archive.add_endpoint("hearing", lambda: tf.constant(json.dumps(run.hearing)), input_signature=[])
        with files.whole_folder(folder) as unfinished:
            archive.write_out(str(unfinished), verbose=False)
    return folder


def load_listener(folder):
    """What `score_files` needs, from a SavedModel that `export` wrote or from the directory of a run.

    Returns:
        (listen, hearing, vocabulary): `listen` turns a waveform [1, N] into probabilities [1, K], and
        `hearing` are the options with which `read_waveform` reads a file as the model knows them.

    Raises:
        DataError: The folder is neither, or damaged.
    """
    folder = Path(folder)
    if not (folder / "saved_model.pb").is_file():
        run = open_run(folder)
        taggers = load_taggers(run)
        hear = tf.function(lambda waveform: probabilities(taggers, waveform), reduce_retracing=True)
        return lambda waveform: hear(tf.constant(waveform)).numpy(), run.hearing, run.vocabulary
    try:
        model = tf.saved_model.load(str(folder))
        vocabulary = tuple(name.decode() for name in model.class_names().numpy())
        hearing = json.loads(model.hearing().numpy())
        serve = model.signatures["serving_default"]
    except (AttributeError, KeyError, OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder}: damaged, or a SavedModel that audiotag did not export: {reason}") from error
    return lambda waveform: serve(waveform=tf.constant(waveform))["probabilities"].numpy(), hearing, vocabulary
