import numpy as np
import pytest
import torch
from examples import WAVEFORM

from audiotag.layers import EfficientATMel

EXAMPLES = [(EfficientATMel, {"sample_rate": 32_000}, WAVEFORM)]


def published(waveform):
    """The spectrogram of EfficientAT's program at inference, in PyTorch: [B, N] → [B, T, 128]."""
    x = torch.from_numpy(waveform)
    x = torch.nn.functional.conv1d(x[:, None], torch.tensor([[[-0.97, 1.0]]]))[:, 0]
    window = torch.hann_window(800, periodic=False)
    x = torch.stft(x, 1024, hop_length=320, win_length=800, center=True, window=window, return_complex=True)
    return ((torch.log(kaldi_filters() @ x.abs() ** 2 + 1e-5) + 4.5) / 5).mT.numpy()


def kaldi_filters(num_bands=128, fft_length=1024, sample_rate=32_000, low_hz=0.0, high_hz=15_000.0):
    """Kaldi's mel filters, [M, F], as torchaudio.compliance.kaldi.get_mel_banks computes them."""

    def mel(hz):
        return 1127.0 * torch.log(1.0 + hz / 700.0)

    low, high = mel(torch.tensor(low_hz)), mel(torch.tensor(high_hz))
    delta = (high - low) / (num_bands + 1)
    left = low + torch.arange(num_bands)[:, None] * delta
    bins = mel(sample_rate / fft_length * torch.arange(fft_length // 2))[None]
    slopes = torch.minimum((bins - left) / delta, (left + 2 * delta - bins) / delta)
    return torch.nn.functional.pad(slopes.clamp(min=0), (0, 1))


@pytest.mark.parametrize("samples", [1000, 31_999, 32_000, 32_001, 50_000])
def test_every_length_agrees_with_the_published_program(samples):
    waveforms = np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype("float32")
    ours = EfficientATMel(sample_rate=32_000)(waveforms)
    np.testing.assert_allclose(ours, published(waveforms), rtol=0, atol=1e-3)  # Kaldi's filters are float32


def test_another_sample_rate_is_refused_with_the_command_that_makes_records():
    with pytest.raises(ValueError) as error:
        EfficientATMel(sample_rate=16_000)
    assert "expects 32000 samples per second. Received: sample_rate=16000." in str(error.value)
    assert "audiotag make-records DATASET --sample-rate 32000" in str(error.value)
