import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from selection_runs import BOTH, FILTERS, STAGE, TWO_FOLDS, fit, folds_of, table

from audiotag.config.schema import Distill
from audiotag.crossval.distillation import open_teachers, stage_targets
from audiotag.crossval.label_selection import stage_clips
from audiotag.data.labels import multi_hot
from audiotag.errors import ConfigError, DataError

STUDENT = STAGE | {"name": "taught", "subset": BOTH, "epochs": 1, "keep": "last"}


def overrides(*teachers, epochs=1, **options):
    stage = STUDENT | {"epochs": epochs, "distill": {"run": list(teachers)} | options}
    return FILTERS, TWO_FOLDS, f"stages={json.dumps([stage])}"


def expected_scores(verified):
    """Each clip's probabilities by the model of the fold that held it out."""
    tables = [table(verified, fold, "verified", name) for fold in (0, 1) for name in ("oof.csv", "oof_noisy.csv")]
    return pd.concat(tables).set_index("name")


@pytest.fixture(scope="module")
def student(tiny, verified, tmp_path_factory):
    return fit(tiny(*overrides(str(verified.folder), weight=0.25)), tmp_path_factory.mktemp("runs") / "student")


def test_targets_are_labels_mixed_with_predictions_of_models_that_did_not_train_on_the_clip(
    student, verified, context_of
):
    context, said = context_of(student, 0, "taught"), []
    clips = stage_clips(context)
    targets = stage_targets(context, clips, resumed=True, say=said.append)
    scores = expected_scores(verified).loc[clips["name"], list(student.vocabulary)].to_numpy()
    truth = multi_hot(clips["labels"], student.vocabulary)
    np.testing.assert_allclose(targets, 0.75 * truth + 0.25 * scores, atol=1e-6)
    assert said == [f"stages.taught.distill: {len(clips)} of {len(clips)} clips have predictions of {verified.folder}."]
    trained = {fold: set(table(verified, fold, "verified/2", "training_clips.csv")["name"]) for fold in (0, 1)}
    held_out_by = folds_of(verified)
    assert not any(name in trained[held_out_by[name]] for name in clips["name"])


def test_predictions_change_what_is_learned(student, tiny, tmp_path):
    alone = fit(tiny(FILTERS, TWO_FOLDS, f"stages={json.dumps([STUDENT])}"), tmp_path / "alone")
    losses = [run.history(0, "taught")["loss"].item() for run in (student, alone)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_a_stage_that_goes_on_keeps_the_predictions_that_it_began_with(student, verified, context_of, tmp_path):
    teacher = shutil.copytree(verified.folder, tmp_path / "teacher")
    own = dataclasses.replace(student, folder=shutil.copytree(student.folder, tmp_path / "own"))
    context = context_of(own, 0, "taught")
    stage = context.stage.model_copy(update={"distill": Distill(run=(str(teacher),))})
    context = dataclasses.replace(context, stage=stage)
    clips = stage_clips(context)
    before = stage_targets(context, clips, say=lambda sentence: None)
    for path in teacher.glob("fold-*/verified/oof*.csv"):
        scores = pd.read_csv(path, index_col="name")
        (scores * 0 + 0.5).to_csv(path)
    after = stage_targets(context, clips, resumed=True, say=lambda sentence: None)
    np.testing.assert_array_equal(after, before)
    again = stage_targets(context, clips, say=lambda sentence: None)
    np.testing.assert_allclose(again, 0.5 * multi_hot(clips["labels"], own.vocabulary) + 0.25, atol=1e-6)


def test_clips_that_no_teacher_held_out_keep_their_labels(student, context_of, run):
    """`run` holds out one of five folds, and no noisy clip."""
    context = context_of(student, 1, "taught")
    stage = context.stage.model_copy(update={"distill": Distill(run=(str(run.folder),), weight=1)})
    context = dataclasses.replace(context, stage=stage)
    clips = stage_clips(context).reset_index(drop=True)
    held_out = clips["name"].isin(table(run, 0, "curated", "oof.csv")["name"])
    said = []
    targets, truth = stage_targets(context, clips, say=said.append), multi_hot(clips["labels"], run.vocabulary)
    assert said[0].endswith("; the others keep their labels.")
    assert 0 < held_out.sum() < len(clips)
    np.testing.assert_array_equal(targets[~held_out], truth[~held_out])
    assert (targets[held_out] != truth[held_out]).any(axis=1).all()
    with pytest.raises(DataError, match=r"held out none of the \d+ clips that this stage trains on"):
        stage_targets(context, clips[~held_out], say=lambda s: None)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("runs/none", r"^stages\.taught\.distill: runs/none"),
        ("{own}", r"^stages\.taught\.distill: \S+own is this run, and cannot be its own teacher"),
    ],
)
def test_a_teacher_that_is_none_is_refused_before_the_first_stage(tiny, tmp_path, teacher, message):
    own = tmp_path / "own"
    with pytest.raises((ConfigError, DataError), match=message):
        fit(tiny(*overrides(teacher.format(own=own))), own)


def test_a_teacher_that_is_not_trained_is_refused(student, verified, context_of, tmp_path):
    teacher = shutil.copytree(verified.folder, tmp_path / "teacher")
    for path in teacher.glob("fold-*/verified/**/result.json"):
        path.unlink()
    context = context_of(student, 0, "taught")
    stage = context.stage.model_copy(update={"distill": Distill(run=(str(teacher),))})
    with pytest.raises(DataError, match=r"^stages\.taught\.distill: \S+teacher is not trained yet\. Finish it with"):
        open_teachers(dataclasses.replace(context, stage=stage))


def test_targets_of_a_softmax_add_up_to_one(student, context_of):
    experiment = student.experiment.model_copy(update={"task": "single_label"})
    context = context_of(dataclasses.replace(student, experiment=experiment), 0, "taught")
    targets = stage_targets(context, stage_clips(context), resumed=True, say=lambda sentence: None)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)


def test_a_teacher_without_one_of_the_classes_is_refused(student, context_of):
    ours = dataclasses.replace(student, vocabulary=(*student.vocabulary, "Theremin"))
    with pytest.raises(ConfigError, match="does not know the class 'Theremin'"):
        stage_targets(context := context_of(ours, 0, "taught"), stage_clips(context))
