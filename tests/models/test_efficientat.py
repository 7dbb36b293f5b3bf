import collections
import os
import pickle
import zipfile

import keras
import numpy as np
import pytest
import torch
from torch import nn

from audiotag.errors import DataError
from audiotag.models import MODELS
from audiotag.runs.pretrained import class_names, load_pretrained
from audiotag.runs.tensor_files import read_torch
from audiotag.runs.weights import save_weights

EXAMPLES = {
    "mn04": ({"weights": None, "dropout": 0.1}, (128, None, 1)),
    "mn10": ({"weights": None, "dropout": 0.1}, (128, None, 1)),
}
LENGTHS = {"mn04": (40, 33), "mn10": (40, 33)}
NUM_CLASSES = 527
# Kernel size, channels within and after each block, squeeze and excitation, Hardswish, stride.
BLOCKS = [(3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2)]
BLOCKS += 2 * [(5, 120, 40, 1, 0, 1)] + [(3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1)] + 2 * [(3, 184, 80, 0, 1, 1)]
BLOCKS += [(3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2)] + 2 * [(5, 960, 160, 1, 1, 1)]


class Excitation(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.conc_se_layers = nn.ModuleList([nn.ModuleDict({"fc1": nn.Linear(channels, squeezed)})])
        self.conc_se_layers[0]["fc2"] = nn.Linear(squeezed, channels)

    def forward(self, x):
        dense = self.conc_se_layers[0]
        return x * torch.sigmoid(dense["fc2"](torch.relu(dense["fc1"](x.mean((2, 3))))))[:, :, None, None]


class Block(nn.Module):
    def __init__(self, before, within, after, kernel, stride, excite, activation):
        super().__init__()
        layers = [convolution(before, within, 1, activation=activation)] if within != before else []
        layers.append(convolution(within, within, kernel, stride, within, activation))
        layers += [Excitation(within, divisible(within // 4))] if excite else []
        self.block = nn.Sequential(*layers, convolution(within, after, 1))
        self.residual = stride == 1 and before == after

    def forward(self, x):
        return self.block(x) + x if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """EfficientAT's network, with the names of its published weights."""

    def __init__(self, width):
        super().__init__()
        channels = divisible(16 * width)
        layers = [convolution(1, channels, 3, 2, activation=nn.Hardswish)]
        for kernel, within, after, excite, hard, stride in BLOCKS:
            sizes = (channels, divisible(within * width), channels := divisible(after * width))
            layers.append(Block(*sizes, kernel, stride, excite, nn.Hardswish if hard else nn.ReLU))
        layers.append(convolution(channels, 6 * channels, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        top = [nn.Linear(6 * channels, divisible(1280 * width)), nn.Hardswish(), nn.Dropout(0.2)]
        top.append(nn.Linear(divisible(1280 * width), NUM_CLASSES))
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *top)

    def forward(self, x):
        embedding = self.classifier[:4](self.features(x))
        return embedding, self.classifier[4:](embedding)


def convolution(before, after, kernel, stride=1, groups=1, activation=None):
    layers = [nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)]
    layers.append(nn.BatchNorm2d(after, eps=0.001))
    return nn.Sequential(*layers, *([activation()] if activation else []))


def divisible(size):
    """As published: the nearest multiple of 8, rounded up if it is below 0.9 of the size."""
    rounded = max(8, int(size + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * size else rounded


@pytest.fixture(scope="module", params=[("mn04", 0.4), ("mn10", 1.0)], ids=["mn04", "mn10"])
def published(request, tmp_path_factory):
    """A network in PyTorch with random weights, its name, and the file of its weights."""
    name, width = request.param
    torch.manual_seed(0)
    network = MobileNetV3(width).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.2, 0.6)
    path = tmp_path_factory.mktemp("weights") / f"{name}.pt"
    torch.save(network.state_dict(), path)
    return name, network, path


def test_embeddings_and_logits_are_those_of_pytorch(published):
    name, theirs, path = published
    network = MODELS[name]((128, None, 1), NUM_CLASSES)
    load_pretrained(network, str(path), top=True)
    outputs = keras.Model(network.input, [network.get_layer("embedding").output, network.output])
    for frames in (1, 101, 128):
        image = np.random.default_rng(frames).normal(0, 1, (2, 128, frames, 1)).astype("float32")
        ours = outputs(image)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(image.transpose(0, 3, 1, 2)))
        for array, other in zip(ours, expected, strict=True):
            assert other.std() > 0.01
            np.testing.assert_allclose(array, other, rtol=0, atol=1e-4)


def test_an_own_file_of_weights_can_be_loaded(tmp_path):
    one, other = (MODELS["mn04"]((128, None, 1), classes) for classes in (4, 5))
    save_weights(one, tmp_path / "own.weights.h5")
    load_pretrained(other, str(tmp_path / "own.weights.h5"))
    for ours, theirs in zip(other.get_weights()[:-2], one.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_classes_are_the_527_of_audioset():
    names = class_names("mn04")
    assert len(names) == len(set(names)) == 527
    places = {"Speech": 0, "Babbling": 6, "Rapping": 36, "Music": 137, "Sad music": 278, "Field recording": 526}
    assert {name: names.index(name) for name in places} == places


@pytest.mark.parametrize("shape", [(64, None, 1), (128, None, 3)])
def test_images_of_another_front_end_are_refused(shape):
    with pytest.raises(ValueError) as error:
        MODELS["mn04"](shape, 5)
    assert f"128 bands and one channel. Received: input_shape={shape}" in str(error.value)
    assert 'Use {"name": "efficientat_mel"} as the front end' in str(error.value)


@pytest.fixture(scope="module")
def network():
    return MODELS["mn04"]((128, None, 1), 4)


def refused(network, path, expected):
    with pytest.raises(DataError) as error:
        load_pretrained(network, str(path))
    assert str(error.value).startswith(str(path)) and expected in str(error.value), str(error.value)


def test_other_weights_are_refused_with_the_first_tensor_that_differs(network, tmp_path):
    torch.save(MobileNetV3(1.0).state_dict(), tmp_path / "mn10.pt")
    refused(
        network,
        tmp_path / "mn10.pt",
        "features.0.0.weight has the shape (16, 1, 3, 3). Expected the shape (8, 1, 3, 3).",
    )
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "small.pt")
    refused(network, tmp_path / "small.pt", "features.0.0.weight is missing. Expected the shape (8, 1, 3, 3).")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_of_a_pickle_is_run(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    torch.save({"features.0.0.weight": Harmful()}, path)
    refused(network, path, f"its pickle names {os.mkdir.__module__}.mkdir, which is no tensor.")
    torch.save(MobileNetV3(0.4), path)
    refused(network, path, "MobileNetV3, which is no tensor.")
    torch.save([torch.zeros(2)], path)
    refused(network, path, "it is no dict of tensors.")
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    refused(network, path, "is a pickle, which runs code when it is read. Expected mn04_as_mAP_432.pt")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    refused(network, path, "it is compressed.")
    assert not (tmp_path / "harm").exists()


def test_a_tensor_larger_than_its_storage_is_refused(network, tmp_path):
    torch.save({"a": torch.zeros(6)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    for short in (b"", b"\0" * 20):
        with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, short if name.endswith("data/0") else content)
        refused(network, tmp_path / "bad.pt", "a tensor of shape (6,) exceeds its storage.")


def test_tensors_are_read_as_pytorch_reads_them(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {"all": base, "turned": base.T, "part": base[1:3, ::2], "count": torch.tensor(7), "half": base.half()}
    tensors |= {"empty": torch.zeros(0, 3), "double": base.double()}
    torch.save(collections.OrderedDict(tensors), tmp_path / "tensors.pt")
    for name, array in read_torch(tmp_path / "tensors.pt").items():
        np.testing.assert_array_equal(array, tensors[name].numpy())
        assert array.dtype == tensors[name].numpy().dtype
