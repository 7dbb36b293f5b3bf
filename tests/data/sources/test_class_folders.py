import pytest
from source_folders import COLUMNS, FOLDERS, make

from audiotag.data.sources import find_clips
from audiotag.errors import DataError


def test_each_folder_is_a_class(tmp_path):
    found = find_clips(
        make(tmp_path, FOLDERS | dict.fromkeys(["dog/notes.txt", "dog/.hidden.wav", ".git/x.wav", "README.md"]))
    )
    assert (found.layout, found.vocabulary) == ("folders", ("dog", "rain"))
    assert found.clips[COLUMNS].values.tolist() == [
        ["dog/1.wav", "curated", "dog", "", 0],
        ["dog/2.FLAC", "curated", "dog", "", 0],
        ["rain/1.mp3", "curated", "rain", "", 0],
    ]


def test_class_folders_may_be_in_folders_of_subsets(tmp_path):
    names = ["train/dog/1.wav", "curated/dog/1.wav", "noisy/rain/1.wav", "test/rain/1.wav", "Validation/dog/1.wav"]
    found = find_clips(make(tmp_path, dict.fromkeys(names)))
    assert dict(zip(found.clips["name"], found.clips["subset"])) == dict(
        zip(names, ["curated", "curated", "noisy", "test", "valid"])
    )
    assert found.vocabulary == ("dog", "rain")


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "more, message",
    [
        ("1.wav", "1.wav: expected <label>/<file>, as every folder is a label. Move it, or remove it"),
        ("dog/more/1.wav", "dog/more/1.wav: expected <label>/<file>"),
        ("train/dog/1.wav", "train/dog/1.wav: expected <label>/<file>"),
        ("Male speech, man/1.wav", "the folder 'Male speech, man' has a comma, which separates labels. Rename it"),
        ("do\tg/1.wav", "file name .* is not a plain path"),
        ("do\udcffg/1.wav", "the name 'do.udcffg/1.wav' has bytes that are not UTF-8. Rename it"),
    ],
)
def test_a_file_outside_a_class_folder_is_refused(tmp_path, more, message):
    make(tmp_path, FOLDERS | {more: None})
    with pytest.raises(DataError, match=message):
        find_clips(tmp_path)


def test_a_file_in_a_subset_but_outside_a_class_folder_is_refused(tmp_path):
    make(tmp_path, dict.fromkeys(["train/dog/1.wav", "train/rain/1.wav", "test/1.wav"]))
    with pytest.raises(DataError, match="test/1.wav: expected <subset>/<label>/<file>"):
        find_clips(tmp_path)


def test_files_of_other_types_are_counted_per_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    names = ["dog/talk.m4a", "dog/walk.m4a", "rain/x.webm", "rain/y.mid", "notes.txt"]
    found = find_clips(make(tmp_path, FOLDERS | dict.fromkeys(names)))
    assert len(found.clips) == 3
    with_ffmpeg = "Install ffmpeg to read them, or convert them, for example to FLAC."
    assert sorted(found.notes) == [
        f"{tmp_path}/dog: 2 .m4a files are not read. {with_ffmpeg}",
        f"{tmp_path}/rain: 1 .mid files are not read. Convert them, for example to FLAC.",
        f"{tmp_path}/rain: 1 .webm files are not read. {with_ffmpeg}",
    ]


def test_with_ffmpeg_more_files_are_clips(tmp_path, monkeypatch):
    make(tmp_path, FOLDERS | {"dog/talk.m4a": None, "bin/ffmpeg": "", "bin/.x": None})
    (tmp_path / "bin").rename(tmp_path.with_suffix(".bin"))
    (tmp_path.with_suffix(".bin") / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path.with_suffix(".bin")))
    assert "dog/talk.m4a" in set(find_clips(tmp_path).clips["name"])


def test_folders_of_folds_are_folds(tmp_path):
    found = find_clips(make(tmp_path, dict.fromkeys(["fold1/dog/a.wav", "fold2/dog/b.wav", "Fold 3/rain/c.wav"])))
    assert found.clips[["labels", "fold"]].values.tolist() == [["rain", 3], ["dog", 1], ["dog", 2]]


@pytest.mark.check("C5")
def test_a_class_folder_without_recordings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    make(tmp_path, FOLDERS | {"phone/talk.m4a": None})
    with pytest.raises(
        DataError, match=r"phone: no recordings that audiotag reads, only files such as 'phone/talk.m4a'"
    ):
        find_clips(tmp_path)


def test_a_class_of_test_clips_only_is_refused(tmp_path):
    make(tmp_path, dict.fromkeys(["train/dog/1.wav", "train/rain/1.wav", "test/dogs/1.wav"]))
    with pytest.raises(DataError, match="test/dogs/1.wav: unknown label 'dogs'. Did you mean 'dog'"):
        find_clips(tmp_path)
