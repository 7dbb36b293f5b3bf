"""How good is a run? Its scores on labelled clips, overall and class by class, clip by clip, beside chance.

Scores are logits here, float64: no two of them become equal by rounding.
"""

import warnings

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.manifest import read_manifest, refuse_damage
from audiotag.errors import DataError
from audiotag.inference import decisions
from audiotag.inference.predict import load_taggers, score_logits
from audiotag.inference.scores import can_write_parquet, scores_table, write_scores
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
from audiotag.run import open_run
from audiotag.training import crossval

RESAMPLES = 300  # for the intervals: the clips are drawn anew so often


def score_test_clips(run, *, records=None, stage=None, fold=None):
    """(clips, logits): the test clips of a run's records, and what the run thinks of them.

    Args:
        run: A `Run`.
        records: A directory of records; None is the one of the experiment.
        stage: The stage whose weights to take; None is the last.
        fold: The only fold to hear; None is the mean of all.

    Returns:
        A table of clips, and logits float64 [len(clips), K].
    """
    manifest, clips = find_test_clips(run, records)
    refuse_damage(manifest, "test")
    return clips, score_logits(load_taggers(run, stage, fold), manifest, clips)


def find_test_clips(run, records=None):
    """(manifest, clips): the records of a run, or others of its classes and rate, and their test clips."""
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
    return manifest, clips


def held_out_answers(run, stage=None):
    """(clips, logits): the curated clips that were held out so far, and what the model that never heard them thinks.

    `usage` of the clips is "fold K", so that `evaluate` measures each fold too. What fit wrote of the last stage is
    read; another stage, or another way to hear, is scored now.

    Raises:
        DataError: No fold is trained to its end yet, or a fold's table is not of the clips it held out.
    """
    last = run.experiment.stages[-1].name
    as_written = stage in (None, last) and run.experiment.predict == open_run(run.folder).experiment.predict
    paths = {fold: run.stage_folder(fold, last) / "curated_scores.csv" for fold in range(run.experiment.folds.count)}
    paths = {fold: path for fold, path in paths.items() if path.is_file()}
    if not paths:
        raise DataError(f"{run.folder}: no fold is trained to its end yet. Finish the run with: audiotag fit")
    manifest = read_manifest(run.experiment.records)
    known = crossval.training_clips(run, read_clips(manifest.directory / "clips.csv"))
    if not as_written:
        refuse_damage(manifest, "curated")
    clips, scores = [], []
    for fold, path in paths.items():
        table = read_out_of_fold(path, set(crossval.held_out_clips(known, fold)["name"]), run.vocabulary)
        clips.append(table[["name"]].merge(known, on="name", how="left", validate="one_to_one"))
        clips[-1]["usage"] = f"fold {fold}"
        if as_written:  # no number below 1 lies nearer to it than 2 ** -53, whose logit is 36.7
            scores.append(np.nan_to_num(logit(table[list(run.vocabulary)].to_numpy()), nan=np.nan, posinf=37.0))
        else:
            scores.append(score_logits(load_taggers(run, stage, fold), manifest, clips[-1]))
    return pd.concat(clips, ignore_index=True), np.concatenate(scores)


def read_out_of_fold(path, names, vocabulary):
    """A fold's curated_scores.csv, once it scores exactly the clips that the fold held out.

    Args:
        path: The file.
        names: The set of their names.
        vocabulary: The K class names.
    """
    table = crossval.read_scores(path, vocabulary)
    heard, missing = set(table["name"]) - names, names - set(table["name"])
    if heard:
        raise DataError(f"{path}: scores clips that its model was trained on: {some(heard)}. Train the fold anew.")
    if missing:
        raise DataError(f"{path}: has no scores of held-out clips: {some(missing)}. Train the fold anew.")
    return table


def fit_thresholds(clips, logits, vocabulary):
    """Above which logit each class is heard, fitted on clips that training never heard: [K]."""
    return decisions.fit_thresholds(labelled(clips, logits, vocabulary), logits)


def fit_thresholds_across(clips, logits, vocabulary):
    """The same for the very clips that they are fitted on, each with the thresholds of the other folds: [clips, K]."""
    return decisions.fit_across(labelled(clips, logits, vocabulary), logits, clips["usage"])


def check_scores(clips, logits):
    """Raises DataError where a clip's scores are missing or not numbers, and names the clips."""
    if len(clips) != len(logits):
        raise DataError(f"{len(logits)} rows of scores for {len(clips)} clips. Expected one row a clip.")
    strange = clips["name"][np.isnan(logits).any(axis=1)]
    if len(strange):
        raise DataError(f"The scores of {len(strange)} clips are NaN: {some(strange)}. Did training diverge?")


def judge(clips, logits, vocabulary, *, thresholds=None):
    """{name: table} of all that can be said of scores on labelled clips.

    Its tables are overall, classes, clips, calibration and the scores.
    """
    overall, classes = evaluate(clips, logits, vocabulary, thresholds=thresholds)
    reliability = decisions.calibration(labelled(clips, logits, vocabulary), expit(logits))
    tables = {"overall": overall, "classes": classes, "clips": judge_clips(clips, logits, vocabulary)}
    return tables | {"calibration": reliability, "scores": scores_table(clips["name"], logits, vocabulary)}


def in_words(tables):
    """What `judge` found, for a terminal."""
    shown = ["class", "clips", "lwlrap", "low", "high", "chance", "threshold", "precision", "recall", "f", "chance_f"]
    texts = [
        table.to_string(index=False, float_format="%.4f")
        for table in (tables["classes"][shown], tables["overall"])
    ]
    error = decisions.calibration_error(tables["calibration"])
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
    thresholds = np.broadcast_to(decisions.EVEN if thresholds is None else thresholds, np.shape(logits))
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
    by_chance = decisions.judge_decisions(truth, chosen)["chance_f"]
    measures = {  # a function: which rows → a number; what chance gets
        "lwlrap": (lambda rows: precise[rows].sum() / max(1, labels[rows].sum()), chance_lwlrap(truth)),
        "MAP@3": (lambda rows: found[rows].sum() / max(1, (labels[rows] > 0).sum()), chance_at_k(truth)),
        "top_1": (lambda rows: first[rows].mean(), truth.mean()),
        "mAP": (
            lambda rows: _mean(average_precisions(truth[rows], logits[rows])),
            _mean(chance_precision(counts, num_clips)),
        ),
        "AUC": (lambda rows: _mean(areas_under_roc(truth[rows], logits[rows])), 0.5),
        "F": (lambda rows: _mean(decisions.f(truth[rows], chosen[rows])[carried]), _mean(by_chance[carried])),
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
    return pd.concat([table, decisions.judge_decisions(truth, logits >= thresholds)], axis=1)


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


def bootstrap(measure, num_clips, *, resamples=RESAMPLES, seed=0):
    """The interval of 95 % of a share, from what it is for clips drawn with replacement: (low, high).

    The quantiles are moved until their median is the value itself: clips that are
    drawn twice flatter some measures, such as mAP, and that shall not count.

    Args:
        measure: A function: which rows → a number of 0 to 1, or an array of them; NaN, of which they tell nothing,
            does not count.
        num_clips: How many rows there are.
        resamples: How often they are drawn.
        seed: Another seed, other draws.

    Reference: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    Example:
        >>> heads = np.array([0, 1] * 50)
        >>> low, high = bootstrap(lambda rows: heads[rows].mean(), 100)
        >>> bool(0.38 < low < 0.43 and 0.57 < high < 0.62)
        True
    """
    dice = np.random.default_rng(seed)
    answers = np.array([measure(dice.integers(0, num_clips, num_clips)) for _ in range(resamples)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NaN alone comes NaN
        low, middle, high = np.nanpercentile(answers, [2.5, 50, 97.5], axis=0)
    shift = measure(np.arange(num_clips)) - middle
    return np.clip(low + shift, 0, 1), np.clip(high + shift, 0, 1)


def _mean(values):
    """The mean of what is known; NaN where nothing is."""
    values = np.asarray(values)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def some(names):
    """Up to three names in words, and how many more.

    Example:
        >>> some(["d.wav", "a.wav", "b.wav", "c.wav"])
        'a.wav, b.wav, c.wav and 1 more'
    """
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
