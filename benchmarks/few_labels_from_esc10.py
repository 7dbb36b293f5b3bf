"""Builds ESC-10 with a tenth of its labels: for each of four test folds a table that `make-records` reads.

The recordings are ESC-10's (K. J. Piczak, CC BY 3.0), folds 1 to 4. Of the 240 clips of the three other folds 24 keep
their labels: two or three of each class, from different recordings. The rest have none, in the subset `unlabeled`.

    python benchmarks/few_labels_from_esc10.py --esc10 ESC-10 --out esc10_few
    for fold in 1 2 3 4; do
      audiotag make-records esc10_few/few-$fold.csv --sample-rate 22050 --trim relative --out tfrecords/esc10_few-$fold
    done
    audiotag sweep sweeps/esc10_few_labels.json
    python benchmarks/few_labels_from_esc10.py --runs runs/esc10_few_labels-sweep/*/

The last command prints how many clips get pseudo-labels and what part of these is right, the accuracy on the test folds
of the first stage, which trains on the 24 clips alone, and of the last, and their paired difference; intervals are over
seeds and recordings.
"""

import argparse
import csv
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np

from audiotag.data.corrections import read_corrections
from audiotag.evaluation.comparison import difference, estimate, mean_of, measure_recordings
from audiotag.evaluation.scoring import score_test_clips
from audiotag.runs.directory import open_run

FOLDS = (1, 2, 3, 4)
NUM_LABELED = 24


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, help="ESC-10, a folder per class")
    parser.add_argument("--out", type=Path, default="esc10_few")
    parser.add_argument("--runs", nargs="+", default=[], help="the runs of the sweep, to measure instead")
    args = parser.parse_args()
    if args.runs:
        measure(args.runs)
    elif args.esc10:
        build(args.esc10, args.out)
    else:
        parser.error("expected --esc10 or --runs")


def build(esc10, out):
    """Copies the recordings, and writes few-FOLD.csv for each test fold."""
    paths = [path for path in sorted(esc10.glob("*/*.ogg")) if fold_of(path) in FOLDS]
    if not paths:
        raise SystemExit(f"no recordings of folds {FOLDS} under {esc10}")
    for path in paths:
        (out / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out / path.parent.name)
    for test in FOLDS:
        labeled = set(choose(paths, test))
        with open(out / f"few-{test}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["fname", "labels", "subset", "group"])
            for path in paths:
                subset = "test" if fold_of(path) == test else "curated" if path in labeled else "unlabeled"
                label = "" if subset == "unlabeled" else class_of(path).split(" - ")[1]
                table.writerow([path.relative_to(esc10), label, subset, recording_of(path)])
        print(f"{len(labeled)} of {sum(fold_of(path) != test for path in paths)} clips labeled in {out}/few-{test}.csv")


def choose(paths, test):
    """The clips that keep their labels: of each class as many, from different recordings, drawn by the test fold."""
    rng = np.random.default_rng(test)
    classes = sorted({class_of(path) for path in paths})
    one_more = set(rng.permutation(len(classes))[: NUM_LABELED % len(classes)])
    for number, name in enumerate(classes):
        chosen = {}  # {recording: path}
        for path in rng.permutation([path for path in paths if class_of(path) == name and fold_of(path) != test]):
            if len(chosen) < NUM_LABELED // len(classes) + (number in one_more):
                chosen.setdefault(recording_of(path), path)
        yield from chosen.values()


def fold_of(path):
    """ESC-10's fold of a recording, from its name: FOLD-RECORDING-TAKE.ogg."""
    return int(path.name.split("-")[0])


def recording_of(path):
    """The number of the recording that a clip was cut from."""
    return path.name.split("-")[1]


def class_of(path):
    """The folder of a clip, such as "001 - Dog bark"."""
    return path.parent.name


def measure(folders):
    """Prints the pseudo-labels, the accuracy of the first and the last stage, and their difference."""
    found = defaultdict(lambda: defaultdict(list))  # {stage: {seed: what is measured, a test fold each}}
    for run in map(open_run, folders):
        print_pseudo_labels(run)
        for stage in (run.experiment.stages[0].name, run.experiment.stages[-1].name):
            clips, logits = score_test_clips(run, stage=stage)
            found[stage][run.experiment.seed].append(measure_recordings(clips, logits, run.vocabulary))
    means = {stage: {seed: mean_of(several) for seed, several in seeds.items()} for stage, seeds in found.items()}
    first, last = means
    for stage in means:
        value = estimate([*means[stage].values()], "top_1_accuracy")
        print(f"{stage}: accuracy {value.mean:.3f} ({value.low:.3f} to {value.high:.3f})")
    more = [difference(means[last][seed], means[first][seed]) for seed in means[last]]
    gain = estimate(more, "top_1_accuracy")
    print(f"difference: {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")


def print_pseudo_labels(run):
    """Prints how many clips of a run got pseudo-labels, and what part of them has exactly its class."""
    selected = read_corrections(run.stage_files(0, run.experiment.stages[-1].name).selected_clips, run.vocabulary)
    chosen = selected[selected["weight"] > 0]
    right = chosen["labels"] == [class_of(Path(clip)).split(" - ")[1] for clip in chosen["clip"]]
    print(f"{run.folder}: {len(chosen)} pseudo-labels, {right.mean():.3f} right")


if __name__ == "__main__":
    main()
