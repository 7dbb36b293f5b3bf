"""Out-of-fold predictions: scores of clips by models that did not train on them."""


import pandas as pd

from audiotag import files
from audiotag.config.schema import passes, stage_of
from audiotag.crossval.splits import ANEW
from audiotag.data.clips import read_table
from audiotag.errors import DataError
from audiotag.inference.records import score_records
from audiotag.runs.models import load_tagger


def unheard_scores(run, manifest, clips, fold, stage, subset, *, wanted=None):
    """Probabilities of clips by the model of a fold that held them out; kept in SUBSET_scores.csv of the stage.

    Without folds of the noisy clips, they are all held out from a model that trained on curated ones alone, but for
    those of a recording that it heard; these are left out.

    Args:
        run: The `Run`.
        manifest: What `read_manifest` answers.
        clips: What `training_clips` answers.
        fold: The fold whose model judges.
        stage: Name of one of the `passes`; it must be finished.
        subset: "curated" or "noisy".
        wanted: The stage that selects by them, which may want the clips heard in its own way.

    Returns:
        A table: `name` and a column of probabilities a class, one row a clip.

    Raises:
        DataError: The stage is not trained, or its model has heard one of the clips.
    """
    judged = _unheard_clips(run, clips, fold, stage, subset)
    own = wanted and wanted.select.predict
    name = f"{subset}_scores_for_{wanted.name.replace('/', '-')}.csv" if own else f"{subset}_scores.csv"
    path = run.stage_folder(fold, stage) / name
    if judged.empty:
        return pd.DataFrame(columns=["name", *run.vocabulary]).astype(dict.fromkeys(run.vocabulary, float))
    if not path.is_file():
        label = f"{stage}, fold {fold}, on {subset}"
        taggers = [load_tagger(run, fold, stage, predict=own)]
        scores = score_records(taggers, manifest, judged.reset_index(drop=True), label=label)
        table = pd.DataFrame(scores, columns=list(run.vocabulary))
        table.insert(0, "name", judged["name"].to_numpy())
        try:
            files.write_text(path, files.csv_text(table))
        except FileNotFoundError:  # who begins to train that fold has swept its folder
            files.write_text(path, files.csv_text(table))
    return read_scores(path, run.vocabulary)


def read_scores(path, vocabulary):
    """What `unheard_scores` has written: `name` and a column of probabilities a class."""
    classes = list(vocabulary)
    table = read_table(path, ["name", *map(files.as_cell, classes)]).rename(columns=files.from_cell)
    scores = table[classes].replace("", "nan").astype(float)
    scores.insert(0, "name", table["name"].map(files.from_cell))
    return scores.reset_index(drop=True)


def _unheard_clips(run, clips, fold, stage, subset):
    """The clips of a subset that the model of a fold is to judge, none of which it has heard."""
    heard, parted = heard_by(run, fold, stage), subset == "curated" or run.experiment.folds.noisy
    of_subset, of_fold = clips["subset"] == subset, clips["part"] == fold
    recordings = set(clips["group"][clips["name"].isin(heard) & (clips["subset"] == "curated")]) - {""}
    judged = clips[of_subset & (of_fold if parted else ~clips["group"].isin(recordings))]
    leaked = judged["name"][judged["name"].isin(heard)]
    if len(leaked):
        hint = ANEW if parted else 'Add "noisy": true to the folds, and hold all of them out.'
        raise DataError(
            f"{run.stage_folder(fold, stage)}: its model has trained on clip {leaked.iloc[0]!r} and {len(leaked) - 1} "
            f"others that it should judge unheard. {hint}"
        )
    return judged


def heard_by(run, fold, stage):
    """Names of all clips that a stage's model has trained on, in it and in the stages that it started from.

    Raises:
        DataError: One of the stages has not begun.
    """
    start_from = {each.name: each.start_from for each in passes(run.experiment)}
    last_round = {stage_of(each.name): each.name for each in passes(run.experiment)}
    names = set()
    while stage is not None:
        stage = last_round.get(stage, stage)  # it has heard what those before it heard
        path = run.stage_folder(fold, stage) / "heard.csv"
        if not path.is_file():
            raise DataError(
                f"{run.folder}: stage {stage!r} of fold {fold} is not trained yet, and its model is to judge clips. "
                f"Train it with: audiotag fit --fold {fold}"
            )
        names |= set(read_table(path, ["name"])["name"].map(files.from_cell))
        stage = start_from[stage]
    return names


def mean_unheard(run, manifest, clips, stage, subset):
    """`unheard_scores` of all trained folds; the mean where several models judged a clip."""
    return _mean([unheard_scores(run, manifest, clips, fold, stage, subset) for fold in run.trained_folds(stage)])


def _mean(tables):
    """One table of scores: the mean where several models judged a clip."""
    return pd.concat(tables).groupby("name", sort=True).mean().reset_index()
