"""The signatures of an export, as a server without audiotag uses them."""

import re

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2
from tiers import tier
from waveforms import noise, padded

from audiotag.ensembling import members
from audiotag.ensembling.members import predict_out_of_fold
from audiotag.errors import DataError
from audiotag.evaluation.measures import fit_thresholds
from audiotag.inference import blocks
from audiotag.inference.long_recordings import predict_windows
from audiotag.models.tagger import Tagger
from audiotag.runs.models import load_taggers
from audiotag.serving.saved_model import export, load_predictor

RATE, NUM_CLASSES = 16_000, 14
NUM_CLIPS = tier(24, 1_000)


@pytest.fixture(scope="module")
def model(saved_model):
    """The loaded SavedModel."""
    return tf.saved_model.load(str(saved_model))


@pytest.fixture(scope="module")
def clips():
    """Waveforms of 1 sample to 3 s; one is silent, one ends in silence, and one begins with it."""
    lengths = np.random.default_rng(0).integers(1, 3 * RATE, NUM_CLIPS)
    found = [0.3 * noise(length, seed=seed).astype("float32") for seed, length in enumerate([1, 2, *lengths[2:]])]
    found[3][:] = 0
    found[4][len(found[4]) // 2 :] = 0
    found[5][: len(found[5]) // 2] = 0
    return found


def alone(model, clips):
    """The logits of each clip in a request of its own: [B, K]."""
    serve = model.signatures["serving_default"]
    return np.concatenate([serve(waveform=tf.constant(clip[None]))["logits"] for clip in clips])


FILLS = {
    "first sample": lambda clip, size: np.full(size, clip[0]),
    "random": lambda clip, size: np.random.default_rng(0).uniform(-1, 1, size),
    "zeros": lambda clip, size: np.zeros(size),
    "not a number": lambda clip, size: np.full(size, np.nan),
}


@pytest.mark.parametrize("fill", FILLS)
def test_padded_clips_have_the_scores_of_single_ones_whatever_fills_them(model, clips, fill):
    size = 4 * RATE
    batch = np.stack([np.concatenate([clip, FILLS[fill](clip, size - len(clip))]) for clip in clips])  # [B, N]
    lengths = np.array([len(clip) for clip in clips], "int32")
    found = model.signatures["padded"](waveform=tf.constant(batch.astype("float32")), num_samples=tf.constant(lengths))
    np.testing.assert_allclose(found["logits"], alone(model, clips), atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], tf.sigmoid(found["logits"]), atol=1e-6)


@pytest.mark.parametrize(("num_clips", "num_samples"), [(0, 0), (0, 5), (3, 0), (1, 0), (2, 20_000)])
def test_empty_and_silent_requests_get_answers(model, num_clips, num_samples):
    waveform = tf.zeros([num_clips, num_samples])
    lengths = tf.fill([num_clips], num_samples)
    silence = alone(model, [np.zeros(1, "float32")])[0]
    for outputs in (
        model.signatures["serving_default"](waveform=waveform),
        model.signatures["padded"](waveform=waveform, num_samples=lengths),
    ):
        assert outputs["logits"].shape == outputs["probabilities"].shape == (num_clips, NUM_CLASSES)
        np.testing.assert_allclose(outputs["logits"], np.tile(silence, (num_clips, 1)), atol=1e-5)
    frames = model.signatures["frames"](waveform=waveform, num_samples=lengths)
    num_windows = 2 if num_samples > RATE else 1
    assert frames["probabilities"].shape == (num_clips, num_windows, NUM_CLASSES)
    assert frames["num_windows"].numpy().tolist() == [num_windows] * num_clips


def test_frames_are_the_windows_of_long_recordings(model, run, tmp_path):
    import soundfile

    clips = [0.3 * noise(length, seed=length).astype("float32") for length in (5 * RATE + 77, 2 * RATE, 9_000)]
    clips[0][RATE : 3 * RATE] = 0  # windows of silence, and some that end in it
    frames = model.signatures["frames"](
        waveform=tf.constant(padded(clips)), num_samples=tf.constant([len(clip) for clip in clips], tf.int32)
    )
    assert frames["num_windows"].numpy().tolist() == [10, 3, 1]
    for row, clip in enumerate(clips):
        soundfile.write(tmp_path / "clip.wav", clip, RATE, subtype="FLOAT")
        starts, _, logits = predict_windows(load_predictor(run), tmp_path / "clip.wav")
        num = len(starts)
        np.testing.assert_allclose(frames["start"][row, :num], starts, atol=1e-4)
        np.testing.assert_allclose(frames["probabilities"][row, :num], tf.sigmoid(logits), atol=1e-5)
        assert not np.any(frames["probabilities"][row, num:]) and not np.any(frames["start"][row, num:])


def test_embeddings_are_what_the_last_layer_gets_averaged_over_windows(model, run):
    (tagger,) = load_taggers(run)
    clips = [0.3 * noise(length, seed=length) for length in (2 * RATE + 5, 700)]
    lengths = tf.constant([len(clip) for clip in clips])
    found = model.signatures["embeddings"](waveform=tf.constant(padded(clips)), num_samples=lengths)[
        "embeddings"
    ].numpy()
    kernel, bias = tagger.network.get_layer("logits").get_weights()
    for row, clip in enumerate(clips):
        logits = np.mean([tagger.window_logits(window[None])[0] for window in tagger.windows(clip[None])[0][0]], axis=0)
        np.testing.assert_allclose(found[row] @ kernel + bias, logits, atol=1e-4)
    assert (
        model.signatures["embeddings"](waveform=tf.zeros([0, 0]), num_samples=lengths[:0])["embeddings"].shape[0] == 0
    )


def test_thresholds_and_temperature_are_those_of_the_out_of_fold_clips(model, run, saved_model):
    clips, logits = predict_out_of_fold(run)
    expected = fit_thresholds(clips, logits, run.vocabulary)
    np.testing.assert_allclose(model.thresholds(), expected, rtol=1e-6)
    np.testing.assert_allclose(load_predictor(saved_model).thresholds, expected, rtol=1e-6)
    assert 0.05 <= float(model.temperature()) <= 20


def test_the_model_card_has_data_measures_with_intervals_limits_and_license(saved_model, run, tmp_path):
    card = (saved_model / "assets.extra/model_card.md").read_text()
    assert re.findall("^#.*", card, re.MULTILINE) == [
        *("# Model card: tiny", "## Data", "## Measures", "## Limits", "## License")
    ]
    assert run.fingerprint[:12] in card and " clips of the subsets curated, noisy in the records" in card
    assert re.search(r"\| lwlrap \| 0\.\d{3} \| 0\.\d{3} to [01]\.\d{3} \| 0\.\d{3} \|", card)
    assert "Expected calibration error" in card and "cannot detect what is above 8000 Hz" in card
    assert "those of noisy" in card and "Not stated." in card
    for name in run.vocabulary:
        assert f"| {name} |" in card


def test_a_run_without_out_of_fold_clips_has_thresholds_of_one_half_and_says_so(run, tmp_path, capsys, monkeypatch):
    def none(model, stage):
        raise DataError("records: are lost.")

    monkeypatch.setattr(members, "predict_out_of_fold", none)
    folder = export(run, tmp_path / "saved", license_name="CC-BY-4.0")
    assert capsys.readouterr().err == "Thresholds are 1/2, because they cannot be fitted: records: are lost.\n"
    model = tf.saved_model.load(str(folder))
    assert not np.any(model.thresholds()) and float(model.temperature()) == 1
    assert load_predictor(folder).thresholds is None
    card = (folder / "assets.extra/model_card.md").read_text()
    assert "Not measured" in card and card.endswith("## License\n\nCC-BY-4.0\n")


def prediction_log():
    """The class of `PredictionLog`, as far as warm-up requests need it, from the definitions of TensorFlow Serving."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="test", syntax="proto3")
    file.dependency.append(tensor_pb2.DESCRIPTOR.name)

    def message(parent, name, fields):
        added = parent.add(name=name)
        for number, (key, kind, label) in fields.items():
            options = {"type": field.TYPE_STRING} if kind is str else {"type": field.TYPE_MESSAGE, "type_name": kind}
            added.field.add(name=key, number=number, label=label, **options)
        return added

    one, many, messages = field.LABEL_OPTIONAL, field.LABEL_REPEATED, file.message_type
    message(messages, "ModelSpec", {1: ("name", str, one), 3: ("signature_name", str, one)})
    request = {1: ("model_spec", ".test.ModelSpec", one), 2: ("inputs", ".test.PredictRequest.InputsEntry", many)}
    entry = message(
        message(messages, "PredictRequest", request).nested_type,
        "InputsEntry",
        {1: ("key", str, one), 2: ("value", ".tensorflow.TensorProto", one)},
    )
    entry.options.map_entry = True
    message(messages, "PredictLog", {1: ("request", ".test.PredictRequest", one)})
    message(messages, "PredictionLog", {6: ("predict_log", ".test.PredictLog", one)})
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.PredictionLog"))


def test_warm_up_requests_call_every_signature_with_inputs(model, saved_model):
    logs, kind = tf.data.TFRecordDataset(str(saved_model / "assets.extra/tf_serving_warmup_requests")), prediction_log()
    called = []
    for record in logs.as_numpy_iterator():
        request = kind.FromString(record).predict_log.request
        assert request.ByteSize() < 200  # equal numbers are stored once
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = model.signatures[request.model_spec.signature_name](**inputs)
        assert all(len(value) == len(inputs["waveform"]) for value in outputs.values())
        called.append((request.model_spec.signature_name, *inputs["waveform"].shape))
    with_inputs = {name for name in model.signatures if model.signatures[name].structured_input_signature[1]}
    assert {name for name, *_ in called} == with_inputs
    assert {tuple(shape) for _, *shape in called} == {(1, RATE), (8, RATE)}


def test_nothing_is_traced_again_for_another_length(run):
    predictor = load_predictor(run)
    traced = []
    original = blocks.score_in_blocks

    def count(windows, score):
        traced.append(1)
        return original(windows, score)

    blocks.score_in_blocks = count
    try:
        for num_clips, num_samples in ((1, 100), (2, RATE), (1, 3 * RATE), (5, 7)):
            assert predictor.logits(np.ones((num_clips, num_samples), "float32")).shape == (num_clips, NUM_CLASSES)
    finally:
        blocks.score_in_blocks = original
    assert len(traced) == 2  # once for single windows, once for all other lengths


def test_the_network_sees_a_limited_number_of_samples_at_a_time(run, monkeypatch):
    expected = load_predictor(run).logits(padded([noise(length, seed=length) for length in (70_000, 5, 33_000)]))
    monkeypatch.setattr(blocks, "SAMPLES_PER_BLOCK", 3 * RATE)
    sizes = []
    original = Tagger.window_logits

    def record(self, windows, **options):
        tf.py_function(lambda shape: sizes.append(shape.numpy().tolist()), [tf.shape(windows)], [])
        return original(self, windows, **options)

    monkeypatch.setattr(Tagger, "window_logits", record)
    found = load_predictor(run).logits(padded([noise(length, seed=length) for length in (70_000, 5, 33_000)]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(size[0] for size in sizes) == 8 + 1 + 4  # windows beyond the end of a clip are left out
    assert max(size[0] for size in sizes) == 3
