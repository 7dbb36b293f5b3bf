"""Test signals for the front ends: ten extreme ones and ten recordings."""

from pathlib import Path

import numpy as np
import pytest

ESC10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "esc10"


@pytest.fixture(scope="session")
def extremes():
    """A function from a sample rate to {name: float32 [N]}: ten clips of odd lengths, from one sample to 0.5 s."""

    def make(sample_rate):
        time = np.arange(sample_rate // 2 | 1) / sample_rate
        noise = np.random.default_rng(0).standard_normal(len(time))
        clips = {
            "silence": np.zeros(sample_rate // 3 | 1),
            "one sample": np.array([0.5]),
            "full-scale square": np.sign(np.sin(2 * np.pi * 441 * time) + 1e-9),
            "DC": np.full(sample_rate // 4 | 1, 0.3),
            "0.05 s": noise[: sample_rate // 20 | 1] / 4,
            "impulse": np.eye(1, sample_rate // 5 | 1, 1234)[0],
            "tone": np.sin(2 * np.pi * 1234.56 * time),
            "noise": noise / 4,
            "very quiet noise": 1e-6 * noise,
            "clipped sine": np.clip(4 * np.sin(2 * np.pi * 97 * time), -1, 1),
        }
        return {name: clip.astype("float32") for name, clip in clips.items()}

    return make


@pytest.fixture(scope="session")
def real_clips():
    """Two seconds around the peak of a recording of each class of ESC-10: float32 [10, 88200]."""
    if not ESC10.is_dir():
        pytest.skip("needs the recordings of ESC-10 in shared/data/esc10")
    import soundfile

    files = [min(folder.glob("*.ogg")) for folder in sorted(ESC10.iterdir()) if folder.is_dir()]
    assert len(files) == 10
    clips = [soundfile.read(file, dtype="float32")[0] for file in files]
    starts = [min(max(np.abs(clip).argmax() - 44_100, 0), len(clip) - 88_200) for clip in clips]
    return np.stack([clip[start : start + 88_200] for clip, start in zip(clips, starts)])
