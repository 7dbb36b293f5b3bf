"""Compares the ONNX and LiteRT files of runs with TensorFlow: logits, size and speed, in one run.

    audiotag make-demo demo && audiotag make-records demo --sample-rate 16000 && audiotag fit demo
    python benchmarks/converted.py runs/demo --clips 1000

Clips are the run's test clips, cut or repeated to 0.1 to 10 s, at levels of 0 to -40 dB, each with noise 40 dB below
it. Clips/s is the median over the rounds, which are interleaved, on the first 50 of them. lwlrap is that of the labeled
test clips, as they are.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches
from audiotag.evaluation.scoring import find_test_clips
from audiotag.metrics import lwlrap
from audiotag.models.windowing import to_float
from audiotag.runs.directory import open_run
from audiotag.serving.conversion import convert
from audiotag.serving.converted_models import load_converted
from audiotag.serving.saved_model import export, load_predictor

TIMED_CLIPS = 50


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    columns = f"{'MB':>7}{'clips/s':>9}{'largest':>10}{'median':>10}{'same top':>9}{'NaN':>5}{'lwlrap':>8}"
    print(f"{'run':<14}{'form':<14}{columns}")
    for folder in options.runs:
        compare(folder, options.clips, options.rounds)


def compare(folder, num_clips, rounds):
    """Prints the rows of one run."""
    run = open_run(folder)
    manifest, table = find_test_clips(run)
    waveforms = {}
    for batch, rows in evaluation_batches(manifest, table, window_samples=run.sample_rate, batch_size=1):
        for waveform, row in zip(to_float(batch).numpy(), rows.numpy()):
            waveforms[int(row)] = waveform[: table["num_samples"].iloc[int(row)]]
    whole = [waveforms[row] for row in range(len(table))]
    changed = varied(whole, num_clips, run.sample_rate)
    truth = multi_hot(table["labels"], run.vocabulary)
    with tempfile.TemporaryDirectory() as scratch:
        saved_model = export(run, Path(scratch) / "saved_model")
        predictors, sizes = {"TensorFlow": load_predictor(folder)}, {"TensorFlow": size_of(saved_model)}
        for name, file, quantize in (
            ("ONNX", "a.onnx", False),
            ("LiteRT", "a.tflite", False),
            ("LiteRT, 8 bit", "b.tflite", True),
        ):
            path = Path(scratch) / file
            convert(run, path, quantize=quantize)
            predictors[name], sizes[name] = load_converted(path), path.stat().st_size
        seconds = {name: [] for name in predictors}
        for _ in range(rounds):
            for name, predictor in predictors.items():
                start = time.perf_counter()
                score(predictor, changed[:TIMED_CLIPS])
                seconds[name].append(time.perf_counter() - start)
        expected = score(predictors["TensorFlow"], changed)
        for name, predictor in predictors.items():
            found = score(predictor, changed)
            difference = np.abs(found - expected).max(axis=1)
            print(
                f"{folder.name:<14}{name:<14}{sizes[name] / 1e6:>7.2f}"
                f"{len(changed[:TIMED_CLIPS]) / statistics.median(seconds[name]):>9.1f}{difference.max():>10.1e}"
                f"{np.median(difference):>10.1e}{(found.argmax(1) == expected.argmax(1)).mean():>9.1%}"
                f"{np.isnan(found).sum():>5}{float(lwlrap(truth, score(predictor, whole))):>8.4f}",
                flush=True,
            )


def varied(waveforms, count, rate):
    """Clips of 0.1 to 10 s at different levels, with quiet noise."""
    rng, clips = np.random.default_rng(0), []
    for number in range(count):
        waveform = waveforms[number % len(waveforms)]
        clip = np.resize(np.roll(waveform, -rng.integers(len(waveform))), round(rng.uniform(0.1, 10) * rate))
        clip = 10 ** (-rng.uniform(0, 40) / 20) * clip
        clips.append((clip + 0.01 * clip.std() * rng.standard_normal(len(clip))).astype("float32"))
    return clips


def score(predictor, clips):
    """The logits of clips, one at a time: [clips, K]."""
    return np.concatenate([predictor.logits(clip[None]) for clip in clips])


def size_of(folder):
    """Bytes of the graph and the weights of a SavedModel."""
    return sum(path.stat().st_size for path in [folder / "saved_model.pb", *(folder / "variables").iterdir()])


if __name__ == "__main__":
    main()
