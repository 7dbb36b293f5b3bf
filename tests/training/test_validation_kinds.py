"""Runs that validate on a subset, on a fraction, or not at all, on subsets of any name of which two are trusted."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from audiotag.crossval.label_issues import rank_label_issues
from audiotag.crossval.splits import check_subset_names
from audiotag.data.labels import multi_hot
from audiotag.data.records import read_manifest, write_records
from audiotag.data.sources import find_clips
from audiotag.ensembling.members import open_model, predictions_and_thresholds
from audiotag.errors import DataError
from audiotag.evaluation.scoring import out_of_fold_predictions
from audiotag.metrics import lwlrap
from audiotag.reporting.run_page import write_run_page
from audiotag.training.loop import fit

STAGE = {"epochs": 1, "batch_size": 8, "keep": "last", "loss": {"name": "binary_crossentropy"}} | {
    "optimizer": {"name": "adam", "learning_rate": 0.01}
}
SELECT = {"rule": {"name": "mean_probability", "threshold": 0.0}, "score_with": "train"}
ONE_STAGE = [
    STAGE | {"name": "last", "subset": ["clean_A", "clean-2", "web"], "noisy_loss": {"name": "soft_bootstrapping"}}
]
TWO_STAGES = [
    STAGE | {"name": "train", "subset": ["clean_A", "clean-2"]},
    STAGE | {"name": "last", "subset": ["clean_A", "web"], "select": SELECT},
]
NONE = 'has no held-out clips, as "validation" is null in its experiment.'
KINDS = {"subset": {"subset": "valid"}, "fraction": {"fraction": 0.25, "seed": 42}, "null": None}


@pytest.fixture(scope="module")
def source(demo):
    """The demo's clips in other subsets; some clips of each subset are of the same recordings."""
    found = find_clips(demo)
    clips = found.clips.copy()
    curated, noisy = (clips.index[clips["subset"] == subset] for subset in ("curated", "noisy"))
    parts = {"clean_A": curated[:16], "clean-2": curated[16:30], "valid": curated[30:]}
    for name, rows in (parts | {"web": noisy[:30], "found": noisy[30:]}).items():
        clips.loc[rows, "subset"] = name
        clips.loc[rows[:4], "group"] = [f"recording {number}" for number in range(4)]
    return dataclasses.replace(found, clips=clips)


@pytest.fixture(scope="module")
def experiment(source, tiny, tmp_path_factory):
    """A function: a kind of validation → a small experiment on these clips."""
    folder = tmp_path_factory.mktemp("subsets") / "records"
    write_records(source, folder, sample_rate=16_000, workers=0)

    def experiment(kind, *overrides):
        trusted = 'trusted=["clean_A", "clean-2"]'
        stages = f"stages={json.dumps(TWO_STAGES if kind == 'null' else ONE_STAGE)}"
        validation = f"validation={json.dumps(KINDS[kind])}"
        return tiny(f"records={folder}", trusted, "model.filters=[4]", stages, validation, *overrides)

    return experiment


@pytest.fixture(scope="module", params=KINDS)
def trained(request, experiment, tmp_path_factory):
    """(kind of validation, its trained run, what `fit` said)."""
    sentences = []
    folder = tmp_path_factory.getbasetemp() / request.param / "run"
    return request.param, fit(experiment(request.param), folder, say=sentences.append), sentences


def names_of(run):
    """The names of the clips that its stages trained on."""
    tables = [pd.read_csv(run.stage_files(0, stage.name).training_clips) for stage in run.experiment.stages]
    return set(pd.concat(tables)["name"])


def test_no_clip_that_validates_nor_one_of_its_recording_is_trained_on(trained, source):
    kind, run, _ = trained
    clips = source.clips.set_index("name")
    used = names_of(run)
    assert set(clips["subset"][list(used)]) == {"clean_A", "clean-2", "web"}
    if kind == "null":
        assert not run.folds_file.exists()
        assert used >= set(clips.index[clips["subset"].isin(["clean_A", "clean-2"])])
        return
    held_out = pd.read_csv(run.folds_file, index_col="name")["fold"]
    assert set(held_out) == {0} and used.isdisjoint(held_out.index)
    recordings = set(clips["group"][held_out.index]) - {""}
    assert recordings and recordings.isdisjoint(clips["group"][list(used)])
    scored = clips.loc[pd.read_csv(run.stage_files(0, "last").oof_scores())["name"]]
    if kind == "subset":
        assert set(scored.index) == set(clips.index[clips["subset"] == "valid"])
        assert set(clips["subset"][held_out.index]) == {"clean_A", "clean-2", "valid", "web", "found"}  # by recording
    else:
        assert set(scored["subset"]) == {"clean_A", "clean-2"} and len(scored) == pytest.approx(30 / 4, abs=2)


def test_its_one_model_is_measured_on_the_clips_that_validate(trained):
    kind, run, sentences = trained
    result = run.result(0, "last")
    assert run.trained_folds("last") == [0] and result["weights"] == "last.weights.h5"
    if kind == "null":
        assert (result["monitor"], result["value"]) == ("lwlrap", run.history(0)["lwlrap"].iloc[-1])
        assert not run.stage_files(0, "last").best_weights.exists()
        assert run.history(0).columns.tolist() == ["epoch", "loss", "lwlrap"]
        assert sentences[-1].endswith(" on the training clips, epoch 1 of 1.")
        return
    clips, logits = out_of_fold_predictions(run)
    value = lwlrap(multi_hot(clips["labels"], run.vocabulary), logits)
    assert result["value"] == pytest.approx(value, abs=1e-6)
    assert f"lwlrap {result['value']:.4f} on {len(clips)} validation clips" in sentences[-1]


def test_it_predicts_test_clips(trained, capsys):
    kind, run, _ = trained
    clips, logits, thresholds = predictions_and_thresholds(run)
    assert set(clips["subset"]) == {"test"} and len(clips) == 20 and np.isfinite(logits).all()
    if kind == "null":
        assert thresholds is None and f"Thresholds are 1/2, because they cannot be fitted: {run.folder}: {NONE}" in (
            capsys.readouterr().err
        )
    else:
        assert thresholds.shape == (14,)


def test_label_issues_are_of_clips_that_no_stage_trained_on(trained, source):
    kind, run, _ = trained
    issues = rank_label_issues(run)
    assert set(issues["clip"]).isdisjoint(names_of(run))
    trusted = {"clean_A", "clean-2"} if kind == "fraction" else set()
    assert set(issues["subset"]) == {"found", "valid"} | trusted


# Without validation


@pytest.fixture(scope="module")
def unvalidated(experiment, tmp_path_factory):
    """The run that trained on all clips, found again: `fit` has nothing left to do if `trained` was made before."""
    return fit(experiment("null"), tmp_path_factory.getbasetemp() / "null" / "run", say=lambda sentence: None)


def test_only_noisy_subsets_of_the_stage_are_selected(unvalidated, source):
    selection = pd.read_csv(unvalidated.stage_files(0, "last").selected_clips)["clip"]
    assert set(selection) == set(source.clips["name"][source.clips["subset"] == "web"])
    assert unvalidated.stage_files(0, "train").oof_scores("web").exists()


def test_what_needs_held_out_clips_says_that_there_are_none(unvalidated, tmp_path):
    with pytest.raises(DataError, match=NONE):
        predictions_and_thresholds(unvalidated, out_of_fold=True)
    members = [{"run": str(unvalidated.folder)}]
    (tmp_path / "one.json").write_text(json.dumps({"members": members, "combiner": {"name": "ridge"}}))
    with pytest.raises(DataError, match=NONE):
        predictions_and_thresholds(open_model(tmp_path / "one.json"))
    every = unvalidated.experiment.model_copy(update={"trusted": ("clean_A", "clean-2", "valid", "web", "found")})
    with pytest.raises(DataError, match='has no held-out clips to rank, as "validation" is null in its experiment'):
        rank_label_issues(dataclasses.replace(unvalidated, experiment=every))


def test_its_page_says_that_thresholds_are_not_fitted(unvalidated, tmp_path):
    write_run_page(unvalidated, tmp_path / "report.html")
    assert "decisions at 1/2, as no clips were held out" in (tmp_path / "report.html").read_text()


# Refusals


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            'stages.last.subset="clean-A"',
            "has no clean-A clips, which stages.last.subset names. Did you mean 'clean_A'",
        ),
        ('trusted=["clean_A", "clean-3"]', "has no clean-3 clips, which trusted names. Did you mean 'clean-2'"),
        ('validation={"subset": "vald"}', "has no vald clips, which validation.subset names. Did you mean 'valid'"),
        (
            'validation={"subset": "q"}',
            "validation.subset names. Its subsets: clean-2, clean_A, found, test, valid, web",
        ),
    ],
)
def test_a_subset_that_the_records_lack_is_refused_before_training(experiment, override, message, tmp_path):
    wrong = experiment("fraction", override)
    with pytest.raises(DataError) as error:
        fit(wrong, tmp_path / "run")
    assert message in str(error.value) and not (tmp_path / "run").exists()
    check_subset_names(experiment("null"), read_manifest(wrong.records))
