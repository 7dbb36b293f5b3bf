"""What each way to answer adds: windows, pooling, flips, folds, means, ridge and the learned sum, with intervals.

    audiotag fit experiments/fsd_like.json --run runs/answers --set folds.held_out=[0,1,2,3,4]
    python benchmarks/answers.py --run runs/answers

lwlrap on the labelled test clips of the run's records. Each row is compared with another on the same clips: intervals
of 95 % of the difference come from drawing the clips anew for both at once. What is fitted is fitted on the clips held
out from training.
"""

import argparse
import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from audiotag.data.labels import multi_hot
from audiotag.ensembling.combiners import COMBINERS, Learned, Ridge
from audiotag.ensembling.members import combined
from audiotag.evaluation.bootstrap import bootstrap
from audiotag.evaluation.scoring import held_out_answers, score_test_clips
from audiotag.metrics import precisions
from audiotag.runs.directory import open_run
from audiotag.runs.models import heard_as

WAYS = {  # for one model: what changes, against how the experiment hears
    "windows end to end": ["predict.overlap=0"],
    "windows that overlap by 3/4": ["predict.overlap=0.75"],
    "max over windows": ["predict.pool=max"],
    "log-mean-exp over windows": ["predict.pool=log_mean_exp"],
    "M. Pinto's slices, max": ["predict.windows=slices", "predict.pool=max"],
    "8 random windows": ["predict.windows=random"],
    "the whole clip at once": ["predict.windows=whole"],
    "four flips": ["predict.flips=true"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/answers")
    run = open_run(parser.parse_args().run)
    folds = run.trained_folds(run.experiment.stages[-1].name)
    heard = functools.cache(lambda fold, ways: score_test_clips(heard_as(run, ways), fold=fold))
    clips, one = heard(folds[0], ())
    truth = multi_hot(clips["labels"], run.vocabulary)
    print(f"{run.folder}, {len(clips)} test clips, {len(folds)} folds\n")
    print("| way | lwlrap | 95 % | compared with | difference | 95 % |\n|---|---|---|---|---|---|")
    say = functools.partial(show, truth)
    say("one fold, as the experiment hears", one)
    for name, ways in WAYS.items():
        if name == "four flips" and not has_flips(run):
            continue
        say(f"one fold, {name}", heard(folds[0], tuple(ways))[1], "one fold", one)
    if len(folds) < 2:
        return
    members = np.stack([heard(fold, ())[1] for fold in folds], axis=1)  # [clips, E, K]
    alike = [1] * len(folds)
    means = {name: combined(COMBINERS[name](weights=alike), members) for name in ("arithmetic", "geometric", "ranks")}
    say(f"{len(folds)} folds, arithmetic mean", means["arithmetic"], "one fold", one)
    for name in ("geometric", "ranks"):
        say(f"{len(folds)} folds, {name}", means[name], "arithmetic", means["arithmetic"])
    judges, scores = held_out_answers(run)
    judged = multi_hot(judges["labels"], run.vocabulary)
    everyone = means["arithmetic"][:, None]  # [clips, 1, K]
    for name, combine in (("ridge, level 1", Ridge(level=1)), ("ridge, level 2", Ridge()), ("learned sum", Learned())):
        answer = combined(combine.fit(scores[:, None], judged), everyone)
        say(f"{len(folds)} folds, {name}", answer, "arithmetic", means["arithmetic"])


def has_flips(run):
    """Whether the run's network was taught flips as labels."""
    return any(part.name == "flip_labels" for part in (*run.experiment.picture, *run.experiment.augment))


def show(truth, name, logits, other_name="", other=None):
    """Prints one row of the table."""
    found, labels = precisions(truth, logits).sum(axis=1), truth.sum(axis=1)
    share = lambda rows: found[rows].sum() / labels[rows].sum()
    low, high = bootstrap(share, len(truth))
    line = f"| {name} | {share(slice(None)):.4f} | {low:.3f} to {high:.3f} |"
    if other is not None:
        apart = found - precisions(truth, other).sum(axis=1)  # [clips]
        half = lambda rows: 0.5 + apart[rows].sum() / labels[rows].sum() / 2  # a share, as bootstrap wants it
        low, high = (2 * edge - 1 for edge in bootstrap(half, len(truth)))
        line += f" {other_name} | {2 * half(slice(None)) - 1:+.4f} | {low:+.3f} to {high:+.3f} |"
    else:
        line += " | | |"
    print(line, flush=True)


if __name__ == "__main__":
    main()
