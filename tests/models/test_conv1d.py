from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from audiotag.config.loading import load
from audiotag.models.conv1d import conv1d
from audiotag.runs.building import build_tagger

EXAMPLES = {"conv1d": ({}, (None, 1))}
NUM_WEIGHTS = {"conv1d": 400_644}
LENGTHS = {"conv1d": (1700, 1616, 1617, 1999, 2048)}

DEMO = Path(__file__).parents[2] / "experiments" / "demo.json"


@pytest.mark.parametrize(("num_classes", "weights"), [(80, 400_644), (74, 394_470), (41, 360_513)])
def test_the_number_of_weights_is_as_published(num_classes, weights):
    assert conv1d((32_000, 1), num_classes).count_params() == weights


def test_it_matches_pytorch_layer_by_layer():
    layers = [nn.Conv1d(1, 16, 9), nn.ReLU(), nn.Conv1d(16, 16, 9), nn.ReLU(), nn.MaxPool1d(16)]
    for channels in (16, 32):
        layers += [nn.Conv1d(channels, 32, 3), nn.ReLU(), nn.Conv1d(32, 32, 3), nn.ReLU(), nn.MaxPool1d(4)]
    layers += [nn.Conv1d(32, 256, 3), nn.ReLU(), nn.Conv1d(256, 256, 3), nn.ReLU()]
    layers += [nn.AdaptiveMaxPool1d(1), nn.Flatten()]
    layers += [nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 1028), nn.ReLU(), nn.Linear(1028, 5)]
    model = conv1d((None, 1), 5)
    weighted = [layer for layer in layers if isinstance(layer, (nn.Conv1d, nn.Linear))]
    kernels = model.get_weights()[::2]
    with torch.no_grad():
        for layer, kernel in zip(weighted, kernels, strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.T))
            nn.init.zeros_(layer.bias)
    for samples in (1616, 1617, 2000, 32_000):
        waveform = np.random.default_rng(0).standard_normal((2, samples, 1)).astype("float32")
        theirs = nn.Sequential(*layers)(torch.from_numpy(waveform).mT).detach().numpy()
        np.testing.assert_allclose(model(waveform), theirs, atol=1e-5)


def test_lengths_and_dropout_match_the_published_kernel():
    model = conv1d((32_000, 1), 5)
    kinds = [(type(layer).__name__, layer) for layer in model.layers]
    assert [layer.output.shape[1] for kind, layer in kinds if kind in ("Conv1D", "MaxPooling1D")] == [
        *(31_992, 31_984, 1999),
        *(1997, 1995, 498),
        *(496, 494, 123),
        *(121, 119),
    ]
    assert [layer.rate for kind, layer in kinds if kind == "Dropout"] == [0.1, 0.1, 0.1, 0.2]


@pytest.mark.parametrize(("window_layout", "num_windows"), [("sliding", 1), ("full_clip", 2)])
def test_it_receives_scaled_waveforms_from_a_tagger(window_layout, num_windows):
    overrides = ['frontend={"name": "raw_waveform"}', 'model={"name": "conv1d"}', "image_preprocess=[]", "augment=[]"]
    overrides.append(f"predict.windows={window_layout}")
    tagger = build_tagger(load(DEMO, overrides), sample_rate=16_000, num_classes=5)
    window = np.random.default_rng(0).uniform(-1, 1, (2, num_windows * tagger.window_samples)).astype("float32")
    low, high = window.min(axis=1, keepdims=True), window.max(axis=1, keepdims=True)
    waveform = (window - low) / (high - low + 1e-6) - 0.5
    model = conv1d((None, 1), 5)
    model.set_weights(tagger.network.get_weights())
    np.testing.assert_allclose(tagger(window), model(waveform[:, :, None]), rtol=1e-4, atol=1e-6)


def test_a_short_waveform_and_an_image_are_refused():
    with pytest.raises(ValueError) as error:
        conv1d((1615, 1), 5)
    assert "at least 1616 samples. Received: input_shape=(1615, 1). Use a longer window." in str(error.value)
    for shape in ((64, None, 1), (1, None, 1), (32_000, 2)):
        with pytest.raises(ValueError) as error:
            conv1d(shape, 5)
        assert f"conv1d expects waveforms, (N, 1). Received: input_shape={shape}" in str(error.value)
        assert '{"name": "raw_waveform"}' in str(error.value)
