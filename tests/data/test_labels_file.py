import pytest

from audiotag.data.corrections_file import version_of
from audiotag.data.labels_file import LabelsFile
from audiotag.errors import DataError

VOCABULARY = ("Bark", "Meow")
ABOUT = {"who": "Ana", "when": "2026-01-01T00:00:00Z", "reason": "Bark 0.9", "source": "a run"}


def test_decisions_are_rows_after_those_of_the_user(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("fname,labels,split,license\nz.wav,Growl,train,CC0\na.wav,Bark,test,\n")
    table = LabelsFile(path, VOCABULARY)
    row = table.decided(None, labels="Bark,Meow", why="labeled", **ABOUT)
    assert table.replace("m.wav", row, version="") is None
    assert path.read_text() == (
        "fname,labels,split,license,who,when,why\nz.wav,Growl,train,CC0,,,\na.wav,Bark,test,,,,\n"
        'm.wav,"Bark,Meow",train,,Ana,2026-01-01T00:00:00Z,labeled\n'
    )
    again = LabelsFile(path, VOCABULARY)
    seen = again.rows()["m.wav"]
    unsure = again.decided(seen, labels="", why="unsure", **ABOUT)
    assert again.replace("m.wav", unsure, version=version_of(seen)) == seen
    assert (
        again.replace("m.wav", again.checked(dict(seen)), version=version_of(again.rows()["m.wav"]))["why"] == "unsure"
    )
    again.replace("m.wav", None, version=version_of(again.rows()["m.wav"]))
    assert list(LabelsFile(path, VOCABULARY).rows()) == ["z.wav", "a.wav"]


@pytest.mark.parametrize("row", [[], {"labels": 1}, {"labels": "\0"}, {"labels": "Bark", "fname": "x"}])
def test_no_other_row_is_written(tmp_path, row):
    with pytest.raises(DataError, match=r"^the row is not one of a table of decisions"):
        LabelsFile(tmp_path / "labels.csv", VOCABULARY).checked(row)


def test_a_recording_that_is_listed_twice_is_named(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("fname,labels\na.wav,Bark\na.wav,Meow\n")
    with pytest.raises(DataError, match=r"^labels\.csv line 3: 'a\.wav' is listed twice"):
        LabelsFile(path, VOCABULARY).rows()
