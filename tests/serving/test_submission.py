import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audiotag.data.clips import read_table
from audiotag.errors import DataError
from audiotag.serving.submission import top_labels, write_submission

REAL = Path(__file__).parents[3] / "shared" / "data" / "fsdkaggle2018" / "test_post_competition.csv"
VOCABULARY = ("Meow", "Bark", "Church bell")  # not in alphabetical order
NAMES = ("c.wav", "a.wav", "b.wav")
SCORES = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 1 / 3]])


@pytest.fixture
def submit(tmp_path):
    """A function: the text of a template, or None → the lines of the submission."""

    def submit(template=None):
        if template is not None:
            (tmp_path / "template.csv").write_text(template)
            template = tmp_path / "template.csv"
        path = tmp_path / "submission.csv"
        write_submission(path, pd.DataFrame({"name": NAMES}), SCORES, VOCABULARY, template=template)
        return path.read_text().splitlines()

    return submit


def test_classes_and_clips_are_sorted(submit):
    assert submit() == [
        "fname,Bark,Church bell,Meow",
        "a.wav,0.5,0.6,0.4",
        "b.wav,0.8,0.3333333333333333,0.7",
        "c.wav,0.2,0.3,0.1",
    ]


def test_clips_are_in_the_order_of_the_template(submit):
    lines = submit("fname,Bark,Church bell,Meow\nb.wav,0,0,0\nc.wav,0,0,0\na.wav,0,0,0\n")
    assert [line.split(",")[0] for line in lines] == ["fname", "b.wav", "c.wav", "a.wav"]
    assert sorted(lines) == sorted(submit())


def test_scores_keep_every_digit(submit, tmp_path):
    submit()
    with open(tmp_path / "submission.csv", newline="") as file:
        rows = {row["fname"]: row for row in csv.DictReader(file)}
    assert [[float(rows[name][label]) for label in VOCABULARY] for name in NAMES] == SCORES.tolist()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "fname,Bark,Meow\na.wav,0,0\n",
            r"its columns are not fname and the 3 classes in sorted order: \['Church bell'\]",
        ),
        ("fname,Bark,Meow,Church bell\na.wav,0,0,0\n", "the 3 classes in sorted order: another order"),
        ("name,Bark\na.wav,0\n", "no column 'fname'"),
        (
            "fname,Bark,Church bell,Meow\na.wav,0,0,0\nb.wav,0,0,0\n",
            r"names other clips .* such as c\.wav \(1 in all\)",
        ),
        (
            "fname,Bark,Church bell,Meow\na.wav,0,0,0\nb.wav,0,0,0\nc.wav,0,0,0\nd.wav,0,0,0\n",
            r"names other clips than were scored, such as d\.wav \(1 in all\)",
        ),
        (
            "fname,Bark,Church bell,Meow\na.wav,0,0,0\nb.wav,0,0,0\nc.wav,0,0,0\nb.wav,0,0,0\n",
            r"b\.wav is listed twice",
        ),
    ],
)
def test_a_template_of_another_competition_is_refused(submit, tmp_path, template, message):
    with pytest.raises(DataError, match=f"template.csv.*{message}"):
        submit(template)
    assert not (tmp_path / "submission.csv").exists()


def test_top_labels_do_not_fit_a_template_of_scores(tmp_path):
    template, clips = tmp_path / "template.csv", pd.DataFrame({"name": NAMES})
    template.write_text("fname,Bark,Bell,Meow\na.wav,0,0,0\n")
    with pytest.raises(DataError, match=r"template\.csv: is for scores, and --top writes labels\. Leave out --top"):
        write_submission(tmp_path / "out.csv", clips, SCORES, ["Bark", "Bell", "Meow"], template=template, top=2)


def test_a_missing_template_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read: No such file or directory\."):
        write_submission(
            tmp_path / "out.csv", pd.DataFrame({"name": NAMES}), SCORES, VOCABULARY, template=tmp_path / "nowhere.csv"
        )


# 2018: three labels per clip


VOCABULARY_2018 = ("None", "Bark", "Hi-hat", "Squeak")


def submit_2018(tmp_path, template, scores):
    (tmp_path / "template.csv").write_text(template)
    clips = pd.DataFrame({"name": NAMES})
    write_submission(tmp_path / "out.csv", clips, scores, VOCABULARY_2018, template=tmp_path / "template.csv")
    return (tmp_path / "out.csv").read_text().splitlines()


def test_a_template_with_a_column_of_labels_gets_the_top_three_best_first(tmp_path):
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.6, 0.1], [0.2, 0.2, 0.1, 0.2]])
    template = "fname,label\nb.wav,None\na.wav,Laughter Hi-Hat None\nc.wav,\n"
    assert submit_2018(tmp_path, template, scores) == [
        "fname,label",
        "b.wav,None Bark Squeak",
        "a.wav,None Hi-hat Bark",
        "c.wav,Squeak Hi-hat Bark",
    ]
    read = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert read["label"].tolist()[0].split() == ["None", "Bark", "Squeak"]


def test_the_clips_of_such_a_template_are_checked_too(tmp_path):
    message = r"template.csv: names other clips than were scored, such as b.wav \(1 in all\)"
    with pytest.raises(DataError, match=message):
        submit_2018(tmp_path, "fname,label\na.wav,None\nc.wav,None\nd.wav,None\n", np.zeros((3, 4)))
    with pytest.raises(
        DataError, match="class 'Church bell' has a space in its name, which separates labels in this format"
    ):
        top_labels(SCORES, VOCABULARY)


def test_clips_that_are_not_scored_keep_the_labels_of_such_a_template(tmp_path):
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.6, 0.1], [0.2, 0.2, 0.1, 0.2]])
    template = "fname,label\nz.wav,Laughter Hi-Hat Flute\nb.wav,None\na.wav,None\nd.wav,None\nc.wav,None\n"
    lines = submit_2018(tmp_path, template, scores)
    expected = ["z.wav,Laughter Hi-Hat Flute", "b.wav,None Bark Squeak", "a.wav,None Hi-hat Bark", "d.wav,None"]
    assert lines == ["fname,label", *expected, "c.wav,Squeak Hi-hat Bark"]


def test_top_labels_need_no_template(tmp_path):
    scores = np.array([[0.1, 0.2, 0.3], [0.6, 0.5, 0.4], [0.7, 0.8, 1 / 3]])
    path = tmp_path / "top.csv"
    assert write_submission(path, pd.DataFrame({"name": NAMES}), scores, ("Meow", "Bark", "Bell"), top=2) == 0
    assert path.read_text().splitlines() == [
        "fname,label", "a.wav,Meow Bark", "b.wav,Bark Meow", "c.wav,Bell Bark"
    ]  # fmt: skip


@pytest.mark.skipif(not REAL.is_file(), reason="the tables of FSDKaggle2018 are not beside the checkout")
def test_the_real_table_of_2018_has_none_as_text_and_every_clip_gets_three_labels(tmp_path):
    wanted = read_table(REAL, ["fname", "label"])
    assert (wanted["label"] == "None").sum() == 7800 and len(wanted) == 9400
    vocabulary = sorted(set(wanted["label"]) - {"None"})
    assert len(vocabulary) == 41
    wanted[["fname", "label"]].to_csv(tmp_path / "template.csv", index=False)
    names, scores = wanted["fname"].to_numpy()[::-1], np.random.default_rng(0).random((9400, 41))
    is_scored = (wanted["label"] != "None").to_numpy()[::-1]
    for chosen, num_kept in ((np.full(9400, True), 0), (is_scored, 7800)):
        out = tmp_path / "out.csv"
        clips = pd.DataFrame({"name": names[chosen]})
        kept = write_submission(out, clips, scores[chosen], vocabulary, template=tmp_path / "template.csv")
        written = read_table(out, ["fname", "label"])
        assert kept == num_kept and written["fname"].tolist() == wanted["fname"].tolist()
        predicted = written[chosen[::-1]]
        labels = predicted["label"].str.split(" ")
        assert (labels.map(len) == 3).all() and set(labels.explode()) <= set(vocabulary)
        assert labels.iloc[0][0] == vocabulary[scores[chosen][-1].argmax()]
        assert (written["label"][~chosen[::-1]] == "None").all()
