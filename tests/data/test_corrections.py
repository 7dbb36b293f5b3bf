import pandas as pd
import pytest

from audiotag.data.corrections import corrected, read_corrections, summarize_corrections, write_corrections
from audiotag.errors import DataError

VOCABULARY = ("Bark", "Meow")
TABLE = pd.DataFrame(
    {
        "clip": ["1.wav", "2.wav"],
        "labels": ["Bark,Meow", "Meow"],
        "weight": [0.1, 0.0],
        "reason": ["both sounds, clearly", "=1+1"],
        "source": ["by hand", ""],
    }
)


def test_corrections_survive_writing_and_reading(tmp_path):
    write_corrections(tmp_path / "corrections.csv", TABLE[::-1])
    pd.testing.assert_frame_equal(read_corrections(tmp_path / "corrections.csv", VOCABULARY), TABLE)


def test_three_columns_are_enough(tmp_path):
    path = tmp_path / "corrections.csv"
    path.write_text("weight,clip,labels\n1,1.wav,Bark\n0,2.wav,\n")
    assert read_corrections(path, VOCABULARY)["reason"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.wav,Brak,1", r"corrections\.csv line 3: unknown label 'Brak'\. Did you mean 'Bark'\?"),
        ("0.wav,Bark,1", r"corrections\.csv line 3: clip '0\.wav' is already in corrections\.csv line 2\. Keep one"),
        ("1.wav,Bark,much", r"corrections\.csv line 3: weight is 'much'\. Expected a number"),
        ("1.wav,Bark,-1", r"corrections\.csv line 3: weight is -1\.0\. Expected a finite number, at least 0"),
        ("1.wav,Bark,nan", r"corrections\.csv line 3: weight is nan\. Expected a finite number, at least 0"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    path = tmp_path / "corrections.csv"
    path.write_text(f"clip,labels,weight\n0.wav,Bark,1\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_corrections(path, VOCABULARY)


def test_only_labels_and_weights_change():
    clips = pd.DataFrame({"name": ["2.wav", "1.wav", "3.wav"], "labels": ["Bark"] * 3, "fold": [1, 2, 3]})
    result = corrected(clips, TABLE)
    assert result["labels"].tolist() == ["Meow", "Bark,Meow", "Bark"]
    assert result["weight"].tolist() == [0.0, 0.1, 1.0]
    assert result["fold"].tolist() == [1, 2, 3]
    assert corrected(result, TABLE[:0])["weight"].tolist() == [0.0, 0.1, 1.0]
    assert corrected(result, TABLE)["weight"].tolist() == pytest.approx([0.0, 0.01, 1.0])


def test_a_clip_loses_all_its_labels_only_with_weight_0_and_background_stays_so():
    clips = pd.DataFrame({"name": ["1.wav", "2.wav"], "labels": ["Bark", ""]})
    empty = pd.DataFrame({"clip": ["2.wav", "1.wav"], "labels": ["", ""], "weight": [1.0, 0.0]})
    assert corrected(clips, empty)["weight"].tolist() == [0.0, 1.0]
    with pytest.raises(
        DataError, match=r"^a\.csv: the labels of clip '1\.wav' are empty\. Add one, or give it weight 0"
    ):
        corrected(clips, empty.assign(weight=1.0), source="a.csv")


def test_a_correction_of_an_absent_clip_is_named():
    clips = pd.DataFrame({"name": ["1.wav"], "labels": ["Bark"]})
    with pytest.raises(DataError, match=r"corrections: there is no training clip '2\.wav' \(1 such rows in all\)"):
        corrected(clips, TABLE)


def test_a_summary_counts_only_what_changes_something():
    clips = pd.DataFrame({"name": ["1.wav", "2.wav"], "labels": ["Bark", "Meow"]})
    same = TABLE.assign(labels=["Bark", "Meow"], weight=1.0)
    assert summarize_corrections(clips, same) == ""
    summary = summarize_corrections(clips, TABLE)
    assert summary.startswith("1 changed, 1 reweighted, 1 left out (")
    assert summary == summarize_corrections(clips, TABLE[::-1].assign(reason="another"))
    assert summary != summarize_corrections(clips, TABLE.assign(weight=[0.2, 0.0]))
