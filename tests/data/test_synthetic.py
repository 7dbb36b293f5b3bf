import csv
import hashlib
import re

import librosa
import numpy as np
import pytest
import soundfile as sf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiotag.data import synthetic
from audiotag.data.synthetic import SOUNDS, Clip, make_demo, plan, waveform_of
from audiotag.errors import DataError

FULL_SIZE = {"train_curated": 280, "train_noisy": 504, "test": 196}
COUNTS = {"curated": 6, "noisy": 13, "test": 10}


@pytest.fixture(scope="module")
def full_plans():
    return {subset: plan(subset, num_clips, seed=2019) for subset, num_clips in FULL_SIZE.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "demo"
    make_demo(path, **COUNTS)
    return path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def one_of(label, seconds, index=0):
    return Clip("00000000.wav", (label,), (label,), seconds, (5, 0, index))


def test_the_folder_has_kaggles_files_and_the_truth(folder):
    assert {p.name for p in folder.iterdir()} == {
        "train_curated",
        "train_noisy",
        "test",
        "train_curated.csv",
        "train_noisy.csv",
        "sample_submission.csv",
        "test_labels.csv",
        "noisy_truth.csv",
    }


@pytest.mark.parametrize(
    "table, subset, header",
    [
        ("train_curated.csv", "train_curated", ["fname", "labels"]),
        ("train_noisy.csv", "train_noisy", ["fname", "labels"]),
        ("noisy_truth.csv", "train_noisy", ["fname", "given", "true", "right"]),
        ("test_labels.csv", "test", ["fname", "labels", "usage"]),
        ("sample_submission.csv", "test", ["fname", *sorted(SOUNDS)]),
    ],
)
def test_a_table_lists_every_file_of_its_folder_in_the_order_of_names(folder, table, subset, header):
    first, *others = rows(folder / table)
    names = [row[0] for row in others]
    assert first == header
    assert names == sorted(p.name for p in (folder / subset).iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{8}\.wav", name) for name in names)


def test_labels_are_classes_and_two_are_separated_by_a_comma(folder):
    labels = [
        row[1].split(",") for table in ("train_curated.csv", "test_labels.csv") for row in rows(folder / table)[1:]
    ]
    assert all(set(some) <= set(SOUNDS) and some == sorted(set(some)) for some in labels)
    assert {len(some) for some in labels} == {1, 2}


def test_the_sample_submission_scores_zero_everywhere(folder):
    assert {score for row in rows(folder / "sample_submission.csv")[1:] for score in row[1:]} == {"0"}


def test_a_quarter_of_the_test_clips_is_public_and_comes_first(folder):
    usages = [row[2] for row in rows(folder / "test_labels.csv")[1:]]
    assert usages == ["Public"] * 2 + ["Private"] * 8


def test_the_truth_table_agrees_with_the_noisy_table(folder):
    truth = rows(folder / "noisy_truth.csv")[1:]
    assert [row[:2] for row in truth] == rows(folder / "train_noisy.csv")[1:]
    assert all((given == true) == (right == "1") for _, given, true, right in truth)
    assert [row[3] for row in truth].count("0") == 5  # 40% of 13, rounded


def test_clips_are_16_bit_mono_at_44_1_khz_audible_and_not_clipped(folder):
    for path in folder.rglob("*.wav"):
        info = sf.info(path)
        assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, 44_100)
        assert 0.09 < np.abs(sf.read(path)[0]).max() < 0.91


def test_the_summary_counts_the_clips(tmp_path):
    summary = make_demo(tmp_path / "demo", curated=3, noisy=5, test=2)
    seconds = sum(sf.info(path).duration for path in tmp_path.rglob("*.wav"))
    assert (summary["curated"], summary["noisy"], summary["test"], summary["wrong"]) == (3, 5, 2, 2)
    assert summary["seconds"] == pytest.approx(seconds, abs=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(folder, tmp_path):
    make_demo(tmp_path / "same", **COUNTS)
    make_demo(tmp_path / "other", **COUNTS, seed=2020)
    assert digests(tmp_path / "same") == digests(folder)
    assert not set(digests(tmp_path / "other").values()) & set(digests(folder).values())


def test_a_clip_stays_the_same_when_others_are_added():
    few = {clip.key: clip for clip in plan("train_curated", 5, seed=1)}
    many = {clip.key: clip for clip in plan("train_curated", 50, seed=1)}
    assert all(many[key] == clip for key, clip in few.items())


def test_a_folder_with_files_is_refused_and_unchanged(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is not an empty folder. Choose another one, or remove it first"):
        make_demo(tmp_path, **COUNTS)
    with pytest.raises(DataError, match="mine.txt exists"):
        make_demo(tmp_path / "mine.txt", **COUNTS)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "demo").mkdir()
    make_demo(tmp_path / "demo", curated=1, noisy=1, test=1)
    assert (tmp_path / "demo" / "train_curated.csv").exists()


def test_a_failure_leaves_no_files(tmp_path, monkeypatch):
    def full_disk(folder, plans):
        raise OSError("no space left")

    monkeypatch.setattr(synthetic, "write_tables", full_disk)
    with pytest.raises(OSError, match="no space left"):
        make_demo(tmp_path / "demo", curated=1, noisy=1, test=1)
    assert not list(tmp_path.iterdir())


def test_no_two_clips_share_a_name(full_plans):
    names = [clip.name for clips in full_plans.values() for clip in clips]
    assert len(set(names)) == len(names) == sum(FULL_SIZE.values())


def test_every_class_is_in_every_subset_about_equally_often(full_plans):
    for clips in full_plans.values():
        counts = [sum(label in clip.truth for clip in clips) for label in SOUNDS]
        assert len(counts) >= 12
        assert max(counts) < 2 * min(counts)


def test_one_clip_in_five_holds_two_sounds(full_plans):
    for clips in full_plans.values():
        assert sum(len(clip.truth) == 2 for clip in clips) == len(clips) // 5


@pytest.mark.parametrize("num_clips", [1, 2, 13, 504])
def test_all_labels_of_two_fifths_of_the_noisy_clips_are_wrong(num_clips):
    clips = plan("train_noisy", num_clips, seed=3)
    wrong = [clip for clip in clips if clip.given != clip.truth]
    assert len(wrong) == round(0.4 * num_clips)
    assert not any(set(clip.given) & set(clip.truth) for clip in wrong)
    assert all(len(clip.given) == len(clip.truth) for clip in wrong)


def test_labels_of_curated_and_test_clips_are_correct(full_plans):
    assert all(clip.given == clip.truth for clip in full_plans["train_curated"] + full_plans["test"])


def test_clips_last_0_3_to_15_seconds_mostly_1_to_6_and_fit_in_150_megabytes(full_plans):
    seconds = np.array([clip.seconds for clips in full_plans.values() for clip in clips])
    assert 0.3 <= seconds.min() < 0.5 and 7 < seconds.max() <= 15
    assert np.mean((seconds > 1) & (seconds < 6)) > 0.5
    assert 2 * 44_100 * seconds.sum() < 148e6


@pytest.mark.parametrize("label", SOUNDS)
def test_a_sound_fills_any_duration_and_no_two_are_alike(label):
    for seconds in (0.3, 0.7, 15.0):
        waveform = waveform_of(one_of(label, seconds))
        assert waveform.shape == (round(seconds * 44_100),)
        assert np.isfinite(waveform).all()
        assert 0.1 <= np.abs(waveform).max() <= 0.9
    correlation = np.corrcoef([waveform_of(one_of(label, 1.0, index)) for index in range(4)])
    assert np.abs(correlation[np.triu_indices(4, k=1)]).max() < 0.9


def test_a_second_sound_is_within_6_decibels_of_the_first(monkeypatch):
    def low(rng, seconds):
        return synthetic.sine(np.full(round(44_100 * seconds), 441.0))

    def high(rng, seconds):
        return 0.01 * synthetic.sine(np.full(round(44_100 * seconds), 4410.0))

    monkeypatch.setattr(synthetic, "SOUNDS", {"High": high, "Low": low})
    ratios = []
    for index in range(20):
        spectrum = np.abs(np.fft.rfft(waveform_of(Clip("0.wav", ("High", "Low"), (), 1.0, (1, 0, index)))))  # [F]
        ratios.append(20 * np.log10(spectrum[441] / spectrum[4410]))
    assert -6.5 < min(ratios) < -3 and 3 < max(ratios) < 6.5


def test_a_simple_classifier_distinguishes_the_sounds():
    def features_and_labels(clips):
        clips = [clip for clip in clips if len(clip.truth) == 1]
        features = []
        for clip in clips:
            mel = librosa.feature.melspectrogram(y=waveform_of(clip), sr=44_100, hop_length=1024, n_mels=40)  # [M, T]
            decibels = librosa.power_to_db(mel, ref=np.max)
            features.append(np.concatenate([decibels.mean(axis=1), decibels.std(axis=1)]))
        return np.stack(features), [clip.truth[0] for clip in clips]

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    classifier.fit(*features_and_labels(plan("train_curated", 140, seed=4)))
    assert classifier.score(*features_and_labels(plan("test", 70, seed=4))) > 0.8
