import numpy as np
import pytest
import torch
from torch import nn

from audiotag.models.conv2d import conv2d

EXAMPLES = {"conv2d": ({}, (20, 40, 1))}


@pytest.mark.parametrize(
    ("num_classes", "weights", "trainable"), [(80, 171_280, 170_896), (74, 170_890, 170_506), (41, 168_745, 168_361)]
)
def test_the_number_of_weights_is_as_published(num_classes, weights, trainable):
    model = conv2d((40, 173, 1), num_classes)
    assert model.count_params() == weights
    assert sum(np.prod(weight.shape) for weight in model.trainable_variables) == trainable


def test_it_matches_pytorch_layer_by_layer():
    layers, channels = [], 1
    for _ in range(4):  # an even kernel is padded by one more after than before
        layers += [nn.ZeroPad2d((4, 5, 1, 2)), nn.Conv2d(channels, 32, (4, 10)), nn.BatchNorm2d(32, eps=1e-3)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels = 32
    dense = [nn.Linear(640, 64), nn.BatchNorm1d(64, eps=1e-3), nn.ReLU(), nn.Linear(64, 5)]
    model = conv2d((40, 173, 1), 5)
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.uniform(0, 0.3, weight.shape) for weight in model.get_weights()])
    ours = iter(model.get_weights())
    with torch.no_grad():
        for layer in [*layers, *dense]:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                axes = (3, 2, 0, 1) if isinstance(layer, nn.Conv2d) else (1, 0)
                layer.weight.copy_(torch.from_numpy(next(ours).transpose(axes)))
                layer.bias.copy_(torch.from_numpy(next(ours)))
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                for target in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    target.copy_(torch.from_numpy(next(ours)))
    image = rng.standard_normal((3, 40, 173, 1)).astype("float32")
    x = nn.Sequential(*layers).eval()(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    assert x.shape[2:] == (2, 10)
    theirs = nn.Sequential(*dense).eval()(x.permute(0, 2, 3, 1).flatten(1)).detach().numpy()
    np.testing.assert_allclose(model(image), theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("shape", [(40, None, 1), (None, 173, 1), (15, 173, 1), (40, 15, 1)])
def test_an_image_of_unknown_or_small_size_is_refused(shape):
    with pytest.raises(ValueError) as error:
        conv2d(shape, 5)
    assert f"one known size, at least 16x16. Received: input_shape={shape}" in str(error.value)
    assert '{"name": "resize", "height": ..., "width": ...} to image_preprocess.' in str(error.value)
