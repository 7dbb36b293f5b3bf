"""Builds a small dataset of real recordings in the exact layout of FSDKaggle2019.

The recordings are ESC-10's (K. J. Piczak, CC BY 3.0). The dataset has a curated set with correct labels, a noisy set in
which a given fraction of the labels is wrong, and a test set. Clips are 0.3 to 15 s long, one in five has two labels
(the sum of two recordings), names are eight hex digits, audio is 44.1 kHz 16-bit mono WAV.

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like                  # Kaggle's layout
    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like --layout zenodo  # Zenodo's layout

`--test-fold` rotates ESC-10's folds: the test clips come from this one, the curated clips from the next, the noisy ones
from the other two. `--recording-ids`, in Zenodo's layout, says which clips are from one recording. `--noise-kind` says
how labels are wrong:

  uniform            any other class, each as often
  confusable         a class that sounds alike, to a first model of the curated and noisy folds
  out-of-vocabulary  the classes --foreign are no classes of the dataset; its noisy clips have some of their recordings,
                     under the labels of other classes

Both layouts have the same clips. `noisy_truth.csv` lists which noisy labels are correct: for measuring how well label
noise is found, never for training. Needs numpy, scipy and soundfile. The same seed gives the same bytes.
"""

import argparse
import csv
import hashlib
import itertools
import math
import pathlib

import numpy as np
import scipy.signal
import soundfile as sf

SAMPLE_RATE = 44_100
CLASSES = {
    "001 - Dog bark": "Bark",
    "002 - Rain": "Rain",
    "003 - Sea waves": "Waves_and_surf",
    "004 - Baby cry": "Baby_cry",
    "005 - Clock tick": "Tick-tock",
    "006 - Person sneeze": "Sneeze",
    "007 - Helicopter": "Helicopter",
    "008 - Chainsaw": "Chainsaw",
    "009 - Rooster": "Rooster",
    "010 - Fire crackling": "Crackle_(fire)",
}
NOISE_KINDS = ("uniform", "confusable", "out-of-vocabulary")
NUM_BANDS = 32  # of the first model's features


def recordings(root, folds, vocabulary):
    """(label, path) of every ESC-10 recording of these classes in the given folds, sorted."""
    found = [
        (label, path)
        for folder, label in CLASSES.items()
        if label in vocabulary
        for path in sorted((root / folder).glob("*.ogg"))
        if int(path.name[0]) in folds
    ]
    if not found:
        raise SystemExit(f"no recordings of folds {sorted(folds)} under {root}")
    return found


def load(path):
    """The first channel of a recording, float32 [N]."""
    waveform, rate = sf.read(path, dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE:
        raise SystemExit(f"{path}: {rate} Hz, expected {SAMPLE_RATE}")
    return waveform[:, 0]


def crop(rng, waveform, low, high):
    """A crop of low to high seconds, log-uniform: the loudest of eight random ones, or the recording repeated."""
    num_samples = int(SAMPLE_RATE * math.exp(rng.uniform(math.log(low), math.log(high))))
    if num_samples >= len(waveform):
        return np.tile(waveform, math.ceil(num_samples / len(waveform)))[:num_samples]
    starts = rng.integers(0, len(waveform) - num_samples, size=8)
    power = [float(np.square(waveform[start : start + num_samples]).mean()) for start in starts]
    return waveform[starts[int(np.argmax(power))] :][:num_samples]


def mix(rng, first, second):
    """The sum of two waveforms, as long as the longer one; the second at -6 to 6 dB relative to the first."""
    size = max(len(first), len(second))
    gain = 10 ** (rng.uniform(-6, 6) / 20)
    level = np.sqrt(np.square(first).mean() / max(np.square(second).mean(), 1e-9))
    total = np.zeros(size, "float32")
    for waveform, scale in ((first, 1.0), (second, gain * level)):
        start = rng.integers(0, size - len(waveform) + 1)
        total[start : start + len(waveform)] += scale * waveform
    return total


def clips(rng, source, copies, low, high, mix_probability):
    """Yields (waveform, labels, path): every recording `copies` times, mixed with another with `mix_probability`."""
    for _ in range(copies):
        for label, path in source:
            waveform, labels = crop(rng, load(path), low, high), [label]
            if rng.random() < mix_probability:
                other_label, other_path = source[int(rng.integers(len(source)))]
                if other_label != label:
                    waveform = mix(rng, waveform, crop(rng, load(other_path), low, high))
                    labels = sorted({label, other_label})
            peak = np.abs(waveform).max()
            yield (waveform / peak * rng.uniform(0.2, 0.95) if peak > 0 else waveform), labels, path


def write(folder, rows, prefix):
    """Writes (waveform, labels, path) as WAV files; returns (name, labels) and {name: recording}, both sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    named, recording_of = [], {}
    for index, (waveform, labels, path) in enumerate(rows):
        name = hashlib.sha256(f"{prefix}/{index}".encode()).hexdigest()[:8] + ".wav"
        pcm = np.clip(np.round(waveform * 32767), -32768, 32767).astype("int16")
        sf.write(folder / name, pcm, SAMPLE_RATE, subtype="PCM_16")
        named.append((name, labels))
        recording_of[name] = path.stem.split("-")[1]  # the recording's number at Freesound
    return sorted(named), recording_of


def confusions(source, vocabulary):
    """Which other classes a first model finds in the recordings of each: counts [K, K], true by predicted.

    The model ranks classes by the distance to their mean, of the mean and deviation over time of log band powers. The
    means are without the recording and others of its origin. The nearest other class counts twice, the next once.
    """
    features = np.stack([band_powers(load(path)) for _, path in source])  # [recordings, features]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    labels = np.array([vocabulary.index(label) for label, _ in source])
    origin = np.array([path.stem.split("-")[1] for _, path in source])
    counts = np.zeros((len(vocabulary), len(vocabulary)), int)
    for feature, label, own in zip(features, labels, origin):
        others = origin != own
        means = np.stack([features[others & (labels == index)].mean(axis=0) for index in range(len(vocabulary))])
        order = np.argsort(np.square(means - feature).sum(axis=1), kind="stable")
        counts[label, [index for index in order if index != label][:2]] += (2, 1)  # the two that are most alike
    return counts


def band_powers(waveform):
    """Mean and standard deviation over time of log band powers, [2 NUM_BANDS]."""
    hertz, _, spectrum = scipy.signal.stft(waveform, SAMPLE_RATE, nperseg=2048, noverlap=1024)
    edges = np.searchsorted(hertz, np.geomspace(50, SAMPLE_RATE / 2, NUM_BANDS + 1))
    power = np.square(np.abs(spectrum))
    bands = [power[low : max(high, low + 1)].mean(axis=0) for low, high in zip(edges[:-1], edges[1:])]
    log = np.log(np.array(bands) + 1e-10)  # [NUM_BANDS, T]
    return np.concatenate([log.mean(axis=1), log.std(axis=1)])


def wrong_label(rng, labels, vocabulary, counts):
    """A label that is none of these: any, or as often as `counts` confuse it with them."""
    others = [label for label in vocabulary if label not in labels]
    if counts is None:
        return others[int(rng.integers(len(others)))]
    weights = counts[[vocabulary.index(label) for label in labels]].sum(axis=0)  # [K]
    weights = weights[[vocabulary.index(label) for label in others]]
    weights = weights if weights.any() else np.ones(len(others))
    return others[int(rng.choice(len(others), p=weights / weights.sum()))]


def foreign_clips(rng, source, count):
    """Yields (waveform, labels, path) of `count` clips of foreign classes, each recording in turn."""
    for index in range(count):
        yield next(clips(rng, [source[index % len(source)]], 1, 1.0, 15.0, 0.0))


def write_table(path, header, rows):
    """Writes a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--layout", choices=("kaggle", "zenodo"), default="kaggle")
    parser.add_argument("--test-fold", type=int, choices=(1, 2, 3, 4), help="instead of the next three options")
    parser.add_argument("--curated-folds", type=int, nargs="+", default=[1])
    parser.add_argument("--noisy-folds", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--test-folds", type=int, nargs="+", default=[4])
    parser.add_argument("--noise", type=float, default=0.4, help="fraction of noisy clips whose label is wrong")
    parser.add_argument("--noise-kind", choices=NOISE_KINDS, default="uniform")
    parser.add_argument("--foreign", nargs=2, default=["Helicopter", "Rooster"], help="for out-of-vocabulary noise")
    parser.add_argument("--recording-ids", action="store_true", help="freesound_id is the recording, not the row")
    parser.add_argument("--copies", type=int, default=2, help="clips per recording")
    parser.add_argument("--seed", type=int, default=2019)
    args = parser.parse_args()
    if args.recording_ids and args.layout != "zenodo":
        raise SystemExit("Kaggle's tables have no column for --recording-ids. Add --layout zenodo.")
    if args.test_fold:
        later = [(args.test_fold + step) % 4 + 1 for step in range(3)]
        args.test_folds, args.curated_folds, args.noisy_folds = [args.test_fold], later[:1], later[1:]

    rng = np.random.default_rng(args.seed)
    used = [set(args.curated_folds), set(args.noisy_folds), set(args.test_folds)]
    if any(a & b for i, a in enumerate(used) for b in used[:i]):
        raise SystemExit(
            "a fold is in two subsets. Give each subset its own folds, as recordings of a fold share sources."
        )
    foreign = set(args.foreign) if args.noise_kind == "out-of-vocabulary" else set()
    if not foreign <= set(CLASSES.values()):
        raise SystemExit(f"--foreign: expected two of {', '.join(sorted(CLASSES.values()))}.")
    vocabulary = sorted(set(CLASSES.values()) - foreign)
    curated, noisy, test = (recordings(args.esc10, folds, vocabulary) for folds in used)
    counts = confusions([*curated, *noisy], vocabulary) if args.noise_kind == "confusable" else None

    zenodo = args.layout == "zenodo"
    folder = (lambda s: args.out / f"FSDKaggle2019.audio_{s}") if zenodo else (lambda s: args.out / s)
    rows_of_noisy = clips(rng, noisy, args.copies, 1.0, 15.0, 0.2)
    if foreign:
        count = round(args.noise / (1 - args.noise) * args.copies * len(noisy))
        foreign_source = recordings(args.esc10, used[1], foreign)
        rows_of_noisy = itertools.chain(rows_of_noisy, foreign_clips(rng, foreign_source, count))
    curated, recording_of = write(folder("train_curated"), clips(rng, curated, args.copies, 0.3, 15.0, 0.2), "curated")
    noisy, _ = write(folder("train_noisy"), rows_of_noisy, "noisy")
    test, recording_of_test = write(folder("test"), clips(rng, test, args.copies, 0.3, 15.0, 0.2), "test")
    recording_of |= recording_of_test

    given, truth = [], []
    for name, labels in noisy:
        wrong = bool(foreign & set(labels)) if foreign else rng.random() < args.noise
        given_labels = [wrong_label(rng, labels, vocabulary, counts)] if wrong else labels
        given.append((name, given_labels))
        truth.append((name, ",".join(given_labels), ",".join(labels), int(not wrong)))
    write_table(args.out / "noisy_truth.csv", ["fname", "given", "true", "right"], truth)

    join = lambda rows: [(name, ",".join(labels)) for name, labels in rows]
    usage = lambda i: "Public" if i % 4 == 0 else "Private"
    if zenodo:
        meta = args.out / "FSDKaggle2019.meta"
        number = lambda i, name: recording_of.get(name, i) if args.recording_ids else i
        extra = lambda rows: [(name, labels, number(i, name), "CC-BY") for i, (name, labels) in enumerate(join(rows))]
        header = ["fname", "labels", "freesound_id", "license"]
        write_table(meta / "train_curated_post_competition.csv", header, extra(curated))
        header = ["fname", "labels", "flickr_video_URL", "license"]
        write_table(meta / "train_noisy_post_competition.csv", header, extra(given))
        write_table(
            meta / "test_post_competition.csv",
            ["fname", "labels", "usage", "freesound_id", "license"],
            [(name, labels, usage(i), number(i, name), "CC-BY") for i, (name, labels) in enumerate(join(test))],
        )
    else:
        write_table(args.out / "train_curated.csv", ["fname", "labels"], join(curated))
        write_table(args.out / "train_noisy.csv", ["fname", "labels"], join(given))
        zeros = [0] * len(vocabulary)
        write_table(args.out / "sample_submission.csv", ["fname", *vocabulary], [(name, *zeros) for name, _ in test])
        labeled = [(name, labels, usage(i)) for i, (name, labels) in enumerate(join(test))]
        write_table(args.out / "test_labels.csv", ["fname", "labels", "usage"], labeled)
    wrong = sum(1 - t[3] for t in truth)
    print(f"{len(curated)} curated, {len(given)} noisy ({wrong} wrong), {len(test)} test clips in {args.out}")


if __name__ == "__main__":
    main()
