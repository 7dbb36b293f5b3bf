"""Which given labels are most likely wrong? Training clips by how much models that never heard them disagree."""

import numpy as np
import pandas as pd
from scipy.special import logit

from audiotag.crossval.out_of_fold import heard_by, mean_unheard
from audiotag.crossval.splits import training_clips
from audiotag.data.clips import read_clips
from audiotag.data.corrections import read_corrections
from audiotag.data.labels import multi_hot
from audiotag.data.records.manifest import read_manifest
from audiotag.errors import DataError

MARGIN = 40.0  # no probability below 1 has a logit above 36.7


def suspects(run, *, stage=None):
    """The training clips that a run's models may judge, the most suspicious first.

    A clip is suspicious by the logit of the likeliest class that it was not given,
    less that of the least likely class that it was given: above 0 the models would
    rather have it otherwise. A clip is judged only by models that never heard it;
    noisy clips by all, where no stage heard noisy ones, else only with folds of
    them (`"noisy": true`).

    Args:
        run: A `Run` with trained folds.
        stage: The stage whose models judge; None is the last.

    Returns:
        A table of corrections as `data.corrections` describes, which changes nothing until it is edited, with
        `subset` and `margin` beside; last what the run's own corrections leave out.

    Raises:
        DataError: There is no such stage, or no fold has finished it.
    """
    stage = run.known_stage(stage)
    folds = run.trained_folds(stage)
    if not folds:
        raise DataError(f"{run.folder}: stage {stage!r} is not trained yet. Finish the run with: audiotag fit")
    manifest = read_manifest(run.experiment.records)
    everything = read_clips(manifest.directory / "clips.csv")
    clips = training_clips(run, everything)
    noisy = set(clips["name"][clips["subset"] == "noisy"])
    unheard = run.experiment.folds.noisy or not any(noisy & heard_by(run, fold, stage) for fold in folds)
    tables = []
    for subset in ("curated", "noisy") if unheard and noisy else ("curated",):
        scores = mean_unheard(run, manifest, clips, stage, subset)
        judged = clips.set_index("name").loc[scores["name"]].reset_index()
        tables.append(_disagreement(judged, scores[list(run.vocabulary)].to_numpy(), run.vocabulary))
    table = pd.concat(tables).assign(source=f"suspects of {run.folder.name}, stage {stage}")
    table = pd.concat([table, *_left_out(run, everything)])
    return table.sort_values(["margin", "clip"], ascending=[False, True], ignore_index=True)


def _left_out(run, clips):
    """The corrections that left a clip out: they stand at the end, so that an edited table still says so."""
    path = run.folder / "corrections.csv"
    if not path.is_file():
        return []
    said = read_corrections(path, run.vocabulary).query("weight == 0")
    return [said.assign(subset=said["clip"].map(clips.set_index("name")["subset"]), margin=-np.inf)]


def _disagreement(clips, scores, vocabulary):
    truth = multi_hot(clips["labels"], vocabulary) > 0  # [n, K]
    logits = np.clip(logit(scores), -MARGIN, MARGIN)
    rival, least = np.where(truth, -np.inf, logits), np.where(truth, logits, np.inf)
    names = np.array(vocabulary)
    reasons = [
        f"{names[other]} {scores[row, other]:.2f}, {names[given]} {scores[row, given]:.2f}"
        for row, (other, given) in enumerate(zip(rival.argmax(axis=1), least.argmin(axis=1)))
    ]
    margin = rival.max(axis=1) - least.min(axis=1)
    return pd.DataFrame(
        {"clip": clips["name"], "labels": clips["labels"], "weight": clips["weight"], "reason": reasons}
        | {"subset": clips["subset"], "margin": margin.round(3)}
    )
