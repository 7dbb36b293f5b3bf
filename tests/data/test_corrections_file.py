import threading

import pytest

from audiotag import files
from audiotag.data import corrections_file
from audiotag.data.corrections import read_corrections, write_corrections
from audiotag.data.corrections_file import Conflict, CorrectionsFile, version_of
from audiotag.errors import DataError

VOCABULARY = ("Bark", "Meow")
BARK = {"labels": "Bark", "weight": 1.0, "reason": "", "source": "", "who": "me", "when": "", "why": "changed"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.csv"


@pytest.fixture
def corrections(path):
    return CorrectionsFile(path, VOCABULARY)


def test_a_change_is_in_the_file_and_its_undo_restores_the_bytes(path, corrections):
    assert corrections.replace("2.wav", BARK, version="") is None
    before = path.read_bytes()
    meow = BARK | {"labels": "Meow", "weight": 0.0}
    assert corrections.replace("2.wav", meow, version=version_of(BARK)) == BARK
    assert read_corrections(path, VOCABULARY)["labels"].tolist() == ["Meow"]
    assert corrections.replace("2.wav", BARK, version=version_of(meow)) == meow
    assert path.read_bytes() == before
    corrections.replace("2.wav", None, version=version_of(BARK))
    assert corrections.rows() == CorrectionsFile(path, VOCABULARY).rows() == {}


def test_edits_by_hand_and_columns_of_others_are_kept(path, corrections):
    corrections.replace("2.wav", BARK, version="")
    path.write_text('clip,labels,weight,=note\n2.wav,Bark,1,\n1.wav,Meow,0.5,"two\nlines, ""quoted"""\n')
    row = corrections.rows()["2.wav"]
    corrections.replace("3.wav", BARK, version="")
    table = read_corrections(path, VOCABULARY).set_index("clip")
    assert table["=note"].tolist() == ['two\nlines, "quoted"', "", ""]
    assert table["weight"].tolist() == [0.5, 1.0, 1.0]
    assert corrections.rows()["2.wav"] == row
    write_corrections(path, table.reset_index())  # as fit copies it
    assert read_corrections(path, VOCABULARY)["=note"].tolist() == table["=note"].tolist()


def test_a_row_that_changed_meanwhile_is_shown_and_not_overwritten(path, corrections):
    corrections.replace("1.wav", BARK, version="")
    path.write_text(path.read_text().replace("Bark", "Meow"))
    with pytest.raises(Conflict, match=r"corrections\.csv: the row of clip '1\.wav' was changed meanwhile") as raised:
        corrections.replace("1.wav", BARK, version=version_of(BARK))
    assert raised.value.row["labels"] == "Meow"
    assert "Meow" in path.read_text()
    path.write_text("clip,labels,weight\n1.wav,Brak,1\n")
    with pytest.raises(DataError, match=r"corrections\.csv line 2: unknown label 'Brak'"):
        corrections.replace("2.wav", BARK, version="")
    assert "Brak" in path.read_text()


def test_a_new_file_begins_with_the_rows_of_the_run(path, tmp_path):
    (tmp_path / "start.csv").write_text("clip,labels,weight\n1.wav,Meow,0\n")
    corrections = CorrectionsFile(path, VOCABULARY, start=tmp_path / "start.csv")
    corrections.replace("2.wav", BARK, version="")
    assert read_corrections(path, VOCABULARY)["weight"].tolist() == [0.0, 1.0]


def test_several_writers_lose_nothing(path):
    def write(writer):
        corrections = CorrectionsFile(path, VOCABULARY)
        for number in range(5):
            corrections.replace(f"{writer}-{number}.wav", BARK, version="")

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(CorrectionsFile(path, VOCABULARY).rows()) == 15


def test_an_edit_during_the_writing_is_merged(path, corrections, monkeypatch):
    def sync(target):
        if "unfinished" in str(target) and not path.exists():
            path.write_text("clip,labels,weight\n1.wav,Meow,1\n")

    monkeypatch.setattr(files, "sync", sync)
    corrections.replace("2.wav", BARK, version="")
    assert read_corrections(path, VOCABULARY)["labels"].tolist() == ["Meow", "Bark"]


def test_a_held_lock_is_waited_for_and_then_named(path, corrections, monkeypatch):
    monkeypatch.setattr(corrections_file, "WAITING_SECONDS", 0.05)
    with (
        files.locked(path.with_name(".corrections.csv.lock"), ""),
        pytest.raises(DataError, match=r"corrections\.csv: another program is writing it"),
    ):
        corrections.replace("1.wav", BARK, version="")
    assert not path.exists()
