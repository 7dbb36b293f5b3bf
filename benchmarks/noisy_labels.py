"""Ways with unreliable labels, side by side: the same tiny network, as many windows, three seeds.

Trains experiments/noise.json with the stages of each way, on the real recordings of
benchmarks/fsd_like_from_esc10.py, whose noisy_truth.csv tells which noisy labels are right:

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like
    audiotag make-records fsd_like --sample-rate 22050
    python benchmarks/noisy_labels.py --source fsd_like

Prints lwlrap on the test clips, and how often what a way takes for right is right. The last way hears both kinds with
every label put right, which is the most that any of the others could do. Goes on where it was stopped.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from audiotag.config.loading import load
from audiotag.crossval.label_issues import suspects
from audiotag.data.corrections import write_corrections
from audiotag.data.labels import multi_hot
from audiotag.evaluation.scoring import score_test_clips
from audiotag.metrics import lwlrap
from audiotag.training.loop import fit

EVERY_FOLD = {"count": 5, "held_out": [0, 1, 2, 3, 4], "noisy": True}


def stage(name, subset, steps, **more):
    """A stage of so many steps; noisy and curated clips half and half."""
    both = {"curated": 0.5, "noisy": 0.5} if subset == ["curated", "noisy"] else None
    return {
        "name": name,
        "subset": subset,
        "epochs": 1,
        "steps": steps,
        "shares": both,
        "batch_size": 24,
        "optimizer": {"name": "adam", "learning_rate": 3e-3},
        "schedule": {"name": "one_cycle"},
        "loss": {"name": "binary_crossentropy", "label_smoothing": 0.1},
    } | more


def select(rule, scored_by, **more):
    """A selection among the noisy clips."""
    return {"rule": rule, "scored_by": scored_by} | more


BOTH = ["curated", "noisy"]
MASKS = [
    {"name": "frequency_mask", "max_width": 6, "count": 2},
    {"name": "time_mask", "max_width": 10, "count": 2},
]


def ways(steps):
    """{name: what it sets of the experiment}; every model hears so many batches of 24 windows."""
    judge = stage("curated", "curated", steps // 3)
    rounds = {
        "epochs": 10,
        "validation_freq": 10,
        "start_from": "both",
        "augment": MASKS,
        "optimizer": {"name": "adam", "learning_rate": 1e-3},
        "schedule": {"name": "hold_then_linear"},  # its last epoch has no rate
        "select": select({"name": "verified", "at_least": 0.6}, "both", rounds=4),
    }
    verification = [stage("both", BOTH, steps // 3), stage("verified", BOTH, steps // 60, **rounds)]
    pseudo = select({"name": "pseudo_labels", "at_least": 0.4}, "curated")
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
            "stages": [judge, stage("selected", BOTH, steps * 2 // 3, select=select({"name": "ranked"}, "curated"))]
        },
        "self-verification": {"stages": verification, "folds": EVERY_FOLD},
        "verified, then afresh": {
            "stages": [*verification, stage("afresh", BOTH, steps, select=select({"name": "ranked"}, "verified"))],
            "folds": EVERY_FOLD,
        },
        "noise-aware": {"stages": [stage("both", BOTH, steps, noisy_loss={"name": "soft_bootstrapping", "beta": 0.7})]},
        "separate head": {"stages": [stage("both", BOTH, steps)], "noisy_head": True},
        "pseudo-labels": {"stages": [judge, stage("relabelled", BOTH, steps * 2 // 3, select=pseudo)]},
        "all put right": {"stages": [stage("both", BOTH, steps)]},
    }


def main():
    """Trains what is not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default="fsd_like", help="the folder with noisy_truth.csv")
    parser.add_argument("--records", default="tfrecords/fsd_like")
    parser.add_argument("--experiment", type=Path, default=Path(__file__).parents[1] / "experiments" / "noise.json")
    parser.add_argument("--runs", type=Path, default="runs/noise")
    parser.add_argument("--ways", nargs="*", default=list(ways(0)), choices=list(ways(0)))
    parser.add_argument("--steps", type=int, default=600, help="batches of 24 windows for each model")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    told = parser.parse_args()
    truth = pd.read_csv(told.source / "noisy_truth.csv", index_col="fname")["true"].map(as_set)
    for way in told.ways:
        rows = [measure(told, way, seed, truth) for seed in told.seeds]
        print(f"{way:20s} lwlrap {spread([row.pop('lwlrap') for row in rows])}", end="")
        for key in rows[0]:
            print(f"  {key} {spread([row[key] for row in rows])}", end="")
        print(flush=True)


def measure(told, way, seed, truth):
    """lwlrap of the model of fold 0 on the test clips; precision and recall of the clips taken for right, or wrong."""
    settings = ways(told.steps)[way]
    overrides = [f"seed={seed}", f"records={told.records}"]
    overrides += [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    if way == "all put right":
        told.runs.mkdir(parents=True, exist_ok=True)
        rows = pd.DataFrame({"clip": truth.index, "labels": [",".join(sorted(labels)) for labels in truth]})
        write_corrections(told.runs / "truth.csv", rows.assign(weight=1.0, reason="", source="noisy_truth.csv"))
        overrides.append(f"corrections={told.runs / 'truth.csv'}")
    folder = told.runs / f"{way.replace(', ', '-').replace(' ', '-')}-{seed}"
    run = fit(load(told.experiment, overrides), folder, say=lambda sentence: None)
    last = run.experiment.stages[-1]
    clips, scores = score_test_clips(run, fold=0)
    row = {"lwlrap": lwlrap(multi_hot(clips["labels"], run.vocabulary), scores)}
    if last.select is not None:
        final = last.name if last.select.rounds == 1 else f"{last.name}/{run.finished(0, last.name)['round']}"
        verdict = pd.read_csv(run.stage_folder(0, final) / "corrections.csv", index_col="clip")
        row |= found("right", verdict["weight"] > 0, verdict["labels"].map(as_set) == truth[verdict.index])
    elif way == "curated only":
        doubted = suspects(run).query("subset == 'noisy'").set_index("clip")
        row |= found("wrong", doubted["margin"] > 0, doubted["labels"].map(as_set) != truth[doubted.index])
    return row


def as_set(labels):
    """The labels of a clip without their order."""
    return frozenset(labels.split(","))


def found(what, taken, truly):
    """Precision and recall of the clips taken to be something."""
    return {f"{what} precision": truly[taken].mean(), f"{what} recall": taken[truly].mean()}


def spread(values):
    """The mean and the extremes."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
