import dataclasses
import json

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.neighbors import NearestNeighbors

from audiotag.data.pipeline import WindowFeatures
from audiotag.reporting import run_page
from audiotag.runs.pretrained import class_names
from audiotag.training.baselines import compare_with_baselines, matching_classes, name_logits, nearest_neighbors

RESULT = {"monitor": "val_lwlrap", "value": 0.7}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Helicopter", ("Helicopter",)),
        ("Rooster", ("Chicken, rooster",)),  # a part of the name
        ("Fire crackling", ("Fire", "Crackle")),  # equally near, and without endings
        ("sneezes", ("Sneeze",)),
        ("Chink_and_clink", ("Chink, clink",)),
        ("ChurchBell", ("Church bell",)),
        ("gun_shot", ("Gunshot, gunfire",)),
        ("The sound of 12", ()),  # no word counts
        ("Zzz", ()),
    ],
)
def test_classes_are_matched_by_the_words_of_their_names(label, expected):
    assert matching_classes([label], class_names("yamnet")) == {label: expected}


def test_the_logits_by_names_are_means_of_published_ones_pooled_over_windows():
    rng = np.random.default_rng(0)
    values, kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
    features, columns = WindowFeatures(values, np.array([2, 3])), [(2,), (0, 3), ()]
    published = values @ kernel + bias
    windows = np.stack([published[:, 2], published[:, [0, 3]].mean(axis=1), np.full(5, published.min())], axis=1)
    ours = name_logits(features, kernel, bias, columns, pool="mean")
    expected = np.stack([logit(expit(part).mean(axis=0)) for part in (windows[:2], windows[2:])])
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    ours = name_logits(features, kernel, bias, columns, pool="max")
    np.testing.assert_allclose(ours, [windows[:2].max(axis=0), windows[2:].max(axis=0)], rtol=1e-6)


def test_neighbors_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    train, clips = rng.uniform(size=(40, 6)), rng.uniform(size=(1100, 6))  # more than a block
    truth = (rng.uniform(size=(40, 3)) < 0.4).astype("float32")
    distances, nearest = NearestNeighbors(n_neighbors=5, metric="cosine").fit(train).kneighbors(clips)
    weights = (1 - distances) / np.sum(1 - distances, axis=1, keepdims=True)
    expected = np.sum(weights[:, :, None] * truth[nearest], axis=1)
    np.testing.assert_allclose(nearest_neighbors(train, truth, clips), expected, rtol=1e-6)


def test_all_clips_are_neighbors_if_there_are_few_and_silence_has_finite_scores():
    scores = nearest_neighbors(np.array([[1.0, 0.0], [0.0, 1.0]]), np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(scores, 0.5)


@pytest.fixture
def scored(run, tmp_path):
    """A run whose first stage has results without training: a function of their lwlrap returns it."""

    def store(by_names, by_neighbors, classes):
        copy = dataclasses.replace(run, folder=tmp_path)
        path = copy.stage_files(0, "noisy").baselines
        path.parent.mkdir(parents=True, exist_ok=True)
        names = None if by_names is None else {"classes": classes, "metrics": {"lwlrap": by_names}}
        neighbors = {"k": 5, "metrics": {"lwlrap": by_neighbors}}
        path.write_text(json.dumps({"clips": 20, "by_names": names, "by_neighbors": neighbors}))
        return copy

    return store


def test_fit_says_what_is_reached_without_training_and_whether_a_stage_ended_below(scored):
    copy = scored(0.6, 0.75, {"a": ["A"], "b": []})
    _, tuned = copy.experiment.stages  # which starts from the stage with the results
    first = (
        "Without training, on the same 20 clips of fold 0: lwlrap 0.6000 by the names of AudioSet's classes (1 of 2 "
        "found; not b), 0.7500 by 5 nearest neighbors."
    )
    below = "curated stage, fold 0, ended below: lwlrap 0.7000. "
    assert list(compare_with_baselines(copy, 0, tuned, RESULT)) == [
        first,
        below + 'Lower the learning rate, or freeze the backbone: "backbone_lr_multiplier": 0.',
    ]
    frozen = tuned.model_copy(update={"backbone_lr_multiplier": 0})
    _, warning = compare_with_baselines(copy, 0, frozen, RESULT)
    assert warning.startswith(below + "Only the head was trained")
    assert list(compare_with_baselines(copy, 0, tuned, RESULT | {"value": 0.75 - 1e-7})) == [first]
    assert list(compare_with_baselines(copy, 1, tuned, RESULT)) == []


def test_fit_says_what_is_known_if_there_are_no_names_or_a_loss_is_monitored(scored):
    copy = scored(None, 0.75, {})
    stage = copy.experiment.stages[0]
    (sentence,) = compare_with_baselines(copy, 0, stage, {"monitor": "val_loss", "value": 0.1})
    assert sentence == "Without training, on the same 20 clips of fold 0: lwlrap 0.7500 by 5 nearest neighbors."
    assert list(compare_with_baselines(scored(None, None, {}), 0, stage, RESULT)) == []


def test_the_page_of_a_run_shows_them_beside_each_stage(scored, run):
    copy = scored(0.6, 0.75, {"a": ["A"]})
    for stage in run.experiment.stages:
        path = copy.stage_files(0, stage.name).result
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(run.stage_files(0, stage.name).result.read_bytes())
    table = run_page._stages(copy)
    assert table["without_training,_by_names"].tolist() == [0.6, 0.6]
    assert table["without_training,_by_neighbors"].tolist() == [0.75, 0.75]
