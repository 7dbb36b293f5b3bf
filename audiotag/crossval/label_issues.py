"""Ranks training clips by how much predictions disagree with their labels.

The predictions are out-of-fold.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from audiotag.config.schema import stage_named
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.out_of_fold import mean_out_of_fold_scores, trained_on
from audiotag.crossval.review_order import cleanlab_quality, usefulness
from audiotag.crossval.splits import training_clips
from audiotag.data.clips import read_clips
from audiotag.data.corrections import COLUMNS, read_corrections
from audiotag.data.examined_records import examine_records
from audiotag.data.labels import multi_hot
from audiotag.data.near_duplicates import clusters, find_near_duplicates
from audiotag.errors import DataError
from audiotag.runs.directory import Run, find_records, num_cores

MAX_LOGIT = 40.0  # no probability below 1 has a logit above 36.7


def rank_label_issues(
    run: Run,
    *,
    stage: str | None = None,
    order: Literal["suspicion", "usefulness"] = "suspicion",
    by: Literal["margin", "cleanlab"] = "margin",
) -> pd.DataFrame:
    """The training clips, those to review first at the top.

    Only clips with out-of-fold predictions are ranked.

    A clip's margin is the logit of the most probable class that is not among its labels minus that of the least
    probable class that is, or minus 0 without labels. Above 0 the models predict another label.
    Only models that did not train on a clip score it: trusted clips as far as they validate; a noisy subset is scored
    by all models if no stage trained on it, else only with folds for noisy clips (`"split_noisy": true`).

    Args:
        run: A `Run` with trained folds.
        stage: The stage whose models predict; None is the last.
        order: "suspicion": the most doubtful labels first. "usefulness": those first whose review is expected to help a
            model most, see `usefulness`; all clips are decoded, and those with the same sound follow each other.
        by: What says how doubtful a label is: "margin", or "cleanlab", the quality of labels by that library.

    Returns:
        A table of corrections as `data.corrections` describes, with more columns: `subset`, `margin`, `suspicion`, from
        0 to 1, and if `order` is "usefulness" this and `same_sound`, which is equal for clips with the same sound. It
        has the labels and weights of the run, so it changes nothing until it is edited. The clips that the run's own
        corrections leave out come last.

    Raises:
        DataError: There is no such stage, or no fold has finished it, or no clip has out-of-fold predictions.
        ConfigError: cleanlab is not installed.
    """
    stage = run.stage_name(stage)
    clips, scores = scored_training_clips(run, stage=stage)
    table = disagreement(clips, scores, run.vocabulary, by=by)
    if order == "usefulness":
        truth = multi_hot(clips["labels"], run.vocabulary) > 0  # [n, K]
        same = _clips_with_one_sound(find_records(run), clips)
        table["usefulness"] = usefulness(truth, scores, table["suspicion"].to_numpy(), same).round(4)
        _, first, place = np.unique(same, return_index=True, return_inverse=True)
        table["same_sound"] = clips["name"].to_numpy()[first[place]]
    table = table.assign(source=f"label issues of {run.folder.name}, stage {stage}")
    all_clips = read_clips(find_records(run).directory / "clips.csv")
    table = pd.concat([table, *_left_out(run, all_clips, table.columns)])
    if order == "suspicion":
        return table.sort_values(["suspicion", "margin", "clip"], ascending=[False, False, True], ignore_index=True)
    keys = ["usefulness", "same_sound", "suspicion", "clip"]  # clips with one sound follow each other
    return table.sort_values(keys, ascending=[False, True, False, True], ignore_index=True)


def scored_training_clips(run: Run, *, stage: str | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """The training clips that have out-of-fold predictions, and these.

    Args:
        run: A `Run` with trained folds.
        stage: The stage whose models predict; None is the last.

    Returns:
        Rows of what `training_clips` returns, and probabilities float64 [n, K].

    Raises:
        DataError: As for `rank_label_issues`.
    """
    stage = run.stage_name(stage)
    folds = run.trained_folds(stage)
    if not folds:
        raise DataError(f"{run.folder}: stage {stage!r} is not trained yet. Finish the run with: audiotag fit")
    manifest = find_records(run)
    clips = training_clips(run, read_clips(manifest.directory / "clips.csv"))
    context = FoldContext(run, manifest, clips, folds[0], stage_named(run.experiment, stage)).at_stage(stage)
    used = set().union(*(trained_on(run, fold, stage) for fold in folds))
    unused = [name for name, names in clips[~clips["trusted"]].groupby("subset")["name"] if used.isdisjoint(names)]
    noisy = sorted(set(clips["subset"][~clips["trusted"]])) if run.experiment.split_noisy else unused
    subsets = [*([] if run.experiment.validation is None else [None]), *noisy]
    if not subsets:
        raise DataError(f'{run.folder}: has no held-out clips to rank, as "validation" is null in its experiment.')
    scores = pd.concat([mean_out_of_fold_scores(context, subset) for subset in subsets])
    clips = clips.set_index("name").loc[scores["name"]].reset_index()
    return clips, scores[list(run.vocabulary)].to_numpy()


def _clips_with_one_sound(manifest, clips):
    """A number for each clip that those with the same sound share, int [n]."""
    workers = num_cores()
    examinations = examine_records(manifest, clips, num_workers=workers, label="find copies")
    pairs = find_near_duplicates(
        [each.fingerprint for each in examinations], [each.sha256 for each in examinations], num_workers=workers
    )
    return clusters(pairs, len(clips))


def _left_out(run, clips, columns):
    """The corrections that leave a clip out: they stay in the table, so an edited table still has them."""
    path = run.corrections_file
    if not path.is_file():
        return []
    left_out = read_corrections(path, run.vocabulary).query("weight == 0")[[*COLUMNS]]
    subsets = left_out["clip"].map(clips.set_index("name")["subset"])
    others = {column: 0.0 for column in columns if column in ("suspicion", "usefulness")}
    others |= {"same_sound": left_out["clip"]} if "same_sound" in columns else {}
    return [left_out.assign(subset=subsets, margin=-np.inf, **others)]


def disagreement(
    clips: pd.DataFrame,
    scores: np.ndarray,
    vocabulary: Sequence[str],
    *,
    by: Literal["margin", "cleanlab"] = "margin",
) -> pd.DataFrame:
    """How doubtful the labels of clips are, and the probabilities that say so.

    Args:
        clips: A table of clips with a `weight`.
        scores: Probabilities [len(clips), K].
        vocabulary: The K class names.
        by: As for `rank_label_issues`.

    Returns:
        A table with the columns `clip`, `labels`, `weight`, `reason`, `subset`, `margin` and `suspicion`, in the order
        of `clips`.
    """
    truth = multi_hot(clips["labels"], vocabulary).astype(bool)  # [n, K]
    logits = np.clip(logit(scores), -MAX_LOGIT, MAX_LOGIT)
    others, labels = np.where(truth, -np.inf, logits), np.where(truth, logits, np.inf)
    names, labeled = np.array(vocabulary), np.asarray(truth.any(axis=1))
    reasons = [
        f"{names[other]} {scores[row, other]:.2f}"
        + (f", {names[label]} {scores[row, label]:.2f}" if labeled[row] else ", no label")
        for row, (other, label) in enumerate(zip(others.argmax(axis=1), labels.argmin(axis=1)))
    ]
    margin = others.max(axis=1) - np.where(labeled, labels.min(axis=1), 0)
    suspicion = expit(margin) if by == "margin" else 1 - cleanlab_quality(truth, scores)
    return pd.DataFrame(
        {"clip": clips["name"], "labels": clips["labels"], "weight": clips["weight"], "reason": reasons}
        | {"subset": clips["subset"], "margin": margin.round(3), "suspicion": suspicion.round(6)}
    )
