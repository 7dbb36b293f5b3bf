import numpy as np
import pandas as pd
import pytest

from audiotag.data.clips import check_clips, check_labels, csv_lines, numbers, read_clips, read_table, write_clips
from audiotag.errors import DataError

COLUMNS = ["fname", "labels"]


def clip(name="1.wav", subset="curated", labels="Bark", usage="", fold=0, group="", **more):
    return {"name": name, "subset": subset, "labels": labels, "usage": usage, "fold": fold, "group": group} | more


def table(*clips):
    return pd.DataFrame(list(clips))


def measured(name, **more):
    rng = np.random.default_rng(len(name))
    measures = {
        "num_samples": 13_230,
        "seconds": 0.3,
        "peak": rng.random(),
        "rms": rng.random() / 3,
        "trimmed_start_seconds": 0.25,
        "trimmed_end_seconds": rng.random(),
        "gain_db": -rng.random(),
        "sha256": "ab" * 32,
    }
    return clip(name, **more) | measures


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# The table of clips


def test_a_good_table_passes():
    check_clips(
        table(
            clip("a.wav", labels="Bark,Meow", fold=3, group="123"),
            clip("dog/1.wav", "noisy"),
            clip("t.wav", "test", usage="Public"),
            clip("u.wav", "test", usage="Private"),
        )
    )


def test_test_clips_may_all_be_unlabeled():
    check_clips(table(clip(), clip("t.wav", "test", labels=""), clip("u.wav", "test", labels="")))


PATHS_THAT_ARE_NOT_PLAIN = [
    "", ".", "..", "/", "/a.wav", "//a.wav", "/etc/passwd", "../a.wav", "../../etc/passwd", "a/../b.wav", "a/..",
    "a/../../b.wav", "./a.wav", "a/./b.wav", "a//b.wav", "a/", "\\a.wav", "a\\b.wav", "..\\a.wav", "C:a.wav",
    "C:\\a.wav", "c:/a.wav", "\\\\host\\share\\a.wav", "a\0.wav", "a.wav\0", "a\n.wav", "a\r.wav", "a\t.wav",
    "\x7f.wav", "\x1b[31m.wav", "file:///etc/passwd", "gs://bucket/a.wav", "s3://bucket/a.wav", "https://host/a.wav",
]  # fmt: skip


@pytest.mark.check("C6")
@pytest.mark.parametrize("name", PATHS_THAT_ARE_NOT_PLAIN)
def test_a_name_that_is_not_a_plain_path_is_refused(name):
    with pytest.raises(
        DataError, match="^x.csv line 3: file name .* is not a plain path inside the folder of audio. Expected"
    ):
        check_clips(table(clip("ok.wav", row="x.csv line 2"), clip(name, row="x.csv line 3")))


@pytest.mark.parametrize(
    "name", ["a b.wav", "..a.wav", "a..wav", "dog/1.wav", "Geräusch.wav", "音.wav", "=1+1.wav", "-a.wav", "10:30.wav"]
)
def test_an_unusual_but_plain_name_is_accepted(name):
    check_clips(table(clip(name)))


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "bad, message",
    [
        (clip(labels=""), "labels are empty. A curated clip needs at least one. Add it, or remove the row"),
        (clip(labels=" ", subset="noisy"), "labels are empty. A noisy clip needs at least one"),
        (
            clip(subset="test", labels=""),
            "labels are empty. A test clip needs at least one.*may have no labels, then for all of its clips",
        ),
        (clip(labels="Bark,Bark"), "'Bark' is listed twice"),
        (clip(labels="Bark,,Meow"), "a label is empty"),
        (clip(labels="Bark\nb.wav"), r"labels 'Bark\\nb.wav' contains a line break .* Is a quotation mark missing"),
        (clip(group="1\r2"), "group .* contains a line break"),
        (
            clip(subset="my clips"),
            "subset is 'my clips'. Expected letters, digits, - and _, such as 'curated', 'noisy' or 'test'.",
        ),
        (clip(subset=""), "subset is ''. Expected letters, digits, - and _"),
        (clip(subset="curated\n"), r"subset is 'curated\\n'. Expected letters, digits, - and _"),
        (clip(subset="Test"), "subset is 'Test'. Did you mean 'test'. Test clips have this name exactly."),
        (clip(usage="public"), "usage is 'public'. Did you mean 'Public'. Expected one of '', 'Public', 'Private'"),
        (clip(fold=-1), "fold is -1. Expected a whole number from 1, or 0 for none"),
        (clip("ok.wav"), "file name 'ok.wav' is already in clip 'ok.wav'. Remove or rename one of them"),
        (clip(labels="Meow", subset="noisy", name="ok.wav"), "file name 'ok.wav' is already in"),
    ],
)
def test_a_bad_row_is_named(bad, message):
    with pytest.raises(DataError, match=f"^clip {bad['name']!r}: .*{message}"):
        check_clips(table(clip("ok.wav", "curated"), clip("t.wav", "test"), bad))


@pytest.mark.parametrize("subset", ["curated", "noisy", "test"])
def test_a_clip_may_have_no_labels_as_an_example_of_no_class(subset):
    bad = table(clip("ok.wav", "curated"), clip("t.wav", "test"), clip(labels="", subset=subset))
    check_clips(bad, background=True)


@pytest.mark.check("C5", 6)
@pytest.mark.parametrize(
    "text",
    [
        "fname;labels;fold\na.wav;Bark,Rain;2\n",
        "fname\tlabels\tfold\na.wav\tBark,Rain\t2\n",
        ',fname,labels,fold\n0,a.wav,"Bark,Rain",2.0\n',
        ';fname;labels;fold\n0;a.wav;"Bark,Rain";2.0\n',
    ],
    ids=["semicolons", "tabs", "an index column", "both"],
)
def test_tables_as_spreadsheets_and_pandas_write_them_are_read(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    found = read_table(tmp_path / "t.csv", ["fname", "labels"])
    assert found.iloc[0].to_dict() == {"fname": "a.wav", "labels": "Bark,Rain", "fold": found["fold"].iloc[0]}
    assert numbers(found["fold"], int) == [2]


@pytest.mark.check("C5")
@pytest.mark.parametrize("column", clip())
def test_a_table_without_a_column_is_refused(column):
    with pytest.raises(
        DataError, match=f"has no column '{column}'. Expected: name, subset, labels, usage, fold, group"
    ):
        check_clips(table(clip()).drop(columns=column))


@pytest.mark.check("C5")
def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match="The table of clips is empty"):
        check_clips(table(clip()).iloc[:0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_level_that_is_not_finite_is_refused(value):
    with pytest.raises(DataError, match="clip 'a.wav': rms is (nan|inf). Expected a finite number"):
        check_clips(table(measured("a.wav") | {"rms": value}))


@pytest.mark.check("C5")
def test_an_unknown_label_names_its_row():
    clips = table(clip(row="x.csv line 2"), clip("t.wav", "test", labels="Brak", row="test.csv line 9"))
    check_labels(clips, ["Bark", "Brak"])
    with pytest.raises(DataError, match="^test.csv line 9: unknown label 'Brak'. Did you mean 'Bark'"):
        check_labels(clips, ["Bark", "Meow"])


# clips.csv


def test_clips_csv_restores_what_was_written(tmp_path):
    clips = table(
        measured("a,b.wav", labels="Bark,Meow", fold=2, group="17"),
        measured('quoted "x".wav'),
        measured("Geräusch/音.wav"),
        measured("=cmd.wav", subset="noisy"),
        measured("None", subset="noisy", labels="NA,nan", group="None"),
        measured("t.wav", subset="test", usage="Public"),
    )
    write_clips(tmp_path / "clips.csv", clips)
    read = read_clips(tmp_path / "clips.csv")
    pd.testing.assert_frame_equal(read, clips.sort_values(["subset", "name"], ignore_index=True))
    assert read["peak"].tolist() == clips.sort_values(["subset", "name"])["peak"].tolist()  # to the last bit


def test_the_same_clips_give_the_same_bytes(tmp_path):
    clips = table(
        measured("b.wav"), measured("a.wav"), measured("c.wav", subset="noisy"), measured("0.wav", subset="test")
    )
    write_clips(tmp_path / "one.csv", clips)
    write_clips(tmp_path / "two.csv", clips.iloc[::-1].assign(path="/somewhere", row="x.csv line 1"))
    write_clips(tmp_path / "three.csv", read_clips(tmp_path / "two.csv"))
    content = (tmp_path / "one.csv").read_bytes()
    assert (tmp_path / "two.csv").read_bytes() == content == (tmp_path / "three.csv").read_bytes()
    assert [line.split(",")[0] for line in content.decode().splitlines()] == [
        "name",
        "a.wav",
        "b.wav",
        "c.wav",
        "0.wav",
    ]
    assert b"\r" not in content


def test_a_table_without_measures_is_written_without_them(tmp_path):
    write_clips(tmp_path / "clips.csv", table(clip()))
    assert (tmp_path / "clips.csv").read_text() == "name,subset,labels,usage,fold,group\n1.wav,curated,Bark,,0,\n"


def test_an_unknown_column_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(DataError, match="unknown column 'seconts'. Did you mean 'seconds'.*Accepted: name, subset"):
        write_clips(tmp_path / "clips.csv", table(clip(seconts=1.0)))
    assert not (tmp_path / "clips.csv").exists()


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "text, message",
    [
        ("name,subset\n1.wav,curated\n", "clips.csv line 1: no column 'labels', only 'name', 'subset'."),
        (
            "name,subset,labels,usage,fold,group,row\n1.wav,curated,Bark,,0,,2\n",
            "clips.csv line 1: unknown column 'row'",
        ),
        (
            "name,subset,labels,usage,fold,group\n1.wav,curated,Bark,,x,\n",
            "clips.csv line 2: fold is 'x'. Expected a whole number",
        ),
        (
            "name,subset,labels,usage,fold,group\n1.wav,curated,Bark,,1.5,\n",
            "clips.csv line 2: fold is '1.5'. Expected a whole",
        ),
        ("name,subset,labels,usage,fold,group,rms\n1.wav,curated,Bark,,0,,loud\n", "rms is 'loud'. Expected a number"),
        (
            "name,subset,labels,usage,fold,group,rms\n1.wav,curated,Bark,,0,,nan\n",
            "clips.csv line 2: rms is nan. Expected a finite",
        ),
        (
            "name,subset,labels,usage,fold,group\n../1.wav,curated,Bark,,0,\n",
            "clips.csv line 2: file name '../1.wav' is not a plain",
        ),
    ],
)
def test_a_damaged_clips_csv_names_its_line(tmp_path, text, message):
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_clips(tmp_path / "clips.csv")


def test_an_absent_clips_csv_is_reported(tmp_path):
    with pytest.raises(DataError, match="clips.csv: cannot be read: No such file or directory"):
        read_clips(tmp_path / "clips.csv")


# Any CSV file

GOOD = 'fname,labels\na.wav,Bark\nb.wav,"Bark,Meow"\n'


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.rstrip("\n"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        b"\xef\xbb\xbf" + GOOD.encode(),
        b"\xef\xbb\xbf" + GOOD.replace("fname", '"fname"').encode(),
        "\n\n" + GOOD,
        GOOD.replace("\na", "\n\n\na") + "\n\n",
        GOOD.replace("fname,labels", " fname , labels "),
    ],
)
def test_a_table_reads_the_same_with_any_line_ends_and_byte_order_mark(file, content):
    read = read_table(file(content), COLUMNS)
    assert read.values.tolist() == [["a.wav", "Bark"], ["b.wav", "Bark,Meow"]]


def test_text_stays_text(file):
    read = read_table(file('fname,labels,x\n007,None,\nNA,nan,""\n1e5,"say ""hi""",=1+1\n'), COLUMNS)
    assert read.values.tolist() == [["007", "None", ""], ["NA", "nan", ""], ["1e5", 'say "hi"', "=1+1"]]


def test_the_index_has_the_first_line_of_each_row(file):
    read = read_table(file('fname,labels,note\na.wav,Bark,"two\nlines"\n\nb.wav,Meow,\n'), COLUMNS)
    assert read.index.tolist() == ["labels.csv line 2", "labels.csv line 5"]


@pytest.mark.check("C5")
def test_letters_composed_and_decomposed_are_the_same(file):
    assert read_table(file("fname,labels\na\u0308.wav,Ba\u0308r\n"), COLUMNS).values.tolist() == [
        ["\xe4.wav", "B\xe4r"]
    ]


@pytest.mark.check("C5")
@pytest.mark.parametrize(
    "content, message",
    [
        ("", "labels.csv: the file is empty. Expected a header with the columns fname, labels"),
        ("\n\n", "labels.csv: the file is empty"),
        (b"\xef\xbb\xbf", "labels.csv: the file is empty"),
        ("fname,labels\n", "labels.csv: a header and no rows"),
        (
            "fname,label\na.wav,Bark\n",
            "line 1: no column 'labels', only 'fname', 'label'. Did you mean 'label'. Expected.*fname,labels",
        ),
        ("Fname,labels\na.wav,Bark\n", "line 1: no column 'fname', only 'Fname', 'labels'. Did you mean 'Fname'"),
        ("a.wav,Bark\nb.wav,Bark\n", "line 1: no column 'fname', only 'a.wav', 'Bark'"),
        ("\nlabels\nBark\n", "line 2: no column 'fname'"),
        ("fname,labels,fname\na.wav,Bark,b.wav\n", "line 1: the header has the column 'fname' 2 times"),
        ("fname,labels,\na.wav,Bark,\n", "line 1: the header has a column without a name"),
        (
            "fname,labels\na.wav,Bark,Meow\n",
            'line 2: the number of fields is 3, but the header has 2 columns.*"Bark,Meow"',
        ),
        ("fname,labels\na.wav,Bark\nb.wav\n", "line 3: the number of fields is 1"),
        ("fname,labels\na.wav,Bark\n   \nb.wav,Bark\n", "line 3: the number of fields is 1"),
        ('fname,labels\na.wav, "Bark,Meow"\n', "line 2: the number of fields is 3"),
        ('fname,labels\na.wav,Bark\nb.wav,"Bark\nc.wav,Bark\n', "line 3: not CSV: .*Is a quotation mark missing"),
        ('fname,labels\na.wav,"Bark"Meow\n', "line 2: not CSV"),
        ("fname,labels\na.wav," + "B" * 1_000_000 + "\n", "line 2: not CSV: field larger than"),
        ("fname,labels\na.wav,Ba\0rk\n", "line 2: a NUL byte: the file is UTF-16 or damaged. Save it as CSV in UTF-8"),
        (GOOD.encode("utf-16"), "line 1: a NUL byte: the file is UTF-16"),
        (GOOD.encode("utf-16-be"), "line 1: a NUL byte: the file is UTF-16"),
        (
            "fname,labels\na.wav,Bark\nä.wav,Bark\n".encode("latin-1"),
            "line 3: byte 0xe4 is not UTF-8. Save the file as CSV in UTF-8",
        ),
    ],
)
def test_a_malformed_table_names_its_line(file, content, message):
    with pytest.raises(DataError, match=message):
        read_table(file(content), COLUMNS)


def test_a_folder_is_not_a_table(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        next(csv_lines(tmp_path))
