"""Clips with none of the classes."""

import pandas as pd
import pytest
from selection_runs import STAGE, fit

from audiotag.crossval.label_issues import rank_label_issues
from audiotag.data.clips import read_clips
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips
from audiotag.errors import DataError


@pytest.fixture(scope="module")
def with_background(demo, tmp_path_factory):
    """The demo's records with two classes as background."""
    folder = tmp_path_factory.mktemp("records") / "background"
    classes = find_clips(demo).vocabulary[:2]
    write_records(find_clips(demo, background=classes), folder, sample_rate=16_000, workers=0)
    return folder


@pytest.fixture
def experiment(tiny, with_background):
    """A function: overrides → an experiment of one stage on these records."""
    stage = STAGE | {"name": "curated", "subset": "curated", "epochs": 1, "keep": "last", "class_balanced": True}
    overrides = f"records={with_background}", f"stages={[stage]}".replace("'", '"').replace("True", "true")
    return lambda *more: tiny(*overrides, "model.filters=[8]", *more)


def test_background_trains_validates_and_is_spread_over_the_folds(experiment, with_background, tmp_path):
    clips = read_clips(with_background / "clips.csv")
    background = set(clips["name"][(clips["labels"] == "") & (clips["subset"] == "curated")])
    run = fit(experiment(), tmp_path / "run")
    assert len(run.vocabulary) == 12
    folds = pd.read_csv(run.folds_file).set_index("name")["fold"]
    counts = folds[sorted(background)].value_counts().reindex(range(5), fill_value=0)
    assert counts.max() - counts.min() <= 1
    trained = pd.read_csv(run.stage_files(0, "curated").training_clips)
    assert set(trained["name"][trained["labels"].isna()]) == {name for name in background if folds[name] != 0}
    issues = rank_label_issues(run).set_index("clip")
    held_out = issues.loc[sorted(name for name in background if folds[name] == 0)]
    assert len(held_out) and held_out["reason"].str.endswith(", no label").all()
    assert held_out["margin"].abs().max() < 40


def test_a_single_label_task_refuses_background(experiment, tmp_path):
    softmax = "task=single_label", 'stages.curated.loss={"name": "categorical_crossentropy"}'
    with pytest.raises(
        DataError, match=r": \d+ clips have no label, such as .*, and with \"task\": \"single_label\" every"
    ):
        fit(experiment(*softmax), tmp_path / "run")
    assert not (tmp_path / "run").exists()
