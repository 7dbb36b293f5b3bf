import dataclasses
import shutil

import pandas as pd
import pytest

from audiotag.config.schema import StartFrom
from audiotag.crossval.source_clips import check_source
from audiotag.errors import ConfigError


@pytest.fixture
def context(run, context_of, tmp_path):
    """A function: how to change the table of what the source trained on → the fold that starts from it."""

    def context(change):
        folder = shutil.copytree(run.folder, tmp_path / "source")
        for stage in ("noisy", "curated"):
            path = run.stage_files(0, stage).training_clips
            table = pd.read_csv(path, keep_default_na=False, dtype=str)
            change(table).to_csv(folder / "fold-0" / stage / path.name, index=False)
        ours = context_of(run, 0, "curated")
        clips = ours.clips.assign(group=["recording" if fold == 0 else "" for fold in ours.clips["fold"]])
        start_from = StartFrom(run=str(folder))
        return dataclasses.replace(ours, clips=clips, stage=ours.stage.model_copy(update={"start_from": start_from}))

    return context


def held_out_as(context_of, run, **columns):
    """A table of one clip that fold 0 holds out, changed."""
    clips = context_of(run, 0, "curated").clips
    clip = clips[clips["fold"] == 0].iloc[[0]]
    return clip[["name", "labels", "weight", "group", "sha256"]].assign(**columns)


def test_clips_that_the_source_did_not_train_on_may_be_held_out(context, run):
    source, table = check_source(context(lambda table: table))
    assert source.record.stage == "curated"
    assert set(table["name"]) == set(
        pd.concat([pd.read_csv(run.stage_files(0, stage).training_clips) for stage in ("noisy", "curated")])["name"]
    )


@pytest.mark.parametrize(
    ("columns", "refused"),
    [
        ({}, True),
        ({"name": "renamed.wav"}, True),  # the recording is the same
        ({"sha256": "other"}, False),  # another recording of the same name, in other records
        ({"sha256": "other", "group": "recording"}, True),  # cut from a recording of which this fold holds out a clip
    ],
)
def test_a_held_out_clip_is_found_in_other_records(context, context_of, run, columns, refused):
    added = context(lambda table: pd.concat([table, held_out_as(context_of, run, **columns)]))
    if refused:
        with pytest.raises(
            ConfigError, match=r"^stages\.curated\.start_from: fold 0 of \S+source trained on clip '\S+'"
        ):
            check_source(added)
    else:
        assert "" in set(check_source(added)[1]["name"])


def test_records_without_a_common_recording_hold_out_anything(context):
    _, table = check_source(context(lambda table: table.assign(sha256="other", group="recording")))
    assert set(table["name"]) == {""}
