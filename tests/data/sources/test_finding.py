import pandas as pd
import pytest
from source_folders import ESC10, FOLDERS, KAGGLE, KAGGLE2018, PLAIN, ZENODO, ZENODO2018, make

from audiotag.data.clips import read_clips, write_clips
from audiotag.data.sources import LAYOUTS, find_clips
from audiotag.errors import ConfigError, DataError


@pytest.mark.parametrize("dataset", [KAGGLE, ZENODO, KAGGLE2018, ZENODO2018, PLAIN])
def test_the_order_of_the_rows_changes_nothing_but_row(tmp_path, dataset):
    def backwards(text):
        header, *rows = text.splitlines()
        return "\n".join([header, *rows[::-1]])

    swapped = {k: backwards(v) if v and "vocabulary" not in k else v for k, v in dataset.items()}
    one = find_clips(make(tmp_path / "one", dataset)).clips
    two = find_clips(make(tmp_path / "two", swapped)).clips
    pd.testing.assert_frame_equal(one.drop(columns=["path", "row"]), two.drop(columns=["path", "row"]))
    assert set(one["row"]) == set(two["row"])


@pytest.mark.parametrize(
    "layout, dataset",
    [
        ("kaggle2019", KAGGLE),
        ("zenodo2019", ZENODO),
        ("zenodo2018", ZENODO2018),
        ("csv", PLAIN),
        ("esc", ESC10),
        ("folders", FOLDERS),
    ],
)
def test_each_source_is_recognized(tmp_path, layout, dataset):
    source = make(tmp_path, dataset)
    assert find_clips(source).layout == layout
    assert find_clips(source, layout=layout).layout == layout
    write_clips(tmp_path / "clips.csv", find_clips(source, layout=layout).clips)
    assert len(read_clips(tmp_path / "clips.csv")) == sum(text is None for text in dataset.values())


def test_every_source_has_a_description_and_the_shipped_ones_keep_their_order():
    shipped = ["kaggle2019", "zenodo2019", "kaggle2018", "zenodo2018", "esc", "csv", "folders"]
    assert [name for name in LAYOUTS if name in shipped] == shipped
    assert all(layout.description for layout in LAYOUTS.values())


def test_the_message_about_an_unrecognized_folder_describes_the_sources(tmp_path):
    expected = "the layout is not recognized. Expected one of .*kaggle2019: train_curated.csv.*folders: one folder"
    with pytest.raises(DataError, match=expected):
        find_clips(make(tmp_path, {"notes/x.txt": None}))


def test_the_message_about_an_unknown_layout_names_the_nearest(tmp_path):
    message = f"layout 'folder': unknown. Did you mean 'folders'. Accepted: auto, {', '.join(LAYOUTS)}."
    with pytest.raises(ConfigError, match=message):
        find_clips(make(tmp_path, FOLDERS), layout="folder")


def test_an_absent_source_is_reported(tmp_path):
    with pytest.raises(DataError, match="nowhere: there is no such file or folder"):
        find_clips(tmp_path / "nowhere")


def test_a_file_is_not_a_folder(tmp_path):
    make(tmp_path, PLAIN)
    for file, layout in (("labels.csv", "folders"), ("audio/a.wav", "auto"), ("audio/a.wav", "csv")):
        with pytest.raises(
            DataError, match=f"{file}: a file. Expected a folder, or for the layout csv a file that ends in .csv"
        ):
            find_clips(tmp_path / file, layout=layout)


# Background


def test_a_folder_of_background_has_clips_without_labels(tmp_path):
    source = make(tmp_path, FOLDERS)
    classes = find_clips(source).vocabulary
    found = find_clips(source, background=classes[:1])
    assert found.vocabulary == classes[1:]
    before = find_clips(source).clips["labels"]
    assert found.clips["labels"].tolist() == ["" if label == classes[0] else label for label in before]
    assert (found.clips["labels"] == "").any()
    write_clips(tmp_path / "clips.csv", found.clips)
    assert sorted(read_clips(tmp_path / "clips.csv")["labels"]) == sorted(found.clips["labels"])


def test_a_label_of_background_is_taken_from_clips_that_have_others_too(tmp_path):
    table = 'fname,labels\na.wav,"Bark,street"\nb.wav,street\nc.wav,Meow\n'
    source = make(tmp_path, {"labels.csv": table, "a.wav": None, "b.wav": None, "c.wav": None})
    assert find_clips(source, background=["street"]).clips["labels"].tolist() == ["Bark", "", "Meow"]


def test_a_label_of_background_that_no_clip_has_is_refused(tmp_path):
    table = "fname,labels\na.wav,Bark\nb.wav,street\n"
    source = make(tmp_path, {"labels.csv": table, "a.wav": None, "b.wav": None})
    message = (
        r"no clip has the label 'streat', which is to be background\. Did you mean 'street'\? Its labels: Bark, street"
    )
    with pytest.raises(DataError, match=message):
        find_clips(source, background=["streat"])
