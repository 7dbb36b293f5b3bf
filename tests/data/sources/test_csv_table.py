import pytest
from source_folders import COLUMNS, FOLDERS, PLAIN, make

from audiotag.data.sources import find_clips
from audiotag.errors import DataError


@pytest.mark.parametrize(
    "files",
    [
        PLAIN,
        {"labels.csv": PLAIN["labels.csv"], "a.wav": None, "b.wav": None},
        {"labels.csv": PLAIN["labels.csv"], "a.wav": None, "b.wav": None, "notes/x.txt": None},
        PLAIN | {"classes.csv": "index,name\n0,Bark\n", ".cache/x": None},
        PLAIN | {"labels.csv": b"\xef\xbb\xbf" + PLAIN["labels.csv"].replace("\n", "\r\n").encode()},
    ],
)
def test_a_csv_finds_its_audio_beside_it(tmp_path, files):
    for source in (make(tmp_path, files), tmp_path / "labels.csv"):
        found = find_clips(source)
        assert (found.layout, found.vocabulary) == ("csv", ("Bark", "Meow"))
        assert found.clips[COLUMNS].values.tolist() == [
            ["a.wav", "curated", "Bark", "", 0],
            ["b.wav", "curated", "Meow", "", 0],
        ]


@pytest.mark.parametrize("folders", [("audio",), ("audio", "other")])
def test_a_csv_may_name_folders(tmp_path, folders):
    names = [f"{folder}/{letter}.wav" for folder in folders for letter in "ab"]
    table = "fname,labels\n" + "".join(f"{name},{name[-5]}\n" for name in names)
    found = find_clips(make(tmp_path, {"labels.csv": table, **dict.fromkeys(names)}))
    assert found.clips["name"].tolist() == names


def test_a_csv_may_have_subset_usage_fold_and_group(tmp_path):
    table = (
        "fname,labels,group,fold,subset,usage,license\n"
        "a.wav,Bark,r1,2,curated,,CC0\nb.wav,Meow,,,noisy,,\nt.wav,,,0,test,Public,\n"
    )
    found = find_clips(make(tmp_path, {"labels.csv": table, **dict.fromkeys(["a.wav", "b.wav", "t.wav"])}))
    assert found.clips[[*COLUMNS, "group"]].values.tolist() == [
        ["a.wav", "curated", "Bark", "", 2, "r1"],
        ["b.wav", "noisy", "Meow", "", 0, ""],
        ["t.wav", "test", "", "Public", 0, ""],
    ]


def test_recordings_that_a_review_left_out_are_no_clips(tmp_path):
    reviewed = "fname,labels,who,when,why\na.wav,Bark,Ana,,labeled\nb.wav,'=Meow,Ana,,labeled\n"
    table = reviewed + "c.wav,,Ana,,removed\nd.wav,Bark,Ana,,unsure\ne.wav,,Ana,,labeled\nf.wav,Bark,,,\n"
    found = find_clips(make(tmp_path, {"labels.csv": table, **dict.fromkeys(f"{name}.wav" for name in "abcdef")}))
    assert dict(zip(found.clips["name"], found.clips["labels"])) == {
        "a.wav": "Bark",
        "b.wav": "=Meow",
        "e.wav": "",
        "f.wav": "Bark",
    }
    assert "left out because review found them removed or unsure: 2." in found.notes[0]
    assert not any("columns that are not used" in note for note in found.notes)
    (tmp_path / "labels.csv").write_text("fname,labels,who,when,why\na.wav,,Ana,,removed\n")
    with pytest.raises(DataError, match="all rows are removed or unsure"):
        find_clips(tmp_path)


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "table, message",
    [
        ("fname,labels,Fold\na.wav,Bark,1\n", "labels.csv line 1: the column 'Fold' is not 'fold'. Rename it"),
        ("fname,labels,subsets\na.wav,Bark,curated\n", "line 1: the column 'subsets' is not 'subset'"),
        ("fname,labels,groups\na.wav,Bark,1\n", "line 1: the column 'groups' is not 'group'"),
        ("fname,labels,fold\na.wav,Bark,one\n", "labels.csv line 2: fold is 'one'. Expected a whole number"),
        ("fname,labels,fold\na.wav,Bark,-1\n", "labels.csv line 2: fold is -1"),
        ("fname,labels,subset\na.wav,Bark,my own\n", "labels.csv line 2: subset is 'my own'. Expected letters"),
        (
            "fname,labels,subset\na.wav,Bark,curated\nb.wav,Brak,test\n",
            "line 3: unknown label 'Brak'. Did you mean 'Bark'",
        ),
        ("fname,labels,subset\na.wav,Bark,test\n", "test clips only. Expected others too"),
        ("labels\nBark\n", "labels.csv line 1: no column 'fname'"),
        (
            "file,class\na.wav,Bark\n",
            "no table of labels: labels.csv has file,class. Expected .* fname,labels.*choose the layout folders",
        ),
        ("fname,labels\na.wav,Bark\nz.wav,Bark\n", "audio: 1 of 2 clips are not there: 'z.wav' .labels.csv line 3"),
    ],
)
def test_a_bad_plain_csv_is_refused(tmp_path, table, message):
    make(tmp_path, PLAIN | {"labels.csv": table})
    with pytest.raises(DataError, match=message):
        find_clips(tmp_path)


def test_one_of_several_tables_has_to_be_chosen(tmp_path):
    make(tmp_path, PLAIN | {"more.csv": "fname,labels\nb.wav,Bark\n"})
    with pytest.raises(DataError, match="several tables of labels: labels.csv, more.csv. Give the path of one"):
        find_clips(tmp_path)
    assert find_clips(tmp_path / "more.csv").clips["name"].tolist() == ["b.wav"]


def test_the_layout_csv_needs_a_table(tmp_path):
    with pytest.raises(DataError, match="no table of labels: there is no CSV file. Expected a CSV file with"):
        find_clips(make(tmp_path, FOLDERS), layout="csv")


def test_another_dataset_may_use_the_name_of_a_known_bad_clip(tmp_path):
    found = find_clips(make(tmp_path, {"labels.csv": "fname,labels\n6a1f682a.wav,Bark\n", "6a1f682a.wav": None}))
    assert found.layout == "csv" and found.excluded == {}
