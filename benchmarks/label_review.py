"""How well label issues are ranked, and what a review of the first n clips gains, on real recordings.

The dataset is that of benchmarks/fsd_like_from_esc10.py, whose noisy_truth.csv has the correct labels. Wrong labels
are drawn again for every repetition. The model is a ridge regression on embeddings of YAMNet, of curated and
noisy clips; its penalty is that with the smallest error in five folds, whose predictions are the out-of-fold scores.

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like
    audiotag make-records fsd_like --sample-rate 16000
    python benchmarks/label_review.py --source fsd_like --yamnet yamnet.h5

Prints precision among the first clips and AUC of each ranking, and lwlrap on the test clips once the labels of the
first n clips are correct, with 95 % intervals of the mean over the draws. Needs cleanlab.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
from fsd_like_from_esc10 import wrong_label
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from audiotag.crossval.review_order import cleanlab_quality, usefulness
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches
from audiotag.data.records import read_manifest
from audiotag.metrics import lwlrap
from audiotag.runs.pretrained import published_tagger

ALPHAS = tuple(np.geomspace(1, 1e4, 17))
SCALE = 5.0  # from a regression to -1 and 1 to logits, as in audiotag.models.initial_heads.ridge
NUM_FOLDS = 5
FIRST = (20, 60, 127)
REVIEWED = (0, 20, 40, 60, 80, 100, 120, 128, 140, 160, 180, 200, 240, 280, 320)
NUM_RANDOM = 10  # random orders per draw


def embed_clips(records, weights, cache):
    """(clips, vocabulary, embeddings [n, D], a mean per clip) of a directory of records at 16 kHz."""
    manifest = read_manifest(records)
    clips = read_clips(manifest.directory / "clips.csv")
    if cache.is_file():
        return clips, list(manifest.vocabulary), np.load(cache)
    model, _ = published_tagger("yamnet", weights)
    embeddings = np.zeros((len(clips), 1024), "float32")
    for waves, rows in evaluation_batches(manifest, clips, window_samples=15_600, batch_size=16):
        waves = np.asarray(waves)
        waves = waves / 32768 if waves.dtype == np.int16 else waves
        for wave, row in zip(waves, np.asarray(rows)):
            size = max(int(clips["num_samples"][row]), 1)
            wave = np.resize(wave[:size], max(size, 15_600))  # short clips are repeated
            embeddings[row] = model.predict_on_batch(wave[None].astype("float32"))["embeddings"][0].mean(axis=0)
    np.save(cache, embeddings)
    return clips, list(manifest.vocabulary), embeddings


class Ridge:
    """Ridge regressions on the same clips with any labels: predictions are products of a matrix and targets."""

    def __init__(self, inputs, test, rng):
        mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        inputs, test = (inputs - mean) / deviation, (test - mean) / deviation
        folds = rng.permutation(len(inputs)) % NUM_FOLDS
        self.out_of_fold = np.zeros((len(ALPHAS), len(inputs), len(inputs)))
        for fold in range(NUM_FOLDS):
            train, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            self.out_of_fold[:, held_out[:, None], train] = smoother(inputs[train], inputs[held_out])
        self.on_test = smoother(inputs, test)  # [alphas, test clips, clips]

    def __call__(self, truth):
        """Logits of the training clips, out-of-fold, and of the test clips; truth bool [n, K]."""
        targets = 2.0 * truth - 1
        held_out = self.out_of_fold @ targets  # [alphas, n, K]
        best = np.square(held_out - targets).mean(axis=(1, 2)).argmin()
        return SCALE * held_out[best], SCALE * (self.on_test[best] @ targets)


def smoother(train, others):
    """Matrices from targets of `train` to predictions for `others`, [alphas, others, train]; the mean is not shrunk."""
    size, mean = len(train), train.mean(axis=0)
    train, others = train - mean, others - mean
    values, vectors = np.linalg.eigh(train @ train.T)
    projected = others @ train.T @ vectors  # [others, n]
    return np.stack([projected / (values + alpha) @ vectors.T + 1 / size for alpha in ALPHAS])


def draw_labels(rng, truth, vocabulary, noise):
    """(given labels bool [n, K], whether each is wrong): a fraction gets any other class."""
    given, wrong = truth.copy(), rng.random(len(truth)) < noise
    for row in np.flatnonzero(wrong):
        labels = [vocabulary[label] for label in np.flatnonzero(truth[row])]
        given[row] = False
        given[row, vocabulary.index(wrong_label(rng, labels, vocabulary, None))] = True
    return given, wrong


def rankings(truth, logits):
    """{ranking: a number per clip, the highest for the first to review}."""
    scores = expit(logits)
    others, labels = np.where(truth, -np.inf, logits), np.where(truth, logits, np.inf)
    margin = others.max(axis=1) - labels.min(axis=1)
    quality = cleanlab_quality(truth, scores)
    return {
        "margin": margin,
        "cleanlab": 1 - quality,
        "usefulness": usefulness(truth, scores, expit(margin)),
        "usefulness by cleanlab": usefulness(truth, scores, 1 - quality),
    }


def interval(values):
    """The mean over draws, with its 95 % interval by Student's t."""
    values = np.asarray(values, "float64")
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ({values.mean() - half:.3f} to {values.mean() + half:.3f})"


def main():
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default="fsd_like", help="the folder with noisy_truth.csv")
    parser.add_argument("--records", type=Path, default="tfrecords/fsd_like")
    parser.add_argument("--yamnet", default="audioset", help="weights, as for the network yamnet")
    parser.add_argument("--cache", type=Path, default="fsd_like_embeddings.npy")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.4)
    args = parser.parse_args()
    clips, vocabulary, embeddings = embed_clips(args.records, args.yamnet, args.cache)
    correct = pd.read_csv(args.source / "noisy_truth.csv", index_col="fname")["true"]
    labels = [correct.get(name, given) for name, given in zip(clips["name"], clips["labels"])]
    truth = multi_hot(labels, vocabulary) > 0  # [n, K]
    curated, noisy, test = (np.flatnonzero(clips["subset"] == name) for name in ("curated", "noisy", "test"))
    train = np.concatenate([curated, noisy])
    measures, curves = [], []
    for draw in range(args.draws):
        rng = np.random.default_rng(draw)
        given, wrong = draw_labels(rng, truth[noisy], vocabulary, args.noise)
        model = Ridge(embeddings[train], embeddings[test], rng)
        logits = model(np.concatenate([truth[curated], given]))[0][len(curated) :]
        ranked = rankings(given, logits)
        for name, value in ranked.items():
            order = np.argsort(-value, kind="stable")
            row = {f"first {count}": wrong[order[:count]].mean() for count in FIRST}
            measures.append({"draw": draw, "ranking": name, **row, "AUC": roc_auc_score(wrong, value)})
        ranked |= {f"random {number}": rng.random(len(noisy)) for number in range(NUM_RANDOM)}
        for name, value in ranked.items():
            order = np.argsort(-value, kind="stable")
            for count in REVIEWED:
                labels = given.copy()
                labels[order[:count]] = truth[noisy][order[:count]]
                scores = model(np.concatenate([truth[curated], labels]))[1]
                score = lwlrap(truth[test].astype("float64"), scores)
                curves.append(
                    {"draw": draw, "ranking": name.split(" ")[0] if "random" in name else name}
                    | {"reviewed": count, "lwlrap": score}
                )
    measures = pd.DataFrame(measures).set_index(["ranking", "draw"])
    print(measures.groupby("ranking").agg(interval).to_string())
    curves = pd.DataFrame(curves).groupby(["ranking", "draw", "reviewed"])["lwlrap"].mean().unstack()
    print(f"\nlwlrap after a review of the first n clips\n{curves.groupby('ranking').agg(interval).T.to_string()}")
    gap = curves[len(noisy)].groupby("ranking").mean() - curves[0].groupby("ranking").mean()
    gained = curves.groupby("ranking").mean().sub(curves[0].groupby("ranking").mean(), axis=0).div(gap, axis=0)
    print(f"\nfraction of the gap\n{gained.round(3).T.to_string()}")
    for name in measures.index.unique("ranking"):
        better = (curves.loc[name] - curves.loc["random"]).agg(interval)
        print(f"\n{name} better than random by\n{better.to_string()}")


if __name__ == "__main__":
    main()
