import json
import random

import numpy as np
import pandas as pd
import pytest
from kills import Stopped, arrays_in, sets
from selection_runs import (
    BOTH,
    FILTERS,
    ROUNDS,
    RULE,
    STAGE,
    STAGES,
    TWO_FOLDS,
    fit,
    folds_of,
    selected_by_curated,
    table,
)
from tiers import tier

from audiotag import files
from audiotag.config.loading import dump
from audiotag.config.schema import expand_rounds
from audiotag.crossval.label_issues import rank_label_issues
from audiotag.crossval.label_selection import best_round, stage_clips
from audiotag.data.clips import read_clips
from audiotag.errors import ConfigError, DataError
from audiotag.training import loop

# Which noisy clips a stage trains on


def test_of_the_noisy_clips_a_stage_trains_on_those_that_were_confirmed(verified, records):
    subset = read_clips(records / "clips.csv").set_index("name")["subset"]
    for fold in (0, 1):
        for number in (1, 2):
            weights = table(verified, fold, f"verified/{number}", "selected_clips.csv").set_index("clip")["weight"]
            trained = table(verified, fold, f"verified/{number}", "training_clips.csv")["name"]
            selected = set(weights.index[weights > 0])
            assert {name for name in trained if subset[name] == "noisy"} == selected & set(trained)
            assert selected - set(trained) == {name for name in selected if folds_of(verified)[name] == fold}
            assert set(weights.index) == set(subset.index[subset == "noisy"])


def test_both_folds_have_the_same_selection(verified):
    for number in (1, 2):
        first, second = (table(verified, fold, f"verified/{number}", "selected_clips.csv") for fold in (0, 1))
        pd.testing.assert_frame_equal(first, second)


def test_clips_selected_in_one_round_stay_in_the_next_within_the_same_limit(verified):
    first, second = (table(verified, 0, f"verified/{number}", "selected_clips.csv") for number in (1, 2))
    before, after = (set(selection["clip"][selection["weight"] > 0]) for selection in (first, second))
    assert before and before <= after
    for names in (before, after):
        labels = first.set_index("clip")["labels"][sorted(names)]
        assert labels.str.get_dummies(",").sum().max() <= 1
    assert set(second["reason"][second["clip"].isin(before)]) == {"kept in an earlier round"}


def test_the_selection_of_a_clip_follows_from_the_scores_of_the_model_that_held_it_out(verified, records):
    by_random_windows = "oof_noisy_for_verified-1.csv"
    scores = pd.concat([table(verified, fold, "all", by_random_windows) for fold in (0, 1)]).set_index("name")
    assert set(table(verified, 0, "all", by_random_windows)["name"]).isdisjoint(
        table(verified, 0, "all", "training_clips.csv")["name"]
    )
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    for clip in table(verified, 0, "verified/1", "selected_clips.csv").itertuples():
        given = scores.loc[clip.clip, labels[clip.clip].split(",")]
        others = scores.loc[clip.clip].drop(given.index)
        assert clip.reason.startswith("confirmed") == (given.min() > others.max())
        assert clip.reason.split(", ")[1] == f"{given.mean():.3f}"


def test_from_curated_clips_alone_a_fold_selects_without_the_others(tiny, tmp_path):
    run = fit(tiny(*selected_by_curated("pseudo_labels", 0.4)), tmp_path / "run")
    selection = table(run, 0, "selected", "selected_clips.csv").set_index("clip")
    trained = table(run, 0, "selected", "training_clips.csv").set_index("name")
    selected = selection[selection["weight"] > 0]
    assert 0 < len(selected)
    assert trained.loc[selected.index, "labels"].to_dict() == selected["labels"].to_dict()
    assert len(trained) == len(selected) + (folds_of(run) != 0).sum()


def test_without_validation_a_model_of_all_curated_clips_selects(tiny, tmp_path):
    run = fit(tiny(*selected_by_curated("pseudo_labels", 0.4), "validation=null"), tmp_path / "run")
    selection = table(run, 0, "selected", "selected_clips.csv").set_index("clip")
    trained = table(run, 0, "selected", "training_clips.csv")["name"]
    curated = table(run, 0, "curated", "training_clips.csv")["name"]
    assert set(trained) == set(curated) | set(selection.index[selection["weight"] > 0]) > set(curated)


def test_the_scores_of_several_stages_are_averaged(tiny, tmp_path):
    scoring = [STAGE | {"name": name, "subset": "curated", "epochs": 1} for name in ("one", "two")]
    stage = STAGE | {"name": "selected", "subset": BOTH, "epochs": 1}
    stage |= {"select": {"rule": {"name": "pseudo_labels", "threshold": 0.5}, "score_with": ["one", "two"]}}
    run = fit(tiny(FILTERS, f"stages={json.dumps([*scoring, stage])}"), tmp_path / "run")
    one, two = (table(run, 0, name, "oof_noisy.csv").set_index("name") for name in ("one", "two"))
    assert not np.allclose(one, two)
    selection = table(run, 0, "selected", "selected_clips.csv").set_index("clip")
    mean = (one + two.loc[one.index]) / 2
    labels = {clip: ",".join(mean.columns[row >= 0.5]) for clip, row in mean.iterrows()}
    selected = selection.index[selection["weight"] > 0]
    assert {clip: text for clip, text in labels.items() if text} == selection["labels"][selected].to_dict()
    assert set(selection["source"]) == {"pseudo_labels, scored with one and two"}


def test_a_softmax_selects_among_clips_with_one_label(tiny, records, tmp_path):
    softmax = STAGE | {"loss": {"name": "categorical_crossentropy"}, "epochs": 1}
    stages = [
        softmax | {"name": "curated", "subset": "curated"},
        softmax | {"name": "selected", "subset": BOTH, "select": {"rule": RULE, "score_with": "curated"}},
    ]
    run = fit(tiny("task=single_label", FILTERS, f"stages={json.dumps(stages)}"), tmp_path / "run")
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'")
    single = set(noisy["name"][~noisy["labels"].str.contains(",")])
    assert set(table(run, 0, "selected", "selected_clips.csv")["clip"]) == single < set(noisy["name"])


def test_a_selection_leaves_the_weights_of_corrections_as_they_are(tiny, records, tmp_path):
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'").set_index("name")["labels"]
    path = tmp_path / "corrections.csv"
    path.write_text("clip,labels,weight\n" + "".join(f'{clip},"{labels}",0.5\n' for clip, labels in noisy.items()))
    run = fit(tiny(*selected_by_curated("mean_probability", 0.0), f"corrections={path}"), tmp_path / "run")
    weights = table(run, 0, "selected", "training_clips.csv").set_index("name")["weight"]
    assert set(weights[noisy.index]) == {0.5}


def test_a_round_scores_all_clips_each_by_the_model_of_its_fold(again):
    issues = rank_label_issues(again, stage="verified/1")
    assert issues["subset"].value_counts().to_dict() == {"noisy": 40, "curated": 40}


# Rounds


def test_the_best_round_on_validation_clips_is_kept(verified):
    lwlraps = [[verified.result(fold, f"verified/{n}")["value"] for fold in (0, 1)] for n in (1, 2)]
    best = 1 + int(np.argmax(np.mean(lwlraps, axis=1)))
    assert best_round(verified, (0, 1), verified.experiment.stages[1]) == best
    for fold in (0, 1):
        result = verified.result(fold, "verified")
        assert result["round"] == best
        assert verified.weights(fold, "verified") == verified.weights(fold, f"verified/{best}")
        assert result == verified.result(fold, f"verified/{best}") | {"round": best}
        assert verified.result(fold, f"verified/{best}")["round"] is None
        assert result["value"] == lwlraps[best - 1][fold]


def test_a_second_round_starts_from_the_first(verified):
    assert [(stage.name, stage.start_from) for stage in expand_rounds(verified.experiment)] == [
        ("all", None),
        ("verified/1", "all"),
        ("verified/2", "verified/1"),
    ]


def test_a_stage_after_rounds_starts_from_the_best_of_them(tiny, again):
    """All folds choose the round together, so none may continue before the others are there."""
    final = STAGE | {"name": "final", "subset": "curated", "epochs": 1, "start_from": "verified"}
    experiment = tiny(FILTERS, f"stages={json.dumps([*STAGES, final])}", TWO_FOLDS)
    assert [[stage.name for _, stage in group] for group in loop._stage_groups(experiment)] == [
        ["all"],
        ["verified/1"],
        ["verified/2"],
        ["final"],
    ]
    (again.folder / "experiment.json").write_text(dump(experiment))
    run = fit(experiment, again.folder)
    assert run.trained_folds("final") == [0, 1]
    assert {len(table(run, fold, "final", "oof.csv")) for fold in (0, 1)} == {20}


# What is refused


def test_a_model_that_trained_on_the_noisy_clips_may_not_score_them(tiny, tmp_path):
    both = 'stages.curated.subset=["curated","noisy"]'
    select = f"stages.curated.select={json.dumps({'rule': RULE, 'score_with': 'noisy'})}"
    with pytest.raises(DataError, match=r"noisy: its model trained on clip '\S+' and 39 others .*Add \"split_noisy\""):
        fit(tiny(both, select, "stages.noisy.epochs=1"), tmp_path / "run")


def test_a_fold_alone_waits_for_the_others_where_they_score_its_clips(tiny, tmp_path):
    with pytest.raises(DataError, match=r"stage 'all' of fold 0 is not trained yet.*audiotag fit --fold 0"):
        fit(tiny(*ROUNDS), tmp_path / "run", fold=1)
    assert (tmp_path / "run" / "fold-1" / "all" / "result.json").is_file()


def test_the_best_round_waits_for_all_folds(again):
    again.stage_files(1, "verified/2").result.unlink()
    with pytest.raises(DataError, match=r"round 2 of stage 'verified' is not trained in fold 1 yet.*fit --fold 1"):
        best_round(again, (0, 1), again.experiment.stages[1])


def test_a_stage_whose_clips_are_all_held_out_is_refused(verified, context_of):
    context = context_of(verified, 1, "all")
    context = context_of(verified, 1, "all", context.clips.assign(fold=1))
    with pytest.raises(DataError, match="all curated clips of stage 'all' are in fold 1"):
        stage_clips(context)


def test_a_selection_that_keeps_nothing_is_refused_if_the_stage_has_no_other_clips(tiny, tmp_path):
    message = r"^stages\.selected\.select: the selection rule kept no clips, so there is nothing to train on\. Lower"
    with pytest.raises(ConfigError, match=message):
        fit(tiny(*selected_by_curated("mean_probability", 1.0, subset="noisy")), tmp_path / "run")


# Kills


def test_stopped_anywhere_it_ends_with_the_same_result(tiny, verified, tmp_path, monkeypatch):
    """Between stages, rounds and folds, before and after each file that they write."""
    write, steps = files.write_text, []

    def stop_sometimes(path, text):
        steps.append(path)
        if len(steps) % 9 == 3:
            raise Stopped
        write(path, text)

    monkeypatch.setattr(files, "write_text", stop_sometimes)
    stops = 0
    while True:
        try:
            fit(tiny(*ROUNDS), tmp_path / "stopped")
            break
        except Stopped:
            stops += 1
    assert stops > 3
    assert_same(verified.folder, tmp_path / "stopped")


def test_killed_inside_a_round_it_ends_with_the_same_result(tiny_file, verified, start, tmp_path):
    seed = random.randrange(1_000_000)
    print(f"moments drawn with seed {seed}")  # shown when the test fails
    fit_again = lambda: start("fit", tiny_file, "--run", tmp_path / "killed", *sets(ROUNDS))
    for pattern in tier(["^verified/2, fold 0"], ["^verified/1, fold 1", "^verified/2, fold 0"]):
        fit_again().kill_at(pattern, random.Random(seed).uniform(0, 0.5))
    assert fit_again().wait() == 0
    assert_same(verified.folder, tmp_path / "killed")


def assert_same(expected, other):
    tables = {path.relative_to(expected) for path in expected.rglob("*.csv")}
    assert tables == {path.relative_to(other) for path in other.rglob("*.csv")}
    for name in tables:
        assert (expected / name).read_bytes() == (other / name).read_bytes(), name
    for path in expected.rglob("*.weights.h5"):
        ours, theirs = arrays_in(path), arrays_in(other / path.relative_to(expected))
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
