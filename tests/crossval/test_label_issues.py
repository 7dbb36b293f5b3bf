import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.special import logit

from audiotag.cli import main
from audiotag.crossval.label_issues import rank_label_issues
from audiotag.data.clips import read_clips
from audiotag.data.corrections import read_corrections
from audiotag.errors import DataError


def test_clips_are_ranked_by_how_much_out_of_fold_predictions_disagree_with_their_labels(run, records):
    table = rank_label_issues(run)
    scores = pd.read_csv(run.stage_files(0, "curated").oof_scores(), index_col="name")
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    assert sorted(table["clip"]) == sorted(scores.index)  # the noisy clips were trained on
    assert table["margin"].is_monotonic_decreasing
    for clip in table.itertuples():
        given = labels[clip.clip].split(",")
        logits = logit(scores.loc[clip.clip])
        other, label = logits.drop(given).idxmax(), logits[given].idxmin()
        assert clip.margin == pytest.approx(logits[other] - logits[label], abs=1e-3)
        values = scores.loc[clip.clip]
        assert clip.reason == f"{other} {values[other]:.2f}, {label} {values[label]:.2f}"
    assert set(table["source"]) == {"label issues of tiny, stage curated"}


def test_models_of_curated_clips_score_all_noisy_clips(run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    curated = run.experiment.stages[1].model_copy(update={"start_from": None})
    run = dataclasses.replace(run, folder=copy, experiment=run.experiment.model_copy(update={"stages": (curated,)}))
    assert rank_label_issues(run)["subset"].value_counts().to_dict() == {"noisy": 40, "curated": 8}


def test_the_command_writes_corrections_that_change_nothing_yet(run, records, tmp_path):
    path = tmp_path / "issues.csv"
    result = CliRunner().invoke(main, ["label-issues", str(run.folder), "--top", "2", "--csv", str(path)])
    assert result.exit_code == 0, result.output
    lines = result.output.strip().splitlines()
    table = read_corrections(path, run.vocabulary)
    assert len(lines) == 3
    assert lines[0].startswith(f"{table['clip'][0]}  given {table['labels'][0]}: {table['reason'][0]}")
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    assert table["labels"].tolist() == labels[table["clip"]].tolist()
    assert np.all(table["weight"] == 1)


def test_usefulness_orders_the_same_clips(run):
    by_suspicion, by_usefulness = rank_label_issues(run), rank_label_issues(run, order="usefulness")
    assert by_usefulness["usefulness"].is_monotonic_decreasing
    assert by_usefulness["same_sound"].equals(by_usefulness["clip"].rename("same_sound"))  # no two sound alike
    columns = list(by_suspicion)
    assert (
        by_usefulness[columns]
        .sort_values("clip", ignore_index=True)
        .equals(by_suspicion.sort_values("clip", ignore_index=True))
    )


def test_cleanlab_ranks_too(run):
    from cleanlab.multilabel_classification import get_label_quality_scores

    table = rank_label_issues(run, by="cleanlab").set_index("clip")
    scores = pd.read_csv(run.stage_files(0, "curated").oof_scores(), index_col="name").loc[table.index]
    labels = [[run.vocabulary.index(label) for label in text.split(",")] for text in table["labels"]]
    assert table["suspicion"].is_monotonic_decreasing
    np.testing.assert_allclose(table["suspicion"], 1 - get_label_quality_scores(labels, scores.to_numpy()), atol=1e-6)


def test_a_stage_that_does_not_exist_or_is_not_trained_is_an_error(run, tmp_path):
    with pytest.raises(DataError, match="has no stage 'curatd'. Did you mean 'curated'. Accepted: noisy, curated."):
        rank_label_issues(run, stage="curatd")
    with pytest.raises(DataError, match="stage 'noisy' is not trained yet. Finish the run with: audiotag fit"):
        rank_label_issues(dataclasses.replace(run, folder=tmp_path), stage="noisy")
