from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, logit
from waveforms import noise, padded

from audiotag.config.loading import load
from audiotag.data.clips import read_clips
from audiotag.data.pipeline import evaluation_batches, training_batches
from audiotag.data.records.manifest import read_manifest
from audiotag.layers import FlipsAsClasses
from audiotag.losses import SoftBootstrapping
from audiotag.metrics import Lwlrap, lwlrap
from audiotag.models.label_groups import group_labels, split_groups
from audiotag.models.tagger import Tagger, log_odds
from audiotag.models.windowing import to_float
from audiotag.runs.building import build_tagger

DEMO = Path(__file__).parents[2] / "experiments" / "demo.json"
SAMPLE_RATE = 16_000
SMALL = ("window.seconds=0.5", "model.filters=[8,16]", "waveform_augment=[]")


def small_tagger(*overrides, sample_rate=SAMPLE_RATE):
    keras.utils.set_random_seed(1)
    return build_tagger(load(DEMO, [*SMALL, *overrides]), sample_rate=sample_rate, num_classes=5)


@pytest.fixture(scope="module", params=["repeat", "zeros"])
def tagger(request):
    """A small network with each kind of padding."""
    return small_tagger(f"window.pad={request.param}")


# Windows


def test_int16_gives_what_its_samples_as_floats_give():
    tagger = small_tagger()
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 12_000)).astype("int16")
    np.testing.assert_array_equal(tagger(tf.constant(pcm)), tagger(tf.constant(pcm.astype("float32") / 32_768)))


@pytest.mark.parametrize("pad", ["repeat", "zeros"])
def test_a_short_clip_fills_the_window_as_it_does_in_training(records, pad):
    manifest, n = read_manifest(records), 2 * SAMPLE_RATE
    clips = read_clips(records / "clips.csv").query("num_samples < @n").reset_index(drop=True)
    tagger = Tagger(None, None, num_classes=5, window_samples=n, pad=pad)
    full_clips = {}
    for waveform, rows in evaluation_batches(manifest, clips, window_samples=n, batch_size=1):
        full_clips |= {row: waveform[i : i + 1] for i, row in enumerate(rows.numpy())}
    batches = training_batches(
        manifest,
        clips,
        np.eye(len(clips)),  # identifies the clip
        window_samples=n,
        pad=pad,
        batch_size=4,
        seed=0,
        epochs=range(1),
    )
    compared = 0
    for waveform, truth in batches:
        for window, row in zip(waveform, np.argmax(truth, axis=1)):
            np.testing.assert_array_equal(to_float(window), tagger.windows(to_float(full_clips[row]))[0][0, 0])
            compared += 1
    assert compared == len(clips) // 4 * 4 > 20


# The complete tagger


@pytest.mark.parametrize("layout", ["sliding", "drop_remainder", "full_clip", "random"])
def test_clips_of_one_window_are_their_windows_unless_one_ends_early(layout):
    tagger = Tagger(None, None, num_classes=5, window_samples=8, window_layout=layout, num_windows=2)
    full, short = np.arange(1.0, 17, dtype="float32").reshape(2, 8), np.float32([[1, 2, 3, 0, 0, 0, 0, 0]])
    traced = tf.function(tagger.windows, input_signature=[tf.TensorSpec([None, 8], tf.float32)])
    for windows in (tagger.windows, traced, tf.function(tagger.windows, jit_compile=True)):
        for clips, expected in (
            (full, full),
            (np.append(full[:1], short, axis=0), [full[0], [1, 2, 3, 1, 2, 3, 1, 2]]),
        ):
            found, mask = windows(tf.constant(clips))
            assert found.shape[1] == (2 if layout == "random" else 1) and mask.numpy().all()
            np.testing.assert_array_equal(found[:, 0], expected)


def test_in_training_one_window_passes_unchanged():
    window, labels = keras.Input((16,)), keras.Input((3,))
    network = keras.Sequential([keras.Input((16,)), keras.layers.Dense(3)])
    tagger = Tagger(keras.Model((window, labels), (window, labels)), network, num_classes=3, window_samples=16)
    window, labels = padded([noise(5), noise(16)]), np.eye(2, 3, dtype="float32")
    logits, truth = tagger((window, labels), training=True)
    np.testing.assert_array_equal(logits, network(window))
    np.testing.assert_array_equal(truth, labels)
    assert np.any(tagger(window, training=False)[0] != logits[0])  # at inference the 5 samples are repeated


def test_augmentations_are_random_in_training_and_off_at_inference(tagger):
    window, labels = noise(2, tagger.window_samples), np.eye(2, 5, dtype="float32")
    assert np.any(tagger((window, labels), training=True)[0] != tagger((window, labels), training=True)[0])
    np.testing.assert_array_equal(tagger(window), tagger(window))


def test_a_clip_is_the_mean_of_its_windows():
    tagger = small_tagger("predict.overlap=0.75")
    clip = noise(3 * tagger.window_samples + 123)
    n = tagger.window_samples
    windows = [clip[start : start + n] for start in [*range(0, 2 * n + 123, n // 4), 2 * n + 123]]
    logits = np.concatenate([tagger.window_logits(window[None]) for window in windows])
    assert len(logits) == 10
    np.testing.assert_allclose(tagger(clip[None])[0], logit(expit(logits).mean(axis=0)), atol=1e-5)


def test_other_clips_in_the_batch_change_nothing(tagger):
    n = tagger.window_samples
    clips = [level * noise(length, seed=length) for length, level in ((3 * n, 1), (1, 0.1), (n // 3, 1e-3), (n + 1, 1))]
    clips += [np.zeros(n, "float32"), 30 * noise(2 * n - 1)]
    together = tagger(padded(clips))
    for i, clip in enumerate(clips):
        np.testing.assert_allclose(tagger(clip[None])[0], together[i], atol=1e-5)


@pytest.mark.parametrize("length", [1, 100, 8_000, 20_000])
def test_logits_of_digital_silence_are_finite(tagger, length):
    assert np.isfinite(tagger(np.zeros((2, length), "float32"))).all()


def test_a_graph_for_any_batch_and_length_gives_the_same(tagger):
    traced = tf.function(lambda waveform: tagger(waveform), input_signature=[tf.TensorSpec([None, None])])
    for length in (1, tagger.window_samples, 20_001):
        waveform = noise(2, length)
        np.testing.assert_allclose(traced(waveform), tagger(waveform), atol=1e-5)


FULL_CLIP = {
    "conv_skip": ("model.filters=[8,16]",),
    "vgg_gap": ('model={"name": "vgg_gap", "width": 4}', "window.seconds=4.0"),
    "xresnet18": (
        'model={"name": "xresnet18"}',
        'image_preprocess=[{"name": "standardize"}, {"name": "repeat_channels"}]',
    ),
}


@pytest.mark.parametrize("name", FULL_CLIP)
def test_a_full_clip_is_one_window_of_the_same_network(name):
    keras.utils.set_random_seed(1)
    overrides = ["window.seconds=0.5", *FULL_CLIP[name]]
    build = lambda *more: build_tagger(load(DEMO, [*overrides, *more]), sample_rate=SAMPLE_RATE, num_classes=5)
    full, cut = build("predict.windows=full_clip"), build()
    cut.set_weights(full.get_weights())
    n = cut.window_samples
    for length in (n // 2, n):  # no longer than a window: no difference
        np.testing.assert_allclose(full(noise(1, length)), cut(noise(1, length)), atol=1e-4)
    clip = noise(1, 2 * n)
    windows, _ = full.windows(clip)
    np.testing.assert_array_equal(windows, clip[:, None])
    assert np.abs(np.asarray(full(clip)) - np.asarray(cut(clip))).max() > 1e-4  # different windows


def test_clips_of_similar_length_in_the_batch_change_nothing_for_full_clip_windows():
    tagger = small_tagger("predict.windows=full_clip")
    clips = [noise(length, seed=length) for length in (11_500, 15_000, 16_000)]  # all are padded to 16,000
    batch = np.zeros((3, 16_000), "float32")
    for row, clip in zip(batch, clips):
        row[: len(clip)] = clip
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(tagger(batch)[row], tagger(clip[None])[0], atol=1e-5)


# One label per clip


@pytest.mark.parametrize("largest", [1, 30, 300])
def test_log_odds_are_those_of_a_softmax(largest):
    logits = np.random.default_rng(0).uniform(-largest, largest, (9, 6)).astype("float32")
    exact = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    others = exact.sum(axis=1, keepdims=True) - exact
    with np.errstate(divide="ignore", over="ignore"):
        expected = np.where(others > 1e-14, np.log(exact) - np.log(others), np.nan)  # float64 is exact up to there
    found = np.where(np.isnan(expected), np.nan, log_odds(logits))
    np.testing.assert_allclose(found[np.abs(expected) < 600], expected[np.abs(expected) < 600], rtol=1e-5, atol=1e-4)
    assert all(len(set(row)) == 6 for row in np.asarray(log_odds(logits)))  # no ties by rounding


def test_a_softmax_is_evaluated_by_its_probabilities():
    stage = 'stages=[{"name": "curated", "subset": "curated", "epochs": 1, "batch_size": 2'
    stage += ', "optimizer": {"name": "adam"}, "loss": {"name": "categorical_crossentropy"}}]'
    tagger = small_tagger("task=single_label", stage)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    tagger.compile(optimizer="sgd", loss=loss)
    window, labels = noise(2, tagger.window_samples), np.eye(2, 5, dtype="float32")
    logits = tagger.network(tagger.preprocessor((window, labels))[0])
    predicted = tagger(window)
    np.testing.assert_allclose(keras.ops.sigmoid(predicted), keras.ops.softmax(logits), rtol=1e-4)
    validation_loss = tagger.compute_loss(None, labels, predicted, training=False)
    np.testing.assert_allclose(validation_loss, loss(labels, logits), rtol=1e-4)


# Augmented labels


MIXUP = 'augment=[{"name": "mixup", "alpha": 0.4}]'
FLIPS = 'augment=[{"name": "flips_as_classes"}]'


def batch(tagger, size=4):
    return noise(size, tagger.window_samples), np.eye(size, 5, dtype="float32")


def test_the_loss_compares_with_the_labels_that_the_preprocessor_returns():
    tagger = small_tagger(MIXUP)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    tagger.compile(optimizer="sgd", loss=loss, metrics=[Lwlrap(5)])
    logits, labels = tagger(batch(tagger), training=True)
    mixed = np.asarray(labels)
    assert np.any((mixed > 0) & (mixed < 1))
    _, truth = batch(tagger)
    value = tagger.compute_loss(None, truth, (logits, labels), training=True)
    np.testing.assert_allclose(value, loss(mixed, logits), rtol=1e-6)
    measured = tagger.compute_metrics(None, truth, (logits, labels))
    assert float(measured["lwlrap"]) == pytest.approx(lwlrap((mixed >= 0.5).astype(int), np.asarray(logits)))


@pytest.mark.parametrize("change", [MIXUP, FLIPS, 'waveform_augment=[{"name": "concat_mix"}]'])
def test_it_trains_and_validates_with_augmentations_that_change_labels(change):
    tagger = small_tagger(change)
    tagger.compile(optimizer="adam", loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=[Lwlrap(5)])
    waveform, truth = batch(tagger, 8)
    logs = tagger.fit((waveform, truth), truth, batch_size=4, verbose=0, validation_data=(waveform, truth)).history
    assert set(logs) == {"loss", "lwlrap", "val_loss", "val_lwlrap"}
    assert all(np.isfinite(value) for values in logs.values() for value in values)


@pytest.mark.parametrize("kind", ["clip", "windows"])
def test_flip_tta_averages_four_flips_each_read_in_its_own_columns(kind):
    one, four = small_tagger(FLIPS), small_tagger(FLIPS, f"predict.flip_tta={kind}")
    assert four.network.output_shape == (None, 20)
    four.set_weights(one.get_weights())
    window = noise(2, four.window_samples)
    image, _ = four.preprocessor((window, np.zeros((2, 5), "float32")))
    image = np.asarray(image)
    blocks = []
    for flip, flipped in enumerate([image, image[:, :, ::-1], image[:, ::-1], image[:, ::-1, ::-1]]):
        blocks.append(np.asarray(four.network(flipped))[:, 5 * flip : 5 * flip + 5])
    np.testing.assert_allclose(one(window), blocks[0], atol=1e-5)
    expected = logit(expit(np.stack(blocks)).mean(axis=0))
    np.testing.assert_allclose(four(window), expected, atol=1e-5)


def test_flip_tta_flips_at_the_place_of_the_layer_in_the_preprocessor():
    """Deltas of a flipped image are not the flipped deltas, and a resized one keeps other pixels."""
    after = '{"name": "deltas"}, {"name": "frequency_channel"}, {"name": "resize", "height": 31, "width": 13}'
    image = f'image_preprocess=[{{"name": "standardize"}}, {{"name": "flips_as_classes"}}, {after}]'
    tagger = small_tagger(image, "augment=[]", "predict.flip_tta=windows")
    (flip_layer,) = (layer for layer in tagger.preprocessor.layers if isinstance(layer, FlipsAsClasses))
    window, no_labels = noise(1, tagger.window_samples), np.zeros((1, 5), "float32")
    flip_logits = np.asarray(tagger.window_logits(window, flips=range(4))).reshape(4, 5)
    seen = set()
    while len(seen) < 4:  # in training the flip is random, and the labels show which it was
        image, labels = tagger.preprocessor((window, no_labels + 1), training=True)
        flip = int(np.argmax(labels)) // 5
        logits = np.asarray(tagger.network(image))[0, 5 * flip : 5 * flip + 5]
        np.testing.assert_allclose(flip_logits[flip], logits, rtol=1e-4, atol=1e-4)
        seen.add(flip)
    assert flip_layer.flip == 0 and len(np.unique(flip_logits.round(4), axis=0)) == 4


@pytest.mark.parametrize("layout", ["drop_remainder", "sliding"])
def test_a_flipped_clip_is_cut_into_windows_from_its_end(layout):
    """A clip of 3.9 s, whose samples are their positions, and windows of 2 s."""
    tagger = Tagger(None, None, num_classes=5, window_samples=2_000, window_layout=layout, overlap=0.25, pad="zeros")
    clip = np.arange(1, 3_901, dtype="float32")[None]
    forward, backward = (
        np.asarray(windows)[np.asarray(mask)]  # [W, n]
        for windows, mask in (tagger.windows(clip, from_end=from_end) for from_end in (False, True))
    )
    np.testing.assert_array_equal(backward, 3_901 - forward[:, ::-1])
    starts = {"drop_remainder": ([1], [1_901]), "sliding": ([1, 1_501, 1_901], [1_901, 401, 1])}[layout]
    assert (forward[:, 0].tolist(), backward[:, 0].tolist()) == starts
    assert set(np.concatenate([forward, backward]).ravel()) == set(range(1, 3_901))  # together from 0 to its end


def test_windows_from_the_end_of_clips_of_different_lengths_stay_inside_them():
    tagger = Tagger(None, None, num_classes=5, window_samples=10, window_layout="drop_remainder", pad="zeros")
    windows, mask = tagger.windows(padded([np.arange(1, 35), np.arange(1, 7), np.arange(1, 21)]), from_end=True)
    windows, mask = np.asarray(windows), np.asarray(mask)
    assert [row.nonzero()[0].tolist() for row in mask] == [[0, 1, 2], [0], [0]]
    assert windows[0, :3, 0].tolist() == [25, 15, 5] and windows[2, 0].tolist() == list(range(11, 21))
    assert windows[1, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 0, 0]


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_flips_of_a_clip_are_those_of_its_image_cut_into_windows(pool):
    """With a front end of which each frame sees its own samples only, the clip can be flipped before the cut."""
    options = [FLIPS, "predict.windows=drop_remainder", f"predict.pool={pool}"]
    tagger = small_tagger(*options, "predict.flip_tta=clip")
    n = tagger.window_samples
    clip = noise(3 * n - 123)
    by_hand = []
    for flip in range(4):
        starts = [0, n]
        if flip % 2:
            starts = [len(clip) - n - start for start in starts]
        logits = [np.asarray(tagger.window_logits(clip[None, start : start + n], flips=[flip]))[0] for start in starts]
        probabilities = expit(np.stack(logits))  # [W, K]
        by_hand.append(probabilities.mean(axis=0) if pool == "mean" else probabilities.max(axis=0))
    np.testing.assert_allclose(tagger(clip[None])[0], logit(np.mean(by_hand, axis=0)), atol=1e-5)
    of_windows = small_tagger(*options, "predict.flip_tta=windows")
    of_windows.set_weights(tagger.get_weights())
    assert np.abs(of_windows(clip[None]) - tagger(clip[None])).max() > 1e-4


# Random crops

CROPS = ["augment=[]", "predict.windows=random_crops", "predict.num_windows=5"]
FIXED = '{"name": "standardize"}, {"name": "fix_frames", "num_frames": 25}'
CROPS += [f'image_preprocess=[{FIXED}, {{"name": "random_crop", "num_frames": 9}}]']


def test_random_crops_average_excerpts_of_the_first_window_also_of_a_short_clip():
    tagger = small_tagger(*CROPS)
    n = tagger.window_samples
    clips = [noise(n // 3), noise(2 * n, seed=1), np.zeros(n, "float32")]
    together = np.asarray(tagger(padded(clips)))
    whole = small_tagger(CROPS[0], CROPS[-1])
    starts = np.floor(np.random.default_rng(0).random(5).astype("float32") * (25 - 9 + 1)).astype(int)
    assert len(set(starts)) > 1
    for clip, logits in zip(clips, together):
        window = np.resize(clip, n)[None]
        image, _ = whole.preprocessor((window, np.zeros((1, 5), "float32")))
        excerpts = [np.asarray(tagger.network(image[:, :, start : start + 9]), "float64")[0] for start in starts]
        np.testing.assert_allclose(logits, logit(expit(excerpts).mean(axis=0)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(tagger(clip[None])[0], logits, atol=1e-5)
    traced = tf.function(lambda waveform: tagger(waveform), input_signature=[tf.TensorSpec([None, None])])
    np.testing.assert_allclose(traced(padded(clips)), together, atol=1e-5)
    image, _ = tagger.preprocessor((window, np.zeros((1, 5), "float32")))
    assert image.shape[2] == 25  # other predictions do not crop


# Curated and noisy labels apart


def test_noisy_labels_train_their_own_head_and_the_other_predicts():
    tagger = small_tagger("noisy_head=true", "augment=[]", "model.dropout=0.0")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    tagger.compile(optimizer="sgd", loss=loss, metrics=[Lwlrap(5)])
    window, truth = batch(tagger)
    labels = group_labels(truth, [True, False, False, False])
    with tf.GradientTape() as tape:
        logits, augmented = tagger((window, labels), training=True)
        value = tagger.compute_loss(None, truth, (logits, augmented), training=True)
    by_hand = loss(truth[:1], logits[:1, :5]) / 4 + loss(truth[1:], logits[1:, 5:]) * 3 / 4
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)
    kernel = tagger.network.get_layer("logits").kernel.value
    assert np.all(np.any(tape.gradient(value, kernel), axis=0))  # both heads learn
    measured = tagger.compute_metrics(None, truth, (logits, augmented))
    assert float(measured["lwlrap"]) == pytest.approx(lwlrap(truth[:1], np.asarray(logits)[:1, :5]))
    image, _ = tagger.preprocessor((window, labels))
    np.testing.assert_allclose(tagger(window), tagger.network(image)[:, :5], atol=1e-5)


NOISY_LOSS = 'stages.noisy.noisy_loss={"name": "soft_bootstrapping", "beta": 0.5}'


def test_noisy_clips_may_have_their_own_loss():
    experiment = load(DEMO, [*SMALL, "augment=[]", "model.dropout=0.0", NOISY_LOSS])
    tagger = build_tagger(experiment, sample_rate=SAMPLE_RATE, num_classes=5, stage=experiment.stages[0])
    curated, noisy = keras.losses.BinaryCrossentropy(from_logits=True), SoftBootstrapping(beta=0.5)
    tagger.compile(optimizer="sgd", loss=curated, metrics=[Lwlrap(5)])
    tagger.noisy_loss = noisy
    window, truth = batch(tagger)
    logits, labels = tagger((window, group_labels(truth, [True, False, False, False])), training=True)
    assert logits.shape == (4, 5)  # one head for both
    value = tagger.compute_loss(None, truth, (logits, labels), training=True)
    by_hand = curated(truth[:1], logits[:1]) / 4 + noisy(truth[1:], logits[1:]) * 3 / 4
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)
    measured = tagger.compute_metrics(None, truth, (logits, labels))
    assert float(measured["lwlrap"]) == pytest.approx(lwlrap(truth, np.asarray(logits)))


def test_class_weights_weight_the_clips_in_the_training_loss_of_every_path():
    weights = np.array([4, 1, 1, 0.5, 1], "float32")
    loss, noisy = keras.losses.BinaryCrossentropy(from_logits=True), SoftBootstrapping(beta=0.5)
    plain, flips = small_tagger("augment=[]", "model.dropout=0.0"), small_tagger(FLIPS)
    for tagger in (plain, flips):
        tagger.compile(optimizer="sgd", loss=loss)
        tagger.class_weights = weights
        window, truth = batch(tagger)
        truth[1, 0], truth[2] = 1, 0  # two labels, and none
        logits, labels = tagger((window, truth), training=True)
        value = tagger.compute_loss(None, truth, (logits, labels), training=True)
        np.testing.assert_allclose(value, loss(labels, logits, [4, 2.5, 1, 0.5]), rtol=1e-6)
        predicted = tagger(window)
        if tagger is plain:  # the validation loss is not weighted
            value = tagger.compute_loss(None, truth, predicted, training=False)
            np.testing.assert_allclose(value, loss(truth, predicted), rtol=1e-6)
    experiment = load(DEMO, [*SMALL, "augment=[]", "model.dropout=0.0", NOISY_LOSS])
    separate = build_tagger(experiment, sample_rate=SAMPLE_RATE, num_classes=5, stage=experiment.stages[0])
    separate.compile(optimizer="sgd", loss=loss)
    separate.noisy_loss, separate.class_weights = noisy, weights
    logits, labels = separate((window, group_labels(truth, [True, False, False, True])), training=True)
    value = separate.compute_loss(None, truth, (logits, labels), training=True)
    by_hand = loss(truth[[0, 3]], logits.numpy()[[0, 3]], [4, 0.5]) / 2
    by_hand += noisy(truth[1:3], logits[1:3], np.array([2.5, 1], "float32")) / 2
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)


def test_a_noisy_clip_does_not_train_the_head_that_predicts():
    tagger = small_tagger("noisy_head=true")
    tagger.compile(optimizer=keras.optimizers.SGD(0.1), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    window, truth = batch(tagger)
    first, last = tagger.network.layers[2], tagger.network.layers[-1]
    backbone_before, before = (np.array(layer.get_weights()[0]) for layer in (first, last))
    labels = group_labels(truth, [False] * 4)
    tagger.fit((window, labels), labels, verbose=0)
    after = last.get_weights()[0]
    np.testing.assert_array_equal(after[:, :5], before[:, :5])
    assert np.all(np.any(after[:, 5:] != before[:, 5:], axis=0))
    assert np.any(first.get_weights()[0] != backbone_before)  # the backbone learns


def test_mixed_labels_stay_with_their_heads():
    tagger = small_tagger("noisy_head=true", MIXUP)
    window, truth = batch(tagger)
    labels = group_labels(truth, [True, False, True, False])
    _, mixed = tagger.preprocessor((window, labels), training=True)
    groups, fractions = map(np.asarray, split_groups(mixed))  # [B, 2, K], [B, 2]
    np.testing.assert_allclose(fractions.sum(axis=1), 1, rtol=1e-6)
    assert np.any((fractions > 0) & (fractions < 1))
    np.testing.assert_allclose(groups.sum(axis=2), fractions > 0, rtol=1e-5)  # one label of 1 per subset
    assert not np.any(groups[:, 0, [1, 3]]) and not np.any(groups[:, 1, [0, 2, 4]])
