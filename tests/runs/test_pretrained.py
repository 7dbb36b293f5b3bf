import csv
import dataclasses
import json
import pickle
import socket
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import soundfile
import soxr
import tensorflow as tf
from scipy.special import expit
from tiers import tier

from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.splits import training_clips, validation_clips
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches
from audiotag.data.records import read_manifest
from audiotag.errors import ConfigError, DataError
from audiotag.metrics import lwlrap
from audiotag.models import MODELS, windowing
from audiotag.runs import pretrained
from audiotag.runs.building import build_tagger
from audiotag.runs.models import load_taggers
from audiotag.runs.pretrained import class_names, load_pretrained, published_tagger, published_top
from audiotag.runs.weights import save_weights
from audiotag.training.baselines import head_by_names
from audiotag.training.loop import fit

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
# Kind of layer, stride and filters, as published (tensorflow/models, research/audioset/yamnet/yamnet.py).
LAYERS = [("conv", 2, 32), ("separable", 1, 64), ("separable", 2, 128), ("separable", 1, 128), ("separable", 2, 256)]
LAYERS += [("separable", 1, 256), ("separable", 2, 512)] + 5 * [("separable", 1, 512)]
LAYERS += [("separable", 2, 1024), ("separable", 1, 1024)]
MOMENTS = ("moving_mean", "moving_variance")


def random_yamnet():
    """{name: array} with the names and shapes of the published yamnet.h5; activations keep their scale."""
    rng = np.random.default_rng(0)
    arrays, inputs = {}, 1

    def add(place, kernel, shape, channels, fan_in):
        arrays[f"{place}/{place}/{kernel}:0"] = rng.normal(0, (2 / fan_in) ** 0.5, shape)
        arrays[f"{place}/bn/{place}/bn/beta:0"] = rng.normal(0, 0.1, channels)
        arrays[f"{place}/bn/{place}/bn/moving_mean:0"] = rng.normal(0, 0.1, channels)
        arrays[f"{place}/bn/{place}/bn/moving_variance:0"] = rng.uniform(0.7, 1.4, channels)

    for number, (kind, _, filters) in enumerate(LAYERS, start=1):
        if kind == "conv":
            add(f"layer{number}/conv", "kernel", (3, 3, inputs, filters), filters, 9 * inputs)
        else:
            add(f"layer{number}/depthwise_conv", "depthwise_kernel", (3, 3, inputs, 1), inputs, 9)
            add(f"layer{number}/pointwise_conv", "kernel", (1, 1, inputs, filters), filters, inputs)
        inputs = filters
    arrays["logits/logits/kernel:0"] = rng.normal(0, 0.05, (1024, 521))
    arrays["logits/logits/bias:0"] = rng.normal(0, 1, 521)
    return {name: array.astype("float32") for name, array in arrays.items()}


def published(arrays, waveform):
    """YAMNet of one clip in operations of TensorFlow: [N] → embeddings [W, 1024], scores [W, 521]."""

    def normalized(x, place):
        beta, mean, variance = (arrays[f"{place}/bn/{place}/bn/{key}:0"] for key in ("beta", *MOMENTS))
        return tf.nn.relu(tf.nn.batch_normalization(x, mean, variance, beta, None, 1e-4))

    patch, hop = 15_600, 7_680
    missing = max(0, patch - len(waveform))
    missing += -(len(waveform) + missing - patch) % hop
    spectrum = tf.abs(tf.signal.stft(tf.pad(waveform, [[0, missing]]), 400, 160, 512))
    filters = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000.0, 125.0, 7_500.0)
    x = tf.signal.frame(tf.math.log(spectrum @ filters + 0.001), 96, 48, axis=0)[..., None]  # [W, 96, 64, 1]
    for number, (kind, stride, _) in enumerate(LAYERS, start=1):
        if kind == "conv":
            place = f"layer{number}/conv"
            x = normalized(tf.nn.conv2d(x, arrays[f"{place}/{place}/kernel:0"], stride, "SAME"), place)
            continue
        place = f"layer{number}/depthwise_conv"
        kernel = arrays[f"{place}/{place}/depthwise_kernel:0"]
        x = normalized(tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME"), place)
        place = f"layer{number}/pointwise_conv"
        x = normalized(tf.nn.conv2d(x, arrays[f"{place}/{place}/kernel:0"], 1, "SAME"), place)
    embeddings = tf.reduce_mean(x, (1, 2))
    logits = embeddings @ arrays["logits/logits/kernel:0"] + arrays["logits/logits/bias:0"]
    return embeddings.numpy(), tf.sigmoid(logits).numpy()


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


@pytest.fixture(scope="module")
def arrays():
    return random_yamnet()


@pytest.fixture(scope="module")
def yamnet_h5(arrays, tmp_path_factory):
    """A file in the layout of the published one, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "yamnet.h5"
    write_hdf5(path, arrays)
    return path


@pytest.fixture
def network():
    return MODELS["yamnet"]((64, None, 1), 4)


@pytest.fixture
def offline(monkeypatch):
    """There is no network."""

    def refuse(*arguments, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def backbone_weights(network):
    return [array for layer in network.layers[:-1] for array in layer.get_weights()]


def test_embeddings_and_scores_are_those_of_the_published_arithmetic(arrays, yamnet_h5):
    model, names = published_tagger("yamnet", str(yamnet_h5))
    rng = np.random.default_rng(1)
    for number in range(tier(10, 100)):
        samples = int(rng.integers(16_000, 160_001)) if number else 400
        waveform = (10 ** rng.uniform(-3, 0) * rng.uniform(-1, 1, samples)).astype("float32")
        ours = model(waveform[None])
        embeddings, scores = published(arrays, waveform)
        np.testing.assert_allclose(ours["embeddings"][0], embeddings, rtol=0, atol=1e-4)
        np.testing.assert_allclose(ours["scores"][0], scores, rtol=0, atol=1e-4)
    assert len(names) == scores.shape[1]


def test_a_tensorflow_lite_file_has_the_weights_that_it_was_converted_from(arrays, yamnet_h5, tmp_path):
    full = MODELS["yamnet"]((64, None, 1), 521)
    load_pretrained(full, str(yamnet_h5), top=True)
    patch = keras.Input((64, 96, 1), batch_size=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(patch, full(patch)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]  # weights as 8-bit integers
    path = tmp_path / "yamnet.tflite"
    path.write_bytes(converter.convert())
    again = MODELS["yamnet"]((64, None, 1), 521)
    load_pretrained(again, str(path), top=True)
    for ours, expected in zip(again.get_weights(), full.get_weights(), strict=True):
        atol = 0.51 * np.abs(expected).max() / 127 if expected.ndim > 1 else 1e-6
        np.testing.assert_allclose(ours, expected, rtol=0, atol=atol)


def test_weights_of_audiotag_are_loaded_by_the_names_of_layers(network, tmp_path):
    path = tmp_path / "own.weights.h5"
    other = MODELS["yamnet"]((64, None, 1), 7)
    save_weights(other, path)
    load_pretrained(network, str(path))
    for ours, theirs in zip(backbone_weights(network), backbone_weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_experiment_starts_with_published_weights(yamnet_h5, tiny, tmp_path, network):
    overrides = ['frontend={"name": "yamnet_mel"}', "image_preprocess=[]", "augment=[]", "window.seconds=0.975"]
    overrides.append(f"model={json.dumps({'name': 'yamnet', 'weights': str(yamnet_h5)})}")
    load_pretrained(network, str(yamnet_h5))
    tagger = build_tagger(tiny(*overrides), sample_rate=16_000, num_classes=5)
    for ours, theirs in zip(backbone_weights(tagger.network), backbone_weights(network), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    save_weights(tagger, tmp_path / "run.weights.h5")
    other = MODELS["yamnet"]((64, None, 1), 4)
    load_pretrained(other, str(tmp_path / "run.weights.h5"))
    for ours, theirs in zip(backbone_weights(other), backbone_weights(network), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ConfigError, match="frontend yamnet_mel: .*Received: sample_rate=44100.*--sample-rate 16000"):
        build_tagger(tiny(*overrides), sample_rate=44_100, num_classes=5)


def lwlrap_by_names(run, weights, classes):
    """The lwlrap on the validation clips of the published classes that match each class, from whole waveforms."""
    manifest, names = read_manifest(run.experiment.records), class_names("yamnet")
    clips = training_clips(run, read_clips(manifest.directory / "clips.csv"))
    clips = validation_clips(run, clips, 0, run.experiment.stages[0]).reset_index(drop=True)
    [tagger], network = load_taggers(run), MODELS["yamnet"]((64, None, 1), len(names))
    load_pretrained(network, str(weights), top=True)
    scores = np.zeros((len(clips), len(run.vocabulary)))
    for waveform, rows in evaluation_batches(manifest, clips, window_samples=run.window_samples, batch_size=1):
        windows = tagger.windows(windowing.to_float(waveform))[0][0]  # [W, n]
        image, _ = tagger.preprocessor((windows, tagger._no_labels(windows)), training=False)
        logits = network(image, training=False).numpy()  # [W, 521]
        for column, label in enumerate(run.vocabulary):
            matching = [logits[:, names.index(name)] for name in classes[label]] or [np.full(len(logits), -1e3)]
            scores[rows[0], column] = expit(np.mean(matching, axis=0)).mean()
    return lwlrap(multi_hot(clips["labels"], run.vocabulary), scores)


def test_a_run_trains_without_a_network_and_its_models_load_without_the_file(yamnet_h5, tiny, tmp_path, offline):
    path = tmp_path / "yamnet.h5"
    path.write_bytes(yamnet_h5.read_bytes())
    stage = {"name": "head", "subset": "curated", "epochs": 1, "steps_per_epoch": 2, "batch_size": 4}
    stage |= {"optimizer": {"name": "adam", "learning_rate": 0.01}, "loss": {"name": "binary_crossentropy"}}
    stage |= {"backbone_lr_multiplier": 0}
    overrides = ['frontend={"name": "yamnet_mel"}', "image_preprocess=[]", "augment=[]", "window.seconds=1.455"]
    overrides += [f"stages={json.dumps([stage])}", f"model={json.dumps({'name': 'yamnet', 'weights': str(path)})}"]
    said = []
    run = fit(tiny(*overrides), tmp_path / "run", say=said.append)
    path.unlink()
    [tagger] = load_taggers(run)
    expected = MODELS["yamnet"]((64, None, 1), 5)
    load_pretrained(expected, str(yamnet_h5))
    for ours, theirs in zip(backbone_weights(tagger.network), backbone_weights(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    waveform = np.random.default_rng(0).uniform(-1, 1, (2, 40_000)).astype("float32")
    assert np.isfinite(tagger(waveform)).all()
    baselines = json.loads(run.stage_files(0, "head").baselines.read_text())
    by_names, by_neighbors = baselines["by_names"], baselines["by_neighbors"]
    expected = lwlrap_by_names(run, yamnet_h5, by_names["classes"])
    assert by_names["metrics"]["lwlrap"] == pytest.approx(expected, abs=1e-6)
    assert by_neighbors["k"] == 5 and 0 < by_neighbors["metrics"]["lwlrap"] <= 1
    assert said[1].startswith(
        f"Without training, on the same {baselines['clips']} clips of fold 0: lwlrap {expected:.4f}"
    )


def test_a_head_by_names_is_the_published_one_of_the_matching_classes(run, tiny, arrays, yamnet_h5):
    model = {"name": "yamnet", "weights": str(yamnet_h5)}
    experiment = tiny('frontend={"name": "yamnet_mel"}', "image_preprocess=[]", f"model={json.dumps(model)}")
    vocabulary = ("Rooster", "Sea waves", "Zzz")
    run = dataclasses.replace(run, experiment=experiment, vocabulary=vocabulary)
    context = FoldContext(run, None, None, 0, experiment.stages[0])
    kernel, bias = head_by_names(context, 1024)
    names = class_names("yamnet")
    rooster, waves = names.index("Chicken, rooster"), names.index("Waves, surf")
    published, offsets = arrays["logits/logits/kernel:0"], arrays["logits/logits/bias:0"]
    difference = (published[:, rooster] - published[:, waves]) / 2
    np.testing.assert_allclose(kernel, np.stack([difference, -difference, 0 * difference], axis=1), atol=1e-6)
    np.testing.assert_allclose(bias[0], (offsets[rooster] - offsets[waves]) / 2, atol=1e-6)
    assert head_by_names(context.at_stage("curated"), 1024) is None  # it starts from another stage
    assert head_by_names(dataclasses.replace(context, run=dataclasses.replace(run, vocabulary=("Xyz",))), 1024) is None


def test_the_published_last_layer_is_read_alone(arrays, yamnet_h5):
    kernel, bias = published_top("yamnet", str(yamnet_h5), 1024)
    np.testing.assert_array_equal(kernel, arrays["logits/logits/kernel:0"])
    np.testing.assert_array_equal(bias, arrays["logits/logits/bias:0"])
    with pytest.raises(DataError, match=r"no weights of yamnet: layer 'logits' has .1024, 521.*Expected .8, 521."):
        published_top("yamnet", str(yamnet_h5), 8)


def test_the_class_names_are_those_of_audioset():
    names = class_names("yamnet")
    assert len(names) == len(set(names)) == 521
    assert names[0] == "Speech" and "Dog" in names
    original = SHARED / "yamnet" / "yamnet_class_map.csv"
    if original.is_file():
        with open(original, newline="") as file:
            assert names == [row["display_name"] for row in csv.DictReader(file)]


def refused(network, path, expected):
    before = network.get_weights()
    with pytest.raises(DataError) as error:
        load_pretrained(network, str(path))
    assert str(error.value).startswith(str(path)) and expected in str(error.value), str(error.value)
    for ours, theirs in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_that_do_not_fit_are_refused_with_the_first_that_differs(network, arrays, tmp_path):
    def without(name):
        return {key: array for key, array in arrays.items() if key != name}

    conv, bn = "layer5/pointwise_conv", "layer3/depthwise_conv/bn"
    cases = {
        f"{conv}/{conv}/kernel:0 has the shape (1, 1, 128, 255). Expected the shape (1, 1, 128, 256).": arrays
        | {f"{conv}/{conv}/kernel:0": np.zeros((1, 1, 128, 255))},
        f"{bn}/{bn}/beta:0 is missing. Expected the shape (64,).": without(f"{bn}/{bn}/beta:0"),
        "layer1/conv/layer1/conv/kernel:0 is missing. Expected the shape (3, 3, 1, 32).": {"dense/kernel:0": [1.0]},
        "layer 'layer2_depthwise_conv' has a weight that is NaN or infinite": arrays
        | {"layer2/depthwise_conv/bn/layer2/depthwise_conv/bn/moving_mean:0": np.full(32, np.nan)},
    }
    for expected, content in cases.items():
        path = tmp_path / "other.h5"
        write_hdf5(path, content)
        refused(network, path, expected)


def test_weights_of_another_network_of_audiotag_are_refused(network, tmp_path):
    path = tmp_path / "other.weights.h5"
    save_weights(MODELS["conv_skip"]((24, 40, 1), 4), path)
    refused(network, path, "layer 'layer1_conv' has none. Expected (3, 3, 1, 32) and (32,).")


def test_a_tensorflow_lite_file_of_another_network_is_refused(network, tmp_path):
    image = keras.Input((8, 8, 1), batch_size=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, keras.layers.Conv2D(5, 3)(image)))
    path = tmp_path / "other.tflite"
    path.write_bytes(converter.convert())
    refused(network, path, "layer 'layer1_conv' has (3, 3, 1, 5) and (5,). Expected (3, 3, 1, 32) and (32,).")


def test_damaged_and_unsafe_files_are_refused(network, yamnet_h5, tmp_path):
    path = tmp_path / "bad"
    complete = yamnet_h5.read_bytes()
    path.write_bytes(complete[: len(complete) // 2])
    refused(network, path, "no weights for this network")
    path.write_bytes(pickle.dumps({"layer1": 1}))
    refused(network, path, "is a pickle, which runs code when it is read. Expected yamnet.h5")
    path.write_text("no weights")
    refused(network, path, "is of the format 'unknown'. Expected yamnet.h5")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    refused(network, path, "is of the format 'zip'. Expected yamnet.h5")
    with h5py.File(path, "w") as file:
        file["layer1"] = h5py.ExternalLink(str(yamnet_h5), "layer1")
    refused(network, path, "'layer1' is a link. Files of weights hold plain numbers only.")


def test_any_truncated_or_changed_tensorflow_lite_file_is_refused_or_loads(tmp_path):
    image = keras.Input((8, 8, 1), batch_size=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, keras.layers.Conv2D(5, 3)(image)))
    complete, path, rng = converter.convert(), tmp_path / "bad.tflite", np.random.default_rng(0)
    damaged = [complete[:size] for size in range(8, len(complete), 17)]
    for _ in range(300):
        changed = np.frombuffer(complete, "u1").copy()
        changed[rng.integers(8, len(changed), 4)] = rng.integers(0, 256, 4)
        damaged.append(changed.tobytes())
    num_refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            pretrained.read_tflite(path)
        except DataError as error:
            num_refused += 1
            assert str(error).startswith(f"{path}: is damaged, or no file of weights: ")
    assert num_refused > len(damaged) / 4


def test_a_missing_file_is_refused(network):
    with pytest.raises(ConfigError, match=r'gone.h5 is not a file. Expected "audioset", or the path of yamnet.h5'):
        load_pretrained(network, "gone.h5")


def test_audioset_weights_without_a_network_are_one_clear_error(network, offline, monkeypatch, tmp_path):
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))  # nothing downloaded
    with pytest.raises(ConfigError) as error:
        load_pretrained(network, "audioset")
    assert 'weights="audioset" of yamnet could not be downloaded from https://storage.googl' in str(error.value)
    assert "Download that file elsewhere and set weights to its path, or to null" in str(error.value)


def test_audioset_weights_are_downloaded_once_and_checked(network, yamnet_h5, monkeypatch):
    requests = []

    def get_file(name, **options):
        requests.append((name, options))
        return str(yamnet_h5)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    load_pretrained(network, "audioset")
    [(name, options)] = requests
    assert name == "yamnet.h5" and options["origin"].endswith("/audioset/yamnet.h5")
    assert options["hash_algorithm"] == "sha256" and len(options["file_hash"]) == 64


@pytest.mark.filterwarnings("ignore::UserWarning")  # that the interpreter moves to another package
@pytest.mark.skipif(not (SHARED / "yamnet").is_dir(), reason="needs YAMNet in shared/data/yamnet")
def test_real_weights_tag_real_sounds_as_the_published_file_does():
    """One clip per class. The interpreter rounds what enters each layer to 8 bits, and the spectrum, too."""
    path = str(SHARED / "yamnet" / "yamnet.tflite")
    model, names = published_tagger("yamnet", path)
    network = MODELS["yamnet"]((64, None, 1), len(names))
    load_pretrained(network, path, top=True)
    interpreter = tf.lite.Interpreter(path, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    scores, embedding, mel = 114, 112, 81  # the indices of its tensors
    embeddings, same, same_for_its_mel = [], [], []
    for folder in sorted((SHARED / "esc10").glob("0*")):
        file = sorted(folder.glob("*.ogg"))[3]
        waveform = soxr.resample(*soundfile.read(file, dtype="float32"), 16_000)
        theirs = []
        for start in range(0, len(waveform) - 15_599, 7_680):
            interpreter.set_tensor(0, waveform[start : start + 15_600])
            interpreter.invoke()
            theirs.append([interpreter.get_tensor(index)[0] for index in (114, 112)] + [interpreter.get_tensor(81)])
        scores, embedding, mel = map(np.array, zip(*theirs, strict=True))  # [W, 521], [W, 1024], [W, 1, 96, 64]
        ours = {key: np.array(value[0, : len(scores)]) for key, value in model(waveform[None]).items()}
        sure, top = scores.max(axis=1) > 0.5, scores.argmax(axis=1)
        image = mel.reshape(-1, 96, 64, 1).transpose(0, 2, 1, 3)
        same += (ours["scores"].argmax(axis=1) == top)[sure].tolist()
        same_for_its_mel += (np.argmax(network(image), axis=1) == top)[sure].tolist()
        embeddings.append((ours["embeddings"].mean(axis=0), embedding.mean(axis=0)))
    assert len(same) > 40
    ours, theirs = np.array(embeddings).transpose(1, 0, 2).reshape(2, -1)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.985  # all 320 clips: 0.989
    assert np.mean(same_for_its_mel) >= 0.9  # all windows: 0.956
    assert np.mean(same) >= 0.85  # all windows: 0.908; two kernels of the interpreter agree on 0.963
