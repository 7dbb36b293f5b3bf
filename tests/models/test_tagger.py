from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from audiotag.data.clips import read_clips
from audiotag.data.manifest import read_manifest
from audiotag.data.pipeline import evaluation_batches, training_batches
from audiotag.errors import ConfigError
from audiotag.experiment import load
from audiotag.layers import FlipLabels
from audiotag.metrics import Lwlrap, lwlrap
from audiotag.models.tagger import Tagger, build_tagger, log_odds, pooled

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


def noise(*shape, seed=0):
    """Noise without a zero in it."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], shape) * rng.uniform(0.01, 1, shape)).astype("float32")


def padded(clips):
    """[B, N]: zeros after the end of the shorter clips."""
    batch = np.zeros((len(clips), max(map(len, clips))), "float32")
    for row, clip in zip(batch, clips):
        row[: len(clip)] = clip
    return batch


# Pooling


def logit_of_the_mean(logits):
    """[W, K] → [K], in float64: no probability is rounded, neither near 0 nor near 1."""
    logits = logits.astype("float64")
    present, absent = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))
    return np.log(present.mean(axis=0)) - np.log(absent.mean(axis=0))


@pytest.mark.parametrize("largest", [1, 20, 200])
def test_the_mean_is_that_of_the_probabilities(largest):
    rng = np.random.default_rng(0)
    logits = rng.uniform(-largest, largest, (6, 4, 7)).astype("float32")
    heard = np.arange(4) < np.array([[1], [2], [3], [4], [4], [4]])  # [B, W]
    answer = pooled(logits, heard[:, :, None], "mean")
    expected = [logit_of_the_mean(clip[windows]) for clip, windows in zip(logits, heard)]
    np.testing.assert_allclose(answer, expected, rtol=2e-6, atol=2e-6)


def test_the_maximum_is_that_of_the_windows_heard():
    logits = np.random.default_rng(0).uniform(-200, 200, (6, 4, 7)).astype("float32")
    heard = np.arange(4) < np.array([[1], [2], [3], [4], [4], [4]])
    answer = pooled(logits, heard[:, :, None], "max")
    np.testing.assert_array_equal(answer, [clip[windows].max(axis=0) for clip, windows in zip(logits, heard)])


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_classes_that_are_nearly_certain_stay_apart(pool, sign):
    logits = np.tile(sign * np.arange(180, 201, dtype="float32"), (1, 3, 1))  # their probabilities are all 0 or all 1
    answer = np.asarray(pooled(logits, np.full((1, 3, 1), True), pool))[0]
    np.testing.assert_allclose(answer, logits[0, 0], rtol=1e-6)
    assert len(set(answer)) == 21


# Windows


def windows_by_hand(clip, n, hop, short_clips):
    """A plain loop: from the start by hops, and the last window ends where the clip ends."""
    if len(clip) < n and short_clips == "repeat":
        return [[clip[i % len(clip)] for i in range(n)]]
    if len(clip) < n:
        before = (n - len(clip)) // 2
        return [[0.0] * before + list(clip) + [0.0] * (n - len(clip) - before)]
    windows, start = [], 0
    while start + n < len(clip):
        windows.append(list(clip[start : start + n]))
        start += hop
    return [*windows, list(clip[len(clip) - n :])]


@pytest.mark.parametrize("short_clips", ["repeat", "zeros"])
@pytest.mark.parametrize(("overlap", "hop"), [(0.0, 16), (0.5, 8), (0.75, 4), (0.6, 6), (0.99, 1)])
@pytest.mark.parametrize("length", [1, 2, 5, 15, 16, 17, 20, 24, 25, 31, 32, 33, 47, 64, 100])
def test_windows_are_those_of_a_plain_loop(length, overlap, hop, short_clips):
    tagger = Tagger(None, None, num_classes=5, window_samples=16, short_clips=short_clips, overlap=overlap)
    clip = noise(length)
    windows, heard = tagger.windows(clip[None])
    np.testing.assert_array_equal(windows[0], np.array(windows_by_hand(clip, 16, hop, short_clips), "float32"))
    assert np.all(heard)
    assert set(clip) <= set(np.asarray(windows).ravel())  # every sample is heard


@pytest.mark.parametrize("short_clips", ["repeat", "zeros"])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_in_a_batch_each_clip_has_its_own_windows(overlap, short_clips):
    tagger = Tagger(None, None, num_classes=5, window_samples=16, short_clips=short_clips, overlap=overlap)
    clips = [noise(length, seed=length) for length in (40, 1, 16, 100, 17, 99)]
    windows, heard = map(np.asarray, tagger.windows(padded(clips)))
    for i, clip in enumerate(clips):
        np.testing.assert_array_equal(windows[i][heard[i]], tagger.windows(clip[None])[0][0])


def test_zeros_inside_a_clip_are_part_of_it():
    clip = np.concatenate([np.zeros(20), noise(1), np.zeros(30), noise(1)]).astype("float32")
    windows, _ = Tagger(None, None, num_classes=5, window_samples=16, overlap=0.5).windows(clip[None])
    np.testing.assert_array_equal(windows[0], np.array(windows_by_hand(clip, 16, 8, "repeat"), "float32"))


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
    windows = windows_by_hand(clip, tagger.window_samples, tagger.window_samples // 4, "repeat")
    logits = np.concatenate([tagger.window_logits(np.array([window], "float32")) for window in windows])
    assert len(logits) == 10
    np.testing.assert_allclose(tagger(clip[None])[0], logit_of_the_mean(logits), atol=1e-5)


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
    assert (tagger.window_samples, tagger.overlap, tagger.pool, tagger.short_clips) == (8000, 0.25, "max", "zeros")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.time_mask.max_width=99"], "augment[1] time_mask: max_width must be at most 26"),
        (["augment.frequency_mask.max_width=65"], "augment[0] frequency_mask: max_width must be at most 64"),
        (
            ["frontend.high_hz=8001"],
            "frontend log_mel: high_hz must be above 0 and at most 8000.0, half of sample_rate",
        ),
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
    expected = [logit_of_the_mean(np.stack([block[clip] for block in blocks])) for clip in range(2)]
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
