"""Changes of the sound, and what they cost."""

import shutil

import numpy as np
import pytest

from audiotag import api
from audiotag.evaluation.measures import MEASURES
from audiotag.evaluation.robustness import CHANGES, changes_for
from audiotag.reporting.run_page import write_run_page
from audiotag.training.loop import fit

RATE = 16_000


def tones(*frequencies, seconds=1.0):
    time = np.arange(round(seconds * RATE)) / RATE
    return np.sum([0.05 * np.sin(2 * np.pi * hz * time) for hz in frequencies], axis=0).astype("float32")


def changed(name, waveform, seed=0):
    return CHANGES[name](waveform, RATE, np.random.default_rng(seed))


def level(waveform):
    return 10 * np.log10(np.mean(np.square(waveform)))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("length", [1, 100, 12_345])
def test_every_change_keeps_the_length_and_silence(name, length):
    silence, sound = np.zeros(length, "float32"), np.random.default_rng(0).normal(0, 0.1, length).astype("float32")
    for waveform in (silence, sound):
        result = changed(name, waveform)
        assert result.shape == (length,) and np.isfinite(result).all()
    assert np.abs(changed(name, silence)).max() < 1e-3


@pytest.mark.parametrize("name, decibels", [("20 dB softer", -20), ("20 dB louder", 20)])
def test_gain_changes_the_level_and_clips_at_full_scale(name, decibels):
    assert level(changed(name, tones(440))) - level(tones(440)) == pytest.approx(decibels, abs=1e-3)
    assert np.abs(changed(name, 10 * tones(440))).max() <= 1


def test_low_pass_removes_what_is_above_4_khz():
    low, high = changed("low-pass at 4 kHz", tones(1_000)), changed("low-pass at 4 kHz", tones(6_000))
    assert level(low[2_000:-2_000]) == pytest.approx(level(tones(1_000)), abs=0.1)
    assert level(high[2_000:-2_000]) < level(tones(6_000)) - 40


def test_mp3_keeps_the_position_and_most_of_the_sound():
    waveform = tones(440, 1_500) + np.random.default_rng(0).normal(0, 0.01, RATE).astype("float32")
    result = changed("MP3 at 64 kbit/s", waveform)
    assert not np.array_equal(result, waveform)
    assert np.corrcoef(result, waveform)[0, 1] > 0.98


def test_noise_is_10_db_below_the_clip():
    waveform = tones(440)
    assert level(waveform) - level(changed("noise at 10 dB", waveform) - waveform) == pytest.approx(10, abs=0.2)


def test_reverberation_goes_on_after_the_sound_and_is_as_loud():
    waveform = np.append(tones(440, seconds=0.5), np.zeros(RATE // 2, "float32"))
    result = changed("reverberation of 0.5 s", waveform)
    assert level(result) == pytest.approx(level(waveform), abs=1e-3)
    early, late = level(result[RATE // 2 :][: RATE // 10]), level(result[-RATE // 10 :])
    assert early > level(waveform) - 20 and late < early - 20


def test_sample_rates_without_mp3_or_without_high_frequencies_leave_these_out():
    assert set(CHANGES) - set(changes_for(20_000)) == {"MP3 at 64 kbit/s"}
    assert set(CHANGES) - set(changes_for(8_000)) == {"low-pass at 4 kHz"}
    assert set(changes_for(44_100)) == set(CHANGES)


def test_evaluate_and_the_report_show_what_each_change_costs(run, tmp_path):
    evaluation = api.evaluate(run, robustness=True)
    table = evaluation.robustness
    assert list(dict.fromkeys(table["change"])) == [*CHANGES] and set(table["measure"]) == {*MEASURES}
    unchanged = evaluation.overall.query("split == 'all'").set_index("measure")["value"]
    np.testing.assert_allclose(table["value"] + table["loss"], unchanged.loc[table["measure"]], atol=1e-9)
    assert (table["low"] <= table["loss"]).all() and (table["loss"] <= table["high"]).all()
    assert table["loss"].abs().max() > 0
    text = str(evaluation)
    assert all(name in text for name in CHANGES) and "Lost by changed sound" in text
    write_run_page(run, tmp_path / "report.html", robustness=True)
    assert "What each measure loses" in (tmp_path / "report.html").read_text()


def test_out_of_fold_each_clip_is_changed_for_the_model_that_held_it_out(tiny, records, tmp_path):
    folds = 'validation={"folds": {"num_folds": 3, "held_out": [0, 2]}}'
    experiment = tiny(folds, "stages.noisy.epochs=1", "stages.curated.epochs=1")
    run = fit(experiment, tmp_path / "run", say=lambda sentence: None)
    moved = shutil.copytree(records, tmp_path / "moved")
    evaluation = api.evaluate(run, records=moved, robustness=True, out_of_fold=True)
    table, overall = evaluation.robustness, evaluation.overall
    unchanged = overall.query("split == 'all'").set_index("measure")["value"]
    np.testing.assert_allclose(table["value"] + table["loss"], unchanged.loc[table["measure"]], atol=1e-6)
    assert table["loss"].abs().max() > 0
