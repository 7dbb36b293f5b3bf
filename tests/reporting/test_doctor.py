import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import soxr
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.data import synthetic
from audiotag.data.audio.examination import examine
from audiotag.reporting.doctor import Dataset, examine_dataset, findings_of
from audiotag.reporting.environment_check import check_environment

RATE = synthetic.SAMPLE_RATE
TABLE = """fname,labels,split,fold,group
bark.wav,Bark,train,1,x
bark2.wav,Bark,train,2,x
rain.wav,Rain,train,1,
rain_copy.ogg,Bark,train,2,
knock.mp3,Knock,test,,
knock.wav,Knock,train,1,
silent.wav,Rain,train,1,
cut.wav,Rain,train,2,
loud.wav,Rain,train,2,
shifted.wav,Rain,train,1,
broken.wav,Rain,train,1,
telephone.wav,Rain,train,2,
upsampled.wav,Rain,train,2,
alarm.wav,Alarm,test,,
"""


def sound(kind, number, seconds=1.5):
    wave = getattr(synthetic, kind)(synthetic.generator(number), seconds)
    wave = wave / np.abs(wave).max() + 0.003 * synthetic.generator(number, 1).standard_normal(len(wave))
    return 0.3 * wave


def write_dataset(folder):
    """A dataset with one fault of each kind."""
    audio = folder / "audio"
    audio.mkdir(parents=True)
    waves = {
        "bark.wav": sound("rain", 20),
        "bark2.wav": sound("rain", 21),
        "rain.wav": sound("rain", 3),
        "rain_copy.ogg": 0.5 * sound("rain", 3)[RATE // 7 :],
        "knock.wav": sound("knock", 5),
        "knock.mp3": 2 * sound("knock", 5),
        "silent.wav": np.zeros(RATE),
        "cut.wav": sound("rain", 6),
        "loud.wav": np.clip(20 * sound("rain", 7), -1, 1),
        "shifted.wav": sound("rain", 8) + 0.2,
        "alarm.wav": sound("alarm", 9),
    }
    for name, wave in waves.items():
        sf.write(audio / name, wave, RATE)
    sf.write(audio / "telephone.wav", sound("rain", 10)[::6], RATE // 6)
    sf.write(audio / "upsampled.wav", soxr.resample(sound("rain", 11), RATE, 16_000), 16_000)
    upsampled = soxr.resample(sf.read(audio / "upsampled.wav")[0], 16_000, RATE)
    sf.write(audio / "upsampled.wav", upsampled, RATE)
    (audio / "cut.wav").write_bytes((audio / "cut.wav").read_bytes()[:9999])
    (audio / "broken.wav").write_bytes(b"<html>not found</html>")
    (folder / "train.csv").write_text(TABLE)
    (folder.parent / "classes.txt").write_text("Alarm\nBark\nKnock\nRain\n")
    return folder


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What the command says about the dataset, its exit code, its findings and its page."""
    folder = tmp_path_factory.mktemp("doctor")
    write_dataset(folder / "sounds")
    found = folder / "found.csv"
    options = ["--csv", str(found), "--page", str(folder / "page.html"), "--workers", "1"]
    options += ["--vocabulary", str(folder / "classes.txt")]
    result = CliRunner().invoke(main, ["doctor", str(folder / "sounds"), *options])
    return result, pd.read_csv(found, keep_default_na=False), (folder / "page.html").read_text()


EXPECTED = {
    ("error", "unreadable"): [("broken.wav", "", "it begins with b'<html>not fo'")],
    ("error", "truncated"): [("cut.wav", "", "the file is cut short")],
    ("error", "silent"): [("silent.wav", "", "all 1.00 s are zero")],
    ("error", "leak into test"): [("knock.mp3", "knock.wav", "the same sound (")],
    ("error", "leak between folds"): [("rain.wav", "rain_copy.ogg", "which begins 0.14 s later")],
    ("error", "class without training clips"): [("", "Alarm", "Alarm has no training clip")],
    ("error", "group split by folds"): [("bark.wav", "x", "clips of the group x are in the folds 1, 2 of the dataset")],
    ("warning", "clipped"): [("loud.wav", "", "peaks are flat, at 0.0 dBFS")],
    ("warning", "contradicting labels"): [("rain.wav", "rain_copy.ogg", "Rain; Bark for the same sound")],
    ("warning", "class without test clips"): [("", "Bark", "no test clip"), ("", "Rain", "no test clip")],
    ("warning", "class in one fold"): [("", "Knock", "all clips of Knock are in fold 1 of the dataset")],
    ("note", "DC offset"): [("shifted.wav", "", "the mean of its samples is 0.2")],
    ("note", "low rate"): [("telephone.wav", "", "7350 Hz; most clips have 44100 Hz")],
    ("note", "upsampled"): [("upsampled.wav", "", "Hz, at a rate of 44100 Hz")],
}


@pytest.mark.parametrize(("severity", "kind"), EXPECTED)
def test_each_fault_is_found_with_its_severity(result, severity, kind):
    rows = result[1].query("kind == @kind")
    assert set(rows["severity"]) == {severity}
    assert list(zip(rows["clip"], rows["other"])) == [row[:2] for row in EXPECTED[severity, kind]]
    for found, (*_, expected) in zip(rows["found"], EXPECTED[severity, kind]):
        assert expected in found


def test_no_other_clip_is_called_faulty(result):
    kinds = set(result[1]["kind"])
    assert kinds - {kind for _, kind in EXPECTED} <= {"class with few clips", "not read"}
    assert "" not in set(result[1]["why"]) | set(result[1]["remedy"])


def test_errors_come_first_and_end_the_command_with_1(result):
    command, table, _ = result
    assert command.exit_code == 1
    assert table["severity"].drop_duplicates().tolist() == ["error", "warning", "note"]
    assert command.stdout.index("error: leak into test (1). Scores on test clips are too high.") < command.stdout.index(
        "warning: clipped (1)."
    )
    counts = table["severity"].value_counts()
    assert f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} note" in command.stdout


def test_the_page_has_every_finding_and_escapes_what_it_is_given(result):
    _, table, page = result
    for name in set(table["clip"]):
        assert name in page
    assert "&lt;html&gt;not fo" in page and "<html>not fo" not in page


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("curated", 1), ("test", 0), ("error", "leak into test")),
        (("curated", 1), ("curated", 2), ("error", "leak between folds")),
        (("curated", 1), ("noisy", 0), ("error", "leak between folds")),  # the noisy clip trains in every fold
        (("curated", 0), ("noisy", 0), ("warning", "copies in two subsets")),
        (("curated", 1), ("curated", 1), ("note", "copies")),
        (("test", 0), ("test", 0), ("note", "copies")),
    ],
)
def test_leaks_are_worse_than_copies_in_one_subset(one, other, expected):
    rows = [(f"{number}.wav", subset, "Rain", "", fold, "") for number, (subset, fold) in enumerate((one, other))]
    clips = pd.DataFrame(rows, columns=["name", "subset", "labels", "usage", "fold", "group"])
    examination = examine((sound("rain", 1).astype("float32"), RATE))
    table = findings_of(Dataset(clips, ("Rain",), [examination] * 2, [])).query("clip == '0.wav'")
    assert table[["severity", "kind"]].to_numpy().tolist() == [[*expected]]


def test_records_without_faults_and_their_run_have_notes_only(run, records):
    of_records, of_run = (examine_dataset(path, num_workers=1) for path in (records, run.folder))
    assert set(of_records["severity"]) == {"note"}
    assert of_run.equals(of_records)
    assert "Bell has 3 training clips" in of_run["found"].tolist()


def test_damaged_records_are_one_error_per_shard(records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    shard = sorted(copy.glob("*.tfrecord"))[0]
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    table = examine_dataset(copy, num_workers=1)
    assert table["kind"].tolist().count("damaged") == 1 and shard.name in table["found"][0]


def test_without_an_argument_it_says_what_is_installed():
    lines, findings = check_environment()
    assert lines[0].startswith("Python 3.")
    assert "libsndfile" in " ".join(lines) and "tensorflow" in " ".join(lines)
    assert all(severity in ("warning", "note") for severity, _ in findings)
