import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.special import logit

from audiotag.cli import main
from audiotag.crossval.label_issues import suspects
from audiotag.data.clips import read_clips
from audiotag.data.corrections import read_corrections
from audiotag.errors import DataError


def test_clips_are_ranked_by_how_much_the_models_that_never_heard_them_disagree(run, records):
    table = suspects(run)
    scores = pd.read_csv(run.stage_folder(0, "curated") / "curated_scores.csv", index_col="name")
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    assert sorted(table["clip"]) == sorted(scores.index)  # the noisy ones were heard
    assert table["margin"].is_monotonic_decreasing
    for clip in table.itertuples():
        given = labels[clip.clip].split(",")
        logits = logit(scores.loc[clip.clip])
        rival, least = logits.drop(given).idxmax(), logits[given].idxmin()
        assert clip.margin == pytest.approx(logits[rival] - logits[least], abs=1e-3)
        values = scores.loc[clip.clip]
        assert clip.reason == f"{rival} {values[rival]:.2f}, {least} {values[least]:.2f}"


def test_models_of_curated_clips_judge_all_noisy_ones(run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    curated = run.experiment.stages[1].model_copy(update={"start_from": None})
    run = dataclasses.replace(run, folder=copy, experiment=run.experiment.model_copy(update={"stages": (curated,)}))
    assert suspects(run)["subset"].value_counts().to_dict() == {"noisy": 40, "curated": 8}


def test_the_command_writes_corrections_that_change_nothing_yet(run, records, tmp_path):
    path = tmp_path / "suspects.csv"
    answer = CliRunner().invoke(main, ["suspects", str(run.folder), "--top", "2", "--csv", str(path)])
    assert answer.exit_code == 0, answer.output
    lines = answer.output.strip().splitlines()
    table = read_corrections(path, run.vocabulary)
    assert len(lines) == 3
    assert lines[0].startswith(f"{table['clip'][0]}  given {table['labels'][0]}: {table['reason'][0]}")
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    assert table["labels"].tolist() == labels[table["clip"]].tolist()
    assert np.all(table["weight"] == 1)


def test_a_stage_that_is_not_there_or_not_trained_is_an_error(run, tmp_path):
    with pytest.raises(DataError, match="has no stage 'curatd'. Did you mean 'curated'. Accepted: noisy, curated."):
        suspects(run, stage="curatd")
    with pytest.raises(DataError, match="stage 'noisy' is not trained yet. Finish the run with: audiotag fit"):
        suspects(dataclasses.replace(run, folder=tmp_path), stage="noisy")
