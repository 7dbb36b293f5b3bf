"""How good is a run? Its scores on labelled clips, overall and class by class, clip by clip, beside chance.

Scores are logits here, float64: no two of them become equal by rounding.
"""


import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag.data.labels import multi_hot
from audiotag.errors import DataError
from audiotag.evaluation import thresholds
from audiotag.evaluation.bootstrap import bootstrap
from audiotag.evaluation.score_tables import can_write_parquet, scores_table, write_scores
from audiotag.evaluation.scoring import check_scores
from audiotag.metrics import (
    areas_under_roc,
    average_precisions,
    chance_at_k,
    chance_lwlrap,
    chance_precision,
    per_clip_lwlrap,
    precisions,
    precisions_at_k,
)


def fit_thresholds(clips, logits, vocabulary):
    """Above which logit each class is heard, fitted on clips that training never heard: [K]."""
    return thresholds.fit_thresholds(labelled(clips, logits, vocabulary), logits)


def fit_thresholds_across(clips, logits, vocabulary):
    """The same for the very clips that they are fitted on, each with the thresholds of the other folds: [clips, K]."""
    return thresholds.fit_across(labelled(clips, logits, vocabulary), logits, clips["usage"])


def judge(clips, logits, vocabulary, *, thresholds=None):
    """{name: table} of all that can be said of scores on labelled clips.

    Its tables are overall, classes, clips, calibration and the scores.
    """
    overall, classes = evaluate(clips, logits, vocabulary, thresholds=thresholds)
    reliability = thresholds.calibration(labelled(clips, logits, vocabulary), expit(logits))
    tables = {"overall": overall, "classes": classes, "clips": judge_clips(clips, logits, vocabulary)}
    return tables | {"calibration": reliability, "scores": scores_table(clips["name"], logits, vocabulary)}


def in_words(tables):
    """What `judge` found, for a terminal."""
    shown = ["class", "clips", "lwlrap", "low", "high", "chance", "threshold", "precision", "recall", "f", "chance_f"]
    texts = [
        table.to_string(index=False, float_format="%.4f")
        for table in (tables["classes"][shown], tables["overall"])
    ]
    error = thresholds.calibration_error(tables["calibration"])
    return "\n\n".join([*texts, f"expected calibration error {error:.4f}, 0 is best; intervals hold 95 %"])


def write_tables(folder, tables):
    """Writes each table as CSV into a folder, and the scores as Parquet too where pyarrow is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_scores(folder / f"{name}.csv", table)
    if can_write_parquet():
        write_scores(folder / "scores.parquet", tables["scores"])


def evaluate(clips, logits, vocabulary, *, thresholds=None):
    """Measures scores on labelled clips, beside what chance would get and with intervals.

    Intervals are those of 95 % by the bootstrap: the clips are drawn anew, with
    replacement, and measured again; what lies between them may be no difference.

    Args:
        clips: A table of clips.
        logits: [len(clips), K].
        vocabulary: The K class names.
        thresholds: Above which logit a class is heard, [K] or [len(clips), K]; None is 0, which is probability 1/2.

    Returns:
        (overall, classes): `overall` has a row a measure for all clips and for each part of a leaderboard or fold
        (columns part, clips, measure, value, low, high, chance); `classes` a row a class.

    Raises:
        DataError: The clips have no labels, or scores are missing or NaN.
    """
    truth = labelled(clips, logits, vocabulary)  # [clips, K]
    thresholds = np.broadcast_to(thresholds.EVEN if thresholds is None else thresholds, np.shape(logits))
    overall = pd.concat(
        [
            measure_part(truth[rows], logits[rows], thresholds[rows]).assign(part=part, clips=int(rows.sum()))
            for part, rows in parts_of(clips).items()
        ],
        ignore_index=True,
    )
    columns = ["part", "clips", "measure", "value", "low", "high", "chance"]
    return overall[columns], measure_classes(truth, logits, thresholds, vocabulary)


def labelled(clips, logits, vocabulary):
    """The truth of clips [clips, K], once there are labels, and scores to compare them with."""
    refuse_unlabelled(clips)
    check_scores(clips, logits)
    return multi_hot(clips["labels"], vocabulary)


def refuse_unlabelled(clips):
    """Raises DataError where no clip has a label."""
    if (clips["labels"] == "").all():
        raise DataError("The test clips have no labels, so there is nothing to compare with. See: audiotag submit")


def parts_of(clips):
    """{part: bool [clips]}: all, and the parts of a leaderboard or the folds that `usage` tells apart."""
    usages = ("Public", "Private", *sorted(set(clips["usage"]) - {"", "Public", "Private"}))
    parts = {usage: (clips["usage"] == usage).to_numpy() for usage in usages}
    return {"all": np.full(len(clips), True)} | {part: rows for part, rows in parts.items() if rows.any()}


def measure_part(truth, logits, thresholds):
    """Every measure of some clips, a row each: measure, value, low, high, chance."""
    num_clips = len(truth)
    carried = truth.any(axis=0)  # [K]
    counts, labels = truth.sum(axis=0)[carried], truth.sum(axis=1)  # [K], [clips]
    precise, found = precisions(truth, logits).sum(axis=1), precisions_at_k(truth, logits)  # [clips] both
    first = truth[np.arange(num_clips), logits.argmax(axis=1)]  # [clips]: 1 where the first answer is right
    chosen = logits >= thresholds
    by_chance = thresholds.judge_decisions(truth, chosen)["chance_f"]
    measures = {  # a function: which rows → a number; what chance gets
        "lwlrap": (lambda rows: precise[rows].sum() / max(1, labels[rows].sum()), chance_lwlrap(truth)),
        "MAP@3": (lambda rows: found[rows].sum() / max(1, (labels[rows] > 0).sum()), chance_at_k(truth)),
        "top_1": (lambda rows: first[rows].mean(), truth.mean()),
        "mAP": (
            lambda rows: _mean(average_precisions(truth[rows], logits[rows])),
            _mean(chance_precision(counts, num_clips)),
        ),
        "AUC": (lambda rows: _mean(areas_under_roc(truth[rows], logits[rows])), 0.5),
        "F": (lambda rows: _mean(thresholds.f(truth[rows], chosen[rows])[carried]), _mean(by_chance[carried])),
    }
    table = []
    for name, (measure, chance) in measures.items():
        low, high = bootstrap(measure, num_clips)
        value = measure(np.arange(num_clips))
        table.append({"measure": name, "value": value, "low": low, "high": high, "chance": chance})
    return pd.DataFrame(table)


def measure_classes(truth, logits, thresholds, vocabulary):
    """A row a class: clips, lwlrap with its interval, average precision, AUC, threshold, decisions; and chance.

    A class that no clip carries has the lwlrap NaN.
    """
    num_clips, num_classes = truth.shape
    counts = truth.sum(axis=0).astype(int)  # [K]
    by_chance = chance_precision(np.maximum(1, truth.sum(axis=1)), num_classes)  # [clips]
    found = precisions(truth, logits)  # [clips, K]
    share = lambda rows: found[rows].sum(axis=0) / truth[rows].sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: clips that do not carry a class tell nothing of it
        value, (low, high) = share(np.arange(num_clips)), bootstrap(share, num_clips)
    table = pd.DataFrame(
        {
            "class": vocabulary,
            "clips": counts,
            "lwlrap": value,
            "low": low,
            "high": high,
            "chance": by_chance @ truth / np.maximum(1, counts),
            "average_precision": average_precisions(truth, logits),
            "chance_average_precision": chance_precision(np.maximum(1, counts), num_clips),
            "auc": areas_under_roc(truth, logits),
            "chance_auc": 0.5,
            "threshold": expit(thresholds.mean(axis=0)),
        }
    )
    return pd.concat([table, thresholds.judge_decisions(truth, logits >= thresholds)], axis=1)


def judge_clips(clips, logits, vocabulary):
    """A row a clip, the worst first: name, labels, lwlrap, what chance gets, and the three best classes."""
    truth = labelled(clips, logits, vocabulary)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :3]  # [clips, 3]
    table = pd.DataFrame(
        {
            "name": clips["name"].to_numpy(),
            "labels": clips["labels"].to_numpy(),
            "lwlrap": per_clip_lwlrap(truth, logits),
            "chance": chance_precision(np.maximum(1, truth.sum(axis=1)), len(vocabulary)),
            "answer": [" ".join(vocabulary[label] for label in row) for row in best],
        }
    )
    return table[truth.any(axis=1)].sort_values(["lwlrap", "name"], ignore_index=True)


def _mean(values):
    """The mean of what is known; NaN where nothing is."""
    values = np.asarray(values)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


