from pathlib import Path

import pytest
from source_folders import COLUMNS, ESC10, make

from audiotag.data.sources import find_clips
from audiotag.errors import DataError

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "esc10"
needs_esc10 = pytest.mark.skipif(not REAL.is_dir(), reason="the recordings of ESC-10 are not beside the project")


def test_esc_folders_give_label_fold_and_recording(tmp_path):
    found = find_clips(make(tmp_path, ESC10 | {"README.md": None}))
    assert (found.layout, found.vocabulary) == ("esc", ("Dog bark", "Rain"))
    assert found.clips[[*COLUMNS, "group"]].values.tolist() == [
        ["001 - Dog bark/1-100032-A.ogg", "curated", "Dog bark", "", 1, "1-100032"],
        ["001 - Dog bark/2-7-B.ogg", "curated", "Dog bark", "", 2, "2-7"],
        ["002 - Rain/1-100032-B.ogg", "curated", "Rain", "", 1, "1-100032"],
    ]
    assert found.clips["path"][0] == str(tmp_path / "001 - Dog bark" / "1-100032-A.ogg")


def test_esc50s_table_gives_the_same(tmp_path):
    table = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n1-100032-B-10.wav,1,10,rain,True,100032,B\n"
    )
    found = find_clips(
        make(
            tmp_path, {"meta/esc50.csv": table, **dict.fromkeys(["audio/1-100032-A-0.wav", "audio/1-100032-B-10.wav"])}
        )
    )
    assert (found.layout, found.vocabulary) == ("esc", ("dog", "rain"))
    assert found.clips[[*COLUMNS, "group", "row"]].values.tolist() == [
        ["audio/1-100032-A-0.wav", "curated", "dog", "", 1, "1-100032", "esc50.csv line 2"],
        ["audio/1-100032-B-10.wav", "curated", "rain", "", 1, "1-100032", "esc50.csv line 3"],
    ]


def test_another_file_name_among_esc_clips_is_refused(tmp_path):
    make(tmp_path, ESC10 | {"002 - Rain/mine.wav": None})
    with pytest.raises(DataError, match="002 - Rain/mine.wav: expected a path such as '001 - Dog bark/1-100032-A.ogg'"):
        find_clips(tmp_path)


def test_numbered_folders_without_esc_names_are_class_folders(tmp_path):
    found = find_clips(make(tmp_path, dict.fromkeys(["1 - dog/a.wav", "2 - cat/a.wav"])))
    assert (found.layout, found.vocabulary) == ("folders", ("1 - dog", "2 - cat"))


@needs_esc10
def test_the_real_esc10_is_read():
    found = find_clips(REAL)
    assert found.layout == "esc" and len(found.clips) == 320 and len(found.vocabulary) == 10
    assert found.clips.groupby(["labels", "fold"]).size().tolist() == [8] * 40
    assert found.clips.groupby("group")["fold"].nunique().max() == 1
