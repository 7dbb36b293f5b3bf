import numpy as np
import pytest

from audiotag.data.audio.fingerprints import MOST_FRAMES, NONE, fingerprint

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("seconds", "doublings"), [(0.01, 0), (1.0, 0), (5.0, 1), (60.0, 4)])
def test_the_size_has_a_limit_whatever_the_duration(seconds, doublings):
    found, _ = fingerprint(RNG.standard_normal(int(16_000 * seconds)).astype("float32"), 16_000)
    assert len(found.levels) <= MOST_FRAMES and found.levels.shape[1] == 24
    assert found.doublings == doublings
    assert len(found.levels) * found.hop_seconds == pytest.approx(seconds, abs=0.064 + found.hop_seconds)


def test_a_gain_shifts_all_levels_and_leaves_the_summary():
    wave = (0.1 * RNG.standard_normal(16_000)).astype("float32")
    loud, soft = fingerprint(wave, 16_000)[0], fingerprint(wave / 10, 16_000)[0]
    np.testing.assert_allclose(loud.levels.astype(int) - soft.levels, 2000, atol=1)  # 20 dB in hundredths
    np.testing.assert_allclose(loud.summary, soft.summary, atol=0.01)


def test_a_tone_is_in_the_band_of_its_frequency_at_any_rate():
    for rate in (8000, 16_000, 44_100):
        wave = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype("float32")
        assert fingerprint(wave, rate)[0].levels.mean(axis=0).argmax() == 8


def test_bands_above_half_of_the_rate_have_no_level():
    levels = fingerprint(RNG.standard_normal(8000).astype("float32"), 8000)[0].levels
    assert (levels[:, :17] != NONE).all() and (levels[:, 18:] == NONE).all()


def test_silence_has_no_summary():
    assert fingerprint(np.zeros(8000, "float32"), 8000)[0].summary is None
