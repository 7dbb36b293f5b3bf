"""How good is a run? Its scores on labelled clips, overall and class by class."""

import numpy as np
import pandas as pd

from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.manifest import read_manifest
from audiotag.errors import DataError
from audiotag.inference.predict import load_taggers, score_records
from audiotag.metrics import lwlrap, per_class_lwlrap


def score_test_clips(run, *, records=None, stage=None):
    """(clips, scores): the test clips of a run's records, and what the run thinks of them.

    Args:
        run: A `Run`.
        records: A directory of records; None is the one of the experiment.
        stage: The stage whose weights to take; None is the last.

    Returns:
        A table of clips, and probabilities float64 [len(clips), K].
    """
    manifest = read_manifest(records or run.experiment.records)
    if manifest.vocabulary != run.vocabulary:
        raise DataError(f"{manifest.directory}: has other classes than {run.folder} was trained for.")
    if manifest.sample_rate != run.sample_rate:
        raise DataError(
            f"{manifest.directory}: {manifest.sample_rate} Hz; {run.folder} was trained at {run.sample_rate} Hz."
        )
    clips = read_clips(manifest.directory / "clips.csv")
    clips = clips[clips["subset"] == "test"].reset_index(drop=True)
    if clips.empty:
        raise DataError(f"{manifest.directory}: holds no test clips.")
    return clips, score_records(load_taggers(run, stage), manifest, clips)


def held_out_clips(run):
    """(clips, scores): the curated clips that were held out so far, and what the model that never heard them thinks.

    `usage` of the clips is "fold K", so that `evaluate` measures each fold too.

    Raises:
        DataError: No fold is trained to its end yet.
    """
    tables = {fold: run.folder / f"fold-{fold}" / "out_of_fold.csv" for fold in range(run.experiment.folds.count)}
    tables = {fold: pd.read_csv(path, dtype={"name": str}) for fold, path in tables.items() if path.is_file()}
    if not tables:
        raise DataError(f"{run.folder}: no fold is trained to its end yet. Finish the run with: audiotag fit")
    scores = pd.concat([table.assign(usage=f"fold {fold}") for fold, table in tables.items()], ignore_index=True)
    clips = read_clips(read_manifest(run.experiment.records).directory / "clips.csv").drop(columns="usage")
    clips = scores[["name", "usage"]].merge(clips, on="name", how="left", validate="one_to_one")
    return clips, scores[list(run.vocabulary)].to_numpy()


def evaluate(clips, scores, vocabulary):
    """Measures scores on labelled clips.

    Returns:
        (overall, classes): `overall` has a row for all clips and one for each part of a leaderboard or fold
        (columns part, clips, lwlrap, chance, and top_1, the share of the clips whose first answer is right);
        `classes` a row a class (columns class, clips, lwlrap).

    Raises:
        DataError: The clips have no labels.
    """
    if (clips["labels"] == "").all():
        raise DataError("The test clips have no labels, so there is nothing to compare with. See: audiotag submit")
    truth = multi_hot(clips["labels"], vocabulary)  # [clips, K]
    parts = {"all": np.full(len(clips), True)}
    parts |= {
        usage: (clips["usage"] == usage).to_numpy()
        for usage in ("Public", "Private", *sorted(set(clips["usage"]) - {"", "Public", "Private"}))
        if (clips["usage"] == usage).any()
    }
    overall = pd.DataFrame(
        {
            "part": part,
            "clips": int(rows.sum()),
            "lwlrap": lwlrap(truth[rows], scores[rows]),
            "chance": lwlrap(truth[rows], np.random.default_rng(0).random(scores[rows].shape)),
            "top_1": truth[rows, scores[rows].argmax(axis=1)].mean(),
        }
        for part, rows in parts.items()
    )
    classes = pd.DataFrame(
        {"class": vocabulary, "clips": truth.sum(axis=0).astype(int), "lwlrap": per_class_lwlrap(truth, scores)}
    )
    return overall, classes
