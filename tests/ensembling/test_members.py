import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.special import expit

from audiotag import api
from audiotag.cli import main
from audiotag.config.loading import load
from audiotag.data.labels import multi_hot
from audiotag.ensembling import members
from audiotag.ensembling.members import (
    EnsembleConfig,
    EnsemblePredictor,
    fitted_combiner,
    leave_one_out,
    member_effects,
    member_scores,
    open_model,
    out_of_fold_member_scores,
    predict_out_of_fold,
    predict_test_clips,
    predictions_and_thresholds,
)
from audiotag.errors import ConfigError, DataError
from audiotag.evaluation import scoring
from audiotag.evaluation.scoring import out_of_fold_predictions, score_test_clips
from audiotag.inference.audio_files import score_files
from audiotag.metrics import lwlrap
from audiotag.runs.directory import StageFiles
from audiotag.runs.models import with_predict_options
from audiotag.serving.saved_model import export, load_predictor

FILES = sorted((Path(__file__).parents[2] / "ensembles").glob("*.json"))
CACHE = {}


@pytest.fixture(autouse=True)
def _cached_scores(monkeypatch):
    """Members score clips once for all tests of this file, which are about combining the scores."""

    def once(function):
        def cached(run, stage=None, fold=None):
            key = (function.__name__, run.folder, run.experiment.predict, stage, fold)
            if key not in CACHE or "other" in run.folder.name:
                CACHE[key] = function(run, stage=stage, **({} if fold is None else {"fold": fold}))
            clips, logits = CACHE[key]
            return clips, logits.copy()

        return cached

    monkeypatch.setattr(members, "score_test_clips", once(score_test_clips))
    monkeypatch.setattr(members, "out_of_fold_predictions", once(out_of_fold_predictions))


@pytest.fixture
def other(run, tmp_path):
    """A copy of the run that the test may change."""
    return Path(shutil.copytree(run.folder, tmp_path / "other"))


@pytest.fixture
def write(run, tmp_path):
    """A function: members (additions to the run), combiner → the path of an ensemble's file."""

    def write(*members, combiner="mean", **more):
        members = [{"run": str(run.folder)} | member for member in members]
        combiner = combiner if isinstance(combiner, dict) else {"name": combiner}
        content = {"about": "", "command": "", "expect": "", "members": members, "combiner": combiner}
        path = tmp_path / "ensemble.json"
        path.write_text(json.dumps(content | more))
        return path

    return write


NOISY = {"stage": "noisy"}


def test_there_are_ensemble_files_and_each_loads():
    assert FILES
    for path in FILES:
        ensemble = load(path, kind=EnsembleConfig)
        assert ensemble.about and ensemble.expect and ensemble.command.endswith(f"ensembles/{path.name}")


def test_members_are_combined_as_the_file_says(run, write):
    (clips, last), (_, noisy) = score_test_clips(run), score_test_clips(run, stage="noisy")
    for combiner, expected in [
        ("mean", (expit(last) + 3 * expit(noisy)) / 4),
        ("geometric_mean", expit(last) ** 0.25 * expit(noisy) ** 0.75),
    ]:
        ensemble = open_model(write({}, NOISY | {"weight": 3}, combiner=combiner))
        predicted, logits = predict_test_clips(ensemble)
        assert predicted["name"].tolist() == clips["name"].tolist()
        np.testing.assert_allclose(expit(logits), expected, atol=1e-7)


def test_a_member_may_have_its_own_predict_settings_and_be_one_fold(run, write):
    ensemble = open_model(write({"predict": {"pool": "max", "overlap": 0.0}, "fold": 0}))
    expected = score_test_clips(with_predict_options(run, ["predict.pool=max", "predict.overlap=0"]))[1]
    np.testing.assert_allclose(predict_test_clips(ensemble)[1], expected, atol=1e-6)
    with pytest.raises(DataError, match="stage 'curated' of fold 3 is not trained. Name another fold."):
        predict_test_clips(open_model(write({"fold": 3})))


@pytest.mark.parametrize("combiner", ["ridge", "logit_weights"])
def test_a_fitted_combiner_is_fitted_on_out_of_fold_clips_and_measured_on_others(run, write, combiner, monkeypatch):
    ensemble = open_model(write({}, NOISY, combiner=combiner))
    fits = []
    kind = members.COMBINERS[combiner]
    fit = kind.fit
    monkeypatch.setattr(kind, "fit", lambda self, z, truth: fits.append(z) or fit(self, z, truth))
    clips, logits = out_of_fold_member_scores(ensemble)
    assert logits.shape == (8, 2, 14)
    np.testing.assert_allclose(logits[:, 0], out_of_fold_predictions(run)[1], atol=1e-9)
    fitted_combiner(ensemble)
    np.testing.assert_array_equal(fits.pop(), logits)
    _, scores = predict_out_of_fold(ensemble)
    assert len(fits) == 5 and sum(8 - len(z) for z in fits) == 8  # each clip is left out of one fit
    left_out = [[row for row in range(8) if not (z == logits[row]).all(axis=(1, 2)).any()] for z in fits]
    assert sorted(row for rows in left_out for row in rows) == list(range(8))
    assert np.isfinite(scores).all()


def test_the_stage_and_predict_settings_of_a_member_apply_to_out_of_fold_clips_too(run, write):
    ensemble = open_model(write(NOISY, {"predict": {"pool": "max"}}))
    _, logits = out_of_fold_member_scores(ensemble)
    assert np.abs(logits[:, 0] - out_of_fold_predictions(run)[1]).max() > 0.01
    np.testing.assert_allclose(logits[:, 0], out_of_fold_predictions(run, "noisy")[1], atol=1e-9)
    assert np.abs(logits[:, 1] - out_of_fold_predictions(run)[1]).max() > 1e-4


def test_standardized_logits_have_mean_0_and_deviation_1_on_out_of_fold_clips(write):
    ensemble = open_model(write({}, standardize_logits=True))
    combine = fitted_combiner(ensemble)
    _, logits = out_of_fold_member_scores(ensemble)
    expected = (logits - logits.mean(axis=0)) / logits.std(axis=0)
    np.testing.assert_allclose(members.combine_in_blocks(combine, logits), expected[:, 0], atol=1e-6)


def test_an_ensemble_is_one_saved_model_with_the_same_scores(write, wavs, tmp_path):
    ensemble = open_model(write({}, NOISY, combiner="ridge", standardize_logits=True))
    clips, logits = predict_test_clips(ensemble)
    predictor = load_predictor(export(ensemble, tmp_path / "saved"))
    assert predictor.vocabulary == ensemble.vocabulary
    rows = [clips["name"].tolist().index(path.name) for path in wavs[:5]]
    np.testing.assert_allclose(score_files(predictor, wavs[:5]), logits[rows], atol=1e-3)


def test_the_effect_of_each_member_is_measured(run, write):
    ensemble = open_model(write({}, NOISY))
    clips, logits = member_scores(ensemble)
    truth = multi_hot(clips["labels"], run.vocabulary)
    table = member_effects(ensemble, clips, logits)
    assert table["member"].tolist() == [str(run.folder), f"{run.folder}/noisy"]
    assert table["alone"].tolist() == [lwlrap(truth, logits[:, member]) for member in (0, 1)]
    assert table["without_it"].tolist() == pytest.approx(table["alone"].tolist()[::-1])
    single = open_model(write({}))
    assert np.isnan(member_effects(single, *member_scores(single))["without_it"]).all()


def test_thresholds_of_an_ensemble_are_fitted_on_out_of_fold_clips(write):
    ensemble = open_model(write({}, NOISY))
    _, _, thresholds = predictions_and_thresholds(ensemble)
    assert thresholds.shape == (14,) and (thresholds != 0).any()
    _, _, across = predictions_and_thresholds(ensemble, out_of_fold=True)
    assert across.shape == (8, 14)


# Refusals


def test_runs_with_other_classes_are_refused_with_the_names(other, write):
    data = json.loads((other / "data.json").read_text())
    vocabulary = data["vocabulary"]
    (other / "data.json").write_text(json.dumps(data | {"vocabulary": ["Yodel", *vocabulary[1:]]}))
    with pytest.raises(DataError, match=f"other: has other classes than .*tiny, such as {vocabulary[0]}, Yodel."):
        open_model(write({}, {"run": str(other)}))
    (other / "data.json").write_text(json.dumps(data | {"vocabulary": vocabulary[::-1]}))
    with pytest.raises(DataError, match="other: has other classes than .*tiny, the same in another order."):
        open_model(write({}, {"run": str(other)}))


def test_a_member_trained_on_clips_that_it_would_be_fitted_on_is_refused(other, write):
    folds = pd.read_csv(other / "folds.csv", index_col="name")["fold"]
    swapped = folds.replace({0: 1, 1: 0})
    swapped.to_csv(other / "folds.csv")
    path = StageFiles(other / "fold-0" / "curated").oof_scores()
    scores = pd.read_csv(path)
    own = swapped.index[swapped == 0]
    pd.concat([scores] * 9).head(len(own)).assign(name=own).to_csv(path, index=False)
    ensemble = open_model(write({}, {"run": str(other)}, combiner="ridge"))
    trained = sorted(folds.index[folds == 1])
    message = rf"tiny: trained on {len(trained)} clips that the ensemble would be fitted on: {trained[0]}, "
    with pytest.raises(DataError, match=message):
        predict_test_clips(ensemble)
    clips, _ = predict_test_clips(open_model(write({}, {"run": str(other)})))  # a mean is not fitted
    assert len(clips) == 20


def test_missing_scores_of_a_member_are_refused_with_the_names(run, write, monkeypatch):
    ensemble = open_model(write({}, NOISY))

    def damaged(run, *, stage, fold):
        clips, logits = score_test_clips(run, stage=stage, fold=fold)
        if stage == "noisy" and damage == "missing":
            return clips.iloc[1:], logits[1:]
        if stage == "noisy":
            logits[3, 2] = np.nan
        return clips, logits

    monkeypatch.setattr(members, "score_test_clips", damaged)
    names = score_test_clips(run)[0]["name"]
    damage = "missing"
    with pytest.raises(DataError, match=f"tiny/noisy: scores other clips than .*tiny: {names[0]}."):
        predict_test_clips(ensemble)
    damage = "nan"
    with pytest.raises(DataError, match=f"tiny/noisy: The scores of 1 clips are NaN: {names[3]}."):
        predict_test_clips(ensemble)


def test_members_that_read_files_differently_cannot_be_one_model(other, write, tmp_path):
    data = json.loads((other / "data.json").read_text())
    data["audio_config"]["peak_db"] = -3.0
    (other / "data.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="other: reads files as .*'peak_db': -3.0.* An ensemble reads a file once"):
        export(open_model(write({}, {"run": str(other)})), tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"combiner": {"name": "geometric_mea"}},
            "combiner: there is no component 'geometric_mea'. Did you mean 'geometric_mean'?",
        ),
        ({"combiner": {"name": "ridge", "level": 3}}, "combiner.level: Input should be 1 or 2, found 3."),
        (
            {"combiner": {"name": "geometric_mean", "flor": 1}},
            "unknown key 'flor'. Did you mean 'floor'? Accepted: name, fl",
        ),
        ({"members": []}, "members: "),
        ({"member": []}, "unknown key 'member'. Did you mean 'members'?"),
    ],
)
def test_an_error_in_a_file_is_refused_with_the_nearest_name(write, change, message):
    with pytest.raises(ConfigError) as error:
        open_model(write({}, **change))
    assert message in str(error.value)


def test_weights_are_for_combiners_that_are_means(write):
    with pytest.raises(ConfigError, match=r"members\[1\].weight: ridge fits the weights itself. Leave it out."):
        open_model(write({}, {"weight": 2.0}, combiner="ridge"))
    message = "combiner geometric_mean: floor must be above 0 and below 1. Received: floor=2"
    with pytest.raises(ConfigError, match=message):
        predict_test_clips(open_model(write({}, combiner={"name": "geometric_mean", "floor": 2.0})))


def test_clips_without_labels_are_refused_before_they_are_scored(run, write, monkeypatch):
    read = scoring.read_clips
    monkeypatch.setattr(scoring, "read_clips", lambda path: read(path).assign(labels=""))
    monkeypatch.setattr(members, "score_test_clips", lambda *args, **options: pytest.fail("scored"))
    ensemble = open_model(write({}, NOISY))
    for measure in (leave_one_out, predictions_and_thresholds, lambda ensemble: predictions_and_thresholds(run)):
        with pytest.raises(DataError, match="The test clips have no labels to compare with"):
            measure(ensemble)


def test_standard_error_says_why_thresholds_cannot_be_fitted(write, monkeypatch, capsys):
    def fail(model, *, stage):
        raise DataError("no fold is trained.")

    monkeypatch.setattr(members, "predict_out_of_fold", fail)
    assert predictions_and_thresholds(open_model(write({})))[2] is None
    assert capsys.readouterr().err.endswith("Thresholds are 1/2, because they cannot be fitted: no fold is trained.\n")


def test_predict_settings_of_a_member_must_fit_its_run(write):
    path = write({}, {"predict": {"flip_tta": "clip"}})
    with pytest.raises(ConfigError, match=r"ensemble.json: members\[1\]: predict.flip_tta: needs flips as classes."):
        open_model(path)


def test_a_fold_that_is_not_trained_has_no_out_of_fold_clips(run, write):
    with pytest.raises(DataError, match=f"{run.folder}: fold 3 is not fully trained. Name another fold."):
        out_of_fold_member_scores(open_model(write({"fold": 3})))


# Commands


def call(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_the_commands_take_an_ensemble_where_they_take_a_run(run, wavs, tmp_path):
    path = tmp_path / "both.json"
    assert call("ensemble", run.folder, run.folder, "--combiner", "geometric_mean", "--out", path) == (
        f"Evaluate it: audiotag evaluate {path}\n"
    )
    assert "lwlrap" in call("evaluate", path, "--out", tmp_path / "tables")
    assert "fold 0" in call("evaluate", path, "--out-of-fold")
    assert call("evaluate", path, "--leave-one-out").split()[:3] == ["member", "alone", "without_it"]
    written = tmp_path / "both" / "submission.csv"
    assert call("make-submission", path).splitlines()[-1] == f"20 rows, 14 classes: {written}"
    assert call("export", path, tmp_path / "saved").splitlines()[-1] == f"SavedModel: {tmp_path / 'saved'}"
    classes = [
        [line for line in call("predict", model, wavs[0]).splitlines() if "%  " in line] for model in (path, run.folder)
    ]
    assert classes[0] == classes[1] and len(classes[0]) == 3


def test_an_invalid_ensemble_is_not_written(run, tmp_path):
    result = CliRunner().invoke(
        main, ["ensemble", str(run.folder), "--combiner", "vote", "--out", str(tmp_path / "x.json")]
    )
    assert result.exit_code == 1 and "there is no component 'vote'" in result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_created_for_a_submission_is_refused_before_scoring(write, monkeypatch):
    monkeypatch.setattr(members, "predict_test_clips", lambda model: pytest.fail("scored"))
    path = write({})
    result = CliRunner().invoke(main, ["make-submission", str(path.rename(path.with_suffix("")))])
    assert result.exit_code == 1 and "File exists" in result.output


def test_a_run_has_no_members(run):
    with pytest.raises(ConfigError, match="tiny: a run has no members. Give an ensemble's file, or see: audiotag repo"):
        leave_one_out(open_model(run.folder))


def test_robustness_is_of_a_run_alone(write):
    with pytest.raises(ConfigError, match="robustness is measured of a single run. Give a run, not an ensemble"):
        api.evaluate(write({}), robustness=True)


def test_an_ensemble_has_no_records_or_stage_of_its_own(write):
    ensemble = open_model(write({}))
    with pytest.raises(
        ConfigError, match="each member has its own records, stage and fold. Leave --records, --stage and --fold out"
    ):
        predict_test_clips(ensemble, stage="noisy")
    with pytest.raises(
        ConfigError, match="each member has its own records, stage and fold. Leave --records, --stage and --fold out"
    ):
        predict_out_of_fold(ensemble, stage="noisy")
    assert dataclasses.is_dataclass(ensemble) and isinstance(ensemble, EnsemblePredictor)
