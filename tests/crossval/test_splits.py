import dataclasses
import json

import pandas as pd
import pytest
from selection_runs import BOTH, FILTERS, STAGES, TWO_FOLDS, fit, folds_of, selected_by_curated, table

from audiotag.config.schema import expand_rounds
from audiotag.crossval.label_issues import rank_label_issues
from audiotag.crossval.splits import (
    NO_FOLD,
    held_out_clips,
    how_split,
    training_clips,
    untrained_classes,
    validation_clips,
)
from audiotag.data.clips import read_clips
from audiotag.errors import DataError
from audiotag.evaluation.scoring import out_of_fold_predictions
from audiotag.training import loop

ALL_STAGE = (FILTERS, f"stages={json.dumps(STAGES[:1])}", TWO_FOLDS)


def test_no_stage_trains_on_a_clip_of_the_fold_that_its_model_holds_out(verified, records):
    folds = folds_of(verified)
    train = read_clips(records / "clips.csv").query("subset != 'test'")
    assert set(folds.index) == set(train["name"])
    for stage in expand_rounds(verified.experiment):
        for fold in (0, 1):
            assert set(folds[table(verified, fold, stage.name, "training_clips.csv")["name"]]) == {1 - fold}


def test_curated_and_noisy_clips_are_stratified_separately(verified, records):
    train = read_clips(records / "clips.csv").query("subset != 'test'")
    sizes = train.groupby(["subset", train["name"].map(folds_of(verified))]).size()
    assert sizes.to_dict() == {(subset, fold): 20 for subset in BOTH for fold in (0, 1)}


def test_training_clips_have_the_fold_that_holds_them_out_and_a_weight(run, verified, records):
    clips = read_clips(records / "clips.csv")
    chosen = training_clips(verified, clips)
    assert chosen.set_index("name")["fold"].to_dict() == folds_of(verified).to_dict()
    assert set(chosen["weight"]) == {1.0}
    chosen = training_clips(run, clips)  # without folds for noisy clips
    assert set(chosen["fold"][chosen["subset"] == "noisy"]) == {NO_FOLD}
    assert set(chosen["fold"][chosen["subset"] == "curated"]) == {0, 1, 2, 3, 4}
    assert set(held_out_clips(run, chosen, 3)["name"]) == set(folds_of(run).index[folds_of(run) == 3])


@pytest.mark.parametrize(("split_noisy", "shared"), [(True, False), (False, False), (True, True)])
def test_a_noisy_clip_is_in_the_fold_of_the_curated_clip_of_its_recording(again, records, split_noisy, shared):
    clips = read_clips(records / "clips.csv")
    clips = clips.drop(clips.index[clips["subset"] == "noisy"][12 if shared else 40 :])
    for subset in BOTH:
        some = clips.index[clips["subset"] == subset][:12]
        clips.loc[some, "group"] = [f"recording {number}" for number in range(12)]
    again.folds_file.unlink()
    validation = again.experiment.validation
    folds = validation.folds.model_copy(update={"split_noisy": split_noisy})
    validation = validation.model_copy(update={"folds": folds})
    again = dataclasses.replace(again, experiment=again.experiment.model_copy(update={"validation": validation}))
    chosen = training_clips(again, clips)
    together = chosen[chosen["group"] != ""].groupby("group")["fold"].agg(["nunique", "size", "min"])
    assert together.to_dict("list") == {"nunique": [1] * 12, "size": [2] * 12, "min": together["min"].tolist()}
    assert set(together["min"]) == {0, 1}
    assert (chosen["fold"] == NO_FOLD).sum() == (0 if split_noisy or shared else 28)


# Errors in folds.csv


def test_a_clip_in_two_folds_is_found(again, records):
    lines = again.folds_file.read_text().splitlines()
    again.folds_file.write_text("\n".join([*lines, lines[1][:-1] + str(1 - int(lines[1][-1]))]) + "\n")
    message = rf"folds\.csv: clip '{lines[1][:-2]}' is listed twice, so it may be in two folds\. Retrain with"
    with pytest.raises(DataError, match=message):
        training_clips(again, read_clips(records / "clips.csv"))


def test_a_clip_that_is_in_no_fold_is_found(again, records):
    lines = again.folds_file.read_text().splitlines()
    again.folds_file.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    message = rf"folds\.csv: clip '{lines[1][:-2]}' is in this file or in the records, but not in both\. Retrain"
    with pytest.raises(DataError, match=message):
        training_clips(again, read_clips(records / "clips.csv"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name,fold", "name,part", "no column 'fold'"),
        (",0\n", ",first\n", "fold is 'first'. Expected a whole number."),
        (",0\n", ",2\n", r"folds\.csv line 2: expected a fold from 0 to 1\."),
        (",0\n", ",-1\n", r"folds\.csv line 2: expected a fold from 0 to 1\."),
    ],
)
def test_a_table_of_folds_with_other_content_is_refused(again, records, old, new, message):
    rows = again.folds_file.read_text().splitlines(keepends=True)
    rows = [rows[0], *sorted(rows[1:], key=lambda row: row[-2])]  # those of fold 0 first
    again.folds_file.write_text("".join(rows).replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        training_clips(again, read_clips(records / "clips.csv"))


def test_a_recording_in_two_folds_is_found(again, records):
    clips = read_clips(records / "clips.csv")
    two = clips.query("subset == 'curated'")["name"].map(folds_of(again))
    clips.loc[[two.index[two == 0][0], two.index[two == 1][0]], "group"] = "one recording"
    with pytest.raises(DataError, match=r"folds\.csv: clips of the recording 'one recording' are in two folds"):
        training_clips(again, clips)


# Corrections


@pytest.fixture(scope="module")
def corrected(tiny, records, verified, tmp_path_factory):
    """A run, its corrections, the names of noisy clips, of which three are corrected, and of a clip without weight."""
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'")["name"].tolist()
    folds = folds_of(verified)
    left_out = folds.index[folds == 0].difference(noisy)[0]
    path = tmp_path_factory.mktemp("corrected") / "corrections.csv"
    lines = [f"{noisy[0]},Bell,1", f"{noisy[1]},Bell,0", f"{noisy[2]},Bell,0.5", f"{left_out},,0"]
    path.write_text("\n".join(["clip,labels,weight", *lines]) + "\n")
    return fit(tiny(*ALL_STAGE, f"corrections={path}"), path.parent / "run"), path, noisy, left_out


def test_corrections_change_labels_and_weights_and_never_a_fold(corrected, verified, tmp_path):
    run, path, noisy, left_out = corrected
    assert folds_of(run).to_dict() == folds_of(verified).to_dict()
    trained = pd.concat([table(run, fold, "all", "training_clips.csv") for fold in (0, 1)]).set_index("name")
    assert trained.loc[noisy[0], ["labels", "weight"]].tolist() == ["Bell", 1.0]
    assert trained.loc[noisy[2], ["labels", "weight"]].tolist() == ["Bell", 0.5]
    assert len(trained) == 78
    assert noisy[1] not in trained.index and left_out not in trained.index
    path.rename(tmp_path / "elsewhere.csv")
    issues = rank_label_issues(run).set_index("clip")  # a finished run has its own copy
    assert len(issues) == 80
    assert set(issues.index[-2:]) == {noisy[1], left_out} and set(issues["weight"].iloc[-2:]) == {0}
    assert issues.loc[noisy[0], ["labels", "weight"]].tolist() == ["Bell", 1.0]
    path.write_text(f"clip,labels,weight\n{noisy[0]},Bell,0\n")
    with pytest.raises(DataError, match=r"corrections\.csv: has changed since the run began, see .*run/corr"):
        fit(run.experiment, run.folder)


def test_a_held_out_clip_of_weight_0_validates_nothing(corrected):
    run, _, _, left_out = corrected
    clips, _ = out_of_fold_predictions(run)
    assert left_out not in set(clips["name"]) and len(clips) == 39


# Stages and folds without clips


def test_a_fold_without_clips_for_validation_is_refused(verified, records):
    softmax = dataclasses.replace(verified, experiment=verified.experiment.model_copy(update={"task": "single_label"}))
    clips = training_clips(verified, read_clips(records / "clips.csv"))
    assert len(validation_clips(verified, clips, 0, verified.experiment.stages[0])) == 20
    several = clips.assign(labels="Bell,Rain")
    with pytest.raises(DataError, match=r"fold 0 has no curated clip for validation\. .* Choose other folds\."):
        validation_clips(softmax, several, 0, softmax.experiment.stages[0])


def test_a_stage_may_be_validated_by_held_out_noisy_clips(verified, records):
    clips = training_clips(verified, read_clips(records / "clips.csv"))
    noisy = verified.experiment.stages[0].model_copy(update={"validation_subset": ("noisy",)})
    validated = validation_clips(verified, clips, 0, noisy)
    assert set(validated["subset"]) == {"noisy"} and set(validated["fold"]) == {0}
    assert len(validated) == (folds_of(verified)[clips["name"][clips["subset"] == "noisy"]] == 0).sum()
    trained = table(verified, 0, "all", "training_clips.csv")
    assert not set(validated["name"]) & set(trained["name"])


def test_a_selection_without_noisy_clips_is_refused_before_anything_is_trained(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "read_clips", lambda path: read_clips(path).query("subset != 'noisy'"))
    monkeypatch.setattr(loop, "_fit_stage", lambda *args: pytest.fail("trained"))
    with pytest.raises(DataError, match="has no noisy clips for stage 'selected', or none with a weight above 0"):
        fit(tiny(*selected_by_curated("mean_probability", 0.5)), tmp_path / "run")


@pytest.mark.parametrize(
    ("validation", "groups", "expected"),
    [
        ('{"fraction": 0.2}', ["", "", ""], "clip by clip"),
        ('{"folds": {"num_folds": 2}}', ["", "", ""], "clip by clip"),
        ('{"fraction": 0.2}', ["ann", "bob", "ann"], "by group: 2 groups"),
        ('{"folds": {"num_folds": 2}}', ["ann", "", ""], "by group: 1 group, and 2 clips without a group one by one"),
        ('{"folds": {"num_folds": 2, "by": "predefined"}}', ["", "", ""], "by predefined folds"),
        ('{"subset": "valid"}', ["ann", "bob", "bob"], "by the subset valid and by group: 2 groups"),
    ],
)
def test_how_clips_were_split_is_said(tiny, validation, groups, expected):
    assert how_split(tiny(f"validation={validation}"), pd.DataFrame({"group": groups})) == expected


def test_a_class_whose_clips_are_all_held_out_is_named(run, records):
    clips = training_clips(run, read_clips(records / "clips.csv"))
    assert [untrained_classes(run, clips, fold) for fold in range(5)] == [[]] * 5
    rare = run.vocabulary[0]
    has = clips["labels"].str.split(",").map(lambda labels: rare in labels)
    first = clips.index[has & (clips["subset"] == "curated")][0]
    clips = clips.loc[~has | (clips.index == first)]
    fold = clips["fold"][first]
    assert [untrained_classes(run, clips, each) for each in range(5)] == [
        [rare] if each == fold else [] for each in range(5)
    ]
