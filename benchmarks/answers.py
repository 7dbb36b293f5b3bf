"""What each way of predicting adds: windows, pooling, flips and the mean of several runs, with confidence intervals.

    audiotag sweep sweeps/fsd_like_selected.json
    python benchmarks/answers.py runs/fsd_like_selected-sweep/*/

Prints lwlrap on the labeled test clips, the mean over all runs with its 95% interval over seeds and recordings, and the
paired difference to another row. Runs with the same records, trained with several seeds, are also combined; intervals
of these rows are over recordings alone.
"""

import argparse
import os
from collections import defaultdict

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from audiotag.ensembling.combiners import COMBINERS
from audiotag.ensembling.members import combine_in_blocks
from audiotag.evaluation.comparison import difference, estimate, mean_of, measure_recordings
from audiotag.evaluation.scoring import score_test_clips
from audiotag.runs.directory import open_run
from audiotag.runs.models import with_predict_options

AS_TRAINED = "as in the experiment"
OPTIONS = {  # changes to the experiment's "predict"
    AS_TRAINED: [],
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
MEANS = ("mean", "geometric_mean", "rank_mean")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    runs = [open_run(folder) for folder in parser.parse_args().runs]
    print("| prediction | lwlrap | compared with | difference |\n|---|---|---|---|")
    names = [name for name in OPTIONS if "flips" not in name or all(map(has_flips, runs))]
    found = {}  # {way of predicting: {seed: what is measured}}
    for name in names:
        scored = [score_test_clips(with_predict_options(run, OPTIONS[name])) for run in runs]
        found[name] = by_seed(runs, scored)
        other = "four flips of windows" if name == "four flips of the clip" else AS_TRAINED
        print_row(name, found[name], other, found[other])
        if name == AS_TRAINED:
            members = scored
    teams = defaultdict(list)  # {records: their runs}
    for place, run in enumerate(runs):
        teams[run.experiment.records].append(place)
    size = min(map(len, teams.values()))
    if size > 1:
        print_means(runs, members, list(teams.values()), size)


def has_flips(run):
    """Whether the run's network was trained with flips as classes."""
    components = (*run.experiment.image_preprocess, *run.experiment.augment)
    return any(component.name == "flips_as_classes" for component in components)


def by_seed(runs, scored):
    """{seed: what is measured}, of several records the mean."""
    found = defaultdict(list)
    for run, (clips, logits) in zip(runs, scored, strict=True):
        found[run.experiment.seed].append(measure_recordings(clips, logits, run.vocabulary))
    return {seed: mean_of(several) for seed, several in found.items()}


def print_means(runs, scored, teams, size):
    """Prints a row for each mean over runs with the same records, compared with the mean of their scores."""
    single = {"all": mean_of([*by_seed(runs, scored).values()])}
    means = {}
    for name in MEANS:
        combiner = COMBINERS[name](weights=[1] * size)
        measured = []
        for places in teams:
            clips, members = scored[places[0]][0], [scored[place][1] for place in places[:size]]
            logits = combine_in_blocks(combiner, np.stack(members, axis=1))  # [clips, size, K] -> [clips, K]
            measured.append(measure_recordings(clips, logits, runs[places[0]].vocabulary))
        means[name] = {"all": mean_of(measured)}
        other = (AS_TRAINED, single) if name == "mean" else ("mean", means["mean"])
        print_row(f"{name} of {size} runs", means[name], *other)


def print_row(name, found, other_name, other):
    """Prints one row of the table; without a difference if it is compared with itself."""
    value = estimate([*found.values()], "lwlrap")
    line = f"| {name} | {value.mean:.3f} ({value.low:.3f} to {value.high:.3f}) |"
    if found is other:
        print(f"{line} | |", flush=True)
        return
    less = estimate([difference(found[seed], other[seed]) for seed in found], "lwlrap")
    print(f"{line} {other_name} | {less.mean:+.3f} ({less.low:+.3f} to {less.high:+.3f}) |", flush=True)


if __name__ == "__main__":
    main()
