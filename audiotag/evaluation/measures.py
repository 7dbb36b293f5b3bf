"""Metrics of scored clips, here called measures: overall, per class and per clip.

They come with intervals and chance levels. Scores are logits in float64, so that different scores
do not become equal by rounding.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.special import expit

from audiotag.data.labels import multi_hot
from audiotag.errors import DataError
from audiotag.evaluation import thresholds as thresholding
from audiotag.evaluation.bootstrap import bootstrap
from audiotag.evaluation.score_tables import can_write_parquet, scores_table, write_scores
from audiotag.evaluation.scoring import check_scores
from audiotag.evaluation.weighted_areas import WeightedAreas
from audiotag.metrics import (
    areas_under_roc,
    average_precisions,
    average_precisions_at_k,
    chance_lwlrap,
    chance_map_at_k,
    chance_precision,
    per_clip_lwlrap,
    precisions,
)

MEASURES = {  # of `measure_split`, in its order: what each is, for reports
    "lwlrap": "label-weighted label-ranking average precision: how high a clip's labels rank among its classes",
    "MAP@3": "mean average precision of the three most probable classes of a clip",
    "top_1_accuracy": "fraction of clips whose most probable class is one of their labels",
    "mAP": "average precision of a class, in the ranking of all clips by its score; mean over classes",
    "AUC": "probability that a clip with a class scores above one without, the area under ROC; mean over classes",
    "F": "F1 of a class at its threshold, the harmonic mean of precision and recall; mean over classes",
    "F_top_1": "the same F1 if the most probable class alone is predicted",
}
WITHOUT_GROUP = "clip "  # before the name of a clip that is a recording itself


def fit_thresholds(clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str]) -> np.ndarray:
    """The threshold of each class as a logit, fitted on out-of-fold clips: [K]."""
    return thresholding.fit_thresholds(labeled(clips, logits, vocabulary), logits)


def out_of_fold_thresholds(clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str]) -> np.ndarray:
    """The thresholds for out-of-fold clips themselves, [clips, K].

    Each is fitted on the other folds.
    """
    return thresholding.fit_thresholds_per_fold(labeled(clips, logits, vocabulary), logits, clips["split"])


def evaluation_tables(
    clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str], *, thresholds: Any = None
) -> dict[str, pd.DataFrame]:
    """Everything that `evaluate` reports, as {name: table}.

    The tables are overall, classes, clips, calibration and scores.

    Arguments and errors as for `evaluate`.
    """
    overall, classes = evaluate(clips, logits, vocabulary, thresholds=thresholds)
    return {
        "overall": overall,
        "classes": classes,
        "clips": measure_clips(clips, logits, vocabulary),
        "calibration": thresholding.calibration(labeled(clips, logits, vocabulary), expit(logits)),
        "scores": scores_table(clips["name"], logits, vocabulary),
    }


def summary(tables: dict[str, pd.DataFrame]) -> str:
    """The tables of `evaluation_tables` as text for a terminal."""
    shown = ["class", "clips", "lwlrap", "low", "high", "chance", "threshold", "precision", "recall", "f", "chance_f"]
    classes = tables["classes"][shown].to_string(index=False, float_format="%.4f")
    values = tables["overall"].pivot(index="measure", columns="split", values="value")
    overall = tables["overall"].query("split == 'all'").set_index("measure")[["value", "low", "high", "chance"]]
    splits = [split for split in tables["overall"]["split"].unique() if split != "all"]
    measures = overall.join(values[splits]).reset_index().to_string(index=False, float_format="%.4f")
    error = thresholding.calibration_error(tables["calibration"])
    meanings = "\n".join(f"{name}: {MEASURES[name]}" for name in overall.index)
    end = (
        f"expected calibration error {error:.4f}, 0 is best; "
        "low and high: 95% interval over recordings; chance: of random scores"
    )
    return "\n\n".join([classes, measures, meanings, end])


def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Writes each table as CSV into a folder.

    The scores are written as Parquet too if pyarrow is installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_scores(folder / f"{name}.csv", table)
    if can_write_parquet():
        write_scores(folder / "scores.parquet", tables["scores"])


def evaluate(
    clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str], *, thresholds: Any = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measures scores on labeled clips, with intervals and chance levels.

    Intervals are 95% bootstrap intervals over recordings; differences within them may be chance.

    Args:
        clips: A table of clips. A column `split`, or else `usage`, divides them. Clips with the same `group` are from
            one recording, which is drawn with all of them.
        logits: [len(clips), K].
        vocabulary: The K class names.
        thresholds: The logit from which a class is predicted, [K] or [len(clips), K]; None is 0, probability 1/2.

    Returns:
        (overall, classes): `overall` has a row per measure for all clips and for each split (columns split, clips,
        recordings, measure, value, low, high, chance); `classes` has a row per class.

    Raises:
        DataError: The clips have no labels, or scores are missing or NaN.
    """
    truth = labeled(clips, logits, vocabulary).astype("float64")  # [clips, K]
    thresholds = np.broadcast_to(thresholding.DEFAULT_LOGIT if thresholds is None else thresholds, np.shape(logits))
    recordings = recordings_of(clips).to_numpy()
    overall = pd.concat(
        [
            measure_split(truth[rows], logits[rows], thresholds[rows], recordings[rows]).assign(
                split=split, clips=int(rows.sum()), recordings=len({*recordings[rows]})
            )
            for split, rows in splits_of(clips).items()
        ],
        ignore_index=True,
    )
    columns = ["split", "clips", "recordings", "measure", "value", "low", "high", "chance"]
    return overall[columns], measure_classes(truth, logits, thresholds, vocabulary, recordings)


def recordings_of(clips: pd.DataFrame) -> pd.Series:
    """The recording of each clip: its `group`, or itself if that is not known.

    A clip is known by its SHA-256, if the table has it, or by its name.
    """
    itself = WITHOUT_GROUP + clips["sha256" if "sha256" in clips else "name"]
    return itself if "group" not in clips else clips["group"].where(clips["group"] != "", itself)


def labeled(clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str]) -> np.ndarray:
    """The labels of clips [clips, K], if any, and scores to compare with them."""
    refuse_unlabeled(clips)
    check_scores(clips, logits)
    return multi_hot(clips["labels"], vocabulary)


def refuse_unlabeled(clips: pd.DataFrame) -> None:
    """Raises DataError if no clip has a label."""
    if (clips["labels"] == "").all():
        raise DataError("The test clips have no labels to compare with. See: audiotag make-submission")


def splits_of(clips: pd.DataFrame) -> dict[str, np.ndarray]:
    """{split: bool [clips]}: all clips, and each fold, or each part of a leaderboard."""
    names = clips["split"] if "split" in clips else clips["usage"]
    splits = {"all": np.full(len(clips), True)}
    for name in ("Public", "Private", *sorted(set(names) - {"", "Public", "Private"})):
        rows = (names == name).to_numpy()
        if rows.any():
            splits[name] = rows
    return splits


def measure_split(
    truth: np.ndarray, logits: np.ndarray, thresholds: np.ndarray, recordings: ArrayLike | None = None
) -> pd.DataFrame:
    """Every measure of some clips, a row each: measure, value, low, high, chance.

    The intervals draw recordings, the names of those of the clips, [clips]; None draws clips.
    """
    num_clips = len(truth)
    present = truth.any(axis=0)  # [K]
    decisions = (logits >= thresholds, _most_probable(logits))
    chance_f, chance_f_top_1 = (
        thresholding.measure_decisions(truth, each)["chance_f"].to_numpy() for each in decisions
    )
    chance = [
        chance_lwlrap(truth),
        chance_map_at_k(truth),
        truth.sum() / max(1, truth.any(axis=1).sum() * truth.shape[1]),
        _nanmean(chance_precision(truth.sum(axis=0)[present], num_clips)),
        0.5,
        _nanmean(chance_f[present]),
        _nanmean(chance_f_top_1[present]),
    ]
    measure = weighted_measures(truth, logits, thresholds)
    (value,), (low, high) = measure(np.ones((1, num_clips))), bootstrap(measure, num_clips, groups=_groups(recordings))
    return pd.DataFrame({"measure": [*MEASURES], "value": value, "low": low, "high": high, "chance": chance})


def _groups(recordings):
    """What the bootstrap draws: recordings, or clips if each is a recording."""
    return None if recordings is None or len({*recordings}) == len(recordings) else recordings


def weighted_measures(
    truth: np.ndarray, logits: np.ndarray, thresholds: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of weights, [draws, clips], to all measures, [draws, measures].

    Args:
        truth: [clips, K], 1 if a clip has the class, else 0.
        logits: [clips, K].
        thresholds: [clips, K], the logit from which a class is predicted.
    """
    present, label_counts = truth.any(axis=0), truth.sum(axis=1)  # [K], [clips]
    labeled_clips = (label_counts > 0).astype("float64")
    precision, at_k = precisions(truth, logits).sum(axis=1), average_precisions_at_k(truth, logits)  # [clips] both
    top_1 = truth[np.arange(len(truth)), logits.argmax(axis=1)]  # [clips]: 1 if the top class is a label
    areas = WeightedAreas(truth, logits)
    predicted = (logits >= thresholds).astype("float64")  # [clips, K]
    # Few are not 0, [clips, K]; F1 = 2 sum(hits) / sum(chosen_or_true).
    hits, chosen_or_true = csr_array(predicted * truth), csr_array(predicted + truth)
    first = _most_probable(logits).astype("float64")
    first_hits, first_or_true = csr_array(first * truth), csr_array(first + truth)

    def measure(weights: np.ndarray) -> np.ndarray:
        average_precision, auc = areas(weights)
        f = 2 * (weights @ hits) / np.maximum(1, weights @ chosen_or_true)
        f_top_1 = 2 * (weights @ first_hits) / np.maximum(1, weights @ first_or_true)
        columns = [
            weights @ precision / np.maximum(1, weights @ label_counts),
            weights @ at_k / np.maximum(1, weights @ labeled_clips),
            weights @ top_1 / np.maximum(1, weights @ labeled_clips),
            _nanmean(average_precision),
            _nanmean(auc),
            _nanmean(f[:, present]),
            _nanmean(f_top_1[:, present]),
        ]
        return np.stack(columns, axis=1)

    return measure


def weighted_class_lwlrap(truth: np.ndarray, logits: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of weights, [draws, clips], to the lwlrap of each class, [draws, K].

    A class that none of the drawn clips has is NaN. The arguments are those of `weighted_measures`.
    """
    sums, labels = csr_array(precisions(truth, logits)), csr_array(truth)  # few are not 0

    def measure(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # 0 / 0
            return (weights @ sums) / (weights @ labels)

    return measure


def measure_classes(
    truth: np.ndarray,
    logits: np.ndarray,
    thresholds: np.ndarray,
    vocabulary: Sequence[str],
    recordings: ArrayLike | None = None,
) -> pd.DataFrame:
    """A row of measures per class; the arguments are those of `measure_split`.

    The columns are clips, lwlrap with its interval, average precision, AUC, threshold, and
    accuracy, precision, recall and F1 at that threshold, with chance levels, and F1 if the most probable class alone is
    predicted. A class without clips has the lwlrap NaN.
    """
    num_clips, num_classes = truth.shape
    counts = truth.sum(axis=0).astype(int)  # [K]
    chance = chance_precision(np.maximum(1, truth.sum(axis=1)), num_classes)  # [clips]
    per_class = weighted_class_lwlrap(truth, logits)
    (value,), (low, high) = (
        per_class(np.ones((1, num_clips))),
        bootstrap(per_class, num_clips, groups=_groups(recordings)),
    )
    table = pd.DataFrame(
        {
            "class": vocabulary,
            "clips": counts,
            "lwlrap": value,
            "low": low,
            "high": high,
            "chance": chance @ truth / np.maximum(1, counts),
            "average_precision": average_precisions(truth, logits),
            "chance_average_precision": chance_precision(np.maximum(1, counts), num_clips),
            "auc": areas_under_roc(truth, logits),
            "chance_auc": 0.5,
            "threshold": expit(thresholds.mean(axis=0)),
        }
    )
    f_top_1 = thresholding.measure_decisions(truth, _most_probable(logits))["f"].rename("f_top_1")
    return pd.concat([table, thresholding.measure_decisions(truth, logits >= thresholds), f_top_1], axis=1)


def measure_clips(clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str]) -> pd.DataFrame:
    """A row of measures per labeled clip, the worst first.

    The columns are name, labels, lwlrap, its value by chance, and the top 3 classes.
    """
    truth = labeled(clips, logits, vocabulary)
    top = np.argsort(-logits, axis=1, kind="stable")[:, :3]  # [clips, 3]
    table = pd.DataFrame(
        {
            "name": clips["name"].to_numpy(),
            "labels": clips["labels"].to_numpy(),
            "lwlrap": per_clip_lwlrap(truth, logits),
            "chance": chance_precision(np.maximum(1, truth.sum(axis=1)), len(vocabulary)),
            "top_3": [" ".join(vocabulary[label] for label in row) for row in top],
        }
    )
    return table[truth.any(axis=1)].sort_values(["lwlrap", "name"], ignore_index=True)


def _most_probable(logits):
    """True at the most probable class of each clip: bool [clips, K]."""
    return np.arange(logits.shape[1]) == logits.argmax(axis=1)[:, None]


def _nanmean(values):
    """The mean, over the last axis, of the values that are not NaN; NaN if there are none."""
    valid = ~np.isnan(values)
    count = valid.sum(axis=-1)
    return np.where(valid, values, 0).sum(axis=-1) / np.where(count, count, np.nan)
