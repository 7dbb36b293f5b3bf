import pandas as pd
import pytest
from selection_runs import BOTH, fit, folds_of, selected_by_curated, table

from audiotag import files
from audiotag.config.schema import expand_rounds
from audiotag.crossval.out_of_fold import mean_out_of_fold_scores, out_of_fold_scores, read_scores, trained_on
from audiotag.data.clips import read_clips
from audiotag.errors import DataError
from audiotag.training import loop


@pytest.fixture
def score(context_of):
    """A function: computes or reads the out-of-fold scores of noisy clips by both folds of a run."""

    def score(run, stage="all"):
        for fold in (0, 1):
            out_of_fold_scores(context_of(run, fold, stage), "noisy")

    return score


def test_each_clip_is_scored_once_by_the_model_that_held_it_out(again, context_of):
    folds = folds_of(again)
    for subset in (None, "noisy"):  # None: the validation clips
        tables = [out_of_fold_scores(context_of(again, fold, "all"), subset) for fold in (0, 1)]
        for fold in (0, 1):
            assert set(folds[tables[fold]["name"]]) == {fold}
            assert set(tables[fold]["name"]).isdisjoint(trained_on(again, fold, "all"))
        mean = mean_out_of_fold_scores(context_of(again, 0, "all"), subset)
        pd.testing.assert_frame_equal(mean, pd.concat(tables).sort_values("name", ignore_index=True))


def test_the_scores_of_a_stage_are_stored_beside_it_and_read_again(again, context_of):
    scores = out_of_fold_scores(context_of(again, 0, "all"), "noisy")
    path = again.stage_files(0, "all").oof_scores("noisy")
    pd.testing.assert_frame_equal(read_scores(path, again.vocabulary), scores)
    path.write_text(path.read_text().replace(f"{scores['name'][0]},", f"{scores['name'][0]},1", 1))
    assert not out_of_fold_scores(context_of(again, 0, "all"), "noisy").equals(scores)


def test_scores_of_500_classes_are_read_without_a_warning(tmp_path):
    classes = [f"class {number}" for number in range(500)]
    scores = pd.DataFrame([[0.25] * 500, [float("nan")] * 500], columns=classes)
    written = pd.concat([pd.Series(["1.wav", "2.wav"], name="name"), scores], axis=1)
    files.write_text(tmp_path / "oof.csv", files.csv_text(written))
    pd.testing.assert_frame_equal(read_scores(tmp_path / "oof.csv", classes), written)


def test_a_stage_has_trained_on_its_clips_and_on_those_of_the_stages_before_it(again):
    names = set()
    for stage in expand_rounds(again.experiment):
        names |= set(table(again, 0, stage.name, "training_clips.csv")["name"])
        assert trained_on(again, 0, stage.name) == names
    assert trained_on(again, 0, "verified") == names
    with pytest.raises(DataError, match=r"stage 'all' of fold 3 is not trained yet.* audiotag fit --fold 3"):
        trained_on(again, 3, "all")


def test_a_clip_that_changed_its_fold_is_not_scored_by_a_model_that_trained_on_it(again, records, score):
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'")["name"].iloc[0]
    fold = int(folds_of(again)[noisy])
    again.folds_file.write_text(again.folds_file.read_text().replace(f"{noisy},{fold}", f"{noisy},{1 - fold}"))
    message = f"its model trained on clip '{noisy}' and 0 others that it should score out-of-fold. Retrain with"
    with pytest.raises(DataError, match=message):
        score(again)


def test_a_verified_clip_in_the_training_clips_of_its_verifier_is_found(again, score):
    selection = table(again, 0, "verified/1", "selected_clips.csv")
    clip = selection["clip"][selection["weight"] > 0].iloc[0]
    fold = folds_of(again)[clip]
    path = again.stage_files(fold, "all").training_clips
    path.write_text(path.read_text() + f"{clip},Bell,1.0,,\n")
    for stage in ("all", "verified/1", "verified/2", "verified"):  # those that started from its weights, too
        with pytest.raises(DataError, match=f"its model trained on clip '{clip}'"):
            score(again, stage)


def test_a_noisy_clip_of_a_recording_that_was_trained_on_is_not_scored(tiny, records, tmp_path, monkeypatch):
    clips = read_clips(records / "clips.csv")
    for subset in BOTH:
        some = clips.index[clips["subset"] == subset][:20]
        clips.loc[some, "group"] = [f"recording {number}" for number in range(20)]
    monkeypatch.setattr(loop, "read_clips", lambda path: clips)
    run = fit(tiny(*selected_by_curated("mean_probability", 0.0)), tmp_path / "run")
    group = clips.set_index("name")["group"]
    recordings = set(group[table(run, 0, "curated", "training_clips.csv")["name"]]) - {""}
    selection = table(run, 0, "selected", "selected_clips.csv").set_index("clip")
    noisy = clips.query("subset == 'noisy'")["name"]
    shared = noisy[noisy.map(group).isin(recordings)]
    assert 0 < len(shared) < 20
    assert sorted(selection.index) == sorted(noisy)
    assert set(selection["weight"][shared]) == {0.0}
    assert set(selection["reason"][shared]) == {"not scored: the model trained on a clip of the same group"}
    assert set(selection["weight"].drop(shared)) == {1.0}


def test_a_model_that_trained_on_the_recordings_of_all_noisy_clips_selects_none(tiny, records, tmp_path, monkeypatch):
    clips = read_clips(records / "clips.csv")
    curated = clips.index[clips["subset"] == "curated"]
    clips.loc[curated, "group"] = ["one" if number % 2 else "other" for number in range(len(curated))]
    clips.loc[clips["subset"] == "noisy", "group"] = "one"
    monkeypatch.setattr(loop, "read_clips", lambda path: clips)
    folds = 'validation={"folds": {"num_folds": 2, "held_out": [1]}}'
    run = fit(tiny(*selected_by_curated("mean_probability", 0.0), folds), tmp_path / "run")
    trained = table(run, 1, "curated", "training_clips.csv")["name"]
    assert set(clips.set_index("name")["group"][trained]) == {"one"}  # so fold 1 is the other
    selection = table(run, 1, "selected", "selected_clips.csv")
    assert len(selection) == 40 and set(selection["weight"]) == {0.0}
    assert set(table(run, 1, "selected", "training_clips.csv")["name"]) == set(trained)


def test_scores_that_another_process_deletes_are_written_again(again, context_of, monkeypatch):
    context, swept = context_of(again, 1, "all"), []
    expected, path = out_of_fold_scores(context, "noisy"), again.stage_files(1, "all").oof_scores("noisy")
    path.unlink()
    sync = files.sync

    def sweep_first(written):
        if not swept and written.name.endswith("oof_noisy.csv"):
            swept.append(written)
            files.delete_unfinished(written.parent)
        sync(written)

    monkeypatch.setattr(files, "sync", sweep_first)
    pd.testing.assert_frame_equal(out_of_fold_scores(context, "noisy"), expected)
    assert swept and path.exists()
