import numpy as np
import pytest
import tensorflow as tf
from waveforms import noise, padded

from audiotag.models.tagger import Tagger
from audiotag.models.windowing import (
    clip_lengths,
    drop_remainder,
    full_clip_window,
    pool_logits,
    random_windows,
    to_float,
)

# Samples


def test_int16_is_scaled_and_float_is_not():
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, (3, 50)).astype("int16")
    scaled = pcm.astype("float32") / 32_768
    for waveform in (pcm, scaled, scaled.astype("float64")):
        found = to_float(tf.constant(waveform))
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, scaled)


# Pooling


def logit_of_mean(logits):
    """[W, K] → [K], in float64: no probability is rounded, neither near 0 nor near 1."""
    logits = logits.astype("float64")
    present, absent = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))
    return np.log(present.mean(axis=0)) - np.log(absent.mean(axis=0))


@pytest.mark.parametrize("largest", [1, 20, 200])
def test_the_mean_is_the_mean_of_the_probabilities(largest):
    rng = np.random.default_rng(0)
    logits = rng.uniform(-largest, largest, (6, 4, 7)).astype("float32")
    mask = np.arange(4) < np.array([[1], [2], [3], [4], [4], [4]])  # [B, W]
    pooled = pool_logits(logits, mask[:, :, None], "mean")
    expected = [logit_of_mean(clip[valid]) for clip, valid in zip(logits, mask)]
    np.testing.assert_allclose(pooled, expected, rtol=2e-6, atol=2e-6)


def test_the_maximum_is_that_of_the_valid_windows():
    logits = np.random.default_rng(0).uniform(-200, 200, (6, 4, 7)).astype("float32")
    mask = np.arange(4) < np.array([[1], [2], [3], [4], [4], [4]])
    pooled = pool_logits(logits, mask[:, :, None], "max")
    np.testing.assert_array_equal(pooled, [clip[valid].max(axis=0) for clip, valid in zip(logits, mask)])


def test_log_mean_exp_is_the_mean_of_the_odds():
    logits = np.random.default_rng(0).uniform(-20, 20, (6, 4, 7)).astype("float32")
    mask = np.arange(4) < np.array([[1], [2], [3], [4], [4], [4]])
    pooled = np.asarray(pool_logits(logits, mask[:, :, None], "log_mean_exp"))
    expected = [np.log(np.exp(clip[valid].astype("float64")).mean(axis=0)) for clip, valid in zip(logits, mask)]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-5)
    mean, maximum = (np.asarray(pool_logits(logits, mask[:, :, None], pool)) for pool in ("mean", "max"))
    assert (pooled <= maximum + 1e-4).all() and (pooled >= mean - 1e-4).all()
    unmasked = pool_logits(logits, True, "log_mean_exp")
    np.testing.assert_allclose(unmasked, np.log(np.exp(logits).mean(axis=1)), rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "max", "log_mean_exp"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_classes_that_are_nearly_certain_stay_distinct(pool, sign):
    logits = np.tile(sign * np.arange(180, 201, dtype="float32"), (1, 3, 1))  # their probabilities are all 0 or all 1
    pooled = np.asarray(pool_logits(logits, np.full((1, 3, 1), True), pool))[0]
    np.testing.assert_allclose(pooled, logits[0, 0], rtol=1e-6)
    assert len(set(pooled)) == 21


# Windows


def windows_by_hand(clip, n, hop, pad):
    """A plain loop: from the start by hops; the last window ends with the clip."""
    if len(clip) < n and pad == "repeat":
        return [[clip[i % len(clip)] for i in range(n)]]
    if len(clip) < n:
        before = (n - len(clip)) // 2
        return [[0.0] * before + list(clip) + [0.0] * (n - len(clip) - before)]
    windows, start = [], 0
    while start + n < len(clip):
        windows.append(list(clip[start : start + n]))
        start += hop
    return [*windows, list(clip[len(clip) - n :])]


@pytest.mark.parametrize("pad", ["repeat", "zeros"])
@pytest.mark.parametrize(("overlap", "hop"), [(0.0, 16), (0.5, 8), (0.75, 4), (0.6, 6), (0.99, 1)])
@pytest.mark.parametrize("length", [1, 2, 5, 15, 16, 17, 20, 24, 25, 31, 32, 33, 47, 64, 100])
def test_windows_are_those_of_a_plain_loop(length, overlap, hop, pad):
    tagger = Tagger(None, None, num_classes=5, window_samples=16, pad=pad, overlap=overlap)
    clip = noise(length)
    windows, mask = tagger.windows(clip[None])
    np.testing.assert_array_equal(windows[0], np.array(windows_by_hand(clip, 16, hop, pad), "float32"))
    assert np.all(mask)
    assert set(clip) <= set(np.asarray(windows).ravel())  # every sample is in a window


@pytest.mark.parametrize("pad", ["repeat", "zeros"])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_in_a_batch_each_clip_has_its_own_windows(overlap, pad):
    tagger = Tagger(None, None, num_classes=5, window_samples=16, pad=pad, overlap=overlap)
    clips = [noise(length, seed=length) for length in (40, 1, 16, 100, 17, 99)]
    windows, mask = map(np.asarray, tagger.windows(padded(clips)))
    for i, clip in enumerate(clips):
        np.testing.assert_array_equal(windows[i][mask[i]], tagger.windows(clip[None])[0][0])


def test_zeros_inside_a_clip_are_not_padding():
    clip = np.concatenate([np.zeros(20), noise(1), np.zeros(30), noise(1)]).astype("float32")
    windows, _ = Tagger(None, None, num_classes=5, window_samples=16, overlap=0.5).windows(clip[None])
    np.testing.assert_array_equal(windows[0], np.array(windows_by_hand(clip, 16, 8, "repeat"), "float32"))


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 100])
def test_drop_remainder_windows_are_those_of_the_published_loop(length):
    """for start in range(0, max(1, W - 128), 128), with 16 for 128."""
    tagger = Tagger(None, None, num_classes=5, window_samples=16, window_layout="drop_remainder")
    clip = noise(length)
    windows, mask = map(np.asarray, tagger.windows(clip[None]))
    starts = list(range(0, max(1, length - 16), 16))
    assert mask[0].sum() == len(starts) and mask[0][: len(starts)].all()
    if length >= 16:
        np.testing.assert_array_equal(windows[0][mask[0]], [clip[start : start + 16] for start in starts])


def test_drop_remainder_windows_of_a_shorter_clip_in_a_batch_are_its_own():
    tagger = Tagger(None, None, num_classes=5, window_samples=16, window_layout="drop_remainder")
    clips = [noise(length, seed=length) for length in (40, 1, 16, 100, 17, 96)]
    windows, mask = map(np.asarray, tagger.windows(padded(clips)))
    for i, clip in enumerate(clips):
        alone, alone_mask = map(np.asarray, tagger.windows(clip[None]))
        np.testing.assert_array_equal(windows[i][mask[i]], alone[0][alone_mask[0]])


def test_random_windows_depend_on_the_clip_alone_and_cover_all_of_it():
    length = np.array([[1000], [16], [17], [3]], "int32")
    start, mask = map(np.asarray, random_windows(length, 16, num_windows=200))
    assert start.shape == mask.shape == (4, 200) and mask.all()
    assert (start >= 0).all() and (start <= np.maximum(length - 16, 0)).all()
    assert start[0].min() < 30 and start[0].max() > 950 and len(set(start[0])) > 150
    assert set(start[1]) == {0} and set(start[2]) == {0, 1} and set(start[3]) == {0}
    alone, _ = random_windows(length[:1], 16, num_windows=200)
    np.testing.assert_array_equal(alone, start[:1])


def test_the_full_clip_window_is_the_same_for_known_and_unknown_lengths():
    unknown = tf.function(lambda size: full_clip_window(size, 8000), input_signature=[tf.TensorSpec([], tf.int32)])
    for size in (1, 8000, 8001, 11_314, 11_315, 16_000, 500_000, 512_000, 512_001, 10_000_000):
        known = full_clip_window(size, 8000)
        assert known == int(unknown(size))
        assert known >= min(size, 64 * 8000)
        assert known <= max(8000, 1.4143 * size)


def test_a_clip_ends_with_its_last_nonzero_sample_and_silence_with_its_first():
    batch = np.array([[0, 1, 0, 2, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], "float32")
    assert np.asarray(clip_lengths(batch)).tolist() == [[4], [1], [6]]
    start, mask = drop_remainder(clip_lengths(batch), 6, 2)
    assert np.asarray(mask).tolist() == [[True, False, False], [True, False, False], [True, True, False]]
