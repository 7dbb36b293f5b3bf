"""What each way of predicting adds: windows, pooling, flips, folds and combiners, with confidence intervals.

    audiotag fit experiments/fsd_like.json --run runs/answers --set validation.folds.held_out=[0,1,2,3,4]
    python benchmarks/answers.py --run runs/answers

Prints lwlrap on the labeled test clips of the run's records. Each row is compared with another on the same clips: the
95% interval of the difference comes from resampling the clips for both at once. Ridge and logit weights are fitted on
the clips held out from training.
"""

import argparse
import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from audiotag.data.labels import multi_hot
from audiotag.ensembling.combiners import COMBINERS, LogitWeights, Ridge
from audiotag.ensembling.members import combine_in_blocks
from audiotag.evaluation.bootstrap import bootstrap
from audiotag.evaluation.scoring import out_of_fold_predictions, score_test_clips
from audiotag.metrics import precisions
from audiotag.runs.directory import open_run
from audiotag.runs.models import with_predict_options

OPTIONS = {  # of one model: changes to the experiment's "predict"
    "windows end to end": ["predict.overlap=0"],
    "windows that overlap by 3/4": ["predict.overlap=0.75"],
    "max over windows": ["predict.pool=max"],
    "log-mean-exp over windows": ["predict.pool=log_mean_exp"],
    "drop_remainder, max (M. Pinto)": ["predict.windows=drop_remainder", "predict.pool=max"],
    "8 random windows": ["predict.windows=random"],
    "full clip": ["predict.windows=full_clip"],
    "four flips of windows": ["predict.flip_tta=windows"],
    "four flips of the clip": ["predict.flip_tta=clip"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/answers")
    run = open_run(parser.parse_args().run)
    folds = run.trained_folds(run.experiment.stages[-1].name)
    predict = functools.cache(lambda fold, overrides: score_test_clips(with_predict_options(run, overrides), fold=fold))
    clips, one_fold = predict(folds[0], ())
    truth = multi_hot(clips["labels"], run.vocabulary)
    print(f"{run.folder}, {len(clips)} test clips, {len(folds)} folds\n")
    print("| prediction | lwlrap | 95% | compared with | difference | 95% |\n|---|---|---|---|---|---|")
    row = functools.partial(print_row, truth)
    row("one fold, as in the experiment", one_fold)
    for name, overrides in OPTIONS.items():
        if "flips" in name and not has_flips(run):
            continue
        other = "four flips of windows" if name == "four flips of the clip" else "one fold"
        compared = predict(folds[0], tuple(OPTIONS.get(other, ())))[1]
        row(f"one fold, {name}", predict(folds[0], tuple(overrides))[1], other, compared)
    if len(folds) < 2:
        return
    members = np.stack([predict(fold, ())[1] for fold in folds], axis=1)  # [clips, E, K]
    weights = [1] * len(folds)
    means = ("mean", "geometric_mean", "rank_mean")
    means = {name: combine_in_blocks(COMBINERS[name](weights=weights), members) for name in means}
    row(f"{len(folds)} folds, mean", means["mean"], "one fold", one_fold)
    for name in ("geometric_mean", "rank_mean"):
        row(f"{len(folds)} folds, {name}", means[name], "mean", means["mean"])
    oof_clips, oof_logits = out_of_fold_predictions(run)
    oof_truth = multi_hot(oof_clips["labels"], run.vocabulary)
    mean = means["mean"][:, None]  # [clips, 1, K]
    combiners = {"ridge, level 1": Ridge(level=1), "ridge, level 2": Ridge(), "logit_weights": LogitWeights()}
    for name, combiner in combiners.items():
        logits = combine_in_blocks(combiner.fit(oof_logits[:, None], oof_truth), mean)
        row(f"{len(folds)} folds, {name}", logits, "mean", means["mean"])


def has_flips(run):
    """Whether the run's network was trained with flips as classes."""
    components = (*run.experiment.image_preprocess, *run.experiment.augment)
    return any(component.name == "flips_as_classes" for component in components)


def print_row(truth, name, logits, other_name="", other=None):
    """Prints one row of the table."""
    gained, num_labels = precisions(truth, logits).sum(axis=1), truth.sum(axis=1)  # [clips]
    lwlrap = lambda weights: weights @ gained / (weights @ num_labels)  # [draws, clips] -> [draws]
    low, high = bootstrap(lwlrap, len(truth))
    line = f"| {name} | {lwlrap(np.ones(len(truth))):.4f} | {low:.3f} to {high:.3f} |"
    if other is not None:
        difference = gained - precisions(truth, other).sum(axis=1)  # [clips]
        halved = lambda weights: 0.5 + weights @ difference / (weights @ num_labels) / 2  # 0 to 1, as bootstrap expects
        low, high = (2 * edge - 1 for edge in bootstrap(halved, len(truth)))
        line += f" {other_name} | {2 * halved(np.ones(len(truth))) - 1:+.4f} | {low:+.3f} to {high:+.3f} |"
    else:
        line += " | | |"
    print(line, flush=True)


if __name__ == "__main__":
    main()
