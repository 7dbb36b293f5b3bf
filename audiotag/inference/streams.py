"""Predictions for a live signal, such as that of a microphone."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np
from scipy.special import expit

from audiotag.data.audio.decoding import FULL_SCALE, resampled_blocks
from audiotag.errors import DataError
from audiotag.inference.long_recordings import finite_logits, prepare_windows, windows_of
from audiotag.inference.predictor import Predictor

NAME = "standard input"
HEADERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF"}


def predict_stream(
    predictor: Predictor, blocks: Iterable[np.ndarray], *, sample_rate: int
) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yields the logits of each window, as soon as its last sample has arrived.

    The windows and their logits are those of `predict_windows` for a file with the same samples.

    Args:
        predictor: A `Predictor`.
        blocks: The signal in blocks of any length, mono float32 from -1 to 1.
        sample_rate: Its sample rate in Hz. Another than the model's is converted.

    Yields:
        (start in seconds, end in seconds, logits float32 [K]).

    Raises:
        DataError: The model scales recordings to a peak, which is not known before a signal ends.
    """
    rate = predictor.audio_config["sample_rate"]
    if predictor.audio_config["peak_db"] is not None:
        raise DataError(
            "this model scales each recording to one peak (make-records --peak-db), and that of a live signal is not "
            "known before it ends. Use a model that was trained on records made without --peak-db."
        )
    if sample_rate != rate:
        blocks = resampled_blocks(blocks, rate=sample_rate, sample_rate=rate, path=NAME)
    for start, window in windows_of(blocks, predictor.window_samples, predictor.hop):
        waveform = prepare_windows(window[None].copy(), predictor.window_samples)  # [1, N]
        yield start / rate, (start + len(window)) / rate, finite_logits(predictor.logits(waveform), NAME)[0]


def read_pcm(stream: BinaryIO, *, block: int) -> Iterator[np.ndarray]:
    """Yields raw samples in blocks, as float32 [N] from -1 to 1.

    They are int16, little-endian and mono. A sample that is cut at the end, where a recorder was stopped, is left out.

    Args:
        stream: A binary file or pipe.
        block: Samples of a block.

    Raises:
        DataError: The stream is empty, or begins as an audio file with a header.
    """
    data = stream.read(2 * block)
    for magic, kind in HEADERS.items():
        if data.startswith(magic):
            raise DataError(
                f"{NAME}: begins like a file in {kind}. Expected raw samples of 16 bits, mono, without a header. With "
                "ffmpeg, add -f s16le -ac 1"
            )
    if len(data) < 2:
        raise DataError(f"{NAME}: has no samples. Expected raw samples of 16 bits, mono.")
    while len(data) > 1:
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2") / np.float32(FULL_SCALE)
        data = stream.read(2 * block)


def as_line(predictor: Predictor, threshold: float | None = None) -> Callable[[float, float, np.ndarray], str]:
    """A function that formats a window of `predict_stream` as a line.

    The line has its start and end in seconds and the classes that it contains, the most probable first.

    Args:
        predictor: The `Predictor`.
        threshold: The probability from which a class is predicted; None is that of each class.
    """
    own = predictor.class_thresholds()
    thresholds = own if threshold is None else np.full(len(own), threshold)  # [K]

    def line(start, end, logits):
        probabilities = expit(logits)
        found = [
            label for label in np.argsort(-probabilities, kind="stable") if probabilities[label] >= thresholds[label]
        ]
        names = ", ".join(f"{predictor.vocabulary[label]} {probabilities[label]:.0%}" for label in found)
        return f"{start:9.2f}  {end:9.2f}  {names or '-'}"

    return line


def as_json(predictor: Predictor) -> Callable[[float, float, np.ndarray], str]:
    """A function that formats a window of `predict_stream` as a JSON object.

    Its keys are start, end, and probabilities, an object with a key per class.
    """

    def line(start, end, logits):
        probabilities = {name: round(float(value), 6) for name, value in zip(predictor.vocabulary, expit(logits))}
        return json.dumps({"start": round(start, 3), "end": round(end, 3), "probabilities": probabilities})

    return line
