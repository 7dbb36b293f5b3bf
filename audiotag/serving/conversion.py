"""Writes a run as an ONNX or a LiteRT file.

`converted_models` loads it without TensorFlow.
"""

import contextlib
import dataclasses
import io
import logging
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from audiotag import files
from audiotag.backend import refuse_other_backends
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches
from audiotag.ensembling.members import (
    EnsemblePredictor,
    fit_calibration,
    load_ensemble,
    out_of_fold_predictions_if_any,
)
from audiotag.errors import DataError
from audiotag.inference.records import BATCH_SIZE
from audiotag.layers.frontends.stft import portable_operators
from audiotag.metrics import lwlrap
from audiotag.models.windowing import to_float
from audiotag.runs.directory import Run, find_records
from audiotag.serving.converted_models import (
    JSON_FILE,
    KEY,
    SUFFIXES,
    clip_logits,
    import_extra,
    open_converted,
)
from audiotag.serving.weight_quantization import quantize_weights
from audiotag.serving.window_models import window_logits, window_settings

Format = Literal["onnx", "litert"]
OPSET = 18  # of ONNX
MOST_DIFFERENCE = 0.05  # of a logit from TensorFlow's, on the test signals
MOST_CLIPS = 200  # on which the loss of quantization is measured


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How a file differs from TensorFlow's model.

    Args:
        difference: The largest difference of a logit, on `signals`.
        num_clips: Validation clips on which quantization was measured; 0 if it was not.
        exact_lwlrap: lwlrap of these clips by TensorFlow.
        lwlrap: By the file.
    """

    difference: float
    num_clips: int = 0
    exact_lwlrap: float = math.nan
    lwlrap: float = math.nan

    def __str__(self) -> str:
        if not self.num_clips:
            return f"Logits differ from TensorFlow's by at most {self.difference:.1e} on test signals."
        return (
            f"lwlrap on {self.num_clips} validation clips: {self.lwlrap:.4f} in 8 bits, {self.exact_lwlrap:.4f} "
            f"before. Logits differ by at most {self.difference:.2f} on test signals."
        )


def convert(
    model: Run | EnsemblePredictor, path: str | Path, *, quantize: bool = False, overwrite: bool = False
) -> Conversion:
    """Writes a run as one file that predicts without TensorFlow.

    The file ends in .onnx or, for LiteRT, in .tflite. Its graph takes windows float32 [W, n] in -1 to 1 and returns
    "logits" [W, M, K], of M models and flips, and "probabilities" [W, K], their mean. It is made of built-in operators
    in float32: spectra are matrix products. `ConvertedModel` is what else is in the file.

    Args:
        model: A trained run.
        path: The file to write.
        quantize: For LiteRT: store the weights of the network in 8 bits, a quarter of the size, as `quantize_weights`
            does.
        overwrite: Replace a file that is there.

    Returns:
        How the file differs from TensorFlow's model.

    Raises:
        DataError: A package is not installed; or the model cannot be converted, or the file cannot be written.
    """
    path = Path(path)
    refuse_other_backends(f"{path}: exporting")
    if isinstance(model, EnsemblePredictor):
        raise DataError(f"{model.path}: an ensemble is exported as a SavedModel only. Export its runs one by one.")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}.")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already. Choose another name, or --overwrite.")
    form = SUFFIXES[path.suffix]
    for module in ("tf2onnx", "onnx", "onnxruntime") if form == "onnx" else ("ai_edge_litert.interpreter",):
        import_extra(module, form)
    if quantize:
        import_extra("ai_edge_quantizer", "quantize")
    _refuse(model, form, quantize)
    exact = model.experiment.model_copy(update={"dtype_policy": "float32"})  # of mixed precision, too
    held_out = out_of_fold_predictions_if_any(model)
    trained = load_ensemble(dataclasses.replace(model, experiment=exact))
    if held_out is not None:
        trained = dataclasses.replace(trained, calibration=fit_calibration(*held_out, model.vocabulary))
    settings, taggers = window_settings(trained), trained.members[0].taggers
    with _quiet():
        content = (_onnx if form == "onnx" else _litert)(taggers, settings, quantize)
    with files.atomic_file(path) as unfinished:
        unfinished.write_bytes(content)
        _, score = open_converted(unfinished)
        expected = tf.function(lambda windows: window_logits(taggers, windows), reduce_retracing=True)
        windows = signals(settings.window_samples)
        difference = float(np.abs(score(windows) - expected(windows)).max())
        if not difference <= (np.inf if quantize else MOST_DIFFERENCE):
            raise DataError(
                f"{path}: not written, because its logits differ from TensorFlow's by up to {difference:.2g}. Its "
                "front end or one of its layers needs more than float32. Export a SavedModel instead."
            )
        if quantize and held_out is not None:
            return Conversion(difference, *_measure(model, held_out[0], settings, expected, score))
    return Conversion(difference)


def _measure(model, clips, settings, *scores):
    """(number of clips, lwlrap by each function of windows) on validation clips."""
    clips = clips.iloc[np.linspace(0, len(clips) - 1, min(len(clips), MOST_CLIPS)).astype(int)].reset_index(drop=True)
    logits = np.zeros((len(scores), len(clips), len(settings.vocabulary)))
    batches = evaluation_batches(
        find_records(model), clips, window_samples=settings.window_samples, batch_size=BATCH_SIZE
    )
    for waveform, rows in batches:
        for each, score in zip(logits, scores):
            each[rows.numpy()] = clip_logits(
                settings, lambda windows, score=score: np.asarray(score(windows)), to_float(waveform).numpy()
            )
    truth = multi_hot(clips["labels"], settings.vocabulary)
    return len(clips), *(float(lwlrap(truth, each)) for each in logits)


def _refuse(model, form, quantize):
    """Refuses what a format cannot hold."""
    layout = model.experiment.predict.windows
    if layout == "random_crops" or (layout == "full_clip" and form == "litert"):
        raise DataError(
            f"{model.folder}: predict.windows {layout} cannot be exported as {form}. Choose others: "
            "--set predict.windows=sliding"
        )
    if quantize and form == "onnx":
        raise DataError("only LiteRT files are quantized. Leave out --quantize, or give a name that ends in .tflite.")


def _graph(taggers, num_windows, samples):
    """A traced function of windows [num_windows, samples], without FFT and float64."""

    def outputs(windows):
        logits = window_logits(taggers, windows)  # [W, M, K]
        return {"logits": logits, "probabilities": ops.mean(ops.sigmoid(logits), axis=1)}

    signature = [tf.TensorSpec([num_windows, samples], tf.float32, name="windows")]
    function = tf.function(outputs, input_signature=signature, autograph=False)
    with portable_operators():
        function.get_concrete_function()
    return function


def _onnx(taggers, settings, quantize):
    """The bytes of an ONNX file."""
    import onnx
    import tf2onnx

    samples = None if settings.windows == "full_clip" else settings.window_samples
    function = _graph(taggers, None, samples)
    with portable_operators():
        content, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    onnx.helper.set_model_props(content, {KEY: settings.model_dump_json()})
    return content.SerializeToString()


def _litert(taggers, settings, quantize):
    """The bytes of a LiteRT file."""
    concrete = _graph(taggers, 1, settings.window_samples).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(concrete)])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    content = converter.convert()
    file = io.BytesIO(quantize_weights(content) if quantize else content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(JSON_FILE, settings.model_dump_json())
    return file.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out the log lines of the converters."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    before = [(logger, logger.level) for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in before:
                logger.setLevel(level)


def signals(samples: int) -> np.ndarray:
    """Signals on which a file is compared with TensorFlow: float32 [6, samples].

    They are noise, quiet noise, a tone, a chirp, a click and silence.
    """
    rng, time = np.random.default_rng(0), np.arange(samples) / samples
    noise = rng.standard_normal((2, samples))
    tone, chirp = np.sin(2 * np.pi * samples / 20 * time), np.sin(np.pi * samples / 2 * time**2)
    click = np.arange(samples) == samples // 2
    found = [0.2 * noise[0], 1e-3 * noise[1], 0.5 * tone, 0.5 * chirp, click, np.zeros(samples)]
    return np.stack(found).astype("float32")
