import numpy as np
import pytest
import soundfile as sf
import soxr

from audiotag.data.audio.examination import count_flat_peaks, edge_of, examine
from audiotag.data.audio.fingerprints import fingerprint

RATE = 16_000
NOISE = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype("float32")


def test_a_file_and_its_waveform_are_examined_alike(tmp_path):
    sf.write(tmp_path / "a.wav", NOISE, RATE, subtype="FLOAT")
    file, waveform = examine(tmp_path / "a.wav"), examine((NOISE, RATE))
    assert (file.sha256, file.seconds, file.sample_rate) == (waveform.sha256, 1.0, RATE)
    assert file.rms == pytest.approx(np.sqrt(np.mean(NOISE**2)), rel=1e-5)
    assert file.mean == pytest.approx(NOISE.mean(), abs=1e-7)
    assert (file.fault, file.clipped, file.bandwidth_hz) == ("", 0, None)


def test_a_part_of_a_file_is_examined(tmp_path):
    sf.write(tmp_path / "a.wav", NOISE, RATE, subtype="FLOAT")
    assert examine((str(tmp_path / "a.wav"), 0.25, 0.5)).sha256 == examine((NOISE[4000:8000], RATE)).sha256


def test_a_file_that_cannot_be_decoded_has_a_fault_without_its_path(tmp_path):
    sf.write(tmp_path / "a.wav", NOISE, RATE)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:3000])
    assert "cut short" in examine(tmp_path / "a.wav").fault
    assert str(tmp_path) not in examine(tmp_path / "a.wav").fault


@pytest.mark.parametrize("level", [1.0, 0.5])
def test_flat_peaks_are_counted_at_full_scale_and_below(level):
    loud = np.clip(20 * NOISE, -level, level)
    assert count_flat_peaks(loud, peak=level) > 100
    assert count_flat_peaks(NOISE, peak=float(np.abs(NOISE).max())) == 0
    assert count_flat_peaks(np.zeros(10, "float32"), peak=0.0) == 0


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_a_recording_from_a_lower_rate_has_an_edge(rate):
    upsampled = np.round(soxr.resample(np.tile(NOISE, 2), RATE, rate) * 32768).astype("int16")
    edge = examine((upsampled, rate)).bandwidth_hz
    assert edge is None if rate == 22_050 else 7000 < edge < 8400  # 8,000 Hz of 11,025 may be a lossy format


def test_colored_noise_and_silence_have_no_edge():
    brown = np.cumsum(NOISE) / 100
    assert edge_of(fingerprint(brown.astype("float32"), RATE)[1], RATE) is None
    assert edge_of(np.zeros(500), RATE) is None
