import csv
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from source_folders import COLUMNS, KAGGLE, META, SUBSET_FOLDERS, ZENODO, make

from audiotag.data.clips import read_clips, write_clips
from audiotag.data.sources import find_clips
from audiotag.data.sources.fsdkaggle2019 import KNOWN_BAD
from audiotag.errors import DataError

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "fsdkaggle2019"
needs_the_real_tables = pytest.mark.skipif(
    not REAL.is_dir(), reason="the tables of FSDKaggle2019 are not beside the project"
)


def test_kaggles_layout_is_read(tmp_path):
    found = find_clips(make(tmp_path, KAGGLE))
    assert (found.layout, found.vocabulary, found.excluded) == ("kaggle2019", ("Bark", "Meow"), {})
    assert found.clips.to_dict("split")["data"] == [
        [name, subset, labels, usage, 0, "", str(tmp_path / SUBSET_FOLDERS[subset] / name), row]
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
    pd.testing.assert_frame_equal(zenodo.clips[COLUMNS], kaggle.clips[COLUMNS])
    assert zenodo.clips["group"].tolist() == ["21", "22", "", "23", "24"]


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


def test_test_labels_may_list_more_clips_than_the_submission(tmp_path):
    found = find_clips(make(tmp_path, KAGGLE | {"sample_submission.csv": "fname,Bark,Meow\nu.wav,0,0\n"}))
    assert found.clips["name"].tolist() == ["a.wav", "b.wav", "c.wav", "u.wav"]


def test_a_test_clip_without_a_row_in_the_test_labels_is_refused(tmp_path):
    make(tmp_path, KAGGLE | {"sample_submission.csv": "fname,Bark,Meow\nt.wav,0,0\nv.wav,0,0\n"})
    with pytest.raises(
        DataError, match="sample_submission.csv line 3: 'v.wav' has no row in .*test_labels.csv. Add its labels"
    ):
        find_clips(tmp_path)


def test_a_missing_sample_submission_is_named(tmp_path):
    make(tmp_path, {name: text for name, text in KAGGLE.items() if name != "sample_submission.csv"})
    with pytest.raises(DataError, match="sample_submission.csv: not found. Its header lists the classes"):
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
        ("0,Bark\n1,fname\n", "a class cannot be called 'fname', as other columns have such names. Rename it."),
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


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "table, text, line, message",
    [
        ("train_curated", "fname,label\na.wav,Bark\n", 1, "no column 'labels'.*Did you mean 'label'"),
        ("train_curated", "fname,labels\na.wav,Bark,Meow\n", 2, "the number of fields is 3, but the header has 2"),
        (
            "train_curated",
            "fname,labels\na.wav,Bark\na.wav,Meow\n",
            3,
            "'a.wav' is already in train_curated.csv line 2",
        ),
        ("train_curated", "fname,labels\na.wav,\n", 2, "labels are empty. A curated clip needs at least one"),
        ("train_curated", "fname,labels\na.wav,Brak\n", 2, "unknown label 'Brak'. Did you mean 'Bark'"),
        ("train_curated", 'fname,labels\na.wav,"Bark,Bark"\n', 2, "labels 'Bark,Bark': 'Bark' is listed twice"),
        ("train_curated", "fname,labels\n../a.wav,Bark\n", 2, "file name '../a.wav' is not a plain path"),
        ("train_curated", "fname,labels\n/etc/passwd,Bark\n", 2, "file name '/etc/passwd' is not a plain path"),
        ("train_noisy", "fname,labels\na.wav,Bark\n", 2, "file name 'a.wav' is already in train_curated.csv line 2"),
        ("train_noisy", 'fname,labels\nc.wav,"Bark,meow"\n', 2, "unknown label 'meow'. Did you mean 'Meow'"),
        ("test_labels", "fname,labels\nt.wav,Bark\nu.wav,\n", 3, "labels are empty. A test clip needs"),
        ("test_labels", "fname,labels\nt.wav,Bark\nu.wav,Bork\n", 3, "unknown label 'Bork'. Did you mean 'Bark'"),
        ("test_labels", "fname,labels,usage\nt.wav,Bark,Pubic\nu.wav,Bark,\n", 2, "usage is 'Pubic'. Did you mean"),
        ("sample_submission", "fname,Bark,Meow\nt.wav,0,0\nt.wav,0,0\n", 3, "file name 't.wav' is already in"),
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


def test_spaces_around_labels_are_stripped(tmp_path):
    table = 'fname,labels\na.wav, Bark \nb.wav,"Meow , Bark"\n'
    found = find_clips(make(tmp_path, KAGGLE | {"train_curated.csv": table}))
    assert found.clips["labels"].tolist()[:2] == ["Bark", "Meow,Bark"]


# The real tables, with empty files for the audio


@pytest.fixture(scope="module")
def real_sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("fsdkaggle2019")
    kaggle, zenodo = root / "kaggle", root / "zenodo"
    shutil.copytree(REAL, zenodo / "FSDKaggle2019.meta")
    names = {}
    for folder in SUBSET_FOLDERS.values():
        with open(REAL / f"{folder}_post_competition.csv", newline="") as file:
            rows = sorted((row["fname"], row["labels"]) for row in csv.DictReader(file))
        audio = zenodo / f"FSDKaggle2019.audio_{folder}"
        audio.mkdir()
        names[folder] = [name for name, _ in rows]
        for name in names[folder]:
            (audio / name).touch()
        (kaggle / folder).parent.mkdir(exist_ok=True)
        (kaggle / folder).symlink_to(audio)
        with open(kaggle / f"{folder}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("fname", "labels"), *rows])
    (kaggle / "test.csv").unlink()
    shutil.copy(REAL / "test_post_competition.csv", kaggle)
    vocabulary = [line.split(",", 1)[1] for line in (REAL / "vocabulary.csv").read_text().splitlines()]
    with open(kaggle / "sample_submission.csv", "w", newline="") as file:
        csv.writer(file).writerows([("fname", *vocabulary), *((name, *[0] * 80) for name in names["test"])])
    return kaggle, zenodo


@needs_the_real_tables
def test_the_real_tables_have_the_published_numbers(real_sources):
    start = time.process_time()
    found = find_clips(real_sources[1])
    assert time.process_time() - start < 5
    clips = found.clips
    curated, noisy, test = (clips[clips["subset"] == subset] for subset in SUBSET_FOLDERS)
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
    pd.testing.assert_frame_equal(kaggle.clips[COLUMNS], zenodo.clips[COLUMNS])
    assert kaggle.vocabulary == zenodo.vocabulary and kaggle.excluded == zenodo.excluded


@needs_the_real_tables
def test_the_real_table_of_clips_survives_clips_csv(real_sources, tmp_path):
    clips = find_clips(real_sources[0]).clips
    write_clips(tmp_path / "clips.csv", clips)
    read = read_clips(tmp_path / "clips.csv").sort_values("name", ignore_index=True)
    pd.testing.assert_frame_equal(read, clips.drop(columns=["path", "row"]))
