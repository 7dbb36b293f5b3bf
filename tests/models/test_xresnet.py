import keras
import numpy as np
import pytest
import torch
from torch import nn

from audiotag.layers import SimpleSelfAttention
from audiotag.models.xresnet import xresnet18, xresnet50

EXAMPLES = {
    "xresnet18": ({"attention": True}, (24, None, 1)),
    "xresnet34": ({"attention": False}, (24, None, 1)),
    "xresnet50": ({"attention": True}, (24, None, 1)),
}

# A network built from PyTorch layers. Its modules have the names of ours: "stage1_block2_1_conv" is
# stage1.block2.1.conv.


class Convolution(nn.ModuleDict):
    def __init__(self, channels, filters, kernel, stride=1):
        conv = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__({"conv": conv, "norm": nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1)})

    def forward(self, x):
        return self["norm"](self["conv"](x))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.utils.spectral_norm(nn.Conv1d(channels, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, image):
        x = image.flatten(2)  # [B, C, N]
        return (x + self.gamma * (x @ (x.mT @ self.conv(x)))).reshape(image.shape)


class Block(nn.ModuleDict):
    def __init__(self, channels, width, stride, bottleneck, attention):
        filters = 4 * width if bottleneck else width
        if bottleneck:
            narrow = [Convolution(channels, width, 1), Convolution(width, width, 3, stride)]
            branch = [*narrow, Convolution(width, filters, 1)]
        else:
            branch = [Convolution(channels, width, 3, stride), Convolution(width, filters, 3)]
        super().__init__({str(number): layer for number, layer in enumerate(branch, start=1)})
        self.num_convolutions = len(branch)
        if attention:
            self["attention"] = Attention(filters)
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        if channels != filters:
            self["shortcut"] = Convolution(channels, filters, 1)

    def forward(self, x):
        branch = self["1"](x)
        for number in range(2, self.num_convolutions + 1):
            branch = self[str(number)](torch.relu(branch))
        if "attention" in self:
            branch = self["attention"](branch)
        x = self.pool(x)
        return torch.relu(branch + (self["shortcut"](x) if "shortcut" in self else x))


class Reference(nn.ModuleDict):
    def __init__(self, channels, num_classes, stem, blocks, bottleneck, attention):
        steps = enumerate(zip((channels, *stem), stem, (2, 1, 1)), start=1)
        stem = {str(number): Convolution(before, after, 3, stride) for number, (before, after, stride) in steps}
        super().__init__({"stem": nn.ModuleDict(stem)})
        channels = 64
        for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512)), start=1):
            self[f"stage{stage}"] = nn.ModuleDict()
            for block in range(1, count + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                attention_here = attention and stage == 1 and block == count
                self[f"stage{stage}"][f"block{block}"] = Block(channels, width, stride, bottleneck, attention_here)
                channels = 4 * width if bottleneck else width
        self["logits"] = nn.Linear(channels, num_classes)

    def forward(self, x):
        """{name: output}."""
        outputs = {}
        for layer in self["stem"].values():
            x = torch.relu(layer(x))
        x = nn.functional.max_pool2d(x, 3, 2, padding=1)
        for stage in range(1, 5):
            for name, block in self[f"stage{stage}"].items():
                x = outputs[f"stage{stage}_{name}"] = block(x)
        return outputs | {"logits": self["logits"](x.mean((2, 3)))}


def perturb(model):
    """Draws scales, shifts and statistics, so that none is 0 or 1."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(rng.uniform(0.3, 0.7, weight.shape))
        if isinstance(layer, SimpleSelfAttention):
            layer.gamma.assign(0.005)


def copy(model, reference):
    """Copies our weights into the reference by name; checks that every tensor of it is set."""
    copied = []
    for layer in model.layers:
        if not layer.weights:
            continue
        module = reference.get_submodule(layer.name.replace("_", "."))
        weights = {weight.name: np.array(weight) for weight in layer.weights}
        if isinstance(module, nn.Conv2d):
            pairs = [(module.weight, weights["kernel"].transpose(3, 2, 0, 1))]
        elif isinstance(module, nn.BatchNorm2d):
            pairs = [(module.weight, weights["gamma"]), (module.bias, weights["beta"])]
            pairs += [(module.running_mean, weights["moving_mean"]), (module.running_var, weights["moving_variance"])]
        elif isinstance(module, Attention):
            pairs = [(module.gamma, weights["gamma"]), (module.conv.weight_orig, weights["kernel"].T[:, :, None])]
            pairs += [(module.conv.weight_u, weights["u"][0]), (module.conv.weight_v, weights["v"][0])]
        else:
            pairs = [(module.weight, weights["kernel"].T), (module.bias, weights["bias"])]
        with torch.no_grad():
            for theirs, ours in pairs:
                theirs.copy_(torch.from_numpy(ours))
                copied.append(theirs)
    tensors = [*reference.parameters(), *(b for b in reference.buffers() if b.is_floating_point())]
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in copied}


def channels_last(tensor):
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@pytest.mark.parametrize(
    ("build", "attention", "stem", "blocks", "bottleneck"),
    [
        (xresnet18, True, (32, 64, 64), (2, 2, 2, 2), False),
        (xresnet50, False, (32, 32, 64), (3, 4, 6, 3), True),
    ],
)
def test_every_block_matches_pytorch(build, attention, stem, blocks, bottleneck):
    keras.utils.set_random_seed(0)
    model = build((None, None, 3), 5, attention=attention)
    perturb(model)
    reference = Reference(3, 5, stem, blocks, bottleneck, attention)
    copy(model, reference)
    names = [f"stage{stage}_block{block}" for stage in (1, 2, 3, 4) for block in range(1, blocks[stage - 1] + 1)]
    names.append("logits")
    inside = keras.Model(model.input, {name: model.get_layer(name).output for name in names})
    rng = np.random.default_rng(0)
    for training, size in ((False, (32, 64)), (False, (33, 71)), (False, (7, 1)), (True, (37, 43))):
        image = rng.standard_normal((2, *size, 3)).astype("float32")
        theirs = reference.train(training)(torch.from_numpy(image.transpose(0, 3, 1, 2)))
        ours = inside(image, training=training)
        for name in names:
            expected = channels_last(theirs[name])
            tolerance = 1e-4 * max(1, np.abs(expected).max())
            np.testing.assert_allclose(ours[name], expected, rtol=0, atol=tolerance, err_msg=f"{name} {size}")


def test_every_branch_starts_at_zero_and_no_two_layers_start_the_same():
    model = xresnet18((None, None, 1), 5, attention=True)
    zero_scales = [layer.name for layer in model.layers if layer.name.endswith("_norm") and not np.any(layer.gamma)]
    assert zero_scales == [f"stage{stage}_block{block}_2_norm" for stage in (1, 2, 3, 4) for block in (1, 2)]
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
    kernels = [np.array(layer.kernel) for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for kernel in kernels:
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / np.prod(kernel.shape[:3])), rel=0.2)
    alike = [kernel for kernel in kernels if kernel.shape == (3, 3, 64, 64)]
    assert len(alike) == 5 and all(np.any(alike[0] != other) for other in alike[1:])
    head = model.get_layer("logits")
    assert np.std(head.kernel) == pytest.approx(np.sqrt(2 / 512), rel=0.1)
    assert not np.any(head.bias)
