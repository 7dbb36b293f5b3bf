import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, label_ranking_average_precision_score, roc_auc_score

from audiotag.data.labels import multi_hot
from audiotag.errors import DataError
from audiotag.evaluation import thresholds
from audiotag.evaluation.measures import evaluate, fit_thresholds, measure_clips, out_of_fold_thresholds
from audiotag.evaluation.scoring import out_of_fold_predictions
from audiotag.metrics import lwlrap, mean_average_precision_at_k, per_class_lwlrap

VOCABULARY = ("Bark", "Meow", "Purr", "Siren")


def labeled_clips(count=60, seed=0):
    """A table of clips with one to three labels each, and scores with ties."""
    rng = np.random.default_rng(seed)
    labels = [",".join(rng.choice(VOCABULARY, rng.integers(1, 4), replace=False)) for _ in range(count)]
    usage = rng.choice(["Public", "Private"], count)
    clips = pd.DataFrame({"name": [f"{i}.wav" for i in range(count)], "labels": labels, "usage": usage})
    return clips, rng.integers(0, 10, (count, 4)) / 10


def sklearn_lwlrap(clips, scores):
    truth = np.array([[label in labels.split(",") for label in VOCABULARY] for labels in clips["labels"]], int)
    return label_ranking_average_precision_score(truth, scores, sample_weight=truth.sum(axis=1))


def row_of(overall, measure, split="all"):
    """The row of one measure of one split."""
    (row,) = overall[(overall["measure"] == measure) & (overall["split"] == split)].itertuples()
    return row


def test_lwlrap_is_scikit_learns_overall_and_for_each_split_of_the_leaderboard():
    clips, scores = labeled_clips()
    overall, _ = evaluate(clips, scores, VOCABULARY)
    assert overall.columns.tolist() == [*("split", "clips", "recordings", "measure", "value", "low", "high", "chance")]
    assert overall["split"].unique().tolist() == ["all", "Public", "Private"]
    for split in ("all", "Public", "Private"):
        rows = np.full(60, True) if split == "all" else (clips["usage"] == split).to_numpy()
        row = row_of(overall, "lwlrap", split)
        assert row.clips == rows.sum()
        assert row.value == pytest.approx(sklearn_lwlrap(clips[rows], scores[rows]), abs=1e-9)


def test_every_measure_agrees_with_its_own_function():
    clips, scores = labeled_clips()
    truth = multi_hot(clips["labels"], VOCABULARY)
    overall, classes = evaluate(clips, scores, VOCABULARY, thresholds=[0.5, 0.2, 0.4, 0.7])
    expected = {
        "lwlrap": lwlrap(truth, scores),
        "MAP@3": mean_average_precision_at_k(truth, scores),
        "top_1_accuracy": np.mean([truth[i, scores[i].argmax()] for i in range(60)]),
        "mAP": average_precision_score(truth, scores),
        "AUC": roc_auc_score(truth, scores),
        "F": f1_score(truth, scores >= [0.5, 0.2, 0.4, 0.7], average="macro"),
        "F_top_1": f1_score(truth, np.eye(4)[scores.argmax(axis=1)], average="macro"),
    }
    assert overall["measure"][overall["split"] == "all"].tolist() == list(expected)
    for measure, value in expected.items():
        assert row_of(overall, measure).value == pytest.approx(value, abs=1e-9), measure
    assert classes["auc"].mean() == pytest.approx(expected["AUC"], abs=1e-9)
    assert classes["average_precision"].mean() == pytest.approx(expected["mAP"], abs=1e-9)
    assert classes["f"].mean() == pytest.approx(expected["F"], abs=1e-9)
    assert classes["f_top_1"].mean() == pytest.approx(expected["F_top_1"], abs=1e-9)


def test_intervals_are_those_of_a_plain_loop_over_draws():
    clips, scores = labeled_clips()
    truth, limits = multi_hot(clips["labels"], VOCABULARY), [0.5, 0.2, 0.4, 0.7]
    overall, classes = evaluate(clips, scores, VOCABULARY, thresholds=limits)

    def measure(rows):
        of, by = truth[rows], scores[rows]
        overall = [
            lwlrap(of, by),
            mean_average_precision_at_k(of, by),
            of[np.arange(60), by.argmax(axis=1)].mean(dtype="float64"),
            average_precision_score(of, by),
            roc_auc_score(of, by),
            f1_score(of, by >= limits, average="macro"),
            f1_score(of, np.eye(4)[by.argmax(axis=1)], average="macro"),
        ]
        return [*overall, *per_class_lwlrap(of, by)]

    rng = np.random.default_rng(0)
    values = np.array([measure(rng.integers(0, 60, 60)) for _ in range(300)])
    quantiles = np.quantile(values, [0.025, 0.5, 0.975], axis=0)
    low, _, high = np.clip(quantiles + measure(np.arange(60)) - quantiles[1], 0, 1)
    rows = overall[overall["split"] == "all"]
    np.testing.assert_allclose([*rows["low"], *classes["low"]], low, atol=1e-12)
    np.testing.assert_allclose([*rows["high"], *classes["high"]], high, atol=1e-12)


def test_background_clips_count_only_where_classes_are_told_apart_over_clips():
    clips, scores = labeled_clips()
    background = clips.assign(labels="", name="background " + clips["name"])
    both, all_scores = pd.concat([clips, background], ignore_index=True), np.concatenate([scores, scores[::-1]])
    overall, _ = evaluate(both, all_scores, VOCABULARY)
    without, _ = evaluate(clips, scores, VOCABULARY)
    for measure in ("lwlrap", "MAP@3", "top_1_accuracy"):
        for key in ("value", "chance"):
            assert getattr(row_of(overall, measure), key) == pytest.approx(getattr(row_of(without, measure), key))
    truth = multi_hot(both["labels"], VOCABULARY)
    assert row_of(overall, "mAP").value == pytest.approx(average_precision_score(truth, all_scores), abs=1e-9)
    assert row_of(overall, "AUC").value == pytest.approx(roc_auc_score(truth, all_scores), abs=1e-9)


def test_without_splits_there_is_one_row_per_measure():
    clips, scores = labeled_clips()
    overall, _ = evaluate(clips.assign(usage=""), scores, VOCABULARY)
    assert set(overall["split"]) == {"all"} and len(overall) >= 6 and overall["measure"].is_unique


def test_intervals_draw_recordings_with_all_of_their_clips():
    clips, scores = labeled_clips()
    twice = pd.concat([clips, clips.assign(name="again " + clips["name"])], ignore_index=True).assign(usage="")
    scores = np.concatenate([scores, scores])
    by_clip, classes_by_clip = evaluate(twice, scores, VOCABULARY)
    grouped = twice.assign(group=[f"r{row % 60}" for row in range(120)])
    by_recording, classes = evaluate(grouped, scores, VOCABULARY)
    assert (by_clip["recordings"][0], by_recording["recordings"][0], by_recording["clips"][0]) == (120, 60, 120)
    width = lambda table: (table["high"] - table["low"]).mean()
    np.testing.assert_array_equal(by_recording["value"], by_clip["value"])
    assert width(by_recording) / width(by_clip) == pytest.approx(2**0.5, rel=0.1)
    assert width(classes) / width(classes_by_clip) == pytest.approx(2**0.5, rel=0.1)
    some_known = evaluate(
        grouped.assign(group=[f"r{row}" if row < 60 else "" for row in range(120)]), scores, VOCABULARY
    )
    assert some_known[0]["recordings"][0] == 120


def test_chance_is_what_random_scores_get():
    clips, _ = labeled_clips(2000)
    overall, classes = evaluate(clips, np.random.default_rng(5).random((2000, 4)), VOCABULARY, thresholds=0.6)
    np.testing.assert_allclose(overall["value"], overall["chance"], atol=0.05)
    for column in ("lwlrap", "average_precision", "auc", "precision", "recall", "f", "accuracy"):
        chance = classes["chance" if column == "lwlrap" else f"chance_{column}"]
        np.testing.assert_allclose(classes[column], chance, atol=0.06, err_msg=column)


def test_intervals_contain_the_value_and_narrow_with_more_clips():
    widths = {}
    for count in (100, 1600):
        clips, scores = labeled_clips(count)
        overall, classes = evaluate(clips, scores, VOCABULARY)
        for table, column in ((overall, "value"), (classes, "lwlrap")):
            assert ((table["low"] <= table[column]) & (table[column] <= table["high"])).all()
        row = row_of(overall, "lwlrap")
        widths[count] = row.high - row.low
    assert widths[100] / widths[1600] == pytest.approx(4, rel=0.3)


def test_a_class_with_hardly_any_clips_has_no_misleading_interval():
    clips, scores = labeled_clips()
    clips["labels"] = ["Bark,Siren"] + ["Bark", "Meow"] * 29 + ["Bark"]
    scores[0, 3] = 1.0
    _, classes = evaluate(clips, scores, VOCABULARY)
    assert classes.loc[3, ["lwlrap", "low", "high"]].tolist() == [1, 1, 1]  # draws without the clip do not count
    assert classes.loc[2, ["lwlrap", "low", "high"]].isna().all()  # a class without clips is undefined


def test_the_rows_per_class_agree_with_a_plain_loop():
    clips, scores = labeled_clips()
    overall, classes = evaluate(clips, scores, VOCABULARY)
    assert classes["class"].tolist() == list(VOCABULARY)
    for label, row in zip(VOCABULARY, classes.itertuples()):
        found = []
        for labels, score in zip(clips["labels"], scores):
            if label in labels.split(","):
                above = [name for name, s in zip(VOCABULARY, score) if s >= score[VOCABULARY.index(label)]]
                found.append(sum(name in labels.split(",") for name in above) / len(above))
        assert row.clips == len(found)
        assert row.lwlrap == pytest.approx(np.mean(found), abs=1e-9)
    assert np.average(classes["lwlrap"], weights=classes["clips"]) == pytest.approx(
        row_of(overall, "lwlrap").value, abs=1e-9
    )


def test_the_worst_clips_come_first():
    clips, scores = labeled_clips()
    table = measure_clips(clips, scores, VOCABULARY)
    assert table["lwlrap"].is_monotonic_increasing and len(table) == 60
    row = table.iloc[0]
    index = clips["name"].tolist().index(row["name"])
    assert row["lwlrap"] == pytest.approx(sklearn_lwlrap(clips.iloc[[index]], scores[[index]]))
    assert row["top_3"].split()[0] == VOCABULARY[scores[index].argmax()]


def test_scores_that_are_missing_or_nan_are_refused_with_the_names():
    clips, scores = labeled_clips()
    scores[[3, 5, 7, 9], 1] = np.nan
    with pytest.raises(DataError, match=r"scores of 4 clips are NaN: 3\.wav, 5\.wav, 7\.wav and 1 more\. Did training"):
        evaluate(clips, scores, VOCABULARY)
    with pytest.raises(DataError, match=r"^59 rows of scores for 60 clips\. Expected one row per clip\.$"):
        evaluate(clips, scores[1:], VOCABULARY)


def test_thresholds_are_fitted_on_out_of_fold_clips(run):
    clips, scores = out_of_fold_predictions(run)
    expected = thresholds.fit_thresholds(multi_hot(clips["labels"], run.vocabulary), scores)
    np.testing.assert_array_equal(fit_thresholds(clips, scores, run.vocabulary), expected)
    assert (out_of_fold_thresholds(clips, scores, run.vocabulary) == 0).all()  # one fold: no others to fit on
    halves = clips.assign(split=["fold 0", "fold 1"] * 4)
    across = out_of_fold_thresholds(halves, scores, run.vocabulary)
    odd = fit_thresholds(clips.iloc[1::2], scores[1::2], run.vocabulary)
    np.testing.assert_array_equal(across[::2], np.tile(odd, (4, 1)))


def test_clips_without_labels_cannot_be_measured():
    clips, scores = labeled_clips()
    with pytest.raises(DataError, match="The test clips have no labels to compare with. See: audiotag make-submission"):
        evaluate(clips.assign(labels=""), scores, VOCABULARY)
