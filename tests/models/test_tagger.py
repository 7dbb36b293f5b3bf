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
from audiotag.errors import ConfigError
from audiotag.layers import FlipLabels
from audiotag.losses import SoftBootstrapping
from audiotag.metrics import Lwlrap, lwlrap
from audiotag.models.label_groups import by_subset, kept_apart
from audiotag.models.tagger import Tagger, log_odds
from audiotag.runs.building import build_tagger

DEMO = Path(__file__).parents[2] / "experiments" / "demo.json"
SAMPLE_RATE = 16_000
SMALL = ("window.seconds=0.5", "model.filters=[8,16]")


def small_tagger(*overrides, sample_rate=SAMPLE_RATE):
    keras.utils.set_random_seed(1)
    return build_tagger(load(DEMO, [*SMALL, *overrides]), sample_rate=sample_rate, num_classes=5)


@pytest.fixture(scope="module", params=["repeat", "zeros"])
def tagger(request):
    """A small network with each way to fill a window."""
    return small_tagger(f"window.short_clips={request.param}")


# Windows


@pytest.mark.parametrize("short_clips", ["repeat", "zeros"])
def test_a_short_clip_fills_the_window_as_it_does_in_training(records, short_clips):
    manifest, n = read_manifest(records), 2 * SAMPLE_RATE
    clips = read_clips(records / "clips.csv").query("num_samples < @n").reset_index(drop=True)
    tagger = Tagger(None, None, num_classes=5, window_samples=n, short_clips=short_clips)
    whole = {}
    for waveform, rows in evaluation_batches(manifest, clips, window_samples=n, batch_size=1):
        whole |= {row: waveform[i : i + 1] for i, row in enumerate(rows.numpy())}
    batches = training_batches(
        manifest,
        clips,
        np.eye(len(clips)),  # tells which clip it is
        window_samples=n,
        short_clips=short_clips,
        batch_size=4,
        seed=0,
        epochs=range(1),
    )
    compared = 0
    for waveform, truth in batches:
        for window, row in zip(waveform, np.argmax(truth, axis=1)):
            np.testing.assert_array_equal(window, tagger.windows(whole[row])[0][0, 0])
            compared += 1
    assert compared == len(clips) // 4 * 4 > 20


# The whole tagger


def test_while_training_one_window_is_passed_as_it_is():
    window, labels = keras.Input((16,)), keras.Input((3,))
    network = keras.Sequential([keras.Input((16,)), keras.layers.Dense(3)])
    tagger = Tagger(keras.Model((window, labels), (window, labels)), network, num_classes=3, window_samples=16)
    window, labels = padded([noise(5), noise(16)]), np.eye(2, 3, dtype="float32")
    logits, truth = tagger((window, labels), training=True)
    np.testing.assert_array_equal(logits, network(window))
    np.testing.assert_array_equal(truth, labels)
    assert np.any(tagger(window, training=False)[0] != logits[0])  # there 5 samples are repeated


def test_while_training_the_dice_are_thrown_and_otherwise_not(tagger):
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


def test_strangers_in_the_batch_change_nothing(tagger):
    n = tagger.window_samples
    clips = [level * noise(length, seed=length) for length, level in ((3 * n, 1), (1, 0.1), (n // 3, 1e-3), (n + 1, 1))]
    clips += [np.zeros(n, "float32"), 30 * noise(2 * n - 1)]
    together = tagger(padded(clips))
    for i, clip in enumerate(clips):
        np.testing.assert_allclose(tagger(clip[None])[0], together[i], atol=1e-5)


@pytest.mark.parametrize("length", [1, 100, 8_000, 20_000])
def test_digital_silence_is_finite(tagger, length):
    assert np.isfinite(tagger(np.zeros((2, length), "float32"))).all()


def test_a_graph_for_any_batch_and_length_gives_the_same(tagger):
    traced = tf.function(lambda waveform: tagger(waveform), input_signature=[tf.TensorSpec([None, None])])
    for length in (1, tagger.window_samples, 20_001):
        waveform = noise(2, length)
        np.testing.assert_allclose(traced(waveform), tagger(waveform), atol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_gives_float32_logits_that_are_nearly_the_same(precision):
    whole, half = small_tagger(), small_tagger(f"precision={precision}")
    assert keras.config.dtype_policy().name == "float32"  # left as it was found
    half.set_weights(whole.get_weights())
    waveform = noise(3, 10_000)
    logits = half(waveform)
    assert logits.dtype == "float32"
    assert {layer.compute_dtype for layer in half.network.layers[1:-1]} != {"float32"}
    np.testing.assert_allclose(logits, whole(waveform), atol=0.02 * np.abs(whole(waveform)).max())


def test_the_experiment_decides_how_windows_are_laid_and_pooled():
    tagger = small_tagger("predict.overlap=0.25", "predict.pool=max", "window.short_clips=zeros")
    assert (tagger.window_samples, tagger.hop, tagger.pool, tagger.short_clips) == (8000, 6000, "max", "zeros")
    assert tagger.laid == "covering"
    tagger = small_tagger("predict.windows=random", "predict.count=3")
    assert np.asarray(tagger.windows(noise(1, 30_000))[0]).shape == (1, 3, 8000)


WHOLE = {
    "conv_skip": ("model.filters=[8,16]",),
    "vgg_gap": ('model={"name": "vgg_gap", "width": 4}', "window.seconds=4.0"),
    "xresnet18": ('model={"name": "xresnet18"}', 'picture=[{"name": "standardise"}, {"name": "repeat_channels"}]'),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_clip_is_one_window_of_the_same_network(name):
    keras.utils.set_random_seed(1)
    overrides = ["window.seconds=0.5", *WHOLE[name]]
    build = lambda *more: build_tagger(load(DEMO, [*overrides, *more]), sample_rate=SAMPLE_RATE, num_classes=5)
    whole, cut = build("predict.windows=whole"), build()
    cut.set_weights(whole.get_weights())
    n = cut.window_samples
    for length in (n // 2, n):  # no longer than a window: no difference
        np.testing.assert_allclose(whole(noise(1, length)), cut(noise(1, length)), atol=1e-4)
    clip = noise(1, 2 * n)
    windows, heard = whole.windows(clip)
    np.testing.assert_array_equal(windows, clip[:, None])
    assert np.abs(np.asarray(whole(clip)) - np.asarray(cut(clip))).max() > 1e-4  # another question


def test_strangers_of_about_the_same_length_change_nothing_for_whole_clips():
    tagger = small_tagger("predict.windows=whole")
    clips = [noise(length, seed=length) for length in (11_500, 15_000, 16_000)]  # all are filled up to 16,000
    batch = np.zeros((3, 16_000), "float32")
    for row, clip in zip(batch, clips):
        row[: len(clip)] = clip
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(tagger(batch)[row], tagger(clip[None])[0], atol=1e-5)


def test_whole_clips_need_pictures_as_long_as_their_sound():
    resized = 'picture=[{"name": "resize", "height": 32, "width": 48}]'
    with pytest.raises(ConfigError, match='"whole" needs pictures as long as their sound, but these have 48 frames al'):
        small_tagger(resized, "predict.windows=whole")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.time_mask.max_width=99"], "augment[1] time_mask: max_width must be at most 26"),
        (["augment.frequency_mask.max_width=65"], "augment[0] frequency_mask: max_width must be at most 64"),
        (
            ["frontend.high_hz=8001"],
            "frontend log_mel: high_hz must be above 0 and at most 8000.0, half of sample_rate",
        ),
        (["frontend.fft_length=1000000000"], "frontend log_mel: fft_length must be at most 1000000."),
        (["frontend.window_length=9999"], "frontend log_mel: window_length must be 1 to fft_length="),
        (['picture=[{"name": "resize", "height": 0, "width": 9}]'], "picture[0] resize: height must be at least 1"),
        (['model={"name": "densenet169"}'], "model densenet169: DenseNet169 needs pictures of at least 32x32"),
        (["model.dropout=1.0"], "model conv_skip: dropout must be from 0 to below 1. Received: dropout=1.0"),
        (["window.seconds=1e-5"], "window.seconds: 1e-05 s at 16000 Hz hold no sample."),
    ],
)
def test_a_part_that_refuses_its_settings_is_named_by_its_place(overrides, message):
    with pytest.raises(ConfigError) as error:
        small_tagger(*overrides)
    assert str(error.value).startswith(message)


# Labels beside their sound


@pytest.mark.parametrize("largest", [1, 30, 300])
def test_log_odds_are_those_of_a_softmax(largest):
    logits = np.random.default_rng(0).uniform(-largest, largest, (9, 6)).astype("float32")
    exact = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    others = exact.sum(axis=1, keepdims=True) - exact
    with np.errstate(divide="ignore", over="ignore"):
        expected = np.where(others > 1e-14, np.log(exact) - np.log(others), np.nan)  # beyond, float64 says nothing
    found = np.where(np.isnan(expected), np.nan, log_odds(logits))
    np.testing.assert_allclose(found[np.abs(expected) < 600], expected[np.abs(expected) < 600], rtol=1e-5, atol=1e-4)
    assert all(len(set(row)) == 6 for row in np.asarray(log_odds(logits)))  # no ties by rounding


def test_a_softmax_is_judged_by_its_probabilities():
    one = 'stages=[{"name": "curated", "subset": "curated", "epochs": 1, "batch_size": 2, "optimizer": {"name": "adam"}'
    tagger = small_tagger("labels=one", one + ', "loss": {"name": "categorical_crossentropy"}}]')
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    tagger.compile(optimizer="sgd", loss=loss)
    window, labels = noise(2, tagger.window_samples), np.eye(2, 5, dtype="float32")
    logits = tagger.network(tagger.ear((window, labels))[0])
    answer = tagger(window)
    np.testing.assert_allclose(keras.ops.sigmoid(answer), keras.ops.softmax(logits), rtol=1e-4)
    judged = tagger.compute_loss(None, labels, answer, training=False)
    np.testing.assert_allclose(judged, loss(labels, logits), rtol=1e-4)


MIXUP = 'augment=[{"name": "mixup", "alpha": 0.4}]'
FLIPS = 'augment=[{"name": "flip_labels"}]'


def batch(tagger, size=4):
    return noise(size, tagger.window_samples), np.eye(size, 5, dtype="float32")


def test_the_loss_compares_with_the_labels_that_came_out_of_the_ear():
    tagger = small_tagger(MIXUP)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    tagger.compile(optimizer="sgd", loss=loss, metrics=[Lwlrap(5)])
    logits, labels = tagger(batch(tagger), training=True)
    mixed = np.asarray(labels)
    assert np.any((mixed > 0) & (mixed < 1))
    _, truth = batch(tagger)
    answer = tagger.compute_loss(None, truth, (logits, labels), training=True)
    np.testing.assert_allclose(answer, loss(mixed, logits), rtol=1e-6)
    measured = tagger.compute_metrics(None, truth, (logits, labels))
    assert float(measured["lwlrap"]) == pytest.approx(lwlrap((mixed >= 0.5).astype(int), np.asarray(logits)))


@pytest.mark.parametrize("change", [MIXUP, FLIPS, 'waveform=[{"name": "concat_mix"}]'])
def test_it_trains_and_judges_with_labels_that_move(change):
    tagger = small_tagger(change)
    tagger.compile(optimizer="adam", loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=[Lwlrap(5)])
    waveform, truth = batch(tagger, 8)
    logs = tagger.fit((waveform, truth), truth, batch_size=4, verbose=0, validation_data=(waveform, truth)).history
    assert set(logs) == {"loss", "lwlrap", "val_loss", "val_lwlrap"}
    assert all(np.isfinite(value) for values in logs.values() for value in values)


def test_four_flips_are_each_read_in_their_own_columns_and_averaged():
    one, four = small_tagger(FLIPS), small_tagger(FLIPS, "predict.flips=true")
    assert four.network.output_shape == (None, 20)
    four.set_weights(one.get_weights())
    window = noise(2, four.window_samples)
    picture, _ = four.ear((window, np.zeros((2, 5), "float32")))
    picture = np.asarray(picture)
    blocks = []
    for number, turned in enumerate(
        [picture, picture[:, :, ::-1], picture[:, ::-1], picture[:, ::-1, ::-1]]
    ):
        blocks.append(np.asarray(four.network(turned))[:, 5 * number : 5 * number + 5])
    np.testing.assert_allclose(one(window), blocks[0], atol=1e-5)
    expected = logit(expit(np.stack(blocks)).mean(axis=0))
    np.testing.assert_allclose(four(window), expected, atol=1e-5)


def test_a_flip_is_heard_where_it_stands_among_the_steps():
    """Deltas of a flipped picture are not the flipped deltas, nor does a halved one forget which pixel it kept."""
    after = '{"name": "deltas"}, {"name": "frequency_channel"}, {"name": "resize", "height": 31, "width": 13}'
    picture = f'picture=[{{"name": "standardise"}}, {{"name": "flip_labels"}}, {after}]'
    tagger = small_tagger(picture, "augment=[]", "predict.flips=true")
    (flipper,) = (layer for layer in tagger.ear.layers if isinstance(layer, FlipLabels))
    window, nothing = noise(1, tagger.window_samples), np.zeros((1, 5), "float32")
    answers = np.asarray(tagger.window_logits(window)).reshape(4, 5)
    seen = set()
    while len(seen) < 4:  # while training the dice decide, and the labels tell what they said
        picture, labels = tagger.ear((window, nothing + 1), training=True)
        flip = int(np.argmax(labels)) // 5
        logits = np.asarray(tagger.network(picture))[0, 5 * flip : 5 * flip + 5]
        np.testing.assert_allclose(answers[flip], logits, rtol=1e-4, atol=1e-4)
        seen.add(flip)
    assert flipper.flip == 0 and len(np.unique(answers.round(4), axis=0)) == 4


def test_noisy_labels_teach_a_head_of_their_own_and_the_other_answers():
    tagger = small_tagger("noisy_head=true", "augment=[]", "model.dropout=0.0")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    tagger.compile(optimizer="sgd", loss=loss, metrics=[Lwlrap(5)])
    window, truth = batch(tagger)
    labels = kept_apart(truth, ["curated", "noisy", "noisy", "noisy"])
    with tf.GradientTape() as tape:
        logits, answered = tagger((window, labels), training=True)
        value = tagger.compute_loss(None, truth, (logits, answered), training=True)
    by_hand = loss(truth[:1], logits[:1, :5]) / 4 + loss(truth[1:], logits[1:, 5:]) * 3 / 4
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)
    kernel = tagger.network.get_layer("logits").kernel.value
    assert np.all(np.any(tape.gradient(value, kernel), axis=0))  # both heads learn
    measured = tagger.compute_metrics(None, truth, (logits, answered))
    assert float(measured["lwlrap"]) == pytest.approx(lwlrap(truth[:1], np.asarray(logits)[:1, :5]))
    np.testing.assert_allclose(tagger(window), tagger.network(tagger.ear((window, labels))[0])[:, :5], atol=1e-5)


NOISY_LOSS = 'stages.noisy.noisy_loss={"name": "soft_bootstrapping", "beta": 0.5}'


def test_noisy_clips_may_have_a_loss_of_their_own():
    experiment = load(DEMO, [*SMALL, "augment=[]", "model.dropout=0.0", NOISY_LOSS])
    tagger = build_tagger(experiment, sample_rate=SAMPLE_RATE, num_classes=5, stage=experiment.stages[0])
    curated, noisy = keras.losses.BinaryCrossentropy(from_logits=True), SoftBootstrapping(beta=0.5)
    tagger.compile(optimizer="sgd", loss=curated, metrics=[Lwlrap(5)])
    tagger.noisy_loss = noisy
    window, truth = batch(tagger)
    logits, labels = tagger((window, kept_apart(truth, ["curated", "noisy", "noisy", "noisy"])), training=True)
    assert logits.shape == (4, 5)  # one head for both
    value = tagger.compute_loss(None, truth, (logits, labels), training=True)
    by_hand = curated(truth[:1], logits[:1]) / 4 + noisy(truth[1:], logits[1:]) * 3 / 4
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)
    measured = tagger.compute_metrics(None, truth, (logits, labels))
    assert float(measured["lwlrap"]) == pytest.approx(lwlrap(truth, np.asarray(logits)))


def test_a_noisy_clip_leaves_the_head_that_answers_alone():
    tagger = small_tagger("noisy_head=true")
    tagger.compile(optimizer=keras.optimizers.SGD(0.1), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    window, truth = batch(tagger)
    first, last = tagger.network.layers[2], tagger.network.layers[-1]
    below, before = (np.array(layer.get_weights()[0]) for layer in (first, last))
    labels = kept_apart(truth, ["noisy"] * 4)
    tagger.fit((window, labels), labels, verbose=0)
    after = last.get_weights()[0]
    np.testing.assert_array_equal(after[:, :5], before[:, :5])
    assert np.all(np.any(after[:, 5:] != before[:, 5:], axis=0))
    assert np.any(first.get_weights()[0] != below)  # all below the heads learns


def test_mixed_labels_stay_with_their_heads():
    tagger = small_tagger("noisy_head=true", MIXUP)
    window, truth = batch(tagger)
    labels = kept_apart(truth, ["curated", "noisy", "curated", "noisy"])
    _, mixed = tagger.ear((window, labels), training=True)
    asked, share = by_subset(mixed)
    np.testing.assert_allclose(np.sum(share, axis=1), 1, rtol=1e-6)
    assert np.any((np.asarray(share) > 0) & (np.asarray(share) < 1))
    np.testing.assert_allclose(np.sum(asked, axis=2), np.asarray(share) > 0, rtol=1e-5)  # one label each, whole
    assert not np.any(np.asarray(asked)[:, 0, [1, 3]]) and not np.any(np.asarray(asked)[:, 1, [0, 2, 4]])


def test_one_stage_may_have_disturbances_of_its_own():
    experiment = load(DEMO, [*SMALL, 'stages.curated.augment=[{"name": "mixup"}]'])
    noisy, curated = (
        build_tagger(experiment, sample_rate=SAMPLE_RATE, num_classes=5, stage=stage) for stage in experiment.stages
    )
    kinds = [{type(layer).__name__ for layer in tagger.ear.layers} for tagger in (noisy, curated)]
    assert "TimeMask" in kinds[0] and "MixUp" not in kinds[0]
    assert "MixUp" in kinds[1] and "TimeMask" not in kinds[1]
    waveform = noise(2, 8_000)
    assert np.any(curated(waveform) != noisy(waveform))
    curated.take_over(noisy)
    np.testing.assert_array_equal(curated(waveform), noisy(waveform))
