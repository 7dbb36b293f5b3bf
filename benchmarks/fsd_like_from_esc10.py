"""Builds a small dataset of real recordings in the exact layout of FSDKaggle2019.

The recordings are ESC-10's (K. J. Piczak, CC BY 3.0). The dataset has a curated set with correct labels, a noisy set in
which a given fraction of the labels is wrong, and a test set. Clips are 0.3 to 15 s long, one in five has two labels
(the sum of two recordings), names are eight hex digits, audio is 44.1 kHz 16-bit mono WAV.

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like                  # Kaggle's layout
    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like --layout zenodo  # Zenodo's layout

Both layouts have the same clips. `noisy_truth.csv` lists which noisy labels are correct: for measuring how well label
noise is found, never for training. Needs numpy, scipy and soundfile. The same seed gives the same bytes.
"""

import argparse
import csv
import hashlib
import math
import pathlib

import numpy as np
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
VOCABULARY = sorted(CLASSES.values())


def recordings(root, folds):
    """(label, path) of every ESC-10 recording in the given folds, sorted."""
    found = [
        (label, path)
        for folder, label in CLASSES.items()
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
    """Yields (waveform, labels): every recording `copies` times, mixed with another with `mix_probability`."""
    for _ in range(copies):
        for label, path in source:
            waveform, labels = crop(rng, load(path), low, high), [label]
            if rng.random() < mix_probability:
                other_label, other_path = source[int(rng.integers(len(source)))]
                if other_label != label:
                    waveform = mix(rng, waveform, crop(rng, load(other_path), low, high))
                    labels = sorted({label, other_label})
            peak = np.abs(waveform).max()
            yield (waveform / peak * rng.uniform(0.2, 0.95) if peak > 0 else waveform), labels


def write(folder, rows, prefix):
    """Writes (waveform, labels) as WAV files; returns (name, labels), sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    named = []
    for index, (waveform, labels) in enumerate(rows):
        name = hashlib.sha256(f"{prefix}/{index}".encode()).hexdigest()[:8] + ".wav"
        pcm = np.clip(np.round(waveform * 32767), -32768, 32767).astype("int16")
        sf.write(folder / name, pcm, SAMPLE_RATE, subtype="PCM_16")
        named.append((name, labels))
    return sorted(named)


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
    parser.add_argument("--curated-folds", type=int, nargs="+", default=[1])
    parser.add_argument("--noisy-folds", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--test-folds", type=int, nargs="+", default=[4])
    parser.add_argument("--noise", type=float, default=0.4, help="fraction of noisy clips whose label is wrong")
    parser.add_argument("--copies", type=int, default=2, help="clips per recording")
    parser.add_argument("--seed", type=int, default=2019)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    used = [set(args.curated_folds), set(args.noisy_folds), set(args.test_folds)]
    if any(a & b for i, a in enumerate(used) for b in used[:i]):
        raise SystemExit(
            "a fold is in two subsets. Give each subset its own folds, as recordings of a fold share sources."
        )
    curated, noisy, test = (recordings(args.esc10, folds) for folds in used)

    zenodo = args.layout == "zenodo"
    folder = (lambda s: args.out / f"FSDKaggle2019.audio_{s}") if zenodo else (lambda s: args.out / s)
    curated = write(folder("train_curated"), clips(rng, curated, args.copies, 0.3, 15.0, 0.2), "curated")
    noisy = write(folder("train_noisy"), clips(rng, noisy, args.copies, 1.0, 15.0, 0.2), "noisy")
    test = write(folder("test"), clips(rng, test, args.copies, 0.3, 15.0, 0.2), "test")

    given, truth = [], []
    for name, labels in noisy:
        wrong = rng.random() < args.noise
        others = [label for label in VOCABULARY if label not in labels]
        given_labels = [others[int(rng.integers(len(others)))]] if wrong else labels
        given.append((name, given_labels))
        truth.append((name, ",".join(given_labels), ",".join(labels), int(not wrong)))
    write_table(args.out / "noisy_truth.csv", ["fname", "given", "true", "right"], truth)

    join = lambda rows: [(name, ",".join(labels)) for name, labels in rows]
    usage = lambda i: "Public" if i % 4 == 0 else "Private"
    if zenodo:
        meta = args.out / "FSDKaggle2019.meta"
        extra = lambda rows: [(name, labels, i, "CC-BY") for i, (name, labels) in enumerate(join(rows))]
        header = ["fname", "labels", "freesound_id", "license"]
        write_table(meta / "train_curated_post_competition.csv", header, extra(curated))
        header = ["fname", "labels", "flickr_video_URL", "license"]
        write_table(meta / "train_noisy_post_competition.csv", header, extra(given))
        write_table(
            meta / "test_post_competition.csv",
            ["fname", "labels", "usage", "freesound_id", "license"],
            [(name, labels, usage(i), i, "CC-BY") for i, (name, labels) in enumerate(join(test))],
        )
    else:
        write_table(args.out / "train_curated.csv", ["fname", "labels"], join(curated))
        write_table(args.out / "train_noisy.csv", ["fname", "labels"], join(given))
        zeros = [0] * len(VOCABULARY)
        write_table(args.out / "sample_submission.csv", ["fname", *VOCABULARY], [(name, *zeros) for name, _ in test])
        labeled = [(name, labels, usage(i)) for i, (name, labels) in enumerate(join(test))]
        write_table(args.out / "test_labels.csv", ["fname", "labels", "usage"], labeled)
    wrong = sum(1 - t[3] for t in truth)
    print(f"{len(curated)} curated, {len(given)} noisy ({wrong} wrong), {len(test)} test clips in {args.out}")


if __name__ == "__main__":
    main()
