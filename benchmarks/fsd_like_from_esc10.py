"""Builds a small dataset of real recordings in the exact layout of FSDKaggle2019.

The recordings are ESC-10's (K. J. Piczak, CC BY 3.0). From them this
makes a curated set with right labels, a noisy set in which a known share of the labels is wrong, and a test
set. Clips are 0.3 to 15 s long, one in five carries two labels (the sum of two recordings), names are eight
hex digits, audio is 44.1 kHz 16-bit mono WAV.

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like                  # Kaggle's layout
    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like --layout zenodo  # Zenodo's layout

Both layouts hold the same clips. `noisy_truth.csv` beside them tells which noisy labels are right: it is for
measuring how well label noise is found, never for training. Needs numpy, scipy and soundfile. The same seed
gives the same bytes.
"""
import argparse
import csv
import hashlib
import math
import pathlib

import numpy as np
import soundfile as sf

RATE = 44_100
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
    """(label, path) of every ESC-10 recording in the given folds, in a fixed order."""
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
    wave, rate = sf.read(path, dtype="float32", always_2d=True)
    if rate != RATE:
        raise SystemExit(f"{path}: {rate} Hz, expected {RATE}")
    return wave[:, 0]


def piece(rng, wave, low, high):
    """A part of the recording between low and high seconds long, where the sound is loudest on average."""
    want = int(RATE * math.exp(rng.uniform(math.log(low), math.log(high))))
    if want >= len(wave):
        return np.tile(wave, math.ceil(want / len(wave)))[:want]
    starts = rng.integers(0, len(wave) - want, size=8)
    energy = [float(np.square(wave[s : s + want]).mean()) for s in starts]
    return wave[starts[int(np.argmax(energy))] :][:want]


def mixed(rng, one, other):
    """The sum of two sounds as long as the longer one, the second -6 to +6 dB against the first."""
    size = max(len(one), len(other))
    gain = 10 ** (rng.uniform(-6, 6) / 20)
    level = np.sqrt(np.square(one).mean() / max(np.square(other).mean(), 1e-9))
    total = np.zeros(size, "float32")
    for wave, scale in ((one, 1.0), (other, gain * level)):
        at = rng.integers(0, size - len(wave) + 1)
        total[at : at + len(wave)] += scale * wave
    return total


def clips(rng, source, copies, low, high, pairs):
    """Yields (waveform, labels): every recording `copies` times, a share `pairs` of them with a second label."""
    for copy in range(copies):
        for label, path in source:
            wave, labels = piece(rng, load(path), low, high), [label]
            if rng.random() < pairs:
                second, other = source[int(rng.integers(len(source)))]
                if second != label:
                    wave, labels = mixed(rng, wave, piece(rng, load(other), low, high)), sorted({label, second})
            peak = np.abs(wave).max()
            yield (wave / peak * rng.uniform(0.2, 0.95) if peak > 0 else wave), labels


def write(folder, rows, prefix):
    folder.mkdir(parents=True, exist_ok=True)
    named = []
    for index, (wave, labels) in enumerate(rows):
        name = hashlib.sha256(f"{prefix}/{index}".encode()).hexdigest()[:8] + ".wav"
        sf.write(folder / name, np.clip(np.round(wave * 32767), -32768, 32767).astype("int16"), RATE, subtype="PCM_16")
        named.append((name, labels))
    return sorted(named)


def table(path, header, rows):
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
    parser.add_argument("--noise", type=float, default=0.4, help="share of noisy clips whose label is wrong")
    parser.add_argument("--copies", type=int, default=2, help="clips made of each recording")
    parser.add_argument("--seed", type=int, default=2019)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    used = [set(args.curated_folds), set(args.noisy_folds), set(args.test_folds)]
    if any(a & b for i, a in enumerate(used) for b in used[:i]):
        raise SystemExit("a fold may serve one subset only: its recordings share sources")
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
        shown = [others[int(rng.integers(len(others)))]] if wrong else labels
        given.append((name, shown))
        truth.append((name, ",".join(shown), ",".join(labels), int(not wrong)))
    table(args.out / "noisy_truth.csv", ["fname", "given", "true", "right"], truth)

    join = lambda rows: [(name, ",".join(labels)) for name, labels in rows]
    usage = lambda i: "Public" if i % 4 == 0 else "Private"
    if zenodo:
        meta = args.out / "FSDKaggle2019.meta"
        extra = lambda rows: [(n, l, i, "CC-BY") for i, (n, l) in enumerate(join(rows))]
        header = ["fname", "labels", "freesound_id", "license"]
        table(meta / "train_curated_post_competition.csv", header, extra(curated))
        header = ["fname", "labels", "flickr_video_URL", "license"]
        table(meta / "train_noisy_post_competition.csv", header, extra(given))
        table(
            meta / "test_post_competition.csv",
            ["fname", "labels", "usage", "freesound_id", "license"],
            [(n, l, usage(i), i, "CC-BY") for i, (n, l) in enumerate(join(test))],
        )
    else:
        table(args.out / "train_curated.csv", ["fname", "labels"], join(curated))
        table(args.out / "train_noisy.csv", ["fname", "labels"], join(given))
        nothing = [0] * len(VOCABULARY)
        table(args.out / "sample_submission.csv", ["fname", *VOCABULARY], [(n, *nothing) for n, _ in test])
        labelled = [(n, l, usage(i)) for i, (n, l) in enumerate(join(test))]
        table(args.out / "test_labels.csv", ["fname", "labels", "usage"], labelled)
    wrong = sum(1 - t[3] for t in truth)
    print(f"{len(curated)} curated, {len(given)} noisy ({wrong} wrong), {len(test)} test clips in {args.out}")


if __name__ == "__main__":
    main()
