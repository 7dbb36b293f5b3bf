import io

import numpy as np
import pytest
import soundfile as sf
import soxr
from sklearn.neighbors import NearestNeighbors

from audiotag.data import synthetic
from audiotag.data.audio.examination import examine
from audiotag.data.near_duplicates import clusters, compare, find_near_duplicates, nearest

RATE = synthetic.SAMPLE_RATE
SOUNDS = (synthetic.rain, synthetic.hiss, synthetic.drum, synthetic.plucked_string, synthetic.knock, synthetic.chirp)


def sound(number, seconds=2.0):
    """A synthesized clip: each number is another recording of one of six sounds."""
    wave = SOUNDS[number % len(SOUNDS)](synthetic.generator(number), seconds)
    wave = wave + 0.001 * synthetic.generator(number, 1).standard_normal(len(wave))
    return (0.3 * wave / np.abs(wave).max()).astype("float32")


def coded(wave, kind, rate=RATE):
    """A waveform that was written as MP3 or OGG and read again."""
    file = io.BytesIO()
    sf.write(file, wave, rate, format=kind)
    file.seek(0)
    return sf.read(file, dtype="float32")[0]


CHANGES = {
    "louder": lambda wave: (3 * wave, RATE),
    "MP3, softer": lambda wave: (coded(0.1 * wave, "MP3"), RATE),
    "OGG, its start cut off": lambda wave: (coded(wave[len(wave) // 10 :], "OGG"), RATE),
    "its end cut off": lambda wave: (wave[: -len(wave) // 10], RATE),
    "at 16 kHz": lambda wave: (soxr.resample(wave, RATE, 16_000), 16_000),
    "after a second of silence": lambda wave: (np.pad(wave, (RATE, 0)), RATE),
}


@pytest.fixture(scope="module")
def originals():
    return [examine((sound(number), RATE)) for number in range(36)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(originals, change):
    copies = [examine(CHANGES[change](sound(number))) for number in range(6, 12)]
    pairs = find_near_duplicates([each.fingerprint for each in [*originals, *copies]])
    assert {(pair.first, pair.second) for pair in pairs} == {(6 + number, 36 + number) for number in range(6)}


def test_the_offset_says_where_the_copy_begins():
    wave = sound(0)
    offset = compare(*(examine((each, RATE)).fingerprint for each in (wave, wave[round(0.2 * RATE) :])))[1]
    assert offset == pytest.approx(0.2, abs=0.005)


def test_long_clips_of_different_duration_are_compared():
    wave = np.concatenate([sound(number) for number in range(3)])  # 6 s: frames twice as far apart
    similarity, offset, _ = compare(*(examine((each, RATE)).fingerprint for each in (wave, wave[2 * RATE :])))
    assert similarity > 0.9 and offset == pytest.approx(2.0, abs=0.02)


def test_equal_samples_are_the_same_and_silence_and_steady_tones_are_compared_by_them_only():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype("float32")
    clips = [examine((wave, RATE)) for wave in (tone, tone, 0.5 * tone, np.zeros(RATE, "float32"), sound(0), sound(0))]
    pairs = find_near_duplicates([clip.fingerprint for clip in clips], [clip.sha256 for clip in clips])
    assert [(pair.first, pair.second, pair.similarity) for pair in pairs] == [(0, 1, 1.0), (4, 5, 1.0)]
    numbers = clusters(pairs, len(clips)).tolist()
    assert numbers[0] == numbers[1] and numbers[4] == numbers[5] and len(set(numbers)) == 4


def test_several_processes_find_the_same_pairs(originals, monkeypatch):
    monkeypatch.setattr("audiotag.data.near_duplicates.LEAST_FOR_WORKERS", 1)
    prints = [each.fingerprint for each in [*originals[:8], examine((0.1 * sound(1), RATE))]]
    pairs = find_near_duplicates(prints, num_workers=2)
    assert pairs == find_near_duplicates(prints) and [(pair.first, pair.second) for pair in pairs] == [(1, 8)]


def test_the_nearest_rows_are_those_of_scikit_learn(monkeypatch):
    monkeypatch.setattr("audiotag.data.near_duplicates.ROWS_AT_A_TIME", 7)
    vectors = np.random.default_rng(0).standard_normal((40, 5))
    expected = NearestNeighbors(n_neighbors=3).fit(vectors).kneighbors()
    distances, rows = nearest(vectors, 3)
    np.testing.assert_allclose(distances, expected[0])
    assert rows.tolist() == expected[1].tolist()


def test_one_clip_or_unreadable_ones_have_no_copies():
    assert find_near_duplicates([None, examine((sound(0), RATE)).fingerprint]) == []
    assert clusters([], 3).tolist() == [0, 1, 2]
