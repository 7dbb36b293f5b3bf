import dataclasses
import json
import resource
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from waveforms import padded

from audiotag.errors import ConfigError, DataError
from audiotag.inference.blocks import predict_logits
from audiotag.runs.models import load_taggers, with_predict_options
from audiotag.serving.saved_model import export, load_predictor

RATE = 16_000
SECONDS = (0.05, 0.3, 0.99, 1.0, 1.01, 2.5, 7.3, 60.0)
# A server without audiotag: it has only TensorFlow, the folder and waveforms.
SERVER = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
predictions = {}
for key, waveform in np.load(sys.argv[2]).items():
    outputs = serve(waveform=tf.constant(waveform))
    predictions[key] = outputs["probabilities"].numpy()
    predictions[f"logits {key}"] = outputs["logits"].numpy()
np.savez(sys.argv[3], **predictions)
print(model.sample_rate().numpy(), *[name.decode() for name in model.class_names().numpy()])
print(*sys.modules)
"""


def noise(seconds, seed):
    return (0.3 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype("float32")


@pytest.fixture(scope="module")
def served(saved_model, tmp_path_factory):
    """(waveforms, predictions, printed lines) of a server in a separate process."""
    folder = tmp_path_factory.mktemp("served")
    waveforms = {f"{seconds} s": noise(seconds, seed)[None] for seed, seconds in enumerate(SECONDS)}
    others = [noise(seconds, seed) for seed, seconds in enumerate(np.linspace(0.05, 5, 31), start=100)]
    waveforms["one sample"] = np.ones((1, 1), "float32")
    waveforms["silence"] = np.zeros((1, 20_000), "float32")
    waveforms["a batch"] = padded([waveforms["2.5 s"][0], *others])
    np.savez(folder / "waveforms.npz", **waveforms)
    command = [sys.executable, "-c", SERVER, saved_model, folder / "waveforms.npz", folder / "predictions.npz"]
    printed = subprocess.run(map(str, command), check=True, capture_output=True, text=True, cwd=folder).stdout
    return waveforms, dict(np.load(folder / "predictions.npz")), printed.splitlines()


def test_serving_needs_tensorflow_and_not_audiotag(served):
    _, _, printed = served
    assert "tensorflow" in printed[-1].split()
    assert not [name for name in printed[-1].split() if name.startswith("audiotag")]


def test_waveforms_of_one_sample_to_one_minute_have_probabilities(served):
    waveforms, predictions, _ = served
    for key, waveform in waveforms.items():
        assert predictions[key].shape == (len(waveform), 14)
        assert predictions[key].dtype == "float32"
        assert np.all((predictions[key] > 0) & (predictions[key] < 1)), key


def test_it_predicts_the_same_as_the_run(served, run):
    waveforms, predictions, _ = served
    predictor = load_predictor(run.folder)
    for key, waveform in waveforms.items():
        logits = predictor.logits(waveform)
        np.testing.assert_allclose(predictions[f"logits {key}"], logits, atol=1e-4, err_msg=key)
        np.testing.assert_allclose(predictions[key], 1 / (1 + np.exp(-logits)), atol=1e-5, err_msg=key)


def test_31_other_clips_in_the_batch_change_nothing(served):
    _, predictions, _ = served
    assert predictions["a batch"].shape == (32, 14)
    np.testing.assert_allclose(predictions["a batch"][:1], predictions["2.5 s"], atol=1e-5)


def test_it_contains_its_class_names_and_sample_rate(served, saved_model, run):
    _, _, printed = served
    assert printed[-2].split() == ["16000", *run.vocabulary]
    assert (saved_model / "assets" / "class_names.txt").read_text().splitlines() == list(run.vocabulary)


def test_a_copy_in_another_folder_has_the_same_configuration_and_predictions(saved_model, run, tmp_path):
    copied, own = load_predictor(shutil.copytree(saved_model, tmp_path / "copy")), load_predictor(run.folder)
    assert (copied.audio_config, copied.vocabulary) == (run.audio_config, run.vocabulary)
    assert set(copied.audio_config) == {"sample_rate", "trim", "trim_db", "peak_db"}
    assert (copied.window_samples, copied.hop, copied.pool) == (own.window_samples, own.hop, own.pool)
    assert (own.window_samples, own.hop, own.pool) == (16_000, 8_000, "mean")
    np.testing.assert_allclose(copied.logits(noise(1.5, 0)[None]), own.logits(noise(1.5, 0)[None]), atol=1e-4)


@pytest.mark.parametrize("changes", [["predict.windows=full_clip"], ["predict.windows=random", "predict.pool=max"]])
def test_it_can_be_exported_with_other_predict_settings(run, tmp_path, changes):
    changed = with_predict_options(run, changes)
    predictor = load_predictor(export(changed, tmp_path / "saved"))
    batch = padded([noise(2.2, 0), noise(0.7, 1), noise(7.3, 2)])
    expected = load_predictor(run.folder, changes).logits(batch)
    np.testing.assert_allclose(predictor.logits(batch), expected, atol=1e-4)
    np.testing.assert_allclose(predictor.logits(batch)[:1], predictor.logits(noise(2.2, 0)[None]), atol=1e-4)
    assert np.abs(expected - load_predictor(run.folder).logits(batch)).max() > 1e-3


def test_the_settings_of_a_saved_model_cannot_change(saved_model):
    message = "tiny: the settings of a SavedModel are fixed. Give the directory of its run instead."
    with pytest.raises(ConfigError, match=message):
        load_predictor(saved_model, ["predict.pool=max"])


def test_several_folds_are_one_model(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shutil.copytree(folder / "fold-0" / "noisy", folder / "fold-1" / "curated")
    both = dataclasses.replace(run, folder=folder)
    predictor = load_predictor(export(both, tmp_path / "saved"))
    waveform = noise(2.2, 0)[None]
    np.testing.assert_allclose(predictor.logits(waveform), predict_logits(load_taggers(both), waveform), atol=1e-4)


def test_export_overwrites_only_a_saved_model_and_only_with_overwrite(run, tmp_path):
    folder = tmp_path / "deep" / "1"
    export(run, folder)
    before = (folder / "fingerprint.pb").stat().st_mtime_ns
    with pytest.raises(DataError, match=r"1: exists already\. Choose another folder, or --overwrite\."):
        export(run, folder)
    assert (folder / "fingerprint.pb").stat().st_mtime_ns == before
    (folder / "old").write_text("from before")
    export(run, folder, overwrite=True)
    assert not (folder / "old").exists() and (folder / "saved_model.pb").exists()
    with pytest.raises(
        DataError, match=r"deep: exists and is not a SavedModel, so it is not overwritten\. Choose another"
    ):
        export(run, folder.parent, overwrite=True)
    assert folder.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_export_leaves_nothing_incomplete(run, saved_model, tmp_path, monkeypatch, existing):
    def fail(archive, path, **options):
        (tmp_path / path / "variables").mkdir(parents=True)
        (tmp_path / path / "saved_model.pb").write_bytes(b"half")
        raise OSError("No space left on device")

    archive = type(keras.export.ExportArchive())
    monkeypatch.setattr(archive, "write_out", fail)
    if existing:
        shutil.copytree(saved_model, tmp_path / "saved")
    with pytest.raises(OSError, match="No space left on device"):
        export(run, tmp_path / "saved", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"] * existing
    if existing:
        load_predictor(tmp_path / "saved")


def test_a_run_that_is_not_trained_cannot_be_exported(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("curated"))
    with pytest.raises(DataError, match="stage 'curated' is not trained yet"):
        export(dataclasses.replace(run, folder=folder), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"not the directory of a run: it has no data\.json\. Train one with"):
        load_predictor(tmp_path)


@pytest.fixture
def graph_alone(saved_model, tmp_path):
    """A copy of the SavedModel without what rebuilds it, for `allow_unsafe`."""
    return shutil.copytree(saved_model, tmp_path / "saved", ignore=shutil.ignore_patterns("assets.extra"))


def test_a_graph_alone_runs_only_with_allow_unsafe(graph_alone, saved_model):
    with pytest.raises(DataError) as raised:
        load_predictor(graph_alone)
    assert str(raised.value) == (
        f"{graph_alone}: a SavedModel is a program, and audiotag does not run it but rebuilds the model from the "
        "weights that its exports carry. This one cannot be rebuilt. It has no folder assets.extra/audiotag. Export "
        "it again; or, if you trust its author, add --allow-unsafe (in Python: allow_unsafe=True)."
    )
    own, rebuilt = load_predictor(graph_alone, allow_unsafe=True), load_predictor(saved_model)
    functions = {"logits": None, "embeddings": None, "thresholds": None}
    assert dataclasses.replace(own, **functions) == dataclasses.replace(rebuilt, **functions)
    np.testing.assert_allclose(own.thresholds, rebuilt.thresholds, rtol=1e-6)
    np.testing.assert_allclose(own.logits(noise(2.2, 0)[None]), rebuilt.logits(noise(2.2, 0)[None]), atol=1e-5)


@pytest.mark.parametrize("damage", ["empty", "cut", "without variables", "without its asset"])
def test_a_damaged_saved_model_is_refused(graph_alone, damage):
    folder = graph_alone
    if damage == "empty":
        (folder / "saved_model.pb").write_bytes(b"")
    elif damage == "cut":
        (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:5000])
    else:
        shutil.rmtree(folder / {"without variables": "variables", "without its asset": "assets"}[damage])
    with pytest.raises(DataError, match="saved: damaged, or a SavedModel that this audiotag did not export"):
        load_predictor(folder, allow_unsafe=True)


def test_a_saved_model_without_our_endpoints_is_refused(tmp_path):
    other = tf.Module()
    other.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(other, str(tmp_path / "other"))
    with pytest.raises(DataError, match="other: damaged, or a SavedModel that this audiotag did not export"):
        load_predictor(tmp_path / "other", allow_unsafe=True)


def test_a_saved_model_with_truncated_variables_is_refused(graph_alone):
    folder = graph_alone
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"aaa")
    with pytest.raises(DataError, match="saved: damaged, or a SavedModel that this audiotag did not export: ."):
        load_predictor(folder, allow_unsafe=True)


@pytest.mark.parametrize("lines", ["a\nb\n", "a\n" * 14])
def test_a_saved_model_with_missing_or_equal_class_names_is_refused(graph_alone, lines):
    folder = graph_alone
    (folder / "assets" / "class_names.txt").write_text(lines)
    with pytest.raises(DataError, match=r"export: it names [12] classes, but its logits have the shape \(1, 14\)\."):
        load_predictor(folder, allow_unsafe=True)


VALID = {"class_names": ["a", "b"], "output": "logits"}
VALID |= {"audio_config": {"sample_rate": 16_000, "trim": None, "trim_db": 60.0, "peak_db": None}}
VALID |= {"window_config": {"window_samples": 16_000, "hop": 8_000, "pool": "mean"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", "b", "c"]}, r"it names 3 classes, but its logits have the shape \(1, 2\)\."),
        ({"class_names": ["a"]}, r"it names 1 classes, but its logits have the shape \(1, 2\)\."),
        ({"output": "numbers"}, "'logits'"),
        (
            {"audio_config": {"sample_rate": 16_000, "trim": None, "trim_db": 60.0}},
            "audio_config: peak_db: this key is missing",
        ),
        ({"window_config": VALID["window_config"] | {"gain": 1}}, "window_config: unknown key 'gain'"),
        ({"window_config": {"hop": 8_000, "pool": "mean"}}, "window_config: window_samples: this key is missing"),
    ],
)
def test_a_foreign_saved_model_with_our_endpoints_is_refused_if_their_content_differs(tmp_path, change, message):
    content, model = VALID | change, tf.Module()
    spec, two = tf.TensorSpec([None, None], tf.float32, name="waveform"), tf.ones([1, 2])
    model.serve = tf.function(lambda waveform: {content["output"]: waveform[:, :1] * two}, input_signature=[spec])
    model.class_names = tf.function(lambda: tf.constant(content["class_names"]), input_signature=[])
    model.audio_config = tf.function(lambda: tf.constant(json.dumps(content["audio_config"])), input_signature=[])
    model.window_config = tf.function(lambda: tf.constant(json.dumps(content["window_config"])), input_signature=[])
    tf.saved_model.save(model, str(tmp_path / "other"), {"serving_default": model.serve})
    with pytest.raises(DataError, match=f"other: damaged, or a SavedModel that this .* did not export: {message}"):
        load_predictor(tmp_path / "other", allow_unsafe=True)


def test_a_full_disk_is_an_error_that_names_the_folder_and_leaves_nothing(run, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))  # the kernel then refuses larger files
    try:
        with pytest.raises(DataError) as raised:
            export(run, tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'saved'}: cannot be written: ") and "File too large" in message
    assert "Free some space, or choose another folder, and run the same command again." in message
    assert not list(tmp_path.iterdir())
