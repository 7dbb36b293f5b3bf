import dataclasses
import importlib
import json
import random
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from kills import Stopped, arrays_in, fit_command, run_until

from audiotag.config.loading import dump
from audiotag.config.schema import passes
from audiotag.crossval import label_selection, splits
from audiotag.crossval.label_issues import suspects
from audiotag.crossval.out_of_fold import unheard_scores
from audiotag.crossval.splits import training_clips
from audiotag.data.clips import read_clips
from audiotag.data.records.manifest import read_manifest
from audiotag.errors import ConfigError, DataError
from audiotag.evaluation.scoring import held_out_answers

module = importlib.import_module("audiotag.training.loop")  # not the function of the same name
PART = {"batch_size": 8, "optimizer": {"name": "adam", "learning_rate": 0.01}, "loss": {"name": "binary_crossentropy"}}
BOTH = ["curated", "noisy"]
RULE = {"name": "verified", "at_least": 0.0}
RANDOM = {"windows": "random", "count": 3}
VERIFY = {"rule": RULE, "scored_by": "all", "predict": RANDOM, "per_class": 1, "rounds": 2}
STAGES = [
    PART | {"name": "all", "subset": BOTH, "epochs": 1},
    PART | {"name": "verified", "subset": BOTH, "epochs": 1, "start_from": "all", "select": VERIFY},
]
ROUNDS = ("model.filters=[8]", f"stages={json.dumps(STAGES)}", 'folds={"count": 2, "held_out": [0, 1], "noisy": true}')


def fit(experiment, folder, **more):
    return module.fit(experiment, folder, say=lambda sentence: None, **more)


def chosen_by_curated(rule, at_least, *, subset=BOTH):
    """Overrides: a stage of curated clips, whose model then chooses the noisy ones of another."""
    select = {"rule": {"name": rule, "at_least": at_least}, "scored_by": "curated"}
    judge = PART | {"name": "curated", "subset": "curated", "epochs": 1}
    selected = PART | {"name": "selected", "subset": subset, "epochs": 1, "select": select}
    return "model.filters=[8]", f"stages={json.dumps([judge, selected])}"


@pytest.fixture(scope="module")
def verified(tiny, tmp_path_factory):
    """A run of self-verification in two rounds on two folds. Tests may read it and must not write into it."""
    return fit(tiny(*ROUNDS), tmp_path_factory.mktemp("runs") / "verified")


@pytest.fixture
def again(verified, tmp_path):
    """A copy of it, to write into."""
    return dataclasses.replace(verified, folder=shutil.copytree(verified.folder, tmp_path / "again"))


def table(run, fold, stage, name):
    return pd.read_csv(run.stage_folder(fold, stage) / name, keep_default_na=False)


def folds_of(run):
    return pd.read_csv(run.folder / "folds.csv", index_col="name")["fold"]


# Who hears what


def test_no_stage_hears_a_clip_of_the_fold_that_its_model_is_to_judge(verified, records):
    folds = folds_of(verified)
    train = read_clips(records / "clips.csv").query("subset != 'test'")
    assert set(folds.index) == set(train["name"])
    for stage in passes(verified.experiment):
        for fold in (0, 1):
            assert set(folds[table(verified, fold, stage.name, "heard.csv")["name"]]) == {1 - fold}


def test_curated_and_noisy_clips_are_stratified_apart(verified, records):
    train = read_clips(records / "clips.csv").query("subset != 'test'")
    sizes = train.groupby(["subset", train["name"].map(folds_of(verified))]).size()
    assert sizes.to_dict() == {(subset, fold): 20 for subset in BOTH for fold in (0, 1)}


def test_of_the_noisy_clips_a_stage_hears_those_that_were_confirmed(verified, records):
    subset = read_clips(records / "clips.csv").set_index("name")["subset"]
    for fold in (0, 1):
        for number in (1, 2):
            verdict = table(verified, fold, f"verified/{number}", "corrections.csv").set_index("clip")["weight"]
            heard = table(verified, fold, f"verified/{number}", "heard.csv")["name"]
            taken = set(verdict.index[verdict > 0])
            assert {name for name in heard if subset[name] == "noisy"} == taken & set(heard)
            assert taken - set(heard) == {name for name in taken if folds_of(verified)[name] == fold}
            assert set(verdict.index) == set(subset.index[subset == "noisy"])


def test_both_folds_are_told_the_same_verdicts(verified):
    for number in (1, 2):
        first, second = (table(verified, fold, f"verified/{number}", "corrections.csv") for fold in (0, 1))
        pd.testing.assert_frame_equal(first, second)


def test_what_one_round_took_stays_and_more_may_come(verified):
    first, second = (table(verified, 0, f"verified/{number}", "corrections.csv") for number in (1, 2))
    before, after = (set(verdict["clip"][verdict["weight"] > 0]) for verdict in (first, second))
    assert before <= after
    for verdict in (before, after - before):
        labels = first.set_index("clip")["labels"][sorted(verdict)]
        assert labels.str.get_dummies(",").sum().max() <= 1
    assert set(second["reason"][second["clip"].isin(before)]) == {"taken before"}


def test_the_verdict_of_a_clip_follows_from_the_scores_of_the_model_that_held_it_out(verified, records):
    by_random_windows = "noisy_scores_for_verified-1.csv"
    scores = pd.concat([table(verified, fold, "all", by_random_windows) for fold in (0, 1)]).set_index("name")
    assert set(table(verified, 0, "all", by_random_windows)["name"]).isdisjoint(
        table(verified, 0, "all", "heard.csv")["name"]
    )
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    for clip in table(verified, 0, "verified/1", "corrections.csv").itertuples():
        given = scores.loc[clip.clip, labels[clip.clip].split(",")]
        others = scores.loc[clip.clip].drop(given.index)
        assert clip.reason.startswith("confirmed") == (given.min() > others.max())
        assert clip.reason.split(", ")[1] == f"{given.mean():.3f}"


def test_the_best_round_on_held_out_clips_stays(verified):
    verdicts = [[verified.finished(fold, f"verified/{n}")["val_lwlrap"] for fold in (0, 1)] for n in (1, 2)]
    best = 1 + int(np.argmax(np.mean(verdicts, axis=1)))
    for fold in (0, 1):
        known = verified.finished(fold, "verified")
        assert known["round"] == best
        assert verified.weights(fold, "verified") == verified.weights(fold, f"verified/{best}")
        assert known["val_lwlrap"] == verdicts[best - 1][fold]


def test_a_second_round_starts_from_the_first(verified):
    assert [(stage.name, stage.start_from) for stage in passes(verified.experiment)] == [
        ("all", None),
        ("verified/1", "all"),
        ("verified/2", "verified/1"),
    ]


def test_from_curated_clips_alone_a_fold_selects_without_the_others(tiny, tmp_path):
    run = fit(tiny(*chosen_by_curated("pseudo_labels", 0.4)), tmp_path / "run")
    verdict = table(run, 0, "selected", "corrections.csv").set_index("clip")
    heard = table(run, 0, "selected", "heard.csv").set_index("name")
    taken = verdict[verdict["weight"] > 0]
    assert 0 < len(taken)
    assert heard.loc[taken.index, "labels"].to_dict() == taken["labels"].to_dict()
    assert len(heard) == len(taken) + (folds_of(run) != 0).sum()


def test_a_stage_after_rounds_begins_with_the_best_of_them(tiny, again):
    """All folds choose the round together, so none may go on before the others are there."""
    final = PART | {"name": "final", "subset": "curated", "epochs": 1, "start_from": "verified"}
    experiment = tiny(*ROUNDS[:1], f"stages={json.dumps([*STAGES, final])}", ROUNDS[2])
    assert [[stage.name for _, stage in group] for group in module._together(experiment)] == [
        ["all"],
        ["verified/1"],
        ["verified/2"],
        ["final"],
    ]
    (again.folder / "experiment.json").write_text(dump(experiment))
    run = fit(experiment, again.folder)
    assert run.trained_folds("final") == [0, 1]
    assert {len(table(run, fold, "final", "curated_scores.csv")) for fold in (0, 1)} == {20}


def test_several_judges_count_as_their_mean(tiny, tmp_path):
    judges = [PART | {"name": name, "subset": "curated", "epochs": 1} for name in ("one", "two")]
    stage = PART | {"name": "selected", "subset": BOTH, "epochs": 1}
    stage |= {"select": {"rule": {"name": "pseudo_labels", "at_least": 0.5}, "scored_by": ["one", "two"]}}
    run = fit(tiny("model.filters=[8]", f"stages={json.dumps([*judges, stage])}"), tmp_path / "run")
    one, two = (table(run, 0, name, "noisy_scores.csv").set_index("name") for name in ("one", "two"))
    assert not np.allclose(one, two)
    verdict = table(run, 0, "selected", "corrections.csv").set_index("clip")
    mean = (one + two.loc[one.index]) / 2
    found = {clip: ",".join(mean.columns[row >= 0.5]) for clip, row in mean.iterrows()}
    taken = verdict.index[verdict["weight"] > 0]
    assert {clip: labels for clip, labels in found.items() if labels} == verdict["labels"][taken].to_dict()
    assert set(verdict["source"]) == {"pseudo_labels, scored by one and two"}


def test_a_softmax_selects_among_clips_of_one_label(tiny, records, tmp_path):
    softmax = PART | {"loss": {"name": "categorical_crossentropy"}, "epochs": 1}
    stages = [
        softmax | {"name": "curated", "subset": "curated"},
        softmax | {"name": "selected", "subset": BOTH, "select": {"rule": RULE, "scored_by": "curated"}},
    ]
    run = fit(tiny("labels=one", "model.filters=[8]", f"stages={json.dumps(stages)}"), tmp_path / "run")
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'")
    single = set(noisy["name"][~noisy["labels"].str.contains(",")])
    assert set(table(run, 0, "selected", "corrections.csv")["clip"]) == single < set(noisy["name"])


def test_a_round_judges_all_clips_each_by_the_model_of_its_fold(again):
    table = suspects(again, stage="verified/1")
    assert table["subset"].value_counts().to_dict() == {"noisy": 40, "curated": 40}


# What a selection may not do


SELECTED = f'stages.curated.select={json.dumps({"rule": RULE, "scored_by": "noisy"})}'


def test_a_model_that_heard_the_noisy_clips_may_not_judge_them(tiny, tmp_path):
    both = 'stages.curated.subset=["curated","noisy"]'
    with pytest.raises(DataError, match=r"noisy: its model has trained on clip '\S+' and 39 others .*Add \"noisy\""):
        fit(tiny(both, SELECTED, "stages.noisy.epochs=1"), tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SELECTED], 'stages[1].select: chooses among noisy clips. Add "noisy" to the subset.'),
        (
            ['stages.curated.subset=["noisy"]', SELECTED.replace('"noisy"', '"nosy"')],
            "stages[1].select.scored_by: no earlier stage is called 'nosy'. Did you mean 'noisy'? Accepted: noisy.",
        ),
        (
            ['stages.curated.subset=["noisy"]', SELECTED, "stages.curated.select.rule.at_least=95"],
            "stages[1].select.rule.at_least: is 95.0. Expected a number from 0 to 1.",
        ),
        (
            ['stages.curated.subset=["noisy"]', SELECTED, 'folds={"noisy": true}'],
            "folds.held_out: every fold's model scores the noisy clips of its fold. Expected all of [0, 1, 2, 3, 4].",
        ),
        (
            ['stages.curated.subset=["noisy"]', SELECTED, "stages.curated.select.rounds=2"],
            'stages[1].select.rounds: from the second round on, a model would score clips that it heard. Add',
        ),
    ],
)
def test_a_selection_that_cannot_be_is_refused_before_training(tiny, overrides, message):
    with pytest.raises(ConfigError) as refusal:
        tiny(*overrides)
    assert message in str(refusal.value)


def test_a_fold_alone_waits_for_the_others_where_they_judge(tiny, tmp_path):
    with pytest.raises(DataError, match=r"stage 'all' of fold 0 is not trained yet.*audiotag fit --fold 0"):
        fit(tiny(*ROUNDS), tmp_path / "run", fold=1)
    assert (tmp_path / "run" / "fold-1" / "all" / "finished.json").is_file()


def test_the_best_round_waits_for_all_folds(again):
    (again.stage_folder(1, "verified/2") / "finished.json").unlink()
    with pytest.raises(DataError, match=r"round 2 of stage 'verified' is not trained in fold 1 yet.*fit --fold 1"):
        label_selection.best_round(again, (0, 1), again.experiment.stages[1])


# Leaks, planted


def judge_again(run, stage="all"):
    manifest = read_manifest(run.experiment.records)
    clips = training_clips(run, read_clips(manifest.directory / "clips.csv"))
    for fold in (0, 1):
        unheard_scores(run, manifest, clips, fold, stage, "noisy")


def test_a_clip_in_two_folds_is_found(again):
    path = again.folder / "folds.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1][:-1] + str(1 - int(lines[1][-1]))]) + "\n")
    with pytest.raises(DataError, match=rf"folds\.csv: clip '{lines[1][:-2]}' stands there twice"):
        judge_again(again)


def test_a_clip_that_changed_its_fold_is_not_judged_by_a_model_that_heard_it(again, records):
    path = again.folder / "folds.csv"
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'")["name"].iloc[0]
    fold = int(folds_of(again)[noisy])
    path.write_text(path.read_text().replace(f"{noisy},{fold}", f"{noisy},{1 - fold}"))
    with pytest.raises(DataError, match=f"its model has trained on clip '{noisy}' and 0 others that it should judge"):
        judge_again(again)


def test_a_verified_clip_in_its_verifiers_training_set_is_found(again):
    verdict = table(again, 0, "verified/1", "corrections.csv")
    clip = verdict["clip"][verdict["weight"] > 0].iloc[0]
    fold = folds_of(again)[clip]
    heard = again.stage_folder(fold, "all") / "heard.csv"
    heard.write_text(heard.read_text() + f"{clip},Bell,1.0\n")
    for stage in ("all", "verified/1", "verified/2", "verified"):  # those that began with its weights, too
        with pytest.raises(DataError, match=f"its model has trained on clip '{clip}'"):
            judge_again(again, stage)


@pytest.mark.parametrize(("noisy", "shared"), [(True, False), (False, False), (True, True)])
def test_a_noisy_clip_goes_where_the_curated_clip_of_its_recording_goes(again, records, noisy, shared):
    clips = read_clips(records / "clips.csv")
    clips = clips.drop(clips.index[clips["subset"] == "noisy"][12 if shared else 40 :])
    for subset in BOTH:
        some = clips.index[clips["subset"] == subset][:12]
        clips.loc[some, "group"] = [f"recording {number}" for number in range(12)]
    (again.folder / "folds.csv").unlink()
    folds = again.experiment.folds.model_copy(update={"noisy": noisy})
    again = dataclasses.replace(again, experiment=again.experiment.model_copy(update={"folds": folds}))
    known = training_clips(again, clips)
    together = known[known["group"] != ""].groupby("group")["part"].agg(["nunique", "size", "min"])
    assert together.to_dict("list") == {"nunique": [1] * 12, "size": [2] * 12, "min": together["min"].tolist()}
    assert set(together["min"]) == {0, 1}
    assert (known["part"] == -1).sum() == (0 if noisy or shared else 28)


def test_a_noisy_clip_of_a_recording_that_the_judge_heard_is_left_out(tiny, records, tmp_path, monkeypatch):
    clips = read_clips(records / "clips.csv")
    for subset in BOTH:
        some = clips.index[clips["subset"] == subset][:20]
        clips.loc[some, "group"] = [f"recording {number}" for number in range(20)]
    monkeypatch.setattr(module, "read_clips", lambda path: clips)
    run = fit(tiny(*chosen_by_curated("probable", 0.0)), tmp_path / "run")
    group = clips.set_index("name")["group"]
    recordings = set(group[table(run, 0, "curated", "heard.csv")["name"]]) - {""}
    verdict = table(run, 0, "selected", "corrections.csv").set_index("clip")
    noisy = clips.query("subset == 'noisy'")["name"]
    shared = noisy[noisy.map(group).isin(recordings)]
    assert 0 < len(shared) < 20
    assert sorted(verdict.index) == sorted(noisy)
    assert set(verdict["weight"][shared]) == {0.0}
    assert set(verdict["reason"][shared]) == {"not judged: its recording was heard"}
    assert set(verdict["weight"].drop(shared)) == {1.0}


def test_a_judge_that_heard_the_recordings_of_all_noisy_clips_takes_none(tiny, records, tmp_path, monkeypatch):
    clips = read_clips(records / "clips.csv")
    curated = clips.index[clips["subset"] == "curated"]
    clips.loc[curated, "group"] = ["one" if number % 2 else "other" for number in range(len(curated))]
    clips.loc[clips["subset"] == "noisy", "group"] = "one"
    monkeypatch.setattr(module, "read_clips", lambda path: clips)
    folds = 'folds={"count": 2, "held_out": [1]}'
    run = fit(tiny(*chosen_by_curated("probable", 0.0), folds), tmp_path / "run")
    heard = table(run, 1, "curated", "heard.csv")["name"]
    assert set(clips.set_index("name")["group"][heard]) == {"one"}  # so fold 1 is the other
    verdict = table(run, 1, "selected", "corrections.csv")
    assert len(verdict) == 40 and set(verdict["weight"]) == {0.0}
    assert set(table(run, 1, "selected", "heard.csv")["name"]) == set(heard)


def test_scores_that_the_process_of_that_fold_sweeps_away_are_written_again(again, records, monkeypatch):
    clips, swept = training_clips(again, read_clips(records / "clips.csv")), []
    score = lambda: unheard_scores(again, read_manifest(records), clips, 1, "all", "noisy")
    expected, path = score(), again.stage_folder(1, "all") / "noisy_scores.csv"
    path.unlink()
    sync = splits.files.sync

    def sweep_first(written):
        if not swept and written.name.endswith("noisy_scores.csv"):
            swept.append(written)
            splits.files.sweep(written.parent)
        sync(written)

    monkeypatch.setattr(splits.files, "sync", sweep_first)
    pd.testing.assert_frame_equal(score(), expected)
    assert swept and path.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name,fold", "name,part", "no column 'fold'"),
        (",0\n", ",first\n", "fold is 'first'. Expected a whole number."),
        (",0\n", ",2\n", r"folds\.csv line 2: there are folds 0 to 1\."),
        (",0\n", ",-1\n", r"folds\.csv line 2: there are folds 0 to 1\."),
    ],
)
def test_a_table_of_folds_that_says_something_else_is_refused(again, old, new, message):
    path = again.folder / "folds.csv"
    rows = path.read_text().splitlines(keepends=True)
    rows = [rows[0], *sorted(rows[1:], key=lambda row: row[-2])]  # those of fold 0 first
    path.write_text("".join(rows).replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        judge_again(again)


def test_a_recording_in_two_folds_is_found(again, records):
    clips = read_clips(records / "clips.csv")
    two = clips.query("subset == 'curated'")["name"].map(folds_of(again))
    clips.loc[[two.index[two == 0][0], two.index[two == 1][0]], "group"] = "one recording"
    with pytest.raises(DataError, match=r"folds\.csv: clips of the recording 'one recording' are in two folds"):
        training_clips(again, clips)


# Corrections


def test_corrections_change_what_is_heard_and_never_a_fold(tiny, records, verified, tmp_path):
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'")["name"].tolist()
    path = tmp_path / "corrections.csv"
    path.write_text(f"clip,labels,weight\n{noisy[0]},Bell,1\n{noisy[1]},Bell,0\n{noisy[2]},Bell,0.5\n")
    stages = f"stages={json.dumps(STAGES[:1])}"
    experiment = tiny(*ROUNDS[:1], stages, ROUNDS[2], f"corrections={path}")
    run = fit(experiment, tmp_path / "run")
    assert folds_of(run).to_dict() == folds_of(verified).to_dict()
    heard = pd.concat([table(run, fold, "all", "heard.csv") for fold in (0, 1)]).set_index("name")
    assert heard.loc[noisy[0]].tolist() == ["Bell", 1.0]
    assert heard.loc[noisy[2]].tolist() == ["Bell", 0.5]
    assert len(heard) == 79
    assert noisy[1] not in heard.index
    path.rename(tmp_path / "elsewhere.csv")
    found = suspects(run).set_index("clip")  # a finished run has its own copy
    assert len(found) == 80
    assert found.index[-1] == noisy[1] and found["weight"].iloc[-1] == 0
    assert found.loc[noisy[0], ["labels", "weight"]].tolist() == ["Bell", 1.0]
    path.write_text(f"clip,labels,weight\n{noisy[0]},Bell,0\n")
    with pytest.raises(DataError, match=r"corrections\.csv: has changed since the run began, see .*run/corr"):
        fit(experiment, run.folder)


def test_a_selection_leaves_weights_by_hand_as_they_are(tiny, records, tmp_path):
    noisy = read_clips(records / "clips.csv").query("subset == 'noisy'").set_index("name")["labels"]
    path = tmp_path / "corrections.csv"
    path.write_text("clip,labels,weight\n" + "".join(f'{clip},"{labels}",0.5\n' for clip, labels in noisy.items()))
    run = fit(tiny(*chosen_by_curated("probable", 0.0), f"corrections={path}"), tmp_path / "run")
    heard = table(run, 0, "selected", "heard.csv").set_index("name")["weight"]
    assert set(heard[noisy.index]) == {0.5}


def test_a_held_out_clip_of_weight_nought_judges_nothing(tiny, verified, tmp_path):
    path = tmp_path / "corrections.csv"
    folds = folds_of(verified)
    judge = folds.index[folds == 0][0]
    path.write_text(f"clip,labels,weight\n{judge},,0\n")
    run = fit(tiny(*ROUNDS[:1], f"stages={json.dumps(STAGES[:1])}", ROUNDS[2], f"corrections={path}"), tmp_path / "run")
    clips, _ = held_out_answers(run)
    assert judge not in set(clips["name"]) and len(clips) == 39


def test_a_fold_whose_held_out_clips_may_not_judge_is_refused(verified, records):
    softmax = dataclasses.replace(verified, experiment=verified.experiment.model_copy(update={"labels": "one"}))
    clips = training_clips(verified, read_clips(records / "clips.csv"))
    assert len(splits.judging_clips(verified, clips, 0)) == 20
    several = clips.assign(labels="Bell,Rain")
    with pytest.raises(DataError, match=r"no curated clip is left in fold 0 to judge by; .* Choose other folds\."):
        splits.judging_clips(softmax, several, 0)


def test_a_stage_whose_clips_are_all_held_out_is_refused(verified, records):
    clips = training_clips(verified, read_clips(records / "clips.csv")).assign(part=1)
    with pytest.raises(DataError, match="all curated clips of stage 'all' are in fold 1"):
        label_selection.heard_clips(verified, read_manifest(records), clips, 1, verified.experiment.stages[0])


def test_a_selection_without_noisy_clips_is_told_of_before_anything_is_trained(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_clips", lambda path: read_clips(path).query("subset != 'noisy'"))
    monkeypatch.setattr(module, "_fit_stage", lambda *args: pytest.fail("it trains"))
    with pytest.raises(DataError, match="holds no noisy clips for stage 'selected', or none of a weight above 0"):
        fit(tiny(*chosen_by_curated("probable", 0.5)), tmp_path / "run")


def test_a_selection_that_takes_nothing_is_told_where_nothing_else_is_heard(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"^stages\.selected\.select: no clip was taken, so there is nothing to hear"):
        fit(tiny(*chosen_by_curated("probable", 1.0, subset="noisy")), tmp_path / "run")


# Kills


def test_stopped_anywhere_it_ends_with_the_same_result(tiny, verified, tmp_path, monkeypatch):
    """Between stages, rounds and folds, before and after each file that they leave."""
    write, steps = splits.files.write_text, []

    def stop_sometimes(path, text):
        steps.append(path)
        if len(steps) % 5 == 3:
            raise Stopped
        write(path, text)

    monkeypatch.setattr(splits.files, "write_text", stop_sometimes)
    stops = 0
    while True:
        try:
            fit(tiny(*ROUNDS), tmp_path / "stopped")
            break
        except Stopped:
            stops += 1
    assert stops > 3
    assert_same(verified.folder, tmp_path / "stopped")


def test_killed_inside_a_round_it_ends_with_the_same_result(tiny_file, verified, tmp_path):
    seed = random.randrange(1_000_000)
    print(f"moments drawn with seed {seed}")  # shown when the test fails
    command = fit_command(tiny_file, tmp_path / "killed", ROUNDS)
    for sign in ("^verified/1, fold 1", "^verified/2, fold 0"):
        run_until(command, sign, 1, random.Random(seed).uniform(0, 0.5))
    subprocess.run(command, check=True, capture_output=True)
    assert_same(verified.folder, tmp_path / "killed")


def assert_same(whole, other):
    tables = {path.relative_to(whole) for path in whole.rglob("*.csv")}
    assert tables == {path.relative_to(other) for path in other.rglob("*.csv")}
    for name in tables:
        assert (whole / name).read_bytes() == (other / name).read_bytes(), name
    for path in whole.rglob("*.weights.h5"):
        ours, theirs = arrays_in(path), arrays_in(other / path.relative_to(whole))
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
