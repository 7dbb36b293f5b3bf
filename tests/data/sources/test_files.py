import ntpath
import os
import shutil
import sys
import unicodedata

import pytest
from source_folders import FOLDERS, KAGGLE, make

from audiotag.data.sources import find_clips
from audiotag.data.sources.files import is_inside
from audiotag.errors import DataError
from audiotag.inference.event_labels import subpath


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


def test_audio_that_no_table_lists_is_ignored(tmp_path):
    more = ["train_curated/z.wav", "train_curated/._a.wav", "train_curated/more/z.wav", "notes.txt"]
    make(tmp_path, KAGGLE | dict.fromkeys(more))
    assert len(find_clips(tmp_path).clips) == 5


@pytest.mark.check("C6")
@pytest.mark.parametrize("kind", ["folder", "fifo", "broken link", "hidden"])
def test_anything_but_a_regular_file_counts_as_absent(tmp_path, kind):
    make(
        tmp_path,
        KAGGLE
        | {"train_curated.csv": "fname,labels\n.a.wav,Bark\n" if kind == "hidden" else "fname,labels\na.wav,Bark\n"},
    )
    path = tmp_path / "train_curated" / "a.wav"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "broken link":
        path.symlink_to("nowhere.wav")
    else:
        path.with_name(".a.wav").touch()
    with pytest.raises(DataError, match="1 of 1 clips are not there: '.?a.wav'"):
        find_clips(tmp_path)


@pytest.mark.check("C6")
def test_a_link_out_of_the_folder_is_refused(tmp_path):
    make(tmp_path, {"canary.wav": None})
    source = make(tmp_path / "data", KAGGLE)
    path = source / "train_curated" / "a.wav"
    path.unlink()
    path.symlink_to(tmp_path / "canary.wav")
    with pytest.raises(
        DataError, match="train_curated.csv line 2: 'a.wav' is a link that leads out of .*Put the file itself there"
    ):
        find_clips(source)


def test_a_link_inside_the_folder_and_a_linked_folder_of_audio_are_accepted(tmp_path):
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
    with pytest.raises(DataError, match="has two files .* in different Unicode forms. Remove one"):
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


@pytest.mark.parametrize("layout", ["folders", "esc"])
def test_folders_without_audio_are_refused(tmp_path, layout):
    with pytest.raises(DataError, match="no audio in its folders. Expected files that end in .wav, .flac"):
        find_clips(make(tmp_path, {"dog/notes.txt": None}), layout=layout)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "aif", "WAV"])
def test_every_audio_suffix_is_found(tmp_path, suffix):
    assert len(find_clips(make(tmp_path, dict.fromkeys([f"dog/1.{suffix}", f"cat/1.{suffix}"]))).clips) == 2


@pytest.mark.check("C6")
def test_another_drive_of_windows_is_outside(monkeypatch):
    folders = {r"C:\calls\north", r"D:\rain"}
    with monkeypatch.context() as patch:
        patch.setattr(os, "path", ntpath)
        assert not is_inside(r"D:\sounds\1.wav", r"C:\sounds") and is_inside(r"C:\sounds\1.wav", r"C:\sounds")
        places = [subpath(path, folders) for path in (r"C:\calls\north\1.wav", r"D:\rain\1.wav")]
    assert places == [r"C\calls\north\1.wav", r"D\rain\1.wav"]


def test_a_linked_folder_is_not_followed(tmp_path):
    make(tmp_path, {"outside/1.wav": None})
    source = make(tmp_path / "data", FOLDERS)
    (source / "cat").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="data/cat: a link to a folder, and such links are not followed"):
        find_clips(source)


@pytest.mark.check("A13")
@pytest.mark.parametrize("target", ["../store/cats", "../store/link", "{}/store/cats"])
def test_a_linked_folder_below_a_named_folder_is_followed(tmp_path, target):
    source = make(tmp_path / "data", {"cat/1.wav": None, "dog/1.wav": None})
    before = find_clips(source).clips
    (tmp_path / "store").mkdir()
    (source / "cat").replace(tmp_path / "store" / "cats")
    (tmp_path / "store" / "link").symlink_to("cats")
    (source / "cat").symlink_to(target.format(tmp_path))
    for refused in (tmp_path / "store2", tmp_path / "store" / "other"):
        refused.mkdir()
        with pytest.raises(DataError, match=r"data/cat: a link to a folder, .* make-records --follow-links FOLDER\."):
            find_clips(source, follow_links=refused)
    assert find_clips(source, follow_links=tmp_path / "store").clips.equals(before)


@pytest.mark.check("A13")
@pytest.mark.parametrize("target", ["..", ".", "../cat", "../dog"])
def test_linked_folders_in_a_circle_are_refused(tmp_path, target):
    source = make(tmp_path / "data", {"cat/1.wav": None, "dog/1.wav": None})
    (source / "cat" / "loop").symlink_to(target)
    (source / "dog" / "back").symlink_to("../cat")
    with pytest.raises(DataError, match="(loop|back): a link to a folder, and such links are not followed"):
        find_clips(source, follow_links=source)


# Folder of the files, and from each link in data/train_curated/ to its file.
STORES = {
    "git-annex": ("data/.git/annex/objects", "../.git/annex/objects/Zk/0w/SHA256E-s4--1.wav/SHA256E-s4--1.wav"),
    "DVC": ("cache/dvc/files", "{}/cache/dvc/files/md5/ab/1f"),
    "Hugging Face": ("hub/blobs", "../../hub/blobs/9f86d0"),
    "a link to a link": ("store", "../../store/link"),
}


def link_into(store, source, target):
    """Replaces a.wav of a source in Kaggle's layout by a link to a file elsewhere; the path of the link."""
    link = source / "train_curated" / "a.wav"
    target = link.parent / target.format(source.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    link.replace(target.with_name("real") if target.name == "link" else target)
    if target.name == "link":
        target.symlink_to("real")
    link.symlink_to(target if store == "DVC" else os.path.relpath(target, link.parent))
    return link


@pytest.mark.check("A13")
@pytest.mark.parametrize("store", STORES)
def test_links_below_a_named_folder_are_followed(tmp_path, store):
    folder, target = STORES[store]
    source = make(tmp_path / "data", KAGGLE)
    before = find_clips(source).clips
    link = link_into(store, source, target)
    with pytest.raises(DataError, match=r"'a.wav' is a link that leads out of .*make-records --follow-links FOLDER\."):
        find_clips(source)
    for root in (tmp_path / folder, f"{tmp_path}/{folder}/", tmp_path / "data" / ".." / folder, tmp_path):
        found = find_clips(source, follow_links=root).clips
        assert found["path"][0] == str(link) and found.equals(before)  # the records will have the same fingerprint
    (tmp_path / "root").symlink_to(folder)
    assert find_clips(source, follow_links=tmp_path / "root").clips.equals(before)


@pytest.mark.check("A13")
@pytest.mark.parametrize(
    ("target", "root", "message"),
    [
        (
            "../../elsewhere/1",
            "store",
            "'a.wav' is a link that leads out of .*train_curated and .*store, to .*elsewhere/1",
        ),
        ("../../store2/1", "store", "leads out of .* and .*store, to .*store2/1"),
        ("../../store/../elsewhere/1", "store", "leads out of .*, to .*elsewhere/1"),
        ("../../elsewhere/1", "nowhere", "nowhere: there is no such folder. Expected one to which links of .*data may"),
        ("../../elsewhere/1", "store/file", "store/file: there is no such folder"),
    ],
)
def test_links_to_other_places_stay_refused(tmp_path, target, root, message):
    source = make(tmp_path / "data", KAGGLE)
    make(tmp_path, {"store/file": None})
    link_into("", source, target)
    with pytest.raises(DataError, match=message):
        find_clips(source, follow_links=tmp_path / root)


@pytest.mark.check("A13")
def test_a_link_out_of_the_named_folder_is_not_followed(tmp_path):
    source = make(tmp_path / "data", KAGGLE)
    make(tmp_path, {"secret/1": None, "store/file": None})
    (tmp_path / "store" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "store" / "more").symlink_to(tmp_path / "secret" / "1")
    for target in ("store/out/1", "store/more"):
        link = source / "train_curated" / "a.wav"
        link.unlink()
        link.symlink_to(tmp_path / target)
        with pytest.raises(DataError, match="leads out of .*, to .*secret/1"):
            find_clips(source, follow_links=tmp_path / "store")


@pytest.mark.check("A13")
def test_links_to_missing_files_and_to_themselves_stay_refused(tmp_path):
    source = make(tmp_path / "data", FOLDERS)
    make(tmp_path, {"store/cat/1.wav": None})
    (source / "dog" / "1.wav").unlink()
    for target in ("1.wav", tmp_path / "store" / "gone.wav"):
        (source / "dog" / "1.wav").symlink_to(target)
        with pytest.raises(DataError, match="1 of . clips are not there: 'dog/1.wav'"):
            find_clips(source, follow_links=tmp_path / "store")
        (source / "dog" / "1.wav").unlink()
