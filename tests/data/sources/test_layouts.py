import csv
import os
import shutil
import sys
import time
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from audiotag.data.clips import read_clips, write_clips
from audiotag.data.sources.fsdkaggle2019 import KNOWN_BAD
from audiotag.data.sources.layouts import LAYOUTS, find_clips
from audiotag.errors import ConfigError, DataError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
REAL = SHARED / "fsdkaggle2019"
needs_the_real_tables = pytest.mark.skipif(
    not REAL.is_dir(), reason="the tables of FSDKaggle2019 are not beside the project"
)
needs_esc10 = pytest.mark.skipif(
    not (SHARED / "esc10").is_dir(), reason="the recordings of ESC-10 are not beside the project"
)

TRUTH = ["name", "subset", "labels", "usage", "fold"]
PARTS = {"curated": "train_curated", "noisy": "train_noisy", "test": "test"}


def make(folder, files):
    """Writes {path: text, or bytes, or None for an empty file} below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else (content or "").encode())
    return folder


KAGGLE = {
    "train_curated.csv": 'fname,labels\na.wav,Bark\nb.wav,"Meow,Bark"\n',
    "train_noisy.csv": "fname,labels\nc.wav,Meow\n",
    "test_labels.csv": 'fname,labels,usage\nt.wav,Bark,Public\nu.wav,"Bark,Meow",Private\n',
    "sample_submission.csv": "fname,Bark,Meow\nt.wav,0,0\nu.wav,0,0\n",
    **dict.fromkeys(["train_curated/a.wav", "train_curated/b.wav", "train_noisy/c.wav", "test/t.wav", "test/u.wav"]),
}
META = "FSDKaggle2019.meta/"
ZENODO = {
    META + "train_curated_post_competition.csv":
        'fname,labels,freesound_id,license\nb.wav,"Meow,Bark",22,CC0\na.wav,Bark,21,CC0\n',
    META + "train_noisy_post_competition.csv":
        "fname,labels,flickr_video_URL,license\nc.wav,Meow,http://x/1,CC BY 2.0\n",
    META + "test_post_competition.csv":
        'fname,labels,usage,freesound_id,license\nu.wav,"Bark,Meow",Private,24,CC0\nt.wav,Bark,Public,23,CC0\n',
    META + "vocabulary.csv": "0,Bark\n1,Meow\n",
    **{f"FSDKaggle2019.audio_{name}": None for name in KAGGLE if name.endswith(".wav")},
}  # fmt: skip
PLAIN = {"labels.csv": "fname,labels\na.wav,Bark\nb.wav,Meow\n", "audio/a.wav": None, "audio/b.wav": None}
ESC10 = dict.fromkeys(["001 - Dog bark/1-100032-A.ogg", "001 - Dog bark/2-7-B.ogg", "002 - Rain/1-100032-B.ogg"])
FOLDERS = dict.fromkeys(["dog/1.wav", "dog/2.FLAC", "rain/1.mp3"])


# FSDKaggle2019


def test_kaggles_layout_is_read(tmp_path):
    found = find_clips(make(tmp_path, KAGGLE))
    assert (found.layout, found.vocabulary, found.excluded) == ("kaggle2019", ("Bark", "Meow"), {})
    assert found.clips.to_dict("split")["data"] == [
        [name, subset, labels, usage, 0, "", str(tmp_path / PARTS[subset] / name), row]
        for name, subset, labels, usage, row in [
            ("a.wav", "curated", "Bark", "", "train_curated.csv line 2"),
            ("b.wav", "curated", "Meow,Bark", "", "train_curated.csv line 3"),
            ("c.wav", "noisy", "Meow", "", "train_noisy.csv line 2"),
            ("t.wav", "test", "Bark", "Public", "test_labels.csv line 2"),
            ("u.wav", "test", "Bark,Meow", "Private", "test_labels.csv line 3"),
        ]
    ]
    assert [*found.clips] == ["name", "subset", "labels", "usage", "fold", "group", "path", "row"]


def test_both_layouts_of_the_same_clips_give_the_same_table(tmp_path):
    kaggle, zenodo = find_clips(make(tmp_path / "k", KAGGLE)), find_clips(make(tmp_path / "z", ZENODO))
    assert zenodo.layout == "zenodo2019" and zenodo.vocabulary == kaggle.vocabulary
    pd.testing.assert_frame_equal(zenodo.clips[TRUTH], kaggle.clips[TRUTH])
    assert zenodo.clips["group"].tolist() == ["21", "22", "", "23", "24"]


@pytest.mark.parametrize("dataset", [KAGGLE, ZENODO, PLAIN])
def test_the_order_of_the_rows_changes_nothing_but_row(tmp_path, dataset):
    def backwards(text):
        header, *rows = text.splitlines()
        return "\n".join([header, *rows[::-1]])

    swapped = {k: backwards(v) if v and "vocabulary" not in k else v for k, v in dataset.items()}
    one = find_clips(make(tmp_path / "one", dataset)).clips
    two = find_clips(make(tmp_path / "two", swapped)).clips
    pd.testing.assert_frame_equal(one.drop(columns=["path", "row"]), two.drop(columns=["path", "row"]))
    assert set(one["row"]) == set(two["row"])


@pytest.mark.parametrize("dataset", [KAGGLE, ZENODO])
def test_noisy_and_test_audio_may_be_left_out(tmp_path, dataset):
    without = {name: text for name, text in dataset.items() if not name.endswith(("c.wav", "t.wav", "u.wav"))}
    found = find_clips(make(tmp_path, without))
    assert found.clips["subset"].tolist() == ["curated", "curated"]
    assert found.vocabulary == ("Bark", "Meow")


def test_curated_audio_may_not_be_left_out(tmp_path):
    make(tmp_path, {name: text for name, text in KAGGLE.items() if not name.startswith("train_curated/")})
    with pytest.raises(DataError, match="train_curated: there is no such folder. Expected the audio of 2 clips in it"):
        find_clips(tmp_path)


def test_without_test_labels_the_submission_names_the_test_clips(tmp_path):
    found = find_clips(make(tmp_path, {name: text for name, text in KAGGLE.items() if name != "test_labels.csv"}))
    test = found.clips[found.clips["subset"] == "test"]
    assert test[["name", "labels", "usage", "row"]].values.tolist() == [
        ["t.wav", "", "", "sample_submission.csv line 2"],
        ["u.wav", "", "", "sample_submission.csv line 3"],
    ]


def test_test_labels_may_know_more_clips_than_the_submission_asks_for(tmp_path):
    found = find_clips(make(tmp_path, KAGGLE | {"sample_submission.csv": "fname,Bark,Meow\nu.wav,0,0\n"}))
    assert found.clips["name"].tolist() == ["a.wav", "b.wav", "c.wav", "u.wav"]


def test_a_test_clip_that_the_test_labels_do_not_know_is_refused(tmp_path):
    make(tmp_path, KAGGLE | {"sample_submission.csv": "fname,Bark,Meow\nt.wav,0,0\nv.wav,0,0\n"})
    with pytest.raises(
        DataError, match="sample_submission.csv line 3: 'v.wav' has no row in .*test_labels.csv. Add its labels"
    ):
        find_clips(tmp_path)


def test_a_missing_sample_submission_is_asked_for(tmp_path):
    make(tmp_path, {name: text for name, text in KAGGLE.items() if name != "sample_submission.csv"})
    with pytest.raises(DataError, match="sample_submission.csv: not there. Its header lists the classes"):
        find_clips(tmp_path)


def test_a_missing_table_of_labels_is_named(tmp_path):
    make(tmp_path, {name: text for name, text in KAGGLE.items() if name != "train_curated.csv"})
    with pytest.raises(DataError, match="train_curated.csv: cannot be read: No such file"):
        find_clips(tmp_path)


def test_without_a_vocabulary_file_the_training_labels_are_the_vocabulary(tmp_path):
    make(tmp_path, {name: text for name, text in ZENODO.items() if "vocabulary" not in name})
    assert find_clips(tmp_path).vocabulary == ("Bark", "Meow")


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "text, message",
    [
        ("Bark\nMeow\n", "line 1: found 'Bark'. Expected '0,' and the name of a class"),
        ("index,label\n0,Bark\n", "line 1: found 'index,label'. Expected '0,'"),
        ("0,Bark\n2,Meow\n", "line 2: found '2,Meow'. Expected '1,'"),
        ("0,Bark\n1,Bark\n", "the vocabulary has a class 'Bark'. Expected names without commas, each once"),
        ('0,Bark\n1,"Male speech, man speaking"\n', "the vocabulary has a class 'Male speech, man speaking'"),
        ("0,Bark\n1,\n", "the vocabulary has a class ''"),
        ("0,Bark\n1,fname\n", "a class cannot be called 'fname', as columns beside its own are. Rename it."),
        ("0,Bark\n1,Bark logit\n", "a class cannot be called 'Bark logit'"),
        ("", "the vocabulary has no classes"),
    ],
)
def test_a_bad_vocabulary_is_refused(tmp_path, text, message):
    make(tmp_path, ZENODO | {META + "vocabulary.csv": text})
    with pytest.raises(DataError, match=message):
        find_clips(tmp_path)


@pytest.mark.parametrize("layout", ["kaggle2019", "zenodo2019"])
def test_known_bad_clips_stay_in_the_table_and_are_named(tmp_path, layout):
    bad = "6a1f682a.wav"
    if layout == "kaggle2019":
        more = {"train_curated.csv": KAGGLE["train_curated.csv"] + f"{bad},Bark\n", f"train_curated/{bad}": None}
        found = find_clips(make(tmp_path, KAGGLE | more))
    else:
        table = META + "train_curated_post_competition.csv"
        more = {table: ZENODO[table] + f"{bad},Bark,25,CC0\n", f"FSDKaggle2019.audio_train_curated/{bad}": None}
        found = find_clips(make(tmp_path, ZENODO | more))
    assert bad in set(found.clips["name"])
    assert found.excluded == {bad: KNOWN_BAD[bad]} and found.excluded[bad].startswith("wrong label (Male_speech")


def test_another_dataset_may_use_the_name_of_a_known_bad_clip(tmp_path):
    found = find_clips(make(tmp_path, {"labels.csv": "fname,labels\n6a1f682a.wav,Bark\n", "6a1f682a.wav": None}))
    assert found.layout == "csv" and found.excluded == {}


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "table, text, line, message",
    [
        ("train_curated", "fname,label\na.wav,Bark\n", 1, "no column 'labels'.*Did you mean 'label'"),
        ("train_curated", "fname,labels\na.wav,Bark,Meow\n", 2, "the number of fields is 3, but the header has 2"),
        ("train_curated", "fname,labels\na.wav,Bark\na.wav,Meow\n", 3, "'a.wav' stands in train_curated.csv line 2"),
        ("train_curated", "fname,labels\na.wav,\n", 2, "labels are empty. A curated clip needs at least one"),
        ("train_curated", "fname,labels\na.wav,Brak\n", 2, "unknown label 'Brak'. Did you mean 'Bark'"),
        ("train_curated", 'fname,labels\na.wav,"Bark,Bark"\n', 2, "labels 'Bark,Bark': 'Bark' stands there twice"),
        ("train_curated", "fname,labels\n../a.wav,Bark\n", 2, "file name '../a.wav' is not a plain path"),
        ("train_curated", "fname,labels\n/etc/passwd,Bark\n", 2, "file name '/etc/passwd' is not a plain path"),
        ("train_noisy", "fname,labels\na.wav,Bark\n", 2, "file name 'a.wav' stands in train_curated.csv line 2"),
        ("train_noisy", 'fname,labels\nc.wav,"Bark,meow"\n', 2, "unknown label 'meow'. Did you mean 'Meow'"),
        ("test_labels", "fname,labels\nt.wav,Bark\nu.wav,\n", 3, "labels are empty. A test clip needs"),
        ("test_labels", "fname,labels\nt.wav,Bark\nu.wav,Bork\n", 3, "unknown label 'Bork'. Did you mean 'Bark'"),
        ("test_labels", "fname,labels,usage\nt.wav,Bark,Pubic\nu.wav,Bark,\n", 2, "usage is 'Pubic'. Did you mean"),
        ("sample_submission", "fname,Bark,Meow\nt.wav,0,0\nt.wav,0,0\n", 3, "file name 't.wav' stands in"),
        ("sample_submission", "fname,Bark,Meow,Bark\nt.wav,0,0,0\n", 1, "the header has the column 'Bark' 2 times"),
    ],
)
def test_a_bad_table_names_its_file_line_and_value(tmp_path, table, text, line, message):
    make(tmp_path, KAGGLE | {f"{table}.csv": text})
    with pytest.raises(DataError, match=f"{table}.csv line {line}: .*{message}"):
        find_clips(tmp_path)


def test_a_table_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="train_curated.csv: a header and no rows"):
        find_clips(make(tmp_path, KAGGLE | {"train_curated.csv": "fname,labels\n"}))


def test_spaces_round_labels_are_stripped(tmp_path):
    table = 'fname,labels\na.wav, Bark \nb.wav,"Meow , Bark"\n'
    found = find_clips(make(tmp_path, KAGGLE | {"train_curated.csv": table}))
    assert found.clips["labels"].tolist()[:2] == ["Bark", "Meow,Bark"]


# Where the audio lies


def test_absent_files_are_counted_and_the_first_five_named(tmp_path):
    rows = "".join(f"x{index}.wav,Bark\n" for index in range(7))
    make(tmp_path, KAGGLE | {"train_curated.csv": "fname,labels\n" + rows + "a.wav,Bark\n"})
    with pytest.raises(DataError) as error:
        find_clips(tmp_path)
    assert str(error.value).startswith(
        f"{tmp_path}/train_curated: 7 of 8 clips are not there: 'x0.wav' (train_curated.csv line 2), "
    )
    assert "'x4.wav'" in str(error.value) and "'x5.wav'" not in str(error.value)
    assert str(error.value).endswith(", .... Put the files there, or remove their rows.")


def test_audio_that_no_table_lists_is_passed_over(tmp_path):
    more = ["train_curated/z.wav", "train_curated/._a.wav", "train_curated/more/z.wav", "notes.txt"]
    make(tmp_path, KAGGLE | dict.fromkeys(more))
    assert len(find_clips(tmp_path).clips) == 5


@pytest.mark.check("C6")
@pytest.mark.parametrize("kind", ["folder", "fifo", "broken link", "hidden"])
def test_what_is_no_regular_file_counts_as_absent(tmp_path, kind):
    make(
        tmp_path,
        KAGGLE
        | {"train_curated.csv": "fname,labels\n.a.wav,Bark\n" if kind == "hidden" else "fname,labels\na.wav,Bark\n"},
    )
    place = tmp_path / "train_curated" / "a.wav"
    place.unlink()
    if kind == "folder":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "broken link":
        place.symlink_to("nowhere.wav")
    else:
        place.with_name(".a.wav").touch()
    with pytest.raises(DataError, match="1 of 1 clips are not there: '.?a.wav'"):
        find_clips(tmp_path)


@pytest.mark.check("C6")
def test_a_link_out_of_the_folder_is_refused(tmp_path):
    make(tmp_path, {"canary.wav": None})
    source = make(tmp_path / "data", KAGGLE)
    place = source / "train_curated" / "a.wav"
    place.unlink()
    place.symlink_to(tmp_path / "canary.wav")
    with pytest.raises(
        DataError, match="train_curated.csv line 2: 'a.wav' is a link that leads out of .*Put the file itself there"
    ):
        find_clips(source)


def test_a_link_inside_the_folder_and_a_linked_folder_of_audio_are_fine(tmp_path):
    source = make(tmp_path / "data", KAGGLE)
    shutil.move(source / "train_curated", tmp_path / "elsewhere")
    (source / "train_curated").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "a.wav").unlink()
    (tmp_path / "elsewhere" / "a.wav").symlink_to("b.wav")
    assert find_clips(source).clips["path"][0] == str(tmp_path / "elsewhere" / "a.wav")


@pytest.mark.check("C6")
def test_a_clip_behind_a_linked_folder_is_not_found(tmp_path):
    make(tmp_path, {"outside/a.wav": None})
    source = make(tmp_path / "data", {"labels.csv": "fname,labels\nlink/a.wav,Bark\nb.wav,Meow\n", "b.wav": None})
    (source / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="1 of 2 clips are not there: 'link/a.wav'"):
        find_clips(source)


@pytest.mark.check("C6")
def test_nothing_outside_the_source_is_opened(tmp_path):
    opened = []
    names = ["../canary.wav", "{}/canary.wav", "link.wav", "link/canary.wav", "audio/../../canary.wav", "/dev/zero"]
    make(tmp_path, {"canary.wav": "secret"})
    for index, name in enumerate(names):
        source = make(
            tmp_path / f"data{index}",
            {"labels.csv": f"fname,labels\n{name.format(tmp_path)},Bark\n", "audio/b.wav": None},
        )
        (source / "audio" / "link.wav").symlink_to(tmp_path / "canary.wav")
        (source / "audio" / "link").symlink_to(tmp_path)
    watching = [True]
    sys.addaudithook(lambda event, args: watching and event in ("open", "os.scandir") and opened.append(str(args[0])))
    for index in range(len(names)):
        with pytest.raises(DataError):
            find_clips(tmp_path / f"data{index}")
    watching.clear()
    inside = [path for path in opened if path.startswith(f"{tmp_path}/data")]
    assert len(inside) >= 2 * len(names)
    assert not [path for path in opened if "canary" in path or path == "/dev/zero" or path == str(tmp_path)]


@pytest.mark.check("C6")
def test_a_name_is_found_in_either_unicode_form(tmp_path):
    composed = unicodedata.normalize("NFC", "Geräusch.wav")
    decomposed = unicodedata.normalize("NFD", composed)
    for row, file in ((composed, decomposed), (decomposed, composed)):
        source = tmp_path / ascii(file)
        make(source, {"labels.csv": f"fname,labels\n{row},Bark\n", f"audio/{file}": None})
        found = find_clips(source).clips
        assert found["name"].tolist() == [composed] and os.path.exists(found["path"][0])
    make(source, {f"audio/{decomposed}": None})
    with pytest.raises(DataError, match="has two files .* spelt with different Unicode. Remove one"):
        find_clips(source)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, KAGGLE)
    scandir = os.scandir

    def forbidden(folder):
        if str(folder).endswith("train_noisy"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DataError, match="train_noisy: cannot be read: Permission denied"):
        find_clips(tmp_path)


# A plain CSV


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
        assert found.clips[TRUTH].values.tolist() == [
            ["a.wav", "curated", "Bark", "", 0],
            ["b.wav", "curated", "Meow", "", 0],
        ]


@pytest.mark.parametrize("folders", [("audio",), ("audio", "other")])
def test_a_csv_may_name_folders(tmp_path, folders):
    names = [f"{folder}/{letter}.wav" for folder in folders for letter in "ab"]
    table = "fname,labels\n" + "".join(f"{name},{name[-5]}\n" for name in names)
    found = find_clips(make(tmp_path, {"labels.csv": table, **dict.fromkeys(names)}))
    assert found.clips["name"].tolist() == names


def test_a_csv_may_say_subset_usage_fold_and_group(tmp_path):
    table = (
        "fname,labels,group,fold,subset,usage,license\n"
        "a.wav,Bark,r1,2,curated,,CC0\nb.wav,Meow,,,noisy,,\nt.wav,,,0,test,Public,\n"
    )
    found = find_clips(make(tmp_path, {"labels.csv": table, **dict.fromkeys(["a.wav", "b.wav", "t.wav"])}))
    assert found.clips[[*TRUTH, "group"]].values.tolist() == [
        ["a.wav", "curated", "Bark", "", 2, "r1"],
        ["b.wav", "noisy", "Meow", "", 0, ""],
        ["t.wav", "test", "", "Public", 0, ""],
    ]


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "table, message",
    [
        ("fname,labels,Fold\na.wav,Bark,1\n", "labels.csv line 1: the column 'Fold' is not 'fold'. Rename it"),
        ("fname,labels,subsets\na.wav,Bark,curated\n", "line 1: the column 'subsets' is not 'subset'"),
        ("fname,labels,groups\na.wav,Bark,1\n", "line 1: the column 'groups' is not 'group'"),
        ("fname,labels,fold\na.wav,Bark,one\n", "labels.csv line 2: fold is 'one'. Expected a whole number"),
        ("fname,labels,fold\na.wav,Bark,-1\n", "labels.csv line 2: fold is -1"),
        ("fname,labels,subset\na.wav,Bark,train\n", "labels.csv line 2: subset is 'train'. Expected one of 'curated'"),
        (
            "fname,labels,subset\na.wav,Bark,curated\nb.wav,Brak,test\n",
            "line 3: unknown label 'Brak'. Did you mean 'Bark'",
        ),
        ("fname,labels,subset\na.wav,Bark,test\n", "test clips only. Expected curated clips too"),
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


# ESC


def test_esc_folders_give_label_fold_and_recording(tmp_path):
    found = find_clips(make(tmp_path, ESC10 | {"README.md": None}))
    assert (found.layout, found.vocabulary) == ("esc", ("Dog bark", "Rain"))
    assert found.clips[[*TRUTH, "group"]].values.tolist() == [
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
    assert found.clips[[*TRUTH, "group", "row"]].values.tolist() == [
        ["audio/1-100032-A-0.wav", "curated", "dog", "", 1, "1-100032", "esc50.csv line 2"],
        ["audio/1-100032-B-10.wav", "curated", "rain", "", 1, "1-100032", "esc50.csv line 3"],
    ]


def test_a_stranger_among_esc_clips_is_refused(tmp_path):
    make(tmp_path, ESC10 | {"002 - Rain/mine.wav": None})
    with pytest.raises(DataError, match="002 - Rain/mine.wav: expected a path such as '001 - Dog bark/1-100032-A.ogg'"):
        find_clips(tmp_path)


def test_numbered_folders_without_esc_names_are_a_folder_a_class(tmp_path):
    found = find_clips(make(tmp_path, dict.fromkeys(["1 - dog/a.wav", "2 - cat/a.wav"])))
    assert (found.layout, found.vocabulary) == ("folders", ("1 - dog", "2 - cat"))


@needs_esc10
def test_the_real_esc10_is_read():
    found = find_clips(SHARED / "esc10")
    assert found.layout == "esc" and len(found.clips) == 320 and len(found.vocabulary) == 10
    assert found.clips.groupby(["labels", "fold"]).size().tolist() == [8] * 40
    assert found.clips.groupby("group")["fold"].nunique().max() == 1


# A folder a class


def test_a_folder_is_a_class(tmp_path):
    found = find_clips(
        make(tmp_path, FOLDERS | dict.fromkeys(["dog/notes.txt", "dog/.hidden.wav", ".git/x.wav", "README.md"]))
    )
    assert (found.layout, found.vocabulary) == ("folders", ("dog", "rain"))
    assert found.clips[TRUTH].values.tolist() == [
        ["dog/1.wav", "curated", "dog", "", 0],
        ["dog/2.FLAC", "curated", "dog", "", 0],
        ["rain/1.mp3", "curated", "rain", "", 0],
    ]


def test_folders_may_lie_in_subsets(tmp_path):
    names = ["train/dog/1.wav", "curated/dog/1.wav", "noisy/rain/1.wav", "test/rain/1.wav"]
    found = find_clips(make(tmp_path, dict.fromkeys(names)))
    assert dict(zip(found.clips["name"], found.clips["subset"])) == dict(
        zip(names, ["curated", "curated", "noisy", "test"])
    )
    assert found.vocabulary == ("dog", "rain")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "aif", "WAV"])
def test_every_kind_of_audio_is_found(tmp_path, suffix):
    assert len(find_clips(make(tmp_path, dict.fromkeys([f"dog/1.{suffix}", f"cat/1.{suffix}"]))).clips) == 2


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "more, message",
    [
        ("1.wav", "1.wav: expected <label>/<file>, as every folder is a label. Move it, or remove it"),
        ("dog/more/1.wav", "dog/more/1.wav: expected <label>/<file>"),
        ("train/dog/1.wav", "train/dog/1.wav: expected <label>/<file>"),
        ("Male speech, man/1.wav", "the folder 'Male speech, man' has a comma, which parts labels. Rename it"),
        ("do\tg/1.wav", "file name .* is not a plain path"),
        ("do\udcffg/1.wav", "the name 'do.udcffg/1.wav' has bytes that are not UTF-8. Rename it"),
    ],
)
def test_a_file_in_no_class_is_refused(tmp_path, more, message):
    make(tmp_path, FOLDERS | {more: None})
    with pytest.raises(DataError, match=message):
        find_clips(tmp_path)


def test_a_file_in_a_subset_but_in_no_class_is_refused(tmp_path):
    make(tmp_path, dict.fromkeys(["train/dog/1.wav", "train/rain/1.wav", "test/1.wav"]))
    with pytest.raises(DataError, match="test/1.wav: expected <subset>/<label>/<file>"):
        find_clips(tmp_path)


def test_a_class_that_only_the_test_has_is_refused(tmp_path):
    make(tmp_path, dict.fromkeys(["train/dog/1.wav", "train/rain/1.wav", "test/dogs/1.wav"]))
    with pytest.raises(DataError, match="test/dogs/1.wav: unknown label 'dogs'. Did you mean 'dog'"):
        find_clips(tmp_path)


@pytest.mark.check("C6")
def test_a_linked_folder_is_not_followed(tmp_path):
    make(tmp_path, {"outside/1.wav": None})
    source = make(tmp_path / "data", FOLDERS)
    (source / "cat").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="data/cat: a link to a folder, and links are not followed"):
        find_clips(source)


@pytest.mark.parametrize("layout", ["folders", "esc"])
def test_folders_without_audio_are_refused(tmp_path, layout):
    with pytest.raises(DataError, match="no audio in its folders. Expected files that end in .wav, .flac"):
        find_clips(make(tmp_path, {"dog/notes.txt": None}), layout=layout)


# All layouts


@pytest.mark.parametrize(
    "layout, dataset",
    [("kaggle2019", KAGGLE), ("zenodo2019", ZENODO), ("csv", PLAIN), ("esc", ESC10), ("folders", FOLDERS)],
)
def test_each_layout_is_recognised_as_what_it_is(tmp_path, layout, dataset):
    source = make(tmp_path, dataset)
    assert find_clips(source).layout == layout
    assert find_clips(source, layout=layout).layout == layout
    write_clips(tmp_path / "clips.csv", find_clips(source, layout=layout).clips)
    assert len(read_clips(tmp_path / "clips.csv")) == sum(text is None for text in dataset.values())


def test_every_layout_has_a_sign():
    assert list(LAYOUTS) == ["kaggle2019", "zenodo2019", "csv", "esc", "folders"]
    assert all(layout.sign for layout in LAYOUTS.values())


def test_an_unrecognised_folder_is_told_what_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match="the layout is not recognised. Looked for kaggle2019: train_curated.csv.*folders: a folder"
    ):
        find_clips(make(tmp_path, {"notes/x.txt": None}))


def test_an_unknown_layout_is_told_the_nearest(tmp_path):
    with pytest.raises(
        ConfigError, match="layout 'folder': unknown. Did you mean 'folders'. Accepted: auto, kaggle2019"
    ):
        find_clips(make(tmp_path, FOLDERS), layout="folder")


def test_a_source_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(DataError, match="nowhere: there is no such file or folder"):
        find_clips(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path):
    make(tmp_path, PLAIN)
    for file, layout in (("labels.csv", "folders"), ("audio/a.wav", "auto"), ("audio/a.wav", "csv")):
        with pytest.raises(
            DataError, match=f"{file}: a file. Expected a folder, or for the layout csv a file that ends in .csv"
        ):
            find_clips(tmp_path / file, layout=layout)


# The real tables, with empty files for the audio


@pytest.fixture(scope="module")
def real_sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("fsdkaggle2019")
    kaggle, zenodo = root / "kaggle", root / "zenodo"
    shutil.copytree(REAL, zenodo / "FSDKaggle2019.meta")
    names = {}
    for part in PARTS.values():
        with open(REAL / f"{part}_post_competition.csv", newline="") as file:
            rows = sorted((row["fname"], row["labels"]) for row in csv.DictReader(file))
        audio = zenodo / f"FSDKaggle2019.audio_{part}"
        audio.mkdir()
        names[part] = [name for name, _ in rows]
        for name in names[part]:
            (audio / name).touch()
        (kaggle / part).parent.mkdir(exist_ok=True)
        (kaggle / part).symlink_to(audio)
        with open(kaggle / f"{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("fname", "labels"), *rows])
    (kaggle / "test.csv").unlink()
    shutil.copy(REAL / "test_post_competition.csv", kaggle)
    vocabulary = [line.split(",", 1)[1] for line in (REAL / "vocabulary.csv").read_text().splitlines()]
    with open(kaggle / "sample_submission.csv", "w", newline="") as file:
        csv.writer(file).writerows([("fname", *vocabulary), *((name, *[0] * 80) for name in names["test"])])
    return kaggle, zenodo


@needs_the_real_tables
def test_the_real_tables_hold_what_is_published(real_sources):
    start = time.perf_counter()
    found = find_clips(real_sources[1])
    assert time.perf_counter() - start < 5
    clips = found.clips
    curated, noisy, test = (clips[clips["subset"] == subset] for subset in PARTS)
    assert (len(curated), len(noisy), len(test)) == (4_970, 19_815, 4_481)
    assert len(found.vocabulary) == 80 and list(found.vocabulary) == sorted(found.vocabulary)
    assert curated["labels"].nunique() == 213
    assert (~curated["labels"].str.contains(",")).sum() == 4_269
    assert noisy["labels"].str.split(",").explode().value_counts().tolist() == [300] * 80
    assert test["usage"].value_counts().to_dict() == {"Private": 3_361, "Public": 1_120}
    assert clips["name"].is_monotonic_increasing and clips["name"].is_unique
    assert found.excluded == KNOWN_BAD
    labels = dict(zip(clips["name"], clips["labels"]))
    assert all(labels[name] in reason for name, reason in KNOWN_BAD.items())


@needs_the_real_tables
def test_both_layouts_of_the_real_tables_agree(real_sources):
    kaggle, zenodo = map(find_clips, real_sources)
    assert (kaggle.layout, zenodo.layout) == ("kaggle2019", "zenodo2019")
    pd.testing.assert_frame_equal(kaggle.clips[TRUTH], zenodo.clips[TRUTH])
    assert kaggle.vocabulary == zenodo.vocabulary and kaggle.excluded == zenodo.excluded


@needs_the_real_tables
def test_the_real_table_of_clips_survives_clips_csv(real_sources, tmp_path):
    clips = find_clips(real_sources[0]).clips
    write_clips(tmp_path / "clips.csv", clips)
    again = read_clips(tmp_path / "clips.csv").sort_values("name", ignore_index=True)
    pd.testing.assert_frame_equal(again, clips.drop(columns=["path", "row"]))
