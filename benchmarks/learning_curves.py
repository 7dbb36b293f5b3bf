"""How often the forecast of `advise` contains the score on twice the clips.

A case has training clips, a classifier and a fold that validates. The forecast is made from half of the training clips,
as `advise` makes it for a run on this half: from three draws of its half, quarter and eighth. Then the classifier is
trained on all. The classifiers are a ridge, logistic regression and nearest neighbors, on YAMNet's embeddings and on
means and deviations of mel bands in dB, which are far from saturated; the clips are ESC-10's and the same recordings as
`fsd_like`, on correct labels alone and with 40 % wrong ones:

    audiotag make-records ESC-10 --sample-rate 16000 --out tfrecords/esc10_16k
    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like
    audiotag make-records fsd_like --sample-rate 16000 --out tfrecords/fsd_like_16k
    python benchmarks/learning_curves.py --yamnet yamnet.tflite

Prints for 40 cases and three measures: coverage of the 95 % interval, its median width, and the mean error of the
forecast beside that of no change. Once both are measured on the same validation clips, and once the forecast has half
of their recordings.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiotag.data.clips import read_clips
from audiotag.data.folds import stratified_folds, stratified_fraction
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches
from audiotag.data.records import read_manifest
from audiotag.evaluation.bootstrap import draws
from audiotag.evaluation.forecasting import forecast
from audiotag.evaluation.measures import MEASURES, recordings_of, weighted_measures
from audiotag.models.initial_heads import ridge
from audiotag.models.windowing import to_float
from audiotag.runs.pretrained import published_tagger
from audiotag.sweeps.learning_curve import NUM_DRAWS, NUM_HALVINGS, half_of

LEAST = 10  # clips of a part
BOTH = ("curated", "noisy")
SHOWN = ("lwlrap", "top_1_accuracy", "mAP")
CASES = [  # records, features, classifier, subsets, fraction of the training clips; four folds each
    ("esc10", "yamnet", "ridge", ("curated",), 1.0),
    ("esc10", "mel", "ridge", ("curated",), 1.0),
    ("esc10", "yamnet", "ridge", ("curated",), 0.25),
    ("esc10", "mel", "ridge", ("curated",), 0.5),
    ("esc10", "yamnet", "neighbors", ("curated",), 1.0),
    ("esc10", "mel", "logistic", ("curated",), 1.0),
    ("fsd_like", "yamnet", "ridge", ("curated",), 1.0),
    ("fsd_like", "mel", "ridge", ("curated",), 1.0),
    ("fsd_like", "yamnet", "ridge", BOTH, 1.0),
    ("fsd_like", "mel", "ridge", BOTH, 1.0),
]


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yamnet", required=True, help="yamnet.h5 or its .tflite version")
    parser.add_argument("--esc10", type=Path, default="tfrecords/esc10_16k")
    parser.add_argument("--fsd-like", type=Path, default="tfrecords/fsd_like_16k")
    args = parser.parse_args()
    tables = {"esc10": features_of(args.esc10, args.yamnet), "fsd_like": features_of(args.fsd_like, args.yamnet)}
    rows = []
    for number, (case, fold) in enumerate(itertools.product(CASES, range(4)), 1):
        rows += measure_case(tables[case[0]], *case[1:], fold)
        print(f"{number}: {' '.join(map(str, case))}, fold {fold}", flush=True)
    found = pd.DataFrame(rows)
    found["covered"] = (found["low"] <= found["all"]) & (found["all"] <= found["high"])
    found["width"] = found["high"] - found["low"]
    found["error"] = (found["value"] - found["all"]).abs()
    found["error of no change"] = (found["half"] - found["all"]).abs()
    columns = {"covered": "mean", "width": "median", "error": "mean", "error of no change": "mean"}
    print(found.groupby(["validation", "measure"])[[*columns]].agg(columns).round(3).to_string())
    per_classifier = found[found["measure"] == "lwlrap"].groupby(["validation", "features", "classifier"])
    print(per_classifier[[*columns, "half", "all"]].mean().round(3).to_string())


def features_of(records, weights):
    """(table of clips, vocabulary, {name: [clips, D]}) of records at 16 kHz."""
    model, _ = published_tagger("yamnet", weights)
    manifest = read_manifest(records)
    clips = read_clips(manifest.directory / "clips.csv")
    found = {"yamnet": [None] * len(clips), "mel": [None] * len(clips)}
    for batch, rows in evaluation_batches(manifest, clips, window_samples=15_600, batch_size=16):
        for waveform, row in zip(to_float(batch).numpy(), rows.numpy()):
            sound = waveform[: clips["num_samples"][row]]
            sound = np.resize(sound, max(len(sound), 15_600))  # repeats short ones
            found["yamnet"][row] = model.predict_on_batch(sound[None])["embeddings"][0].mean(axis=0)
            found["mel"][row] = mel_statistics(sound)
    return clips, manifest.vocabulary, {name: np.array(values) for name, values in found.items()}


def mel_statistics(sound):
    """Means and deviations of 64 mel bands in dB, and the mean size of their changes: [192]."""
    import librosa

    power = librosa.feature.melspectrogram(y=sound, sr=16_000, n_fft=1024, hop_length=320, n_mels=64)
    decibels = np.log(power + 1e-6)
    return np.concatenate([decibels.mean(1), decibels.std(1), abs(np.diff(decibels, axis=1)).mean(1)])


def measure_case(table, features, classifier, subsets, fraction, fold):
    """A row per kind of validation and measure: the forecast from half of the clips, and the score on all."""
    clips, vocabulary, values = table
    inputs, truth = values[features], multi_hot(clips["labels"], vocabulary).astype("float64")
    trusted = clips[clips["subset"] == "curated"]
    own = trusted["fold"] - 1
    folds = own if (own >= 0).all() else stratified_folds(trusted, 4, seed=1, groups="group")
    validation = trusted[folds == fold]
    recordings = set(validation["group"]) - {""}
    used = clips["subset"].isin(subsets) & ~clips.index.isin(validation.index) & ~clips["group"].isin(recordings)
    training = clips[used]
    if fraction < 1:
        training = training[stratified_fraction(training, fraction, seed=99 + fold, groups="group")]
    predict = lambda part: scores(classifier, inputs[part.index], truth[part.index], inputs[validation.index])
    on_all, half = predict(training), half_of(training, seed=7 + fold)
    parts, sizes = [[predict(half)]], [len(half)]
    nested = [half] * NUM_DRAWS
    for _ in range(NUM_HALVINGS):
        nested = [half_of(part, seed=100 + draw) for draw, part in enumerate(nested)]
        if min(map(len, nested)) < LEAST:
            break
        parts.append([predict(part) for part in nested])
        sizes.append(np.mean([len(part) for part in nested]))
    rows = []
    names = recordings_of(validation).to_numpy()
    chosen = np.random.default_rng(5).permutation(np.unique(names))
    halved = np.isin(names, chosen[: len(chosen) // 2])
    for kind, clips_of_forecast in (("the same clips", np.full(len(names), True)), ("half of them", halved)):
        weights = [
            np.ones((1, clips_of_forecast.sum())),
            *draws(clips_of_forecast.sum(), groups=names[clips_of_forecast]),
        ]
        weights = np.concatenate(weights)
        on = truth[validation.index]
        measured = [
            np.stack([measure(on, each, clips_of_forecast, weights) for each in of_size], axis=1) for of_size in parts
        ]  # [R, D, measures] of each size
        (final,) = measure(on, on_all, np.full(len(names), True), np.ones((1, len(names))))
        for name in SHOWN:
            column = [*MEASURES].index(name)
            found = forecast(sizes, [each[:, :, column] for each in measured])
            value, low, high = found.at(len(training))
            row = {"validation": kind, "features": features, "classifier": classifier, "measure": name}
            row |= {"value": value, "low": low, "high": high}
            rows.append(row | {"half": measured[0][0, 0, column], "all": final[column]})
    return rows


def measure(truth, logits, chosen, weights):
    """All measures [R, measures] of the chosen clips."""
    return weighted_measures(truth[chosen], logits[chosen], np.zeros_like(logits[chosen]))(weights)


def scores(classifier, inputs, truth, new):
    """Logits of new clips by a classifier."""
    if classifier == "ridge":
        kernel, bias, _ = ridge(inputs, truth, np.ones(len(inputs)), np.arange(len(inputs)) % 5)
        return new @ kernel + bias
    model = LogisticRegression(C=0.01, max_iter=300)
    if classifier == "neighbors":
        model = KNeighborsClassifier(min(5, len(inputs)), metric="cosine", weights="distance")
    model = make_pipeline(StandardScaler(), model).fit(inputs, truth.argmax(axis=1))
    logits = np.full((len(new), truth.shape[1]), -20.0)
    logits[:, model.classes_] = np.log(model.predict_proba(new) + 1e-9)
    return logits


if __name__ == "__main__":
    main()
