"""Folders and tables that could be misread: each is read as its author meant it, or refused with the way out."""

import pytest
from source_folders import FOLDERS, KAGGLE2018, PLAIN, make

from audiotag.data.sources import find_clips
from audiotag.data.sources.class_names import read_vocabulary_file, resolve
from audiotag.errors import ConfigError, DataError

SIX = [f"audio/{name}.wav" for name in "abcdef"]


def table(text, *, name="train.csv", audio=SIX, **more):
    return {name: text, **dict.fromkeys(audio), **more}


def labels_of(found):
    return dict(zip(found.clips["name"], found.clips["labels"]))


# Splits and folds as class names


@pytest.mark.check("C5", 12)
@pytest.mark.parametrize(
    "names",
    [
        ["train/a.wav", "val/b.wav", "test/c.wav"],
        ["Training/a.wav", "Validation/b.wav", "Testing/c.wav"],
        ["dev/a.wav", "eval/b.wav"],
        ["fold1/a.wav", "fold2/b.wav", "Fold_10/c.wav"],
        ["split-1/a.wav", "split-2/b.wav"],
        ["wav_train/a.wav", "wav_test/b.wav"],
        ["sounds.train/a.wav", "sounds.eval/b.wav"],
        ["mine_train_audio/a.wav", "mine_test_audio/b.wav"],
        ["train/a.wav"],
        ["audio/a.wav", "audio/b.wav"],
        ["train/a.wav", "test/b.wav", "extra/c.wav"],
        ["curated/a.wav", "noisy/b.wav"],
    ],
)
@pytest.mark.parametrize("layout", ["auto", "folders"])
def test_splits_folds_and_folders_of_audio_are_no_classes(tmp_path, names, layout):
    message = (
        "the classes would be .*: names of splits, folds or folders, not of sounds. Put one folder per class inside"
    )
    with pytest.raises(DataError, match=message):
        find_clips(make(tmp_path, dict.fromkeys(names)), layout=layout)


@pytest.mark.parametrize(
    "names",
    [["train/a.wav", "car/b.wav"], ["train_horn/a.wav", "train_passing/b.wav"], ["test tone/a.wav", "hum/b.wav"]],
)
def test_such_words_may_be_sounds_among_others(tmp_path, names):
    assert len(find_clips(make(tmp_path, dict.fromkeys(names))).vocabulary) == 2


def test_a_vocabulary_file_makes_any_word_a_class(tmp_path):
    source = make(tmp_path / "data", dict.fromkeys(["train/a.wav", "test/b.wav"]))
    make(tmp_path, {"classes.txt": "train\ntest\n"})
    assert find_clips(source, vocabulary=tmp_path / "classes.txt").vocabulary == ("train", "test")


# Tables nearby


@pytest.mark.check("C5", 6)
@pytest.mark.parametrize(
    "more",
    [
        {"labels.tsv": "file\tlabel\n1.wav\tBark\n"},
        {"meta/labels.csv": "id;class\ndog/1.wav;Bark\n"},
        {"annotations.json": '{"dog/1.wav": "Bark"}'},
        {"list.jsonl": '{"audio": "x/1.wav", "label": "Bark"}\n'},
        {"meta/train.txt": "dog/1.wav Bark\nrain/1.mp3,Rain\n"},
        {"labels.xlsx": b"PK\3\4"},
    ],
)
def test_a_table_that_lists_the_recordings_of_class_folders_is_not_passed_over(tmp_path, more):
    source = make(tmp_path, FOLDERS | more)
    with pytest.raises(
        DataError,
        match="may be a table of labels, and is not read.*--layout folders|no recordings that|choose the layout",
    ):
        find_clips(source)
    if not any("/" in name for name in more):
        assert find_clips(source, layout="folders").vocabulary == ("dog", "rain")


def test_a_table_above_the_class_folders_is_not_passed_over(tmp_path):
    source = make(tmp_path / "audio", FOLDERS)
    make(tmp_path, {"labels.csv": "file,label\n2.FLAC,Bark\n"})
    with pytest.raises(DataError, match="labels.csv: may be a table of labels, and is not read"):
        find_clips(source)
    for text in ("price,date\n2,3\n", "fname,Bark,Bark logit\n2.FLAC,1,9\n", "clip,labels,weight\ndog/2.FLAC,Bark,1\n"):
        make(tmp_path, {"labels.csv": text})
        assert find_clips(source).layout == "folders"


def test_numbered_folders_with_names_of_esc_are_not_esc10(tmp_path):
    names = ["301 - Crying baby/1-22694-A.ogg", "302 - Sneezing/1-26143-A.ogg"]
    found = find_clips(make(tmp_path, dict.fromkeys(names)))
    assert (found.layout, found.vocabulary) == ("folders", ("301 - Crying baby", "302 - Sneezing"))
    assert "--layout esc" in found.notes[0]
    assert find_clips(tmp_path, layout="esc").vocabulary == ("Crying baby", "Sneezing")


# Columns of a table


@pytest.mark.check("C5", 6)
@pytest.mark.parametrize("column", ["split", "set", "partition", "Split"])
@pytest.mark.parametrize(
    "words, subsets",
    [
        ("train train test val", "curated curated test valid"),
        ("Training training TEST validation", "curated curated test valid"),
        ("dev dev eval eval", "curated curated test test"),
        ("train train dev test", "curated curated valid test"),
    ],
)
def test_a_column_of_splits_gives_the_subsets(tmp_path, column, words, subsets):
    rows = "".join(f"{name}.wav,Bark,{word},CC0\n" for name, word in zip("abcd", words.split()))
    found = find_clips(make(tmp_path, table(f"fname,labels,{column},license\n{rows}")))
    assert found.clips["subset"].tolist() == subsets.split()
    assert any(f"the column {column} gives the subsets: " in note for note in found.notes)
    assert any(note.endswith("columns that are not used: license.") for note in found.notes)


@pytest.mark.check("C5", 4)
@pytest.mark.parametrize(
    "text, message",
    [
        (
            "fname,labels,split\na.wav,Bark,1\nb.wav,Bark,2\n",
            "line 2: split is '1'. Expected train, validation or test. ",
        ),
        ("fname,labels,set\na.wav,Bark,train\nb.wav,Bark,\n", "line 3: set is ''. Expected train"),
        (
            "fname,labels,split,subset\na.wav,Bark,train,noisy\n",
            "the columns split and subset both name a subset. Keep",
        ),
        (
            "fname,labels,fold\na.wav,Bark,0\nb.wav,Bark,1\nc.wav,Bark,2\n",
            "the folds are 0 to 2. Expected numbers from 1",
        ),
    ],
)
def test_a_column_that_cannot_be_honored_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        find_clips(make(tmp_path, table(text)))


@pytest.mark.parametrize("folds", ["1 2 3", "1.0 2.0 3.0", "fold1 fold2 fold3", "Fold 1,Fold 2,Fold 3"])
def test_folds_are_numbers_in_any_spelling(tmp_path, folds):
    folds = folds.split("," if "," in folds else " ")
    rows = "".join(f"{name}.wav,Bark,{fold}\n" for name, fold in zip("abc", folds))
    assert find_clips(make(tmp_path, table(f"fname,labels,fold\n{rows}"))).clips["fold"].tolist() == [1, 2, 3]


def test_a_subset_that_no_experiment_trains_on_is_named(tmp_path):
    found = find_clips(make(tmp_path, table("fname,labels,subset\na.wav,Bark,train\nb.wav,Rain,train\n")))
    assert any("The subsets are train, and experiments train on curated by default" in note for note in found.notes)


def test_clips_without_labels_are_examples_of_no_class_and_counted(tmp_path):
    found = find_clips(make(tmp_path, table("fname,labels\na.wav,Bark\nb.wav,\nc.wav, \n")))
    assert labels_of(found) == {"a.wav": "Bark", "b.wav": "", "c.wav": ""}
    assert "Clips without labels: 2. They are examples of no class." in found.notes


# Separators, brackets, commas and spellings


@pytest.mark.check("C5", 10)
@pytest.mark.parametrize(
    "label, message",
    [
        ('"Accelerating, revving, vroom"', "one name of AudioSet, whose names have commas"),
        ('"Bark,Male speech, man speaking"', "one name of AudioSet"),
        ("\"['Bark', 'Dog']\"", "look like a list written by a program. Write .* as 'Bark,Dog'"),
        ('"[""Bark""]"', "look like a list"),
        ("\"('Bark', 'Dog')\"", "look like a list"),
        ('"{Bark,Dog}"', "look like a list"),
        ("Bark;Dog", "';' may separate several labels, or be part of one name. .* write 'Bark,Dog'"),
        ("Bark; Dog", "';' may separate"),
        ("Bark|Dog", "'.' may separate .* write 'Bark,Dog'"),
        ("Bark | Dog | Rain", "write 'Bark,Dog,Rain'"),
    ],
)
def test_labels_that_may_be_several_are_asked_about(tmp_path, label, message):
    with pytest.raises(DataError, match=f"train.csv line 3: labels .*{message}.*--vocabulary"):
        find_clips(make(tmp_path, table(f"fname,labels\na.wav,Bark\nb.wav,{label}\n")))


@pytest.mark.parametrize("labels", ['"Bark, Rain"', '"dog, cat"', "Frying_(food)", "Hi-hat", "C#", "Bird (song)"])
def test_plain_labels_are_not_asked_about(tmp_path, labels):
    assert find_clips(make(tmp_path, table(f"fname,labels\na.wav,{labels}\n"))).clips.shape[0] == 1


@pytest.mark.check("C5", 4)
@pytest.mark.parametrize("pair", [("Bark", "bark"), ("Dog bark", "Dog_bark"), ("RAIN", "Rain"), ("Hi-hat", "hi hat")])
def test_classes_in_two_spellings_are_refused(tmp_path, pair):
    message = f"the classes '{min(pair)}' and '{max(pair)}' differ only in upper and lower case, spaces or underscores"
    with pytest.raises(DataError, match=message):
        find_clips(make(tmp_path / "table", table(f"fname,labels\na.wav,{pair[0]}\nb.wav,{pair[1]}\n")))
    with pytest.raises(DataError, match=message):
        find_clips(make(tmp_path / "folders", dict.fromkeys(f"{name}/1.wav" for name in pair)))


VOCABULARY = 'Bark\nAccelerating, revving, vroom\n"Male speech, man speaking"\nDog;cat\n'


@pytest.mark.parametrize(
    "label, meant",
    [
        ('"Accelerating, revving, vroom"', "Accelerating and revving and vroom"),
        ('"bark,Male speech, man speaking"', "Bark,Male speech and man speaking"),
        ("\"['Bark', 'Accelerating, revving, vroom']\"", "Bark,Accelerating and revving and vroom"),
        ("BARK", "Bark"),
        ("Dog;cat", "Dog;cat"),
        ("", ""),
    ],
)
def test_a_vocabulary_file_settles_what_labels_mean(tmp_path, label, meant):
    source = make(tmp_path / "data", table(f"fname,labels\na.wav,Bark\nb.wav,{label}\n"))
    make(tmp_path, {"classes.txt": VOCABULARY})
    found = find_clips(source, vocabulary=tmp_path / "classes.txt")
    assert labels_of(found)["b.wav"] == meant
    assert found.vocabulary == ("Bark", "Accelerating and revving and vroom", "Male speech and man speaking", "Dog;cat")


def test_a_label_that_the_vocabulary_file_lacks_is_refused(tmp_path):
    source = make(tmp_path / "data", table("fname,labels\na.wav,Bark\nb.wav,Brak;Rain\n"))
    make(tmp_path, {"classes.txt": "Bark\nRain\n"})
    with pytest.raises(DataError, match="line 3: unknown label 'Brak'. Did you mean 'Bark'"):
        find_clips(source, vocabulary=tmp_path / "classes.txt")
    assert resolve("Rain|Bark;Rain", ["Bark", "Rain"]) == "Rain,Bark"


@pytest.mark.parametrize(
    "text",
    ["Bark\nBell, church\n", '0,Bark\n1,"Bell, church"\n', '"Bark"\n"Bell, church"\n']
    + ['index,mid,display_name\n0,/m/1,"Bark"\n1,/m/2,"Bell, church"\n', "\ufeffBark\r\nBell, church\r\n"],
)
def test_a_vocabulary_file_has_several_forms(tmp_path, text):
    make(tmp_path, {"classes.csv": text})
    assert read_vocabulary_file(tmp_path / "classes.csv") == ("Bark", "Bell,church")


@pytest.mark.parametrize("text, message", [("Bark\nBark\n", "listed twice"), ("", "without the name of a class")])
def test_a_bad_vocabulary_file_is_refused(tmp_path, text, message):
    make(tmp_path, {"classes.csv": text})
    with pytest.raises(DataError, match=message):
        read_vocabulary_file(tmp_path / "classes.csv")


# Which folder holds the recordings


@pytest.mark.check("C5", 5)
@pytest.mark.parametrize(
    "more",
    [
        {"__MACOSX/audio/._a.wav": b"x", "__MACOSX/._audio": b"x"},
        {"images/a.png": b"x", "docs/readme.txt": "x"},
        {"more audio/z.wav": None},
        {"part/a.wav": None, "part/b.wav": None},
        {"audio/copies/a.wav": None, ".git/audio/a.wav": None},
    ],
)
def test_the_folder_that_holds_the_listed_files_is_chosen(tmp_path, more):
    rows = "".join(f"{name}.wav,Bark\n" for name in "abcdef")
    found = find_clips(make(tmp_path, table("fname,labels\n" + rows, **more)))
    assert found.clips["name"].tolist() == [f"{name}.wav" for name in "abcdef"]
    assert {path.rpartition("/")[0] for path in found.clips["path"]} == {f"{tmp_path}/audio"}


def test_the_recordings_may_be_some_folders_down(tmp_path):
    source = make(tmp_path, {"t.csv": "fname,labels\na.wav,Bark\n", "data/wav/a.wav": None, "data/z/b.wav": None})
    found = find_clips(source)
    assert found.clips["path"].tolist() == [f"{tmp_path}/data/wav/a.wav"]
    assert found.notes == (f"{tmp_path}/data/z: 1 .wav files are not listed as clips, and are left out.",)


def test_two_folders_with_the_same_recordings_are_not_guessed_between(tmp_path):
    make(tmp_path, PLAIN | dict.fromkeys(["wav/a.wav", "wav/b.wav"]))
    with pytest.raises(DataError, match="the recordings of the table are in 'audio/' and in 'wav/'. Remove one of"):
        find_clips(tmp_path)


@pytest.mark.check("C5", 4)
@pytest.mark.parametrize("listed", ["a", "A.WAV", "A", "a.WAV"])
def test_a_name_without_suffix_or_in_another_case_is_found(tmp_path, listed):
    found = find_clips(make(tmp_path, table(f"fname,labels\n{listed},Bark\nb.wav,Rain\n")))
    assert found.clips["name"].tolist() == ["a.wav", "b.wav"]


def test_a_name_that_fits_two_files_is_refused(tmp_path):
    make(tmp_path, table("fname,labels\na,Bark\n", audio=["audio/a.wav", "audio/a.flac"]))
    with pytest.raises(DataError, match="lists 'a', and there are a.flac and a.wav. Write the name of the file"):
        find_clips(tmp_path)


def test_recordings_and_tables_that_are_not_read_are_counted(tmp_path):
    more = {"test.csv": "file,label\nc.wav,Bark\n", "prices.csv": "x\n1\n", "audio/talk.mid": None}
    found = find_clips(make(tmp_path, table("fname,labels\na.wav,Bark\nb.wav,Rain\n", **more)))
    assert sorted(found.notes) == [
        f"{tmp_path}/audio: 1 .mid files are not read. Convert them, for example to FLAC.",
        f"{tmp_path}/audio: 4 .wav files are not listed as clips, and are left out.",
    ]
    make(tmp_path, {"test.csv": "file,label\na.wav,Bark\n"})
    assert f"{tmp_path}/test.csv: is not read." in find_clips(tmp_path).notes


@pytest.mark.parametrize("names", [{"AUDIO_TRAIN": "audio_train"}, {}])
def test_fsdkaggle2018_is_read_beside_its_sample_submission(tmp_path, names):
    found = find_clips(make(tmp_path, {name: text for name, text in KAGGLE2018.items() if "post" not in name}))
    assert found.layout == "kaggle2018" and found.clips["subset"].value_counts().to_dict() == {
        "test": 3,
        "curated": 2,
        "noisy": 1,
    }


# Groups from names


def test_group_by_finds_the_speaker_in_each_name(tmp_path):
    source = make(tmp_path, dict.fromkeys(["one/ann_1.wav", "one/bob_1.wav", "two/ann_2.wav"]))
    for pattern in (r"/(\w+)_", r"ann|bob", r"(?P<speaker>[a-z]+)_\d"):
        assert find_clips(source, group_by=pattern).clips["group"].tolist() == ["ann", "bob", "ann"]
    assert find_clips(source).clips["group"].tolist() == ["", "", ""]


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("(", "--group-by '.': is no regular expression"),
        ("ann", "finds no group in the name 'one/bob_1.wav'. Expected one in each"),
        ("wav", "all 3 clips are of the group 'wav'. Expected several"),
        ("x*", "finds no group in the name"),
    ],
)
def test_a_bad_group_by_is_refused(tmp_path, pattern, message):
    source = make(tmp_path, dict.fromkeys(["one/ann_1.wav", "one/bob_1.wav", "two/ann_2.wav"]))
    with pytest.raises(ConfigError, match=message):
        find_clips(source, group_by=pattern)


def test_group_by_does_not_replace_groups_of_the_dataset(tmp_path):
    source = make(tmp_path, table("fname,labels,group\na.wav,Bark,1\nb.wav,Bark,2\n"))
    with pytest.raises(ConfigError, match="the dataset has groups of its own, as '1' of 'a.wav'. Leave --group-by out"):
        find_clips(source, group_by="(a|b)")
