"""How well label selection tells right labels from wrong ones, on real recordings.

    audiotag sweep sweeps/fsd_like_selected.json
    python benchmarks/selected_labels.py runs/fsd_like_selected-sweep/*/

Each run's records, as tfrecords/fsd_like-1, were made from a folder of the same name in --sources, in which
benchmarks/fsd_like_from_esc10.py wrote noisy_truth.csv. Prints means over the records, and the range over seeds: how
many noisy clips are selected, how many of these are labeled correctly (precision), what part of all correct labels that
is (recall), and the AUC of wrong against correct labels, ranked by the first stage as `label-issues` does.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from audiotag.crossval.label_issues import rank_label_issues
from audiotag.runs.directory import open_run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--sources", type=Path, default=".", help="the folder with the datasets")
    args = parser.parse_args()
    rows = pd.DataFrame([measure(open_run(folder), args.sources) for folder in args.runs])
    print(rows.to_string(index=False, float_format="{:.3f}".format))
    seeds = rows.drop(columns="records").groupby("seed").mean()
    print(seeds.agg(["mean", "min", "max"]).round(3).to_string())


def measure(run, sources):
    """The selection of a run compared with the correct labels."""
    truth = pd.read_csv(sources / Path(run.experiment.records).name / "noisy_truth.csv", index_col="fname")["right"] > 0
    folds = run.trained_folds(run.experiment.stages[-1].name)
    selected = pd.read_csv(run.stage_files(folds[0], "selected").selected_clips, index_col="clip")
    chosen = selected.index[selected["weight"] > 0]
    issues = rank_label_issues(run, stage="curated").query("subset == 'noisy'").set_index("clip")
    return {
        "records": run.experiment.records,
        "seed": run.experiment.seed,
        "selected": len(chosen),
        "precision": np.mean(truth[chosen]),
        "recall": truth[chosen].sum() / truth.sum(),
        "auc": roc_auc_score(~truth[issues.index], issues["margin"]),
    }


if __name__ == "__main__":
    main()
