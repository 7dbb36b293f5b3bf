import keras
import numpy as np
import pytest
import torch
from torch import nn

from audiotag.models.vgg_gap import vgg_gap

EXAMPLES = {"vgg_gap": ({"width": 4, "dropout_scale": 0.5}, (47, None, 1))}
LENGTHS = {"vgg_gap": (200, 191, 192, 255, 256)}

WIDTH, NUM_CLASSES = 4, 5


def reference():
    """The network built from PyTorch layers with the names of ours."""
    layers = {}

    def convolution(number, channels, filters, kernel, padding, stride=1, relu=True):
        name = "head" if number == 15 else f"layer{number}"
        layers[f"{name}_conv"] = nn.Conv2d(channels, filters, kernel, stride, padding, bias=False)
        layers[f"{name}_norm"] = nn.BatchNorm2d(filters, eps=1e-4, momentum=0.1)
        if relu:
            layers[f"{name}_relu"] = nn.ReLU()

    w = WIDTH
    convolution(1, 1, w, 5, padding=2, stride=2)
    convolution(2, w, w, 3, padding=1)
    layers["pool2"] = nn.MaxPool2d(2)
    convolution(3, w, 2 * w, 3, padding=1)
    convolution(4, 2 * w, 2 * w, 3, padding=1)
    layers["pool4"] = nn.MaxPool2d(2)
    convolution(5, 2 * w, 4 * w, 3, padding=1)
    convolution(6, 4 * w, 4 * w, 3, padding=1)
    convolution(7, 4 * w, 6 * w, 3, padding=1)
    convolution(8, 6 * w, 6 * w, 3, padding=1)
    layers["pool8"] = nn.MaxPool2d(2)
    convolution(9, 6 * w, 8 * w, 3, padding=1)
    convolution(10, 8 * w, 8 * w, 3, padding=1)
    layers["pool10"] = nn.MaxPool2d((1, 2))
    convolution(11, 8 * w, 8 * w, 3, padding=1)
    convolution(12, 8 * w, 8 * w, 3, padding=1)
    layers["pool12"] = nn.MaxPool2d((1, 2))
    convolution(13, 8 * w, 8 * w, 3, padding=0)
    convolution(14, 8 * w, 8 * w, 1, padding=0)
    convolution(15, 8 * w, NUM_CLASSES, 1, padding=0, relu=False)
    return nn.ModuleDict(layers)


def perturbed():
    """Our network with batch statistics, scales and shifts that are no longer 0 and 1."""
    keras.utils.set_random_seed(0)
    model = vgg_gap((None, None, 1), NUM_CLASSES, width=WIDTH)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name != "kernel":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def test_every_layer_matches_pytorch():
    model, theirs = perturbed(), reference().eval()
    with torch.no_grad():
        for name, module in theirs.items():
            if isinstance(module, nn.Conv2d):
                (kernel,) = model.get_layer(name).get_weights()
                module.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1)))
            if isinstance(module, nn.BatchNorm2d):
                targets = (module.weight, module.bias, module.running_mean, module.running_var)
                for target, value in zip(targets, model.get_layer(name).get_weights(), strict=True):
                    target.copy_(torch.from_numpy(value))
    names = [name for name in theirs if name.endswith(("conv", "norm"))]
    assert len(names) == 2 * 15
    inside = keras.Model(model.input, {name: model.get_layer(name).output for name in [*names, "logits"]})
    for size in ((128, 384), (47, 191), (61, 222), (48, 255), (127, 193)):
        image = np.random.default_rng(1).standard_normal((2, *size, 1)).astype("float32")
        ours = inside(image)
        x = torch.from_numpy(image.transpose(0, 3, 1, 2))
        for name, module in theirs.items():
            x = module(x)
            if name in names:
                expected = x.detach().numpy().transpose(0, 2, 3, 1)
                np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-4, err_msg=f"{name} {size}")
        np.testing.assert_allclose(ours["logits"], x.mean((2, 3)).detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "total", "trainable"), [(64, 14_865_124, 14_855_570), (48, 8_369_492, 8_362_306)])
def test_the_number_of_weights_is_as_published(width, total, trainable):
    model = vgg_gap((128, 384, 1), 41, width=width)
    assert model.count_params() == total
    assert sum(np.prod(weight.shape) for weight in model.trainable_variables) == trainable


def test_sizes_and_dropout_match_the_paper():
    model = vgg_gap((128, 384, 1), 41, width=2)
    sizes = [tuple(model.get_layer(f"layer{number}_conv").output.shape[1:3]) for number in (1, 3, 5, 9, 11, 13)]
    assert sizes == [(64, 192), (32, 96), (16, 48), (8, 24), (8, 12), (6, 4)]
    rates = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            convolution = layer.name
        if isinstance(layer, keras.layers.Dropout) and layer.rate:
            rates[convolution] = layer.rate
    assert rates == {f"layer{n}_conv": 0.3 for n in (2, 4, 5, 6, 7, 8, 10, 12)} | {
        "layer13_conv": 0.5,
        "layer14_conv": 0.5,
    }
    assert vgg_gap((128, 3000, 1), 41, width=2).get_layer("head_conv").output.shape[1:3] == (6, 44)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-4)


@pytest.mark.parametrize("shape", [(46, 384, 1), (128, 190, 1), (46, None, 1), (None, 190, 1)])
def test_an_image_too_small_is_refused(shape):
    with pytest.raises(ValueError) as error:
        vgg_gap(shape, 5)
    assert f"at least 47 bands and 191 frames. Received: input_shape={shape}. Use more bands" in str(error.value)


def test_a_width_below_one_is_refused():
    with pytest.raises(ValueError, match="width must be from 1 to 256. Received: width=0"):
        vgg_gap((128, 384, 1), 5, width=0)


def test_dropout_can_be_scaled_down():
    network = vgg_gap((128, 384, 1), 5, width=1, dropout_scale=0.5)
    rates = [layer.rate for layer in network.layers if hasattr(layer, "rate")]
    assert set(rates) == {0.0, 0.15, 0.25}
    with pytest.raises(ValueError, match="dropout_scale must be from 0 to 1. Received: dropout_scale=1.5"):
        vgg_gap((128, 384, 1), 5, dropout_scale=1.5)
