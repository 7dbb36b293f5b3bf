import os
import re

import pytest

from audiotag.errors import DataError
from audiotag.inference.inputs import find_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with files in folders."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.wav", "b/10.WAV", "b/deep/3.flac", "b/notes.txt", "b/.hidden.wav", "a.ogg", "[1].wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "lines", "found"),
    [
        (["b"], [], ["b/10.WAV", "b/2.wav", "b/deep/3.flac"]),
        (["a.ogg", "b/2.wav", "b", "a.ogg"], [], ["a.ogg", "b/2.wav", "b/10.WAV", "b/deep/3.flac"]),
        (["b/**/*.flac", "*.ogg"], [], ["b/deep/3.flac", "a.ogg"]),
        (["b/*"], [], ["b/10.WAV", "b/2.wav", "b/notes.txt"]),
        (["[1].wav"], [], ["[1].wav"]),
        (["-"], ["a.ogg\n", "\n", "b/deep\r\n", "[2].wav"], ["a.ogg", "b/deep/3.flac", "[2].wav"]),
        (["nowhere.wav", "b/notes.txt"], [], ["nowhere.wav", "b/notes.txt"]),
    ],
)
def test_files_folders_patterns_and_a_list(folder, given, lines, found):
    assert find_files(given, lines) == found


def test_a_link_to_a_folder_above_does_not_loop(folder):
    os.symlink(folder, folder / "b" / "up")
    assert find_files(["b"]) == ["b/10.WAV", "b/2.wav", "b/deep/3.flac"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["*.mp3"], "*.mp3: no file matches this pattern."),
        (["-"], "there are no files to predict. Expected files, or folders with some, that end in ."),
    ],
)
def test_nothing_to_predict_is_an_error(folder, given, message):
    with pytest.raises(DataError, match=re.escape(message)):
        find_files(given)


@pytest.mark.parametrize("installed", [True, False])
def test_what_ffmpeg_decodes_counts_if_it_is_installed(tmp_path, monkeypatch, installed):
    monkeypatch.setattr("audiotag.data.audio.ffmpeg.is_installed", lambda: installed)
    for name in ("a.wav", "b.m4a"):
        (tmp_path / name).touch()
    assert find_files([str(tmp_path)]) == [str(tmp_path / name) for name in ("a.wav", "b.m4a")[: 1 + installed]]
