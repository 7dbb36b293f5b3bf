"""How much methods for unreliable labels gain: the share of what all labels right would gain.

    python benchmarks/gap.py --curated 'runs/fsd_like_methods-sweep/curated-only-*' \\
      --correct 'runs/fsd_like_correct-sweep/both-*' \\
      --method selection 'runs/fsd_like_selected-sweep/in-*'

Each pattern matches the runs of one method, on one or more test folds and with one or more seeds; docs/results.md has
the commands that train them. Prints for each the mean lwlrap on the test clips with its 95% interval over seeds and
recordings, the paired difference to the runs on curated clips alone and to the first method, and the share of the gap.
Of a run with several folds each model is also measured alone.
"""

import argparse
import glob
from collections import defaultdict

from audiotag.errors import DataError
from audiotag.evaluation.comparison import difference, estimate, mean_of, measure_recordings
from audiotag.evaluation.scoring import score_test_clips
from audiotag.runs.directory import Run, open_run

CURATED, CORRECT = "curated clips alone", "all labels right"


def main():
    """Measures all runs and prints a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curated", required=True, metavar="RUNS")
    parser.add_argument("--correct", required=True, metavar="RUNS")
    parser.add_argument("--method", nargs=2, action="append", required=True, metavar=("NAME", "RUNS"))
    args = parser.parse_args()
    patterns = {CURATED: args.curated, **dict(args.method), CORRECT: args.correct}
    found = {}
    for name, pattern in patterns.items():
        runs = [open_run(folder) for folder in sorted(glob.glob(pattern))]
        if not runs:
            raise DataError(f"no run matches {pattern}")
        found[name] = by_test_recordings(runs)
        if all(len(folds_of(run)) > 1 for run in runs):
            found[f"{name}, one fold"] = by_test_recordings(runs, alone=True)
    first = args.method[0][0]
    print(f"| method | lwlrap | less {CURATED} | share of the gap | less {first} |\n|---|---|---|---|---|")
    for name, measured in found.items():
        print_row(name, measured, found, first)


def by_test_recordings(runs: list[Run], *, alone: bool = False):
    """{the test recordings: what is measured with each seed}; with `alone` the mean of the models of single folds."""
    several = defaultdict(list)
    for run in runs:
        models = []
        for fold in folds_of(run) if alone else [None]:
            clips, logits = score_test_clips(run, fold=fold)
            models.append(measure_recordings(clips, logits, run.vocabulary))
        several[models[0].recordings].append(mean_of(models))
    return several


def folds_of(run: Run):
    """The trained folds of a run's last stage."""
    return run.trained_folds(run.experiment.stages[-1].name)


def print_row(name, measured, found, first):
    """Prints a row of the table, over the test recordings that all its methods have in common."""
    value = over_seeds(measured)
    cells = [name, f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f}), {len(measured)} folds"]
    gain = paired(measured, found[CURATED])
    cells.append(f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" if name != CURATED else "")
    common = measured.keys() & found[CURATED].keys() & found[CORRECT].keys()
    mean = {each: over_seeds({key: found[each][key] for key in common}).mean for each in (CURATED, CORRECT, name)}
    cells.append(f"{(mean[name] - mean[CURATED]) / (mean[CORRECT] - mean[CURATED]):.2f}" if name != CURATED else "")
    less = paired(measured, found[first])
    cells.append(f"{less.mean:+.3f} ({less.low:+.3f} to {less.high:+.3f})" if name != first else "")
    print(f"| {' | '.join(cells)} |", flush=True)


def over_seeds(measured):
    """The estimate of lwlrap over all test recordings of a method."""
    return estimate(by_seed(measured, measured), "lwlrap")


def paired(measured, other):
    """The estimate of a difference, over the test recordings that both have, and as many seeds."""
    common = measured.keys() & other.keys()
    pairs = zip(by_seed(measured, common), by_seed(other, common))
    return estimate([difference(*pair) for pair in pairs], "lwlrap")


def by_seed(measured, common):
    """What is measured with each seed that all these test recordings have, the mean over these."""
    return [mean_of(seed) for seed in zip(*(measured[key] for key in common))]


if __name__ == "__main__":
    main()
