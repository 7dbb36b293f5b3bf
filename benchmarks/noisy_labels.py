"""Methods for unreliable labels compared: the same tiny network, the same number of windows, three seeds.

Trains experiments/noise.json with the stages of each method, on the real recordings of
benchmarks/fsd_like_from_esc10.py, whose noisy_truth.csv has the correct labels of the noisy clips:

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like
    audiotag make-records fsd_like --sample-rate 22050
    python benchmarks/noisy_labels.py --source fsd_like

Prints lwlrap on the test clips, and precision and recall of the labels that a method takes for correct. The last method
trains on both subsets with all labels corrected: an upper bound for the others. Resumes where it was stopped.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from audiotag.config.loading import load
from audiotag.crossval.label_issues import rank_label_issues
from audiotag.data.corrections import write_corrections
from audiotag.data.labels import multi_hot
from audiotag.evaluation.scoring import score_test_clips
from audiotag.metrics import lwlrap
from audiotag.training.loop import fit

ALL_FOLDS = {"folds": {"num_folds": 5, "held_out": [0, 1, 2, 3, 4], "split_noisy": True}}
BOTH = ["curated", "noisy"]
MASKS = [
    {"name": "frequency_mask", "max_width": 6, "count": 2},
    {"name": "time_mask", "max_width": 10, "count": 2},
]


def stage(name, subset, steps, **options):
    """A stage of one epoch of `steps` batches; of two subsets, each gives half of the clips."""
    halves = {"curated": 0.5, "noisy": 0.5} if subset == BOTH else None
    return {
        "name": name,
        "subset": subset,
        "epochs": 1,
        "steps_per_epoch": steps,
        "subset_sampling_weights": halves,
        "batch_size": 24,
        "keep": "last",
        "optimizer": {"name": "adam", "learning_rate": 3e-3},
        "schedule": {"name": "one_cycle"},
        "loss": {"name": "binary_crossentropy", "label_smoothing": 0.1},
    } | options


def select(rule, score_with, **options):
    """A selection of noisy clips."""
    return {"rule": rule, "score_with": score_with} | options


def methods(steps):
    """{name: settings of the experiment}; every model trains on `steps` batches of 24 windows."""
    scoring = stage("curated", "curated", steps // 3)
    rounds = {
        "epochs": 10,
        "validation_freq": 10,
        "start_from": "both",
        "augment": MASKS,
        "optimizer": {"name": "adam", "learning_rate": 1e-3},
        "schedule": {"name": "constant_then_linear"},  # the learning rate of its last epoch is 0
        "select": select({"name": "self_verified", "threshold": 0.6}, "both", rounds=4),
    }
    verification = [stage("both", BOTH, steps // 3), stage("verified", BOTH, steps // 60, **rounds)]
    pseudo = select({"name": "pseudo_labels", "threshold": 0.4}, "curated")
    return {
        "curated only": {"stages": [stage("curated", "curated", steps)]},
        "noisy only": {"stages": [stage("noisy", "noisy", steps)]},
        "both together": {"stages": [stage("both", BOTH, steps)]},
        "noisy, then curated": {
            "stages": [
                stage("noisy", "noisy", steps // 2),
                stage("curated", "curated", steps // 2, start_from="noisy"),
            ]
        },
        "selection": {
            "stages": [
                scoring,
                stage("selected", BOTH, steps * 2 // 3, select=select({"name": "top_ranked"}, "curated")),
            ]
        },
        "self-verification": {"stages": verification, "validation": ALL_FOLDS},
        "verified, then from scratch": {
            "stages": [
                *verification,
                stage("from_scratch", BOTH, steps, select=select({"name": "top_ranked"}, "verified")),
            ],
            "validation": ALL_FOLDS,
        },
        "noise-aware": {"stages": [stage("both", BOTH, steps, noisy_loss={"name": "soft_bootstrapping", "beta": 0.7})]},
        "separate head": {"stages": [stage("both", BOTH, steps)], "noisy_head": True},
        "pseudo-labels": {"stages": [scoring, stage("relabeled", BOTH, steps * 2 // 3, select=pseudo)]},
        "all labels corrected": {"stages": [stage("both", BOTH, steps)]},
    }


def main():
    """Trains all models that are not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default="fsd_like", help="the folder with noisy_truth.csv")
    parser.add_argument("--records", default="tfrecords/fsd_like")
    parser.add_argument("--experiment", type=Path, default=Path(__file__).parents[1] / "experiments" / "noise.json")
    parser.add_argument("--runs", type=Path, default="runs/noise")
    parser.add_argument("--methods", nargs="*", default=list(methods(0)), choices=list(methods(0)))
    parser.add_argument("--steps", type=int, default=600, help="batches of 24 windows per model")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    args = parser.parse_args()
    truth = pd.read_csv(args.source / "noisy_truth.csv", index_col="fname")["true"].map(as_set)
    for method in args.methods:
        rows = [measure(args, method, seed, truth) for seed in args.seeds]
        print(f"{method:20s} lwlrap {spread([row.pop('lwlrap') for row in rows])}", end="")
        for key in rows[0]:
            print(f"  {key} {spread([row[key] for row in rows])}", end="")
        print(flush=True)


def measure(args, method, seed, truth):
    """lwlrap of fold 0's model on the test clips; precision and recall of the labels taken for correct or wrong."""
    settings = methods(args.steps)[method]
    overrides = [f"seed={seed}", f"records={args.records}"]
    overrides += [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    if method == "all labels corrected":
        args.runs.mkdir(parents=True, exist_ok=True)
        rows = pd.DataFrame({"clip": truth.index, "labels": [",".join(sorted(labels)) for labels in truth]})
        write_corrections(args.runs / "truth.csv", rows.assign(weight=1.0, reason="", source="noisy_truth.csv"))
        overrides.append(f"corrections={args.runs / 'truth.csv'}")
    folder = args.runs / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}"
    run = fit(load(args.experiment, overrides), folder, say=lambda sentence: None)
    last = run.experiment.stages[-1]
    clips, scores = score_test_clips(run, fold=0)
    row = {"lwlrap": lwlrap(multi_hot(clips["labels"], run.vocabulary), scores)}
    if last.select is not None:
        final = last.name if last.select.rounds == 1 else f"{last.name}/{run.result(0, last.name)['round']}"
        selected = pd.read_csv(run.stage_files(0, final).selected_clips, index_col="clip")
        correct = selected["labels"].map(as_set) == truth[selected.index]
        row |= precision_and_recall("correct", selected["weight"] > 0, correct)
    elif method == "curated only":
        issues = rank_label_issues(run).query("subset == 'noisy'").set_index("clip")
        wrong = issues["labels"].map(as_set) != truth[issues.index]
        row |= precision_and_recall("wrong", issues["margin"] > 0, wrong)
    return row


def as_set(labels):
    """The labels of a clip as a set."""
    return frozenset(labels.split(","))


def precision_and_recall(name, predicted, actual):
    """Precision and recall of a prediction per clip."""
    return {f"{name} precision": actual[predicted].mean(), f"{name} recall": predicted[actual].mean()}


def spread(values):
    """The mean, the minimum and the maximum."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
