"""Properties of every layer: those of audiotag.testing, and some that only audiotag's own layers have."""

import inspect
import pkgutil
from importlib import import_module

import keras
import numpy as np
import pytest
from examples import collected

import audiotag.layers
from audiotag.layers import (
    FRONTENDS,
    IMAGE_AUGMENTATIONS,
    IMAGE_PREPROCESSING,
    WAVEFORM_AUGMENTATIONS,
    RandomAugmentation,
)
from audiotag.testing import check_augmentation, check_layer

# Each layer, a value for each of its options, and the shape of its input: [B, ...], None where it may vary.
LAYERS = [example for examples in collected("layers") for example in examples]
LENGTHS = [400, 401, *range(300, 340, 3), 1600, 1601, 800]
OWN_LENGTHS = dict(pair for pairs in collected("layers", "OWN_LENGTHS") for pair in pairs.items())  # not these
every_layer = pytest.mark.parametrize(
    ("layer", "options", "shape"), LAYERS, ids=[f"{layer.__name__}-{len(shape)}d" for layer, _, shape in LAYERS]
)


def test_no_layer_is_missing_from_the_list():
    listed = {layer for layer, _, _ in LAYERS}
    modules = [
        import_module(name) for _, name, _ in pkgutil.walk_packages(audiotag.layers.__path__, "audiotag.layers.")
    ]
    public = {
        value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and not name.startswith("_")
    }
    assert public == listed | {RandomAugmentation}  # the base class is abstract
    for table in (WAVEFORM_AUGMENTATIONS, FRONTENDS, IMAGE_PREPROCESSING, IMAGE_AUGMENTATIONS):
        assert set(table.values()) <= listed
    assert {name for name in audiotag.layers.__all__ if not name.isupper()} == {layer.__name__ for layer in public}
    assert all(hasattr(audiotag.layers, name) for name in audiotag.layers.__all__)


def test_every_augmentation_has_the_public_protocol():
    kinds = {*WAVEFORM_AUGMENTATIONS.values(), *IMAGE_AUGMENTATIONS.values()}
    assert {layer for layer, _, _ in LAYERS if issubclass(layer, RandomAugmentation)} == kinds


@every_layer
def test_the_example_has_every_option(layer, options, shape):
    assert set(options) == set(inspect.signature(layer).parameters) - {"kwargs"}


@every_layer
def test_a_layer_has_every_property_of_its_kind(layer, options, shape):
    check = check_augmentation if issubclass(layer, RandomAugmentation) else check_layer
    first = next(index for index, example in enumerate(LAYERS) if example[0] is layer)
    # XLA compiles each layer once: that takes most of the time.
    check(layer, options, shape, lengths=OWN_LENGTHS.get(layer, LENGTHS), jit_compile=LAYERS[first][1] is options)


@every_layer
def test_a_policy_of_float16_changes_nothing(layer, options, shape):
    noise = np.random.default_rng(0).standard_normal([400 if size is None else size for size in (3, *shape[1:])])
    expected = layer(**options)(noise.astype("float32"))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        result = layer(**options)(noise.astype("float32"))
    finally:
        keras.config.set_dtype_policy(before)
    assert result.dtype == expected.dtype == "float32"
    np.testing.assert_array_equal(result, expected)
