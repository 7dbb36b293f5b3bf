"""Experiments whose stages select noisy clips, and the tables that their runs leave."""

import json

import pandas as pd

from audiotag.training import loop

STAGE = {"batch_size": 8, "optimizer": {"name": "adam", "learning_rate": 0.01}, "loss": {"name": "binary_crossentropy"}}
BOTH = ["curated", "noisy"]
RULE = {"name": "self_verified", "threshold": 0.0}
SELECT = {"rule": RULE, "score_with": "all", "predict": {"windows": "random", "num_windows": 3}} | {
    "max_per_class": 1,
    "rounds": 2,
}
STAGES = [
    STAGE | {"name": "all", "subset": BOTH, "epochs": 1, "keep": "last"},
    STAGE | {"name": "verified", "subset": BOTH, "epochs": 1, "keep": "last", "start_from": "all", "select": SELECT},
]
FILTERS = "model.filters=[8]"
TWO_FOLDS = 'validation={"folds": {"num_folds": 2, "held_out": [0, 1], "split_noisy": true}}'
ROUNDS = (FILTERS, f"stages={json.dumps(STAGES)}", TWO_FOLDS)


def fit(experiment, folder, **options):
    """`loop.fit` without messages."""
    return loop.fit(experiment, folder, say=lambda sentence: None, **options)


def selected_by_curated(rule, threshold, *, subset=BOTH):
    """Overrides: a stage of curated clips, whose model then selects the noisy clips of another."""
    select = {"rule": {"name": rule, "threshold": threshold}, "score_with": "curated"}
    curated = STAGE | {"name": "curated", "subset": "curated", "epochs": 1, "keep": "last"}
    selected = STAGE | {"name": "selected", "subset": subset, "epochs": 1, "keep": "last", "select": select}
    return FILTERS, f"stages={json.dumps([curated, selected])}"


def table(run, fold, stage, name):
    """A table of a stage's folder."""
    return pd.read_csv(run.stage_files(fold, stage).folder / name, keep_default_na=False)


def folds_of(run):
    """The fold of each clip that is held out at some time."""
    return pd.read_csv(run.folds_file, index_col="name")["fold"]
