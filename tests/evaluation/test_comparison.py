import numpy as np
import pandas as pd
import pytest

from audiotag.evaluation import comparison
from audiotag.evaluation.comparison import difference, estimate, mean_of, measure_recordings
from audiotag.evaluation.measures import MEASURES, evaluate

VOCABULARY = ("Bark", "Meow", "Purr")


def scored_clips(*, recordings=20, clips_of_each=2, seed=0, groups=True):
    """A table of clips of several recordings, and logits that are right more often than not."""
    rng = np.random.default_rng(seed)
    count = recordings * clips_of_each
    labels = [VOCABULARY[index // clips_of_each % 3] for index in range(count)]
    group = [f"r{index // clips_of_each}" if groups else "" for index in range(count)]
    clips = pd.DataFrame({"name": [f"{i}.wav" for i in range(count)], "labels": labels, "usage": "", "group": group})
    clips["sha256"] = [f"{i:064x}" for i in range(count)]
    truth = np.array([[label == name for name in VOCABULARY] for label in labels])
    return clips, truth + rng.normal(0, 1, (count, 3))


def measured(**options):
    clips, logits = scored_clips(**options)
    return measure_recordings(clips, logits, VOCABULARY)


def test_the_values_are_those_of_evaluate():
    clips, logits = scored_clips()
    overall, _ = evaluate(clips, logits, VOCABULARY, thresholds=[0.1, 0.2, 0.3])
    found = measure_recordings(clips, logits, VOCABULARY, thresholds=[0.1, 0.2, 0.3])
    assert found.values.index.tolist() == list(MEASURES) == overall["measure"].tolist()
    np.testing.assert_allclose(found.values, overall["value"])


def test_the_influence_of_a_recording_is_what_its_clips_change():
    clips, logits = scored_clips()
    found = measure_recordings(clips, logits, VOCABULARY)
    assert len(found.influences) == len(found.recordings) == 20 and len(found.clips) == 40
    without = {}
    for name in clips["group"].unique():
        others = (clips["group"] != name).to_numpy()
        without[name] = measure_recordings(clips[others], logits[others], VOCABULARY).values
    raised = found.values - pd.DataFrame(without).T.sort_index()
    pd.testing.assert_frame_equal(found.influences, raised - raised.mean())


def test_clips_without_a_group_are_recordings_of_their_own():
    assert len(measured(groups=False).recordings) == 40


def test_many_recordings_are_left_out_in_blocks(monkeypatch):
    alone = estimate([measured(recordings=150, clips_of_each=1)], "lwlrap")
    monkeypatch.setattr(comparison, "MAX_BLOCKS", 50)
    found = measured(recordings=150, clips_of_each=1)
    in_blocks = estimate([found], "lwlrap")
    assert len(found.influences) <= 50 and len(found.recordings) == 150
    assert in_blocks.mean == alone.mean
    assert in_blocks.high - in_blocks.low == pytest.approx(alone.high - alone.low, rel=0.35)


def test_two_clips_of_a_recording_count_as_one_when_they_are_alike():
    clips, logits = scored_clips(recordings=40, clips_of_each=1)
    twice = pd.concat([clips, clips.assign(name="again " + clips["name"])], ignore_index=True)
    both = [measure_recordings(clips, logits, VOCABULARY)]
    doubled = [measure_recordings(twice, np.concatenate([logits, logits]), VOCABULARY)]
    assert estimate(doubled, "top_1") == estimate(both, "top_1")
    ungrouped = [measure_recordings(twice.assign(group="", sha256=twice["name"]), np.tile(logits, (2, 1)), VOCABULARY)]
    assert estimate(ungrouped, "top_1").high < estimate(both, "top_1").high


def test_a_model_does_not_differ_from_itself():
    one = measured()
    found = estimate([difference(one, one)], "mAP")
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_test_sets_of_other_recordings_are_averaged():
    clips, logits = scored_clips(recordings=40)
    first = np.arange(80) < 40
    halves = [measure_recordings(clips[rows], logits[rows], VOCABULARY) for rows in (first, ~first)]
    whole = measure_recordings(clips, logits, VOCABULARY)
    both = mean_of(halves)
    assert both.values["top_1"] == pytest.approx(whole.values["top_1"])
    assert len(both.recordings) == 40 and both.clips == whole.clips
    one, other = (estimate([found], "top_1") for found in (both, whole))
    assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.1)
