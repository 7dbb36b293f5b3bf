"""The laws of a layer, over every layer."""

import inspect
import json
import pkgutil
from importlib import import_module

import keras
import numpy as np
import pytest
import tensorflow as tf

import audiotag.layers
from audiotag.layers import (
    AUGMENTS,
    FRONTENDS,
    LABELLED,
    PICTURES,
    WAVEFORMS,
    AdaptedStandardise,
    Bars,
    ColourMap,
    ConcatMix,
    Deltas,
    EightBit,
    FitFrames,
    FlipLabels,
    FrequencyChannel,
    FrequencyMask,
    Gain,
    Lighting,
    LogFilterbank,
    LogMel,
    MelSpectrogram,
    Mfcc,
    MixUp,
    Noise,
    Normalise,
    PcenMel,
    PerceptualMel,
    RandomCrop,
    RandomResizedCrop,
    RawWave,
    RepeatChannels,
    Resize,
    SimpleSelfAttention,
    Standardise,
    TimeMask,
    TimeRoll,
    ToPicture,
    Zoom,
)

WAVEFORM = (None, None)
MEL = {
    "sample_rate": 16_000,
    "num_bands": 40,
    "fft_length": 512,
    "frame_step": 160,
    "low_hz": 50,
    "high_hz": None,
    "padding": "reflect",
}
PICTURE = (None, 24, None, 1)
WIDTH = {"max_width": 12, "max_share": None, "count": 2, "min_count": None, "fill": -1.0, "probability": 1.0, "seed": 3}
SHARE = WIDTH | {"max_width": None, "max_share": 0.3, "min_count": 1, "fill": "minimum", "probability": 0.9}
MIXING = {"alpha": 0.4, "partner": "permutation", "labels": "weighted", "probability": 0.7, "end_epoch": 3, "seed": 3}

# Each layer, a value for every option it has, and shapes of what it takes: [B, ...], None where it may vary. Those that
# move labels take a list of two.
LAYERS = [
    (MelSpectrogram, MEL | {"power": 2.0, "window_length": None, "mel_scale": "slaney", "norm": None}, WAVEFORM),
    (
        LogMel,
        MEL
        | {"power": 1.0, "window_length": 400, "mel_scale": "htk", "norm": None}
        | {"reference": "max", "silence": 1e-8, "dynamic_range_db": 60.0},
        WAVEFORM,
    ),
    (PerceptualMel, MEL | {"silence": 1e-8, "dynamic_range_db": 60.0}, WAVEFORM),
    (
        LogFilterbank,
        {"sample_rate": 16_000, "bands_per_octave": 12, "fft_length": 512, "frame_step": 160, "normalise": True}
        | {"low_hz": 50.0, "high_hz": 7000.0},
        WAVEFORM,
    ),
    (Mfcc, MEL | {"num_coefficients": 13, "dynamic_range_db": 60.0}, WAVEFORM),
    (
        PcenMel,
        MEL
        | {"power": 2.0, "scale": 100.0, "gain": 0.9, "bias": 1.0, "root": 0.4, "time_constant_seconds": 0.1}
        | {"epsilon": 1e-5},
        WAVEFORM,
    ),
    (RawWave, {"sample_rate": 16_000, "scaling": "min_max"}, WAVEFORM),
    (RawWave, {"sample_rate": 16_000, "scaling": None}, WAVEFORM),
    (ToPicture, {}, (None, None, 24)),
    (Standardise, {}, (None, 24, None, 1)),
    (Normalise, {"mean": 0.5, "std": 0.3}, (None, 24, None, 1)),
    (AdaptedStandardise, {"per": "band"}, (None, 24, None, 2)),
    (AdaptedStandardise, {"per": "cell"}, (None, 24, 30, 1)),
    (EightBit, {}, (None, 24, None, 2)),
    (FitFrames, {"num_frames": 350, "short_clips": "repeat"}, (None, 24, None, 2)),
    (FitFrames, {"num_frames": 350, "short_clips": "minimum"}, (None, 24, None, 2)),
    (Resize, {"height": 16, "width": 20, "interpolation": "nearest", "antialias": False}, (None, 24, None, 1)),
    (Resize, {"height": 32, "width": 20, "interpolation": "bilinear", "antialias": False}, (None, 24, None, 3)),
    (Resize, {"height": 32, "width": 20, "interpolation": "bicubic", "antialias": True}, (None, 24, None, 3)),
    (RepeatChannels, {"count": 3}, (None, 24, None, 1)),
    (Deltas, {"width": 5}, (None, 24, None, 2)),
    (FrequencyChannel, {}, (None, 24, None, 2)),
    (ColourMap, {"low": None, "high": 0.1}, (None, 24, None, 1)),
    (SimpleSelfAttention, {}, (None, 24, None, 4)),
    (TimeMask, WIDTH, (None, None, 24)),
    (TimeMask, SHARE, PICTURE),
    (FrequencyMask, WIDTH, (None, None, 24)),
    (FrequencyMask, SHARE | {"fill": "mean"}, PICTURE),
    (
        Bars,
        {"min_count": 1, "max_count": 3, "min_length": 2, "max_length": 9, "fill": 0.5, "probability": 0.9, "seed": 3},
        PICTURE,
    ),
    (Zoom, {"min_scale": 0.9, "max_scale": 1.6, "probability": 0.9, "seed": 3}, (None, 24, None, 2)),
    (
        Lighting,
        {"min_brightness": 0.3, "max_brightness": 0.7, "min_contrast": 0.5, "max_contrast": 2.0}
        | {"probability": 0.9, "seed": 3},
        PICTURE,
    ),
    (RandomCrop, {"num_frames": 32, "seed": 3}, PICTURE),
    (
        RandomResizedCrop,
        {"min_area": 0.5, "max_area": 0.9, "min_ratio": 0.8, "max_ratio": 1.2, "probability": 0.9, "seed": 3},
        (None, 24, None, 2),
    ),
    (Gain, {"min_db": -10.0, "max_db": 3.0, "probability": 0.9, "seed": 3}, (None, None)),
    (Noise, {"min_snr_db": 0.0, "max_snr_db": 9.0, "probability": 0.9, "seed": 3}, (None, None)),
    (TimeRoll, {"probability": 0.9, "seed": 3}, (None, None)),
    (MixUp, MIXING, [(None, None), (None, 7)]),
    (MixUp, MIXING | {"partner": "reversal", "labels": "union"}, [PICTURE, (None, 7)]),
    (ConcatMix, MIXING, [(None, None), (None, 7)]),
    (ConcatMix, MIXING | {"labels": "union"}, [PICTURE, (None, 7)]),
    (FlipLabels, {"seed": 3}, [PICTURE, (None, 7)]),
]
RANDOM = [case for case in LAYERS if case[0] in {*AUGMENTS.values(), *WAVEFORMS.values()}]
LENGTHS = [*range(300, 340, 3), 1600, 1601]


def names(cases):
    return [f"{layer.__name__}-{len(first(shape))}d" for layer, _, shape in cases]


def first(shapes):
    """The shape of the sound, for layers that take labels too."""
    return shapes[0] if isinstance(shapes, list) else shapes


every_layer = pytest.mark.parametrize(("layer", "options", "shape"), LAYERS, ids=names(LAYERS))
every_random_layer = pytest.mark.parametrize(("layer", "options", "shape"), RANDOM, ids=names(RANDOM))


def clips(shape, batch=3, length=400, seed=0):
    """Noise of that shape, each clip ten times as loud as the one before; beside it one label a clip."""
    if isinstance(shape, list):
        sound, (_, num_classes) = shape
        return [clips(sound, batch, length, seed), np.eye(batch, num_classes, dtype="float32")]
    noise = np.random.default_rng(seed).standard_normal(
        [length if size is None else size for size in (batch, *shape[1:])]
    )
    return (noise * 0.01 * 10.0 ** np.arange(batch).reshape(-1, *[1] * (len(shape) - 1))).astype("float32")


def inputs(shape):
    """What a functional model of the layer takes."""
    if isinstance(shape, list):
        return [keras.Input(s[1:], dtype="float32") for s in shape]
    return keras.Input(shape[1:], dtype="float32")


def signature(shape):
    """What a graph of the layer takes: one argument."""
    return [[tf.TensorSpec(s) for s in shape] if isinstance(shape, list) else tf.TensorSpec(shape)]


def tensors(answer):
    """The layer's answer as a list: the sound, and the labels where it moves them."""
    return list(answer) if isinstance(answer, (list, tuple)) else [answer]


def assert_close(ours, expected):
    for one, other in zip(tensors(ours), tensors(expected), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-4)


def test_no_layer_is_missing_from_the_list():
    listed = {layer for layer, _, _ in LAYERS}
    modules = [
        import_module(name) for _, name, _ in pkgutil.walk_packages(audiotag.layers.__path__, "audiotag.layers.")
    ]
    written = {
        value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and not name.startswith("_")
    }
    assert written == listed
    assert {*WAVEFORMS.values(), *FRONTENDS.values(), *PICTURES.values(), *AUGMENTS.values()} <= listed
    assert {name for name in audiotag.layers.__all__ if not name.isupper()} == {layer.__name__ for layer in listed}
    assert set(LABELLED) == {layer for layer, _, shape in LAYERS if isinstance(shape, list)}


@every_layer
def test_round_trip_the_config_is_what_was_passed(layer, options, shape):
    assert set(options) == set(inspect.signature(layer).parameters) - {"kwargs"}
    config = layer(**options).get_config()
    assert {key: config[key] for key in options} == options
    assert layer.from_config(json.loads(json.dumps(config))).get_config() == config


@every_layer
@pytest.mark.parametrize("length", LENGTHS)
def test_shape_the_promise_is_the_truth(layer, options, shape, length):
    waiting = layer(**options)
    sound = clips(shape, length=length)
    found = [tuple(tensor.shape) for tensor in tensors(waiting(sound))]
    promised = waiting.compute_output_shape([s.shape for s in sound] if isinstance(shape, list) else sound.shape)
    assert found == (list(map(tuple, promised)) if isinstance(shape, list) else [tuple(promised)])


@every_layer
def test_shape_what_is_unknown_stays_unknown(layer, options, shape):
    real, symbolic = layer(**options)(clips(shape)), layer(**options)(inputs(shape))
    for promised, found in zip(tensors(symbolic), tensors(real), strict=True):
        assert promised.dtype == keras.backend.standardize_dtype(found.dtype)
        assert promised.shape[0] is None
        for promise, size in zip(promised.shape, found.shape):
            assert promise in (None, size)
    unknown = 1 if layer in (FitFrames, Resize) else first(shape).count(None)
    assert tensors(symbolic)[0].shape.count(None) == unknown


@every_layer
def test_solitude_a_loud_neighbour_changes_nothing(layer, options, shape):
    heard = layer(**options)
    together = tensors(heard(clips(shape)))
    for i in range(3):
        alone = keras.tree.map_structure(lambda tensor: tensor[i : i + 1], clips(shape))
        assert_close(heard(alone), [tensor[i : i + 1] for tensor in together])


@every_layer
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_unknown_batch_and_length_give_what_eager_gives(layer, options, shape, jit_compile):
    traced = layer(**options)
    graph = tf.function(lambda x: traced(x), input_signature=signature(shape), jit_compile=jit_compile)
    for batch, length in ((1, 400), (3, 401)):
        sound = clips(shape, batch, length)
        assert_close(graph(sound), layer(**options)(sound))


@every_random_layer
@pytest.mark.parametrize("jit_compile", [False, True])
def test_life_every_call_and_every_clip_draws_anew(layer, options, shape, jit_compile):
    alive = layer(**options)
    graph = tf.function(
        lambda x: alive(x, training=True), input_signature=signature(shape), jit_compile=jit_compile
    )
    sound = clips(shape, batch=8, length=40)
    same = keras.tree.map_structure(lambda tensor: np.repeat(tensor[:1], 8, axis=0), sound)
    if layer in LABELLED:  # of equal clips a mixture shows nothing
        same[0] = sound[0]
    first, second = tensors(graph(same))[0].numpy(), tensors(graph(same))[0].numpy()
    assert np.any(first != second)
    assert layer in LABELLED or np.any(first != first[:1])


@every_random_layer
def test_life_one_seed_repeats_eagerly_and_in_a_graph(layer, options, shape):
    one, same, other = layer(**options), layer(**options), layer(**options | {"seed": 4})
    graph = tf.function(lambda x: same(x, training=True), input_signature=signature(shape))
    for _ in range(2):
        drawn = one(clips(shape), training=True)
        assert_close(drawn, graph(clips(shape)))
        assert np.any(tensors(drawn)[0] != tensors(other(clips(shape), training=True))[0])


@every_random_layer
def test_peace_outside_training_it_is_the_identity(layer, options, shape):
    for arguments in ({}, {"training": False}):
        sound, *labels = tensors(layer(**options)(clips(shape), **arguments))
        np.testing.assert_array_equal(sound, tensors(clips(shape))[0])
        for label in labels:
            np.testing.assert_array_equal(label[:, :7], clips(shape)[1])  # flips have three more blocks of zeros
            assert not np.any(label[:, 7:])


@every_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_the_policy_changes_nothing(layer, options, shape, policy):
    expected = tensors(layer(**options)(clips(shape)))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        halved = layer(**options)
        result = tensors(halved(clips(shape)))
        symbolic = tensors(halved(inputs(shape)))
    finally:
        keras.config.set_dtype_policy(before)
    for ours, promised, whole in zip(result, symbolic, expected, strict=True):
        assert ours.dtype == whole.dtype == promised.dtype == "float32"
        np.testing.assert_array_equal(ours, whole)


@every_layer
def test_return_files_give_the_same_numbers(layer, options, shape, tmp_path):
    sound, given = clips(shape), inputs(shape)
    model = keras.Model(given, layer(**options)(given))
    expected = model(sound)
    model.save(tmp_path / "layer.keras")
    assert_close(keras.models.load_model(tmp_path / "layer.keras")(sound), expected)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.serve(sound), expected)
