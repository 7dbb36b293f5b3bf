import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.special import expit

from audiotag.cli import main
from audiotag.config.loading import load
from audiotag.data.labels import multi_hot
from audiotag.ensembling import members
from audiotag.ensembling.members import (
    Ensemble,
    answers_and_thresholds,
    combiner,
    effects_in_words,
    hear_held_out_clips,
    hear_test_clips,
    held_out_member_scores,
    member_effects,
    member_scores,
    open_model,
)
from audiotag.errors import ConfigError, DataError
from audiotag.evaluation import measures, scoring
from audiotag.evaluation.scoring import held_out_answers, score_test_clips
from audiotag.inference.audio_files import score_files
from audiotag.metrics import lwlrap
from audiotag.runs.models import heard_as
from audiotag.serving.saved_model import export, load_listener

FILES = sorted((Path(__file__).parents[2] / "ensembles").glob("*.json"))


HEARD = {}


@pytest.fixture(autouse=True)
def _hear_the_same_once(monkeypatch):
    """What members think of clips is scored once for all tests here; how it is combined is what they are about."""

    def once(function):
        def cached(run, stage=None, fold=None):
            key = (function.__name__, run.folder, run.experiment.predict, stage, fold)
            if key not in HEARD or "other" in run.folder.name:
                HEARD[key] = function(run, stage=stage, **({} if fold is None else {"fold": fold}))
            clips, logits = HEARD[key]
            return clips, logits.copy()

        return cached

    monkeypatch.setattr(members, "score_test_clips", once(score_test_clips))
    monkeypatch.setattr(members, "held_out_answers", once(held_out_answers))


@pytest.fixture
def other(run, tmp_path):
    """A copy of the run, to spoil."""
    return Path(shutil.copytree(run.folder, tmp_path / "other"))


@pytest.fixture
def write(run, tmp_path):
    """A function: members (changes of the run as it is), combine → the path of an ensemble's file."""

    def write(*members, combine="arithmetic", **more):
        members = [{"run": str(run.folder)} | member for member in members]
        combine = combine if isinstance(combine, dict) else {"name": combine}
        content = {"about": "", "command": "", "expect": "", "members": members, "combine": combine}
        path = tmp_path / "ensemble.json"
        path.write_text(json.dumps(content | more))
        return path

    return write


NOISY = {"stage": "noisy"}


def test_there_are_files_and_each_loads():
    assert FILES
    for path in FILES:
        ensemble = load(path, kind=Ensemble)
        assert ensemble.about and ensemble.expect and ensemble.command.endswith(f"ensembles/{path.name}")


def test_members_are_combined_as_the_file_says(run, write):
    (clips, last), (_, noisy) = score_test_clips(run), score_test_clips(run, stage="noisy")
    for combine, expected in [
        ("arithmetic", (expit(last) + 3 * expit(noisy)) / 4),
        ("geometric", expit(last) ** 0.25 * expit(noisy) ** 0.75),
    ]:
        choir = open_model(write({}, NOISY | {"weight": 3}, combine=combine))
        heard, logits = hear_test_clips(choir)
        assert heard["name"].tolist() == clips["name"].tolist()
        np.testing.assert_allclose(expit(logits), expected, atol=1e-7)


def test_a_member_may_hear_in_its_own_way_and_be_a_fold(run, write):
    choir = open_model(write({"predict": {"pool": "max", "overlap": 0.0}, "fold": 0}))
    expected = score_test_clips(heard_as(run, ["predict.pool=max", "predict.overlap=0"]))[1]
    np.testing.assert_allclose(hear_test_clips(choir)[1], expected, atol=1e-6)
    with pytest.raises(DataError, match="stage 'curated' of fold 3 is not trained. Name another fold."):
        hear_test_clips(open_model(write({"fold": 3})))


@pytest.mark.parametrize("combine", ["ridge", "learned"])
def test_what_learns_is_fitted_on_held_out_clips_and_measured_on_others(run, write, combine, monkeypatch):
    choir = open_model(write({}, NOISY, combine=combine))
    fits = []
    kind = members.COMBINERS[combine]
    whole = kind.fit
    monkeypatch.setattr(kind, "fit", lambda self, z, truth: fits.append(z) or whole(self, z, truth))
    clips, logits = held_out_member_scores(choir)
    assert logits.shape == (8, 2, 14)
    np.testing.assert_allclose(logits[:, 0], held_out_answers(run)[1], atol=1e-9)
    combiner(choir)
    np.testing.assert_array_equal(fits.pop(), logits)
    held, scores = hear_held_out_clips(choir)
    assert len(fits) == 5 and sum(8 - len(z) for z in fits) == 8  # each clip is left out of one fit
    asked = [[row for row in range(8) if not (z == logits[row]).all(axis=(1, 2)).any()] for z in fits]
    assert sorted(row for rows in asked for row in rows) == list(range(8))
    assert np.isfinite(scores).all()


def test_the_stage_and_the_way_of_hearing_hold_for_held_out_clips_too(run, write):
    choir = open_model(write(NOISY, {"predict": {"pool": "max"}}))
    _, logits = held_out_member_scores(choir)
    assert np.abs(logits[:, 0] - held_out_answers(run)[1]).max() > 0.01
    np.testing.assert_allclose(logits[:, 0], held_out_answers(run, "noisy")[1], atol=1e-9)
    assert np.abs(logits[:, 1] - held_out_answers(run)[1]).max() > 1e-4


def test_normalised_logits_have_mean_0_and_deviation_1_on_held_out_clips(run, write):
    choir = open_model(write({}, normalise=True))
    seen = []
    combine = combiner(choir)
    _, logits = held_out_member_scores(choir)
    normal = (logits - logits.mean(axis=0)) / logits.std(axis=0)
    np.testing.assert_allclose(members.combined(combine, logits), normal[:, 0], atol=1e-6)
    assert not seen


def test_an_ensemble_is_one_saved_model_that_ranks_as_the_scores_do(write, wavs, tmp_path):
    choir = open_model(write({}, NOISY, combine="ridge", normalise=True))
    clips, logits = hear_test_clips(choir)
    listener = load_listener(export(choir, tmp_path / "saved"))
    assert listener.vocabulary == choir.vocabulary
    rows = [clips["name"].tolist().index(path.name) for path in wavs[:5]]
    np.testing.assert_allclose(score_files(listener, wavs[:5]), logits[rows], atol=1e-3)


def test_what_each_member_adds(run, write):
    choir = open_model(write({}, NOISY))
    clips, logits = member_scores(choir)
    truth = multi_hot(clips["labels"], run.vocabulary)
    table = member_effects(choir, clips, logits)
    assert table["member"].tolist() == [str(run.folder), f"{run.folder}/noisy"]
    assert table["alone"].tolist() == [lwlrap(truth, logits[:, member]) for member in (0, 1)]
    assert table["without_it"].tolist() == pytest.approx(table["alone"].tolist()[::-1])
    single = open_model(write({}))
    assert np.isnan(member_effects(single, *member_scores(single))["without_it"]).all()


def test_thresholds_of_an_ensemble_come_from_held_out_clips(run, write):
    choir = open_model(write({}, NOISY))
    _, _, thresholds = answers_and_thresholds(choir)
    assert thresholds.shape == (14,) and (thresholds != 0).any()
    _, _, across = answers_and_thresholds(choir, held_out=True)
    assert across.shape == (8, 14)


# Refusals


def test_runs_of_other_classes_are_refused_with_the_names(other, write):
    known = json.loads((other / "records.json").read_text())
    words = known["vocabulary"]
    (other / "records.json").write_text(json.dumps(known | {"vocabulary": ["Yodel", *words[1:]]}))
    with pytest.raises(DataError, match=f"other: knows other classes than .*tiny, such as {words[0]}, Yodel."):
        open_model(write({}, {"run": str(other)}))
    (other / "records.json").write_text(json.dumps(known | {"vocabulary": words[::-1]}))
    with pytest.raises(DataError, match="other: knows other classes than .*tiny, the same in another order."):
        open_model(write({}, {"run": str(other)}))


def test_a_member_trained_on_clips_that_it_would_be_fitted_on_is_refused(other, write):
    folds = pd.read_csv(other / "folds.csv", index_col="name")["fold"]
    swapped = folds.replace({0: 1, 1: 0})
    swapped.to_csv(other / "folds.csv")
    scores = pd.read_csv(other / "fold-0" / "curated" / "curated_scores.csv")
    own = swapped.index[swapped == 0]
    path = other / "fold-0" / "curated" / "curated_scores.csv"
    pd.concat([scores] * 9).head(len(own)).assign(name=own).to_csv(path, index=False)
    choir = open_model(write({}, {"run": str(other)}, combine="ridge"))
    trained = sorted(folds.index[folds == 1])
    message = rf"tiny: was trained on {len(trained)} clips that the ensemble would be fitted on: {trained[0]}, "
    with pytest.raises(DataError, match=message):
        hear_test_clips(choir)
    clips, _ = hear_test_clips(open_model(write({}, {"run": str(other)})))  # a mean is fitted on nothing
    assert len(clips) == 20


def test_scores_that_a_member_lacks_are_refused_with_the_names(run, write, monkeypatch):
    choir = open_model(write({}, NOISY))

    def spoilt(run, *, stage, fold):
        clips, logits = score_test_clips(run, stage=stage, fold=fold)
        if stage == "noisy" and spoil == "missing":
            return clips.iloc[1:], logits[1:]
        if stage == "noisy":
            logits[3, 2] = np.nan
        return clips, logits

    monkeypatch.setattr(members, "score_test_clips", spoilt)
    names = score_test_clips(run)[0]["name"]
    spoil = "missing"
    with pytest.raises(DataError, match=f"tiny/noisy: scores other clips than .*tiny: {names[0]}."):
        hear_test_clips(choir)
    spoil = "nan"
    with pytest.raises(DataError, match=f"tiny/noisy: The scores of 1 clips are NaN: {names[3]}."):
        hear_test_clips(choir)


def test_members_that_read_files_differently_are_no_single_model(other, write, tmp_path):
    known = json.loads((other / "records.json").read_text())
    known["hearing"]["peak_db"] = -3.0
    (other / "records.json").write_text(json.dumps(known))
    with pytest.raises(DataError, match="other: reads files as .*'peak_db': -3.0.* One model reads them in one way"):
        export(open_model(write({}, {"run": str(other)})), tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"combine": {"name": "geometrical"}}, "combine: there is no part 'geometrical'. Did you mean 'geometric'?"),
        ({"combine": {"name": "ridge", "level": 3}}, "combine.level: Input should be 1 or 2, found 3."),
        ({"combine": {"name": "geometric", "flor": 1}}, "unknown key 'flor'. Did you mean 'floor'? Accepted: name, fl"),
        ({"members": []}, "members: "),
        ({"member": []}, "unknown key 'member'. Did you mean 'members'?"),
    ],
)
def test_a_wrong_file_is_answered_with_the_right_word(write, change, message):
    with pytest.raises(ConfigError) as error:
        open_model(write({}, **change))
    assert message in str(error.value)


def test_weights_are_for_means(write):
    with pytest.raises(ConfigError, match=r"members\[1\].weight: ridge learns its own. Leave it out."):
        open_model(write({}, {"weight": 2.0}, combine="ridge"))
    with pytest.raises(ConfigError, match="combine geometric: floor must be above 0 and below 1. Received: floor=2"):
        hear_test_clips(open_model(write({}, **{"combine": {"name": "geometric", "floor": 2.0}})))


def test_clips_without_labels_are_refused_before_they_are_heard(run, write, monkeypatch):
    read = measures.read_clips
    monkeypatch.setattr(scoring, "read_clips", lambda path: read(path).assign(labels=""))
    monkeypatch.setattr(members, "score_test_clips", lambda *args, **options: pytest.fail("heard"))
    choir = open_model(write({}, NOISY))
    for measure in (effects_in_words, answers_and_thresholds, lambda choir: answers_and_thresholds(run)):
        with pytest.raises(DataError, match="no labels, so there is nothing to compare with"):
            measure(choir)


def test_thresholds_that_cannot_be_fitted_are_told_of(write, monkeypatch, capsys):
    def hear(model, *, stage):
        raise DataError("no fold is trained.")

    monkeypatch.setattr(members, "hear_held_out_clips", hear)
    assert answers_and_thresholds(open_model(write({})))[2] is None
    assert capsys.readouterr().err.endswith("Thresholds are 1/2, for they cannot be fitted: no fold is trained.\n")


def test_a_member_is_heard_only_as_its_run_has_learned_to(write):
    path = write({}, {"predict": {"flips": True}})
    with pytest.raises(ConfigError, match=r"ensemble.json: members\[1\]: predict.flips: needs flips as labels."):
        open_model(path)


def test_a_fold_that_is_not_trained_has_no_held_out_clips(run, write):
    with pytest.raises(DataError, match=f"{run.folder}: fold 3 is not trained to its end. Name another fold."):
        held_out_member_scores(open_model(write({"fold": 3})))


# Commands


def call(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_the_commands_take_an_ensemble_where_they_take_a_run(run, wavs, tmp_path):
    path = tmp_path / "both.json"
    assert call("ensemble", run.folder, run.folder, "--combine", "geometric", "--out", path) == (
        f"Measure it: audiotag evaluate {path}\n"
    )
    assert "lwlrap" in call("evaluate", path, "--out", tmp_path / "tables")
    assert "fold 0" in call("evaluate", path, "--held-out")
    assert call("evaluate", path, "--members").split()[:3] == ["member", "alone", "without_it"]
    assert call("submit", path).splitlines()[-1] == f"20 rows, 14 classes: {tmp_path / 'both' / 'submission.csv'}"
    assert call("export", path, tmp_path / "saved").splitlines()[-1] == f"SavedModel: {tmp_path / 'saved'}"
    assert call("predict", path, wavs[0]).splitlines()[-4:] == call("predict", run.folder, wavs[0]).splitlines()[-4:]


def test_a_file_that_would_be_refused_is_not_written(run, tmp_path):
    result = CliRunner().invoke(
        main, ["ensemble", str(run.folder), "--combine", "vote", "--out", str(tmp_path / "x.json")]
    )
    assert result.exit_code == 1 and "there is no part 'vote'" in result.output
    assert not list(tmp_path.iterdir())


def test_a_place_that_a_submission_cannot_have_is_told_before_the_clips_are_heard(write, monkeypatch):
    monkeypatch.setattr(members, "hear_test_clips", lambda model: pytest.fail("heard"))
    path = write({})
    result = CliRunner().invoke(main, ["submit", str(path.rename(path.with_suffix("")))])
    assert result.exit_code == 1 and "File exists" in result.output


def test_a_run_has_no_members(run):
    with pytest.raises(ConfigError, match="tiny: a run has no members. Give an ensemble's file, or see: audiotag repo"):
        effects_in_words(open_model(run.folder))


def test_an_ensemble_has_no_records_of_its_own(write):
    choir = open_model(write({}))
    with pytest.raises(ConfigError, match="each member has its own records and stage. Leave --records and --stage out"):
        hear_test_clips(choir, stage="noisy")
    with pytest.raises(ConfigError, match="each member has its own records and stage. Leave --records and --stage out"):
        hear_held_out_clips(choir, stage="noisy")
    assert dataclasses.is_dataclass(choir)
