import shutil
from pathlib import Path

import pandas as pd
import pytest
from source_folders import COLUMNS, KAGGLE2018, META2018, ZENODO2018, make

from audiotag.data.clips import read_clips, write_clips
from audiotag.data.sources import find_clips
from audiotag.data.sources.fsdkaggle2018 import KNOWN_BAD
from audiotag.errors import DataError

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "fsdkaggle2018"
needs_the_real_tables = pytest.mark.skipif(
    not REAL.is_dir(), reason="the tables of FSDKaggle2018 are not beside the project"
)
TRAIN, TEST, SAMPLE = "train.csv", "test_post_competition.csv", "sample_submission.csv"


def test_kaggles_layout_is_read(tmp_path):
    found = find_clips(make(tmp_path, KAGGLE2018))
    assert (found.layout, found.vocabulary, found.excluded) == ("kaggle2018", ("Hi-hat", "Meow"), {})
    assert found.clips.to_dict("split")["data"] == [
        [name, subset, label, usage, 0, group, str(tmp_path / folder / name), row]
        for name, subset, label, usage, group, folder, row in [
            ("a.wav", "curated", "Hi-hat", "", "", "audio_train", "train.csv line 2"),
            ("b.wav", "noisy", "Meow", "", "", "audio_train", "train.csv line 3"),
            ("c.wav", "curated", "Meow", "", "", "audio_train", "train.csv line 4"),
            ("t.wav", "test", "Hi-hat", "Public", "32", "audio_test", "test_post_competition.csv line 2"),
            ("u.wav", "test", "Meow", "Private", "33", "audio_test", "test_post_competition.csv line 4"),
        ]
    ]


def test_both_layouts_of_the_same_clips_give_the_same_table(tmp_path):
    kaggle, zenodo = find_clips(make(tmp_path / "k", KAGGLE2018)), find_clips(make(tmp_path / "z", ZENODO2018))
    assert zenodo.layout == "zenodo2018" and zenodo.vocabulary == kaggle.vocabulary
    pd.testing.assert_frame_equal(zenodo.clips[COLUMNS], kaggle.clips[COLUMNS])
    assert zenodo.clips["group"].tolist() == ["21", "22", "23", "32", "33"]


def test_the_table_of_training_clips_that_was_published_later_is_preferred(tmp_path):
    later = {"train_post_competition.csv": ZENODO2018[META2018 + "train_post_competition.csv"]}
    found = find_clips(make(tmp_path, KAGGLE2018 | later))
    assert found.layout == "kaggle2018" and found.clips["group"].tolist() == ["21", "22", "23", "32", "33"]


def test_without_test_labels_the_submission_names_the_test_clips(tmp_path):
    found = find_clips(make(tmp_path, {name: text for name, text in KAGGLE2018.items() if name != TEST}))
    test = found.clips[found.clips["subset"] == "test"]
    assert test[["name", "labels", "usage", "row"]].values.tolist() == [
        [f"{name}.wav", "", "", f"sample_submission.csv line {line}"] for line, name in enumerate("ptu", start=2)
    ]


@pytest.mark.parametrize("dataset", [KAGGLE2018, ZENODO2018])
def test_test_audio_may_be_left_out(tmp_path, dataset):
    found = find_clips(make(tmp_path, {name: text for name, text in dataset.items() if "audio_test/" not in name}))
    assert found.clips["subset"].tolist() == ["curated", "noisy", "curated"]


@pytest.mark.parametrize("dataset", [KAGGLE2018, ZENODO2018])
def test_folders_without_their_tables_are_not_read_as_classes(tmp_path, dataset):
    make(tmp_path, {name: text for name, text in dataset.items() if not name.endswith(".csv")})
    with pytest.raises(DataError, match=r"train.csv: cannot be read: No such file"):
        find_clips(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "without", "message"),
    [
        (ZENODO2018, META2018 + "test_post_competition_scoring_clips.csv", "scoring_clips.csv: not found. It lists"),
        (KAGGLE2018, SAMPLE, "neither test_post_competition_scoring_clips.csv nor test_post_competition.csv nor "),
    ],
)
def test_test_audio_without_its_table_is_refused(tmp_path, dataset, without, message):
    make(tmp_path, {name: text for name, text in dataset.items() if name not in (without, TEST)})
    with pytest.raises(DataError, match=message):
        find_clips(tmp_path)


def test_training_audio_may_not_be_left_out(tmp_path):
    make(tmp_path, {name: text for name, text in KAGGLE2018.items() if "audio_train/" not in name})
    with pytest.raises(DataError, match="audio_train: there is no such folder. Expected the audio of 2 clips in it"):
        find_clips(tmp_path)


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    ("table", "text", "line", "message"),
    [
        (TRAIN, "fname,label,manually_verified\na.wav,Meow,yes\n", 2, "manually_verified is 'yes'. Expected 1 or 0"),
        (TRAIN, "fname,labels,manually_verified\na.wav,Meow,1\n", 1, "no column 'label'.*Did you mean 'labels'"),
        (TRAIN, 'fname,label,manually_verified\na.wav,"Meow,Bark",1\n', 2, "label is 'Meow,Bark'. Expected one class"),
        (TRAIN, "fname,label,manually_verified\na.wav,,1\n", 2, "labels are empty"),
        (TRAIN, "fname,label,manually_verified\na.wav,Meow,1\na.wav,Meow,0\n", 3, "'a.wav' is already in train.csv"),
        (TEST, "fname,label,usage\nt.wav,None,Public\n", 2, "label is 'None' and usage 'Public'. Expected the label"),
        (TEST, "fname,label,usage\nt.wav,Meow,Ignored\n", 2, "label is 'Meow' and usage 'Ignored'"),
        (TEST, "fname,label,usage\nt.wav,Meow,Pubic\n", 2, "usage is 'Pubic'. Did you mean 'Public'"),
        (TEST, "fname,label,usage\nt.wav,Mow,Public\n", 2, "unknown label 'Mow'. Did you mean 'Meow'"),
        (TEST, "fname,label\nt.wav,Meow\n", 1, "no column 'usage'"),
    ],
)
def test_a_bad_table_names_its_file_line_and_value(tmp_path, table, text, line, message):
    make(tmp_path, KAGGLE2018 | {table: text})
    with pytest.raises(DataError, match=f"{table} line {line}: .*{message}"):
        find_clips(tmp_path)


def test_test_clips_none_of_which_is_scored_are_refused(tmp_path):
    make(tmp_path, KAGGLE2018 | {TEST: "fname,label,usage\np.wav,None,Ignored\n"})
    with pytest.raises(DataError, match=f"{TEST}: no clip is scored"):
        find_clips(tmp_path)


# The real tables, with empty files for the audio


def real_tables():
    return [pd.read_csv(REAL / f"{kind}_post_competition.csv", dtype=str, keep_default_na=False) for kind in
            ("train", "test")]  # fmt: skip


@pytest.fixture(scope="module")
def real_sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("fsdkaggle2018")
    kaggle, zenodo = root / "kaggle", root / "zenodo"
    train, test = real_tables()
    for names, folder in ((train["fname"], "audio_train"), (test["fname"], "audio_test")):
        audio = zenodo / f"FSDKaggle2018.{folder}"
        audio.mkdir(parents=True)
        for name in names:
            (audio / name).touch()
        kaggle.mkdir(exist_ok=True)
        (kaggle / folder).symlink_to(audio)
    train[["fname", "label", "manually_verified"]].to_csv(kaggle / TRAIN, index=False)
    shutil.copy(REAL / TEST, kaggle)
    test[["fname"]].assign(label="Laughter Hi-Hat Flute").to_csv(kaggle / SAMPLE, index=False)
    meta = zenodo / "FSDKaggle2018.meta"
    meta.mkdir()
    shutil.copy(REAL / "train_post_competition.csv", meta)
    scored = test[test["usage"] != "Ignored"]
    scored.to_csv(meta / "test_post_competition_scoring_clips.csv", index=False)
    return kaggle, zenodo


@needs_the_real_tables
def test_the_real_tables_have_the_published_numbers(real_sources):
    found = find_clips(real_sources[1])
    clips = found.clips
    curated, noisy, test = (clips[clips["subset"] == subset] for subset in ("curated", "noisy", "test"))
    assert len(curated) + len(noisy) == 9_473 and len(curated) == 3_710
    assert len(found.vocabulary) == 41 and list(found.vocabulary) == sorted(found.vocabulary)
    assert test["usage"].value_counts().to_dict() == {"Private": 1_299, "Public": 301}
    per_class = curated["labels"].value_counts()
    assert (per_class.min(), per_class.max()) == (59, 256)
    assert noisy["labels"].value_counts().min() == 2  # Gunshot_or_gunfire
    assert not clips["labels"].str.contains(",").any()


@needs_the_real_tables
def test_both_layouts_of_the_real_tables_agree(real_sources, tmp_path):
    kaggle, zenodo = map(find_clips, real_sources)
    assert (kaggle.layout, zenodo.layout) == ("kaggle2018", "zenodo2018")
    pd.testing.assert_frame_equal(kaggle.clips[COLUMNS], zenodo.clips[COLUMNS])
    assert kaggle.vocabulary == zenodo.vocabulary and kaggle.excluded == {}
    write_clips(tmp_path / "clips.csv", zenodo.clips)
    read = read_clips(tmp_path / "clips.csv").sort_values("name", ignore_index=True)
    pd.testing.assert_frame_equal(read, zenodo.clips.drop(columns=["path", "row"]))


@needs_the_real_tables
def test_the_clips_without_audio_are_excluded_where_nothing_says_that_they_are_not_scored(real_sources, tmp_path):
    train, test = real_tables()
    assert set(KNOWN_BAD) <= set(test["fname"][test["usage"] == "Ignored"])
    for path in real_sources[0].iterdir():
        (tmp_path / path.name).symlink_to(path.resolve())
    (tmp_path / TEST).unlink()
    found = find_clips(tmp_path)
    assert (found.clips["subset"] == "test").sum() == 9_400 and found.excluded == KNOWN_BAD
