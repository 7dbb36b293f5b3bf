"""Predicts audio files with a served model: a SavedModel of audiotag, or TensorFlow Serving's REST API.

    python serving_client.py runs/demo/saved_model bell.wav street.mp3
    python serving_client.py http://localhost:8501/v1/models/demo bell.wav --sample-rate 16000 --classes class_names.txt

It needs soundfile, soxr and NumPy, and TensorFlow for a SavedModel; audiotag is not needed. A server does not tell its
sample rate and class names: the rate is what make-records was given, and the names are in the SavedModel's
assets/class_names.txt.
"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import soxr

NUM_REQUESTS = 16  # at a time, so that the server can batch them


def read_waveform(path, sample_rate):
    """The samples of a file as float32 [N] of -1 to 1: its channels averaged, at the rate of the model."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # [N, channels]
    waveform = samples.mean(axis=1)
    return waveform if rate == sample_rate else soxr.resample(waveform, rate, sample_rate)


def predict_saved_model(folder, paths):
    """The probabilities [B, K] of a SavedModel in a folder, and its class names."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    serve, rate = model.signatures["serving_default"], int(model.sample_rate())
    probabilities = [serve(waveform=read_waveform(path, rate)[None])["probabilities"].numpy()[0] for path in paths]
    return np.array(probabilities), [name.decode() for name in model.class_names().numpy()]


def predict_rest(url, paths, sample_rate):
    """The probabilities [B, K] of the model at a URL such as http://localhost:8501/v1/models/demo."""

    def predict(path):
        waveform = read_waveform(path, sample_rate)
        # The server may batch requests, and pads the shorter ones with a number of its own.
        instance = {"waveform": waveform.tolist(), "num_samples": len(waveform)}
        body = json.dumps({"signature_name": "padded", "instances": [instance]}).encode()
        request = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            return json.load(response)["predictions"][0]["probabilities"]

    with ThreadPoolExecutor(NUM_REQUESTS) as threads:
        return np.array(list(threads.map(predict, paths)))


def main():
    """Prints the most probable classes of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the folder of a SavedModel, or the URL of a model")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--sample-rate", type=int, help="of the model at a URL, in Hz")
    parser.add_argument("--classes", type=Path, help="class_names.txt of the model at a URL; numbers without it")
    parser.add_argument("--top", type=int, default=3, help="classes to print")
    options = parser.parse_args()
    if options.model.startswith(("http://", "https://")):
        if not options.sample_rate:
            parser.error("--sample-rate is missing: a server does not tell the rate of its model.")
        probabilities = predict_rest(options.model, options.files, options.sample_rate)
        lines = options.classes.read_text(encoding="utf-8").splitlines() if options.classes else []
        names = lines or list(map(str, range(probabilities.shape[1])))
    else:
        probabilities, names = predict_saved_model(options.model, options.files)
    for path, row in zip(options.files, probabilities):
        best = np.argsort(-row)[: options.top]
        print(f"{path}: " + ", ".join(f"{names[index]} {row[index]:.2f}" for index in best))


if __name__ == "__main__":
    main()
