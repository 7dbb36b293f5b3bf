import dataclasses
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from waveforms import padded

from audiotag.errors import ConfigError, DataError
from audiotag.inference.predictor import hear
from audiotag.runs.models import heard_as, load_taggers
from audiotag.serving.saved_model import export, load_listener

RATE = 16_000
SECONDS = (0.05, 0.3, 0.99, 1.0, 1.01, 2.5, 7.3, 60.0)
# What a server does that knows nothing of audiotag: it has TensorFlow, the folder and waveforms.
SERVER = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
answers = {}
for key, waveform in np.load(sys.argv[2]).items():
    heard = serve(waveform=tf.constant(waveform))
    answers[key] = heard["probabilities"].numpy()
    answers[f"logits {key}"] = heard["logits"].numpy()
np.savez(sys.argv[3], **answers)
print(model.sample_rate().numpy(), *[name.decode() for name in model.class_names().numpy()])
print(*sys.modules)
"""


def noise(seconds, seed):
    return (0.3 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype("float32")


@pytest.fixture(scope="module")
def served(saved_model, tmp_path_factory):
    """(waveforms, answers, what was printed) of a server in a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    waveforms = {f"{seconds} s": noise(seconds, seed)[None] for seed, seconds in enumerate(SECONDS)}
    strangers = [noise(seconds, seed) for seed, seconds in enumerate(np.linspace(0.05, 5, 31), start=100)]
    waveforms["one sample"] = np.ones((1, 1), "float32")
    waveforms["silence"] = np.zeros((1, 20_000), "float32")
    waveforms["a batch"] = padded([waveforms["2.5 s"][0], *strangers])
    np.savez(folder / "waveforms.npz", **waveforms)
    command = [sys.executable, "-c", SERVER, saved_model, folder / "waveforms.npz", folder / "answers.npz"]
    printed = subprocess.run(map(str, command), check=True, capture_output=True, text=True, cwd=folder).stdout
    return waveforms, dict(np.load(folder / "answers.npz")), printed.splitlines()


def test_it_needs_tensorflow_and_nothing_of_ours(served):
    _, _, printed = served
    assert "tensorflow" in printed[-1].split()
    assert not [name for name in printed[-1].split() if name.startswith("audiotag")]


def test_it_answers_for_a_sample_and_for_a_minute(served):
    waveforms, answers, _ = served
    for key, waveform in waveforms.items():
        assert answers[key].shape == (len(waveform), 14)
        assert answers[key].dtype == "float32"
        assert np.all((answers[key] > 0) & (answers[key] < 1)), key


def test_it_answers_what_the_run_answers(served, run):
    waveforms, answers, _ = served
    listener = load_listener(run.folder)
    for key, waveform in waveforms.items():
        logits = listener.logits(waveform)
        np.testing.assert_allclose(answers[f"logits {key}"], logits, atol=1e-4, err_msg=key)
        np.testing.assert_allclose(answers[key], 1 / (1 + np.exp(-logits)), atol=1e-5, err_msg=key)


def test_a_clip_among_31_strangers_gets_the_answer_it_gets_alone(served):
    _, answers, _ = served
    assert answers["a batch"].shape == (32, 14)
    np.testing.assert_allclose(answers["a batch"][:1], answers["2.5 s"], atol=1e-5)


def test_it_knows_its_classes_and_its_rate(served, saved_model, run):
    _, _, printed = served
    assert printed[-2].split() == ["16000", *run.vocabulary]
    assert (saved_model / "assets" / "class_names.txt").read_text().splitlines() == list(run.vocabulary)


def test_it_goes_on_knowing_them_where_it_is_copied_to(saved_model, run, tmp_path):
    copied, own = load_listener(shutil.copytree(saved_model, tmp_path / "copy")), load_listener(run.folder)
    assert (copied.hearing, copied.vocabulary) == (run.hearing, run.vocabulary)
    assert set(copied.hearing) == {"sample_rate", "trim", "trim_db", "peak_db"}
    assert (copied.window_samples, copied.hop, copied.pool) == (own.window_samples, own.hop, own.pool)
    assert (own.window_samples, own.hop, own.pool) == (16_000, 8_000, "mean")
    np.testing.assert_allclose(copied.logits(noise(1.5, 0)[None]), own.logits(noise(1.5, 0)[None]), atol=1e-4)


@pytest.mark.parametrize("change", ["windows=whole", "windows=random", "pool=max"])
def test_it_may_hear_in_another_way(run, tmp_path, change):
    changed = heard_as(run, [f"predict.{change}"])
    listener = load_listener(export(changed, tmp_path / "saved"))
    batch = padded([noise(2.2, 0), noise(0.7, 1), noise(7.3, 2)])
    expected = load_listener(run.folder, [f"predict.{change}"]).logits(batch)
    np.testing.assert_allclose(listener.logits(batch), expected, atol=1e-4)
    np.testing.assert_allclose(listener.logits(batch)[:1], listener.logits(noise(2.2, 0)[None]), atol=1e-4)
    assert np.abs(expected - load_listener(run.folder).logits(batch)).max() > 1e-3


def test_a_saved_model_hears_as_it_was_exported(saved_model):
    with pytest.raises(ConfigError, match="tiny: a SavedModel hears as it was exported. Give the directory of its run"):
        load_listener(saved_model, ["predict.pool=max"])


def test_several_folds_are_one_model(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shutil.copytree(folder / "fold-0" / "noisy", folder / "fold-1" / "curated")
    both = dataclasses.replace(run, folder=folder)
    listener = load_listener(export(both, tmp_path / "saved"))
    waveform = noise(2.2, 0)[None]
    np.testing.assert_allclose(listener.logits(waveform), hear(load_taggers(both), waveform), atol=1e-4)


def test_it_never_overwrites_unasked_and_removes_nothing_but_a_saved_model(run, tmp_path):
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
        DataError, match=r"deep: exists and is no SavedModel, so it is not overwritten\. Choose another"
    ):
        export(run, folder.parent, overwrite=True)
    assert folder.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_write_that_fails_leaves_nothing_half_written(run, saved_model, tmp_path, monkeypatch, existing):
    def die(archive, path, **options):
        (tmp_path / path / "variables").mkdir(parents=True)
        (tmp_path / path / "saved_model.pb").write_bytes(b"half")
        raise OSError("No space left on device")

    archive = type(keras.export.ExportArchive())
    monkeypatch.setattr(archive, "write_out", die)
    if existing:
        shutil.copytree(saved_model, tmp_path / "saved")
    with pytest.raises(OSError, match="No space left on device"):
        export(run, tmp_path / "saved", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"] * existing
    if existing:
        load_listener(tmp_path / "saved")


def test_a_run_that_is_not_trained_cannot_be_exported(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("curated"))
    with pytest.raises(DataError, match="stage 'curated' is not trained yet"):
        export(dataclasses.replace(run, folder=folder), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"not the directory of a run: it has no records\.json\. Train one with"):
        load_listener(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "without variables", "without its asset"])
def test_a_damaged_saved_model_is_refused(saved_model, tmp_path, damage):
    folder = shutil.copytree(saved_model, tmp_path / "saved")
    if damage == "empty":
        (folder / "saved_model.pb").write_bytes(b"")
    elif damage == "cut":
        (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:5000])
    else:
        shutil.rmtree(folder / {"without variables": "variables", "without its asset": "assets"}[damage])
    with pytest.raises(DataError, match="saved: damaged, or a SavedModel that this audiotag did not export"):
        load_listener(folder)


def test_a_saved_model_of_others_is_refused(tmp_path):
    other = tf.Module()
    other.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(other, str(tmp_path / "other"))
    with pytest.raises(DataError, match="other: damaged, or a SavedModel that this audiotag did not export"):
        load_listener(tmp_path / "other")


def test_a_saved_model_whose_variables_are_cut_is_refused(saved_model, tmp_path):
    folder = shutil.copytree(saved_model, tmp_path / "saved")
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"aaa")
    with pytest.raises(DataError, match="saved: damaged, or a SavedModel that this audiotag did not export: ."):
        load_listener(folder)


@pytest.mark.parametrize("lines", ["a\nb\n", "a\n" * 14])
def test_a_saved_model_that_does_not_name_its_classes_is_refused(saved_model, tmp_path, lines):
    folder = shutil.copytree(saved_model, tmp_path / "saved")
    (folder / "assets" / "class_names.txt").write_text(lines)
    with pytest.raises(DataError, match=r"export: it names [12] classes, and answers in the shape \(1, 14\)\."):
        load_listener(folder)


RIGHT = {"class_names": ["a", "b"], "answer": "logits"}
RIGHT |= {"hearing": {"sample_rate": 16_000, "trim": None, "trim_db": 60.0, "peak_db": None}}
RIGHT |= {"listening": {"window_samples": 16_000, "hop": 8_000, "pool": "mean"}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"class_names": ["a", "b", "c"]}, r"it names 3 classes, and answers in the shape \(1, 2\)\."),
        ({"class_names": ["a"]}, r"it names 1 classes, and answers in the shape \(1, 2\)\."),
        ({"answer": "numbers"}, "'logits'"),
        ({"hearing": {"sample_rate": 16_000, "trim": None, "trim_db": 60.0}}, "hearing: peak_db: this key is missing"),
        ({"listening": RIGHT["listening"] | {"gain": 1}}, "listening: unknown key 'gain'"),
        ({"listening": {"hop": 8_000, "pool": "mean"}}, "listening: window_samples: this key is missing"),
    ],
)
def test_a_foreign_saved_model_of_the_same_endpoints_is_refused_where_it_differs(tmp_path, wrong, message):
    told, model = RIGHT | wrong, tf.Module()
    spec, two = tf.TensorSpec([None, None], tf.float32, name="waveform"), tf.ones([1, 2])
    model.serve = tf.function(lambda waveform: {told["answer"]: waveform[:, :1] * two}, input_signature=[spec])
    model.class_names = tf.function(lambda: tf.constant(told["class_names"]), input_signature=[])
    model.hearing = tf.function(lambda: tf.constant(json.dumps(told["hearing"])), input_signature=[])
    model.listening = tf.function(lambda: tf.constant(json.dumps(told["listening"])), input_signature=[])
    tf.saved_model.save(model, str(tmp_path / "other"), {"serving_default": model.serve})
    with pytest.raises(DataError, match=f"other: damaged, or a SavedModel that this .* did not export: {message}"):
        load_listener(tmp_path / "other")
