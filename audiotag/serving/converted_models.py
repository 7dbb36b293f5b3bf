"""Predictors of ONNX and LiteRT files, which need neither TensorFlow nor Keras.

The graph of such a file scores windows of a fixed length. How clips are cut into windows, and how the logits of
windows are pooled, is in the file too, as JSON: in ONNX's `metadata_props` under the key audiotag, and behind a LiteRT
model in a ZIP archive, as TensorFlow Lite's metadata are.
"""

import importlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from audiotag.config.components import Section
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.errors import ConfigError, DataError
from audiotag.inference.predictor import SAMPLES_PER_BLOCK, Predictor, mean_logits, pool_windows
from audiotag.padding import full_clip_lengths, num_sliding_windows, random_fractions, zeros_before

SUFFIXES = {".onnx": "onnx", ".tflite": "litert"}  # and the extra that a file needs
KEY, JSON_FILE = "audiotag", "audiotag.json"
FORWARD, BACKWARD = (0, 2), (1, 3)  # flips that leave time as it is, and others: indices of `FLIPS`
NUM_FLIPS = 4
Score = Callable[[np.ndarray], np.ndarray]  # windows float32 [W, n] → logits float32 [W, M, K]
Number = Annotated[float, Field(allow_inf_nan=False)]


class ConvertedModel(Section):
    """What a file says about its graph.

    The graph takes windows float32 [W, n] and returns logits [W, M, K], M of E models times F flips, and the
    probabilities [W, K] of their mean.
    """

    conversion_version: Literal[1] = 1
    audio_config: AudioConfig
    vocabulary: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[Number, ...] | None  # the logit from which each class is predicted
    temperature: Number = Field(gt=0)  # of calibrated probabilities
    num_models: int = Field(gt=0)
    window_samples: int = Field(gt=0)
    hop: int = Field(gt=0)
    pad: Literal["repeat", "zeros"]
    windows: Literal["sliding", "drop_remainder", "random", "full_clip"]
    num_windows: int = Field(gt=0, le=10_000)  # of random windows
    pool: Literal["mean", "max", "log_mean_exp"]
    flip_tta: Literal["clip", "windows", False]


def is_converted(path: str | Path) -> bool:
    """Whether this is the name of an ONNX or a LiteRT file.

    Example:
        >>> is_converted("bells.onnx"), is_converted("runs/bells")
        (True, False)
    """
    return Path(path).suffix in SUFFIXES


def load_converted(path: str | Path, overrides: Iterable[str] = ()) -> Predictor:
    """The `Predictor` of a file that `export` wrote.

    Args:
        path: A file that ends in .onnx or .tflite.
        overrides: Other settings; there must be none.

    Raises:
        DataError: As for `open_converted`.
        ConfigError: There are other settings.
    """
    if overrides:
        raise ConfigError(f"{path}: the settings of an exported file are fixed. Give the directory of its run instead.")
    model, score = open_converted(path)
    return Predictor(
        lambda waveform: clip_logits(model, score, np.asarray(waveform, "float32")),
        model.audio_config.model_dump(),
        model.vocabulary,
        model.window_samples,
        model.hop,
        model.pool,
        thresholds=model.thresholds,
    )


def open_converted(path: str | Path) -> tuple[ConvertedModel, Score]:
    """The settings of a file, and the function that scores windows.

    Args:
        path: A file that ends in .onnx or .tflite.

    Raises:
        DataError: The package that runs it is not installed; or the file does not exist, is damaged, or was not written
            by audiotag.
    """
    path = Path(path)
    try:
        text, score = (_open_onnx if path.suffix == ".onnx" else _open_litert)(path)
        model = ConvertedModel.model_validate(json.loads(text), strict=False)
        found = score(np.zeros((1, model.window_samples), "float32")).shape
        expected = (1, model.num_models * (NUM_FLIPS if model.flip_tta else 1), len(model.vocabulary))
        if found != expected:
            raise ValueError(f"its logits have the shape {found}, expected {expected}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except DataError:
        raise
    except Exception as error:  # each runtime has kinds of its own
        reason = "its settings are not valid" if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise DataError(
            f"{path}: damaged, or not written by audiotag: {reason.rstrip('.')}. Export it again: audiotag export RUN "
            f"{path.name}"
        ) from error
    return model, score


def import_extra(module: str, extra: str) -> Any:
    """A module of an optional package.

    Raises:
        DataError: It is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{module.split('.')[0]} is not installed. Install it: pip install 'audiotag-trainer[{extra}]'"
        ) from error


def _open_onnx(path):
    """(the settings of an ONNX file as JSON, a function of windows [W, n] → logits [W, M, K])."""
    runtime = import_extra("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    content = path.read_bytes()  # from memory, it cannot name other files
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    if KEY not in metadata:
        raise ValueError("it has no settings of audiotag")
    return metadata[KEY], lambda windows: session.run(["logits"], {"windows": windows})[0]


def _open_litert(path):
    """As `_open_onnx`, of a LiteRT file, whose graph takes one window at a time."""
    runtime = import_extra("ai_edge_litert.interpreter", "litert")
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entry = archive.getinfo(JSON_FILE)
            text = archive.read(entry)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError("it has no settings of audiotag") from error
    interpreter = runtime.Interpreter(model_content=content[: entry.header_offset], num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    [given] = interpreter.get_input_details()
    [logits] = [output for output in interpreter.get_output_details() if len(output["shape"]) == 3]

    def score(windows):
        scores = []
        for window in windows:
            interpreter.set_tensor(given["index"], window[None])
            interpreter.invoke()
            scores.append(interpreter.get_tensor(logits["index"]))
        return np.concatenate(scores)

    return text, score


def clip_logits(model: ConvertedModel, score: Score, waveform: np.ndarray) -> np.ndarray:
    """The logits of clips, as those of the run.

    Args:
        model: The settings.
        score: A function: windows float32 [W, n] → logits [W, M, K]. It sees at most `SAMPLES_PER_BLOCK` samples at a
            time.
        waveform: float32 [B, N], both from 0. Zeros at the end of a clip are padding.

    Returns:
        float32 [B, K].
    """
    waveform = waveform if waveform.shape[1] else np.zeros((len(waveform), 1), "float32")
    keys = [(clip, backward) for clip in range(len(waveform)) for backward in _sides(model)]
    scores: dict[tuple[int, bool], list[np.ndarray]] = {key: [] for key in keys}
    for block in _blocks(_windows(model, waveform)):
        logits = score(np.stack([window for _, window in block]))
        for (key, _), each in zip(block, logits):
            scores[key].append(each)
    pooled = np.zeros((len(waveform), len(model.vocabulary)), "float32")
    for clip in range(len(waveform)):
        sides = [_pool_side(model, np.stack(scores[clip, backward]), backward) for backward in _sides(model)]
        pooled[clip] = mean_logits(np.concatenate(sides, axis=1).reshape(-1, len(model.vocabulary)))
    return pooled


def _sides(model):
    """Whether windows are placed from the end of a clip; with flips of clips both."""
    return (False, True) if model.flip_tta == "clip" else (False,)


def _pool_side(model, logits, backward):
    """The pooled logits [E, F, K] of windows [W, M, K] from one end of a clip, of the flips that are read there."""
    pooled = pool_windows(logits, model.pool).reshape(model.num_models, -1, len(model.vocabulary))
    if model.flip_tta != "clip":
        return pooled
    return pooled[:, list(BACKWARD if backward else FORWARD)]


def _windows(model, waveform):
    """Yields ((clip, whether from its end), window [n]) of all clips."""
    for clip, samples in enumerate(waveform):
        nonzero = np.flatnonzero(samples)
        samples = samples[: nonzero[-1] + 1 if nonzero.size else 1]
        for backward in _sides(model):
            n, starts = _place(model, len(samples))
            if backward:
                starts = max(len(samples) - n, 0) - starts
            for start in starts.tolist():
                yield (clip, backward), _cut(model, samples, start, n)


def _place(model, length):
    """(samples of a window, the first sample of each window) of a clip, as `windowing` places them."""
    n, hop = model.window_samples, model.hop
    if model.windows == "full_clip":
        lengths = full_clip_lengths(n)
        n = hop = lengths[min(int(np.searchsorted(lengths, length)), len(lengths) - 1)]
    last_start = max(length - n, 0)
    if model.windows == "random":
        start = np.floor(random_fractions(model.num_windows) * np.float32(last_start + 1)).astype(int)
        return n, np.minimum(start, last_start)
    if model.windows == "drop_remainder":
        return n, n * np.arange(max(math.ceil(last_start / n), 1))
    return n, np.minimum(hop * np.arange(num_sliding_windows(length, n, hop)), last_start)


def _cut(model, samples, start, n):
    """The window of n samples from a place on; a shorter clip fills it as `model.pad` says."""
    if len(samples) >= n:
        return samples[start : start + n]
    if model.pad == "repeat":
        return np.resize(samples, n)
    before = zeros_before(n - len(samples))
    return np.pad(samples, (before, n - len(samples) - before))


def _blocks(windows: Iterator[tuple[Any, np.ndarray]]) -> Iterator[list[tuple[Any, np.ndarray]]]:
    """Lists of the next windows, all of one length and of at most `SAMPLES_PER_BLOCK` samples, or one window."""
    block: list[tuple[Any, np.ndarray]] = []
    for each in windows:
        n = len(each[1])
        if block and (n != len(block[0][1]) or (len(block) + 1) * n > SAMPLES_PER_BLOCK):
            yield block
            block = []
        block.append(each)
    if block:
        yield block
