"""`advise` on a run that fits a ridge to stored embeddings: four parts, a half and a quarter of 32 clips."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from selection_runs import STAGE, TWO_FOLDS

import audiotag
from audiotag.crossval.splits import held_out_clips, training_clips
from audiotag.data.clips import read_clips
from audiotag.data.corrections import read_corrections, write_corrections
from audiotag.errors import ConfigError, DataError
from audiotag.runs.directory import find_records
from audiotag.sweeps import learning_curve
from audiotag.training.loop import fit

RIDGE = STAGE | {"name": "curated", "subset": "curated", "epochs": 0, "keep": "last", "windows": "sliding"}
RIDGE |= {"backbone_lr_multiplier": 0, "cache_embeddings": True, "initial_head": {"name": "ridge"}}
LINEAR = 'head={"name": "linear"}'


@pytest.fixture(scope="module")
def own(tiny, tmp_path_factory):
    """A run that tests may write into."""
    experiment = tiny(f"stages={json.dumps([RIDGE])}", "augment=[]", LINEAR)
    return fit(experiment, tmp_path_factory.mktemp("runs") / "curve", say=lambda sentence: None)


@pytest.fixture(scope="module")
def advised(own):
    """(the `Advice`, what was said, {part: (clips that it trained on, scores)})."""
    said, trained = [], {}

    def recorded(experiment, folder, **options):
        part = fit(experiment, folder, **options)
        files = part.stage_files(0, "curated")
        trained[folder.name] = set(pd.read_csv(files.training_clips)["name"]), files.oof_scores().read_text()
        return part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "NUM_HALVINGS", 2)
        patch.setattr(learning_curve.loop, "fit", recorded)
        advice = learning_curve.advise(own, num_draws=2, say=said.append)
    return advice, said, trained


def parts_of(run, num_draws=2):
    training = learning_curve._training_clips(run)
    return learning_curve.list_parts(run, training, num_draws), training


def test_parts_are_nested_and_have_their_fraction_of_each_class(own):
    parts, training = parts_of(own)
    clips = training[0].set_index("name")
    assert [(part.halvings, part.draw) for part in parts] == [(2, 0), (2, 1), (1, 0), (1, 1)]
    quarters, halves = parts[:2], parts[2:]
    assert all(quarter.names < half.names for quarter, half in zip(quarters, halves))
    assert halves[0].names != halves[1].names
    assert [len(part.names) for part in parts] == [8, 8, 16, 16]
    for part in halves:
        counts = pd.DataFrame({"all": clips["labels"].str.split(",").explode().value_counts()})
        counts["half"] = clips.loc[[*part.names], "labels"].str.split(",").explode().value_counts()
        assert ((counts["half"].fillna(0) - counts["all"] / 2).abs() <= 1.5).all()


def test_recordings_are_not_split(own, monkeypatch):
    clips = read_clips(find_records(own).directory / "clips.csv")
    clips["group"] = [f"recording {number // 3}" for number in range(len(clips))]
    monkeypatch.setattr(learning_curve, "read_clips", lambda path: clips)
    monkeypatch.setattr(learning_curve, "training_clips", lambda run, clips: clips.assign(fold=1, weight=1.0))
    parts, training = parts_of(own)
    group = training[0].set_index("name")["group"]
    for part in parts[2:]:
        inside = set(group[[*part.names]])
        assert not inside & set(group[~group.index.isin(part.names)])


def test_each_part_is_a_training_without_the_other_clips(own, advised):
    _, said, trained = advised
    assert said[0] == "Training 1 of 4: fold 0, 8 of 32 clips." and len(said) == 4
    folder = own.learning_curve_folder
    assert not (folder / "training").exists()  # only scores are kept
    clips = training_clips(own, read_clips(find_records(own).directory / "clips.csv"))
    held_out = set(held_out_clips(own, clips, 0)["name"])
    for part in parts_of(own)[0]:
        names, scores = trained[part.name]
        assert names == part.names
        path = folder / f"scores-{part.name}.csv"
        assert path.read_text() == scores and set(pd.read_csv(path)["name"]) == held_out


def test_the_tables_have_measured_and_forecast_values(own, advised):
    advice, *_ = advised
    assert advice.curve["part"].tolist() == ["1/4", "1/2", "all", "1.5 times", "2 times"]
    assert advice.curve["clips"].tolist() == [8, 16, 32, 48, 64]
    assert advice.curve["models"].tolist() == [2, 2, 1, 0, 0]
    assert (advice.curve["low"] <= advice.curve["value"]).all() and (
        advice.curve["value"] <= advice.curve["high"]
    ).all()
    overall = audiotag.evaluate(own, out_of_fold=True).overall.query("split == 'all'").set_index("measure")["value"]
    assert advice.curve["value"][2] == pytest.approx(overall["lwlrap"])
    assert set(advice.classes["class"]) == set(own.vocabulary) and advice.classes["gain"].min() >= 0
    assert advice.classes["gain"].dropna().is_monotonic_decreasing
    text = str(advice)
    assert "Twice the training clips, 64 in place of 32, change lwlrap by +0." in text
    assert "8 other validation recordings" in text


def test_a_part_with_scores_is_not_trained_again(own, advised, monkeypatch):
    advice, *_ = advised
    monkeypatch.setattr(learning_curve, "NUM_HALVINGS", 2)
    lost = own.learning_curve_folder / "scores-fold-0-4-1.csv"
    before = lost.read_bytes()
    lost.unlink()
    said = []
    again = learning_curve.advise(own, num_draws=2, say=said.append)
    assert said == ["Training 2 of 4: fold 0, 8 of 32 clips."] and lost.read_bytes() == before
    pd.testing.assert_frame_equal(again.curve, advice.curve)
    assert "top_1_accuracy" in str(audiotag.advise(own, num_draws=2, measure="top_1_accuracy", quiet=True))
    page = (own.learning_curve_folder / "report.html").read_text()
    assert "Learning curve of curve" in page and "now: 32 clips" in page


def test_corrections_of_the_run_stay(own, tmp_path):
    parts, training = parts_of(own)
    kept = sorted(parts[0].names)[0]
    table = pd.DataFrame({"clip": [kept], "labels": [own.vocabulary[0]], "weight": [0.5], "reason": "", "source": ""})
    write_corrections(own.corrections_file, table)
    experiment = learning_curve._experiment_of(own, parts[0], training[0], tmp_path)
    own.corrections_file.unlink()
    weights = read_corrections(experiment.corrections, own.vocabulary).set_index("clip")["weight"]
    assert weights[kept] == 0.5 and (weights.drop(kept) == 0).all() and len(weights) == 1 + 32 - 8


def test_stored_embeddings_are_shared(own, tmp_path):
    learning_curve._share_embeddings(own, tmp_path)
    shared = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.glob("**/*.npz")}
    assert shared == {path.relative_to(own.folder): path.read_bytes() for path in own.folder.glob("embeddings/*/*.npz")}
    assert shared


def test_what_has_no_learning_curve_is_refused(own, tiny, tmp_path):
    with_experiment = lambda *overrides: replace(own, experiment=tiny(*overrides))
    with pytest.raises(DataError, match='"validation" is null in its experiment, .* Add validation'):
        learning_curve.advise(replace(own, experiment=own.experiment.model_copy(update={"validation": None})))
    with pytest.raises(DataError, match='has "split_noisy": true, .* Train it without'):
        learning_curve.advise(with_experiment(TWO_FOLDS))
    with pytest.raises(DataError, match="1/4: .* do not fill a batch of 16 .* Train on more clips first"):
        learning_curve.advise(with_experiment())
    with pytest.raises(DataError, match="no fold is fully trained yet"):
        learning_curve.advise(replace(own, folder=tmp_path))
    with pytest.raises(ConfigError, match="there is no measure 'lwlrop'"):
        learning_curve.advise(own, measure="lwlrop")
    with pytest.raises(DataError, match="1 draws. Expected 2 or more"):
        learning_curve.advise(own, num_draws=1)
