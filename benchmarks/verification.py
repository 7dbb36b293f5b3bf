"""Self-verification by random excerpts compared with that by complete clips, on real recordings.

Trains the small form of experiments/vgg_gap_verified.json, its `quick_command`, whose noisy labels are verified by the
mean over 25 excerpts of 384 frames (M. Dorfer and G. Widmer, 2018, Eq. 1), and again with predictions for complete
clips; both begin with the same trained first stage. noisy_truth.csv has the correct labels of the noisy clips:

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like
    audiotag make-records fsd_like --sample-rate 32000 --out tfrecords/fsd_like_32k
    python benchmarks/verification.py --source fsd_like

Prints precision and recall of the labels that each round takes for correct, and the most clips that a round has of one
class, at most 15. Resumes where it was stopped.
"""

import argparse
import json
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from audiotag.config.loading import load
from audiotag.training.loop import fit

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "vgg_gap_verified.json"
# As in the paper, less than the noisy clips of a class, of which there are 32 here.
MAX_PER_CLASS = 15
SCORING = {"25 excerpts": [], "complete clips": ["stages.verified.select.predict=null"]}


def main():
    """Trains all runs that are not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default="fsd_like", help="the folder with noisy_truth.csv")
    parser.add_argument("--records", default="tfrecords/fsd_like_32k")
    parser.add_argument("--runs", type=Path, default="runs/verification")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    args = parser.parse_args()
    truth = pd.read_csv(args.source / "noisy_truth.csv", index_col="fname")["true"].map(as_set)
    rows = []
    for seed in args.seeds:
        for name, run in trained_runs(args, seed).items():
            for number in range(1, run.experiment.stages[-1].select.rounds + 1):
                rows.append({"scored by": name, "round": number, "seed": seed} | measure(run, number, truth))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    columns = ["precision", "recall", "most of a class"]
    print(table.groupby(["scored by", "round"])[columns].agg(["mean", "min", "max"]).round(3).to_string())


def trained_runs(args, seed):
    """{how noisy clips are scored: the run}."""
    words = shlex.split(load(EXPERIMENT).quick_command)
    overrides = [word for before, word in pairwise(words) if before == "--set"]
    overrides += [f"seed={seed}", f"records={args.records}"]
    overrides += [f"stages.verified.select.max_per_class={MAX_PER_CLASS}"]
    first = json.dumps([load(EXPERIMENT, overrides).stages[0].model_dump(mode="json", exclude_unset=True)])
    begun, quiet = args.runs / f"first-stage-{seed}", {"say": lambda sentence: None}
    fit(load(EXPERIMENT, [*overrides, f"stages={first}"]), begun, **quiet)
    runs = {}
    for name, changes in SCORING.items():
        folder = args.runs / f"{name.replace(' ', '-')}-{seed}"
        if not folder.is_dir():
            shutil.copytree(begun, folder)
        runs[name] = fit(load(EXPERIMENT, [*overrides, *changes]), folder, **quiet)
    return runs


def measure(run, number, truth):
    """Precision and recall of the labels of all noisy clips that a round verified."""
    # Every fold's table is about all noisy clips, whichever model scored them.
    selected = pd.read_csv(run.stage_files(0, f"verified/{number}").selected_clips, index_col="clip")
    correct, chosen = selected["labels"].map(as_set) == truth[selected.index], selected["weight"] > 0
    return {
        "precision": correct[chosen].mean() if chosen.any() else np.nan,
        "recall": chosen[correct].mean(),
        "clips": int(chosen.sum()),
        "most of a class": int(selected["labels"][chosen].value_counts().max()) if chosen.any() else 0,
    }


def as_set(labels):
    """The labels of a clip as a set."""
    return frozenset(labels.split(","))


if __name__ == "__main__":
    main()
