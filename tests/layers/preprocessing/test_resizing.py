import keras
import numpy as np
import pytest
import tensorflow as tf
from examples import IMAGE
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from audiotag.layers import FixFrames, Resize, StretchFrames

EXAMPLES = [
    (FixFrames, {"num_frames": 350, "pad": "repeat"}, (None, 24, None, 2)),
    (FixFrames, {"num_frames": 350, "pad": "minimum"}, (None, 24, None, 2)),
    (StretchFrames, {"num_frames": 20}, (None, 24, None, 2)),
    (Resize, {"height": 16, "width": 20, "interpolation": "nearest", "antialias": False}, IMAGE),
    (Resize, {"height": 32, "width": 20, "interpolation": "bilinear", "antialias": False}, (None, 24, None, 3)),
    (Resize, {"height": 32, "width": 20, "interpolation": "bicubic", "antialias": True}, (None, 24, None, 3)),
]


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(-40, 15, shape).astype("float32")


@pytest.mark.parametrize("length", [1, 5, 6, 7, 11, 12, 13, 25])
def test_a_clip_is_repeated_and_then_truncated(length):
    clip = images(2, 4, length, 3)
    expected = clip
    while expected.shape[2] < 12:
        expected = np.concatenate([expected, clip], axis=2)
    assert_array_equal(FixFrames(num_frames=12)(clip), expected[:, :, :12])


@pytest.mark.parametrize("pad", ["zeros", "minimum"])
@pytest.mark.parametrize("length", [1, 11, 12, 13])
def test_the_end_is_padded_with_zeros_or_the_minimum_of_each_channel(pad, length):
    clips = images(2, 4, length, 3)
    fixed = np.asarray(FixFrames(num_frames=12, pad=pad)(clips))
    for clip, result in zip(clips, fixed):
        for channel in range(3):
            value = 0 if pad == "zeros" else clip[..., channel].min()
            padded = np.pad(clip[..., channel], ((0, 0), (0, 12)), constant_values=value)
            assert_array_equal(result[..., channel], padded[:, :12])


@pytest.mark.parametrize("length", [1, 5, 9, 12, 40])
def test_complete_clips_are_resized_without_the_silence_around_them(length):
    clips = np.maximum(images(2, 4, length, 3), -79)
    clips[:, 0, length // 2] = -80.0  # inside a clip, the lowest value is sound
    window = np.full((3, 4, 60, 3), -80, "float32")
    window[0, :, 7 : 7 + length], window[1, :, 60 - length :] = clips
    stretched = np.asarray(StretchFrames(num_frames=9)(window))
    expected = Resize(height=4, width=9, interpolation="bilinear", antialias=True)(clips)
    assert_allclose(stretched[:2], expected, atol=1e-4)
    assert_allclose(stretched[2], -80, atol=1e-4)  # silence stays


def kernel(distance, interpolation):
    """Weight of an input pixel whose center is `distance` pixels away."""
    d = abs(distance)
    if interpolation == "bilinear":
        return max(0, 1 - d)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0


def resampled(line, size, interpolation, antialias=False):
    """A line [N] resampled to [size], pixel by pixel."""
    result = []
    for i in range(size):
        center = (i + 0.5) * len(line) / size
        if interpolation == "nearest":
            result.append(line[int(center)])
        else:
            scale = max(1, len(line) / size) if antialias else 1
            weights = [kernel((j + 0.5 - center) / scale, interpolation) for j in range(len(line))]
            result.append(np.dot(weights, line) / sum(weights))
    return result


METHODS = [("nearest", False), *((name, smooth) for name in ("bilinear", "bicubic") for smooth in (False, True))]


@pytest.mark.parametrize(("interpolation", "antialias"), METHODS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 100), (31, 171), (16, 19), (1, 1)])
def test_every_method_agrees_with_a_loop_over_pixels(interpolation, antialias, height, width):
    image = images(1, 31, 57, 2)
    resized = Resize(height=height, width=width, interpolation=interpolation, antialias=antialias)(image)
    for channel in range(2):
        rows = [resampled(line, height, interpolation, antialias) for line in image[0, :, :, channel].T]
        expected = [resampled(line, width, interpolation, antialias) for line in np.transpose(rows)]
        assert_allclose(resized[0, :, :, channel], expected, atol=1e-5)


def test_doubling_a_worked_example():
    line = np.array([0.0, 0, 0, 128, 0, 0, 0], "float32").reshape(1, 1, 7, 1)
    for interpolation, expected in {
        "nearest": [0, 0, 0, 0, 0, 0, 128, 128, 0, 0, 0, 0, 0, 0],
        "bilinear": [0, 0, 0, 0, 0, 32, 96, 96, 32, 0, 0, 0, 0, 0],
        "bicubic": [0, 0, 0, -3, -9, 29, 111, 111, 29, -9, -3, 0, 0, 0],
    }.items():
        doubled = np.asarray(Resize(height=1, width=14, interpolation=interpolation)(line))
        assert_allclose(np.ravel(doubled), expected, atol=1e-5)


def test_halving_a_worked_example():
    line = np.array([0.0, 0, 8, 0, 0, 0, 0, 0], "float32").reshape(1, 1, 8, 1)
    for interpolation, antialias, expected in [
        ("nearest", False, [0, 0, 0, 0]),
        ("bilinear", False, [0, 4, 0, 0]),
        ("bilinear", True, [8 / 7, 3, 0, 0]),  # weights 3, 3, 1 of 7 at the edge, then 1, 3, 3, 1 of 8
    ]:
        halved = np.asarray(Resize(height=1, width=4, interpolation=interpolation, antialias=antialias)(line))
        assert_allclose(np.ravel(halved), expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 256), (64, 64), (236, 100), (7, 300)])
def test_with_antialias_the_values_are_those_of_pillow(interpolation, height, width):
    image = images(1, 128, 173, 1)
    expected = Image.fromarray(image[0, :, :, 0]).resize(
        (width, height), getattr(Image.Resampling, interpolation.upper())
    )
    resized = Resize(height=height, width=width, interpolation=interpolation, antialias=True)(image)
    assert_allclose(resized[0, :, :, 0], expected, atol=1e-4)


@pytest.mark.parametrize("size", [64, 256])
def test_halving_and_doubling_with_nearest_is_that_of_pillow(size):
    image = images(1, 128, 128, 1)
    expected = Image.fromarray(image[0, :, :, 0]).resize((size, size), Image.Resampling.NEAREST)
    assert_array_equal(Resize(height=size, width=size)(image)[0, :, :, 0], expected)


def test_doubling_8_bit_images_differs_from_pillow_by_at_most_one_level():
    levels = np.random.default_rng(0).integers(64, 192, (128, 128)).astype("uint8")  # Pillow clips at 0 and 255
    expected = Image.fromarray(levels).resize((256, 256), Image.Resampling.BICUBIC)
    resized = Resize(height=256, width=256, interpolation="bicubic")(levels[None, :, :, None].astype("float32"))
    assert_allclose(np.round(np.asarray(resized)[0, :, :, 0]), np.asarray(expected, "float32"), atol=1)


@pytest.mark.parametrize("old", range(1, 200, 9))
def test_nearest_is_that_of_tensorflow(old):
    line = np.arange(old, dtype="float32").reshape(1, old, 1, 1)
    for new in (16, 64, 100, 128, 224, 256):
        expected = tf.image.resize(line, (new, 1), method="nearest")
        assert_array_equal(Resize(height=new, width=1)(line), expected)


def test_the_pixel_centers_of_long_images_are_exact():
    ramp = np.arange(30_000, dtype="float32").reshape(1, 1, -1, 1)
    resized = np.asarray(Resize(height=1, width=7, interpolation="bilinear")(ramp))
    assert_allclose(np.ravel(resized), (np.arange(7) + 0.5) * 30_000 / 7 - 0.5, rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "layer",
    [
        Resize(height=8, width=8),
        Resize(height=8, width=8, interpolation="bicubic"),
        StretchFrames(num_frames=9),
        FixFrames(num_frames=9),
        FixFrames(num_frames=9, pad="zeros"),
        FixFrames(num_frames=9, pad="minimum"),
    ],
)
def test_the_output_has_the_type_of_the_input(layer, dtype):
    assert layer(images(1, 4, 4, 1).astype(dtype)).dtype == dtype
    assert layer(keras.Input((4, 4, 1), dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(height=0, width=8), "height must be at least 1. Received: height=0"),
        (lambda: Resize(height=8, width=-1), "width must be at least 1. Received: width=-1"),
        (
            lambda: Resize(height=8, width=8, interpolation="cubic"),
            "interpolation must be 'nearest', 'bilinear' or 'bicubic'. Received: interpolation='cubic'",
        ),
        (
            lambda: Resize(height=8, width=8, antialias=True),
            "antialias needs interpolation 'bilinear' or 'bicubic'. Received: antialias=True with 'nearest'",
        ),
        (lambda: StretchFrames(num_frames=0), "num_frames must be at least 1. Received: num_frames=0"),
        (lambda: FixFrames(num_frames=0), "num_frames must be at least 1. Received: num_frames=0"),
        (
            lambda: FixFrames(num_frames=8, pad="silence"),
            "pad must be 'repeat', 'zeros' or 'minimum'. Received: pad='silence'",
        ),
        (lambda: FixFrames(num_frames=8)(np.ones((2, 8, 8))), "expected ndim=4, found ndim=3"),
    ],
)
def test_wrong_options_and_inputs_are_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
