import keras
import numpy as np
import pytest
import tensorflow as tf

from audiotag.runs.building import build_tagger
from audiotag.training import tensorboard

NAMES = ["Bark", "Meow", "Rain"]


@pytest.fixture(scope="module")
def tagger(tiny):
    """A model of three classes with random masks and mixup, that is not trained."""
    augment = '[{"name": "time_mask", "max_width": 8}, {"name": "mixup"}]'
    return build_tagger(tiny(f"augment={augment}"), sample_rate=16_000, num_classes=3)


def images_in(folder):
    """{tag: [(step, image)]} of the event files in a folder."""
    found = {}
    for path in sorted(folder.rglob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                width, height, *images = tf.make_ndarray(value.tensor)
                decoded = [tf.image.decode_png(image).numpy() for image in images]
                assert [image.shape[:2] for image in decoded] == [(int(height), int(width))] * len(images)
                found.setdefault(value.tag, []).append((event.step, *decoded))
    return found


def test_training_windows_are_images_and_training_draws_the_same_numbers(tagger, tmp_path):
    rng = np.random.default_rng(0)
    sounds, labels = rng.normal(0, 0.1, (10, 16_000)), np.eye(3)[rng.integers(0, 3, 10)]
    batches = [(tf.constant(sounds, "float32"), tf.constant(labels, "float32"))]
    draw = lambda: keras.ops.convert_to_numpy(tagger.preprocessor(batches[0], training=True)[0])
    generators = [weight for weight in tagger.preprocessor.variables if "seed_generator" in weight.path]
    before = [weight.numpy() for weight in generators]
    tensorboard.write_windows(tmp_path, tagger, batches, NAMES)
    for weight, value in zip(generators, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert generators and np.abs(draw() - draw()).max() > 0
    ((step, image),) = images_in(tmp_path)["augmented training windows"]
    assert step == 0 and image.shape[2] == 3 and image.std() > 10


def test_confusions_are_an_image_with_every_clip(tagger, tmp_path, monkeypatch):
    truth = tf.constant([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], "float32")
    logits = np.array([[3, 1, 2], [1, 3, 2], [3, 1, 2], [1, 2, 3]], "float32")
    drawn = []
    monkeypatch.setattr(
        tensorboard, "_draw_confusions", lambda figure, counts, names: drawn.append((counts.tolist(), names))
    )
    monkeypatch.setattr(tagger, "predict_on_batch", lambda inputs: inputs)
    tensorboard.write_confusions(tmp_path, tagger, [(logits[:2], truth[:2]), (logits[2:], truth[2:])], NAMES, step=4)
    # A clip of several labels counts where its top class is one of them, and one without labels nowhere.
    assert drawn == [([[1, 0, 0], [1, 1, 0], [0, 0, 0]], NAMES)]
    monkeypatch.undo()
    batches = [(np.zeros((2, 16_000), "float32"), truth[:2])]
    tensorboard.write_confusions(tmp_path, tagger, batches, NAMES, step=5)
    (_, (step, image)) = images_in(tmp_path)["confusions"]
    assert step == 5 and image.std() > 10


def test_raw_waveforms_are_no_spectrograms(tiny, tmp_path):
    overrides = ['frontend={"name": "raw_waveform"}', "image_preprocess=[]", "augment=[]"]
    overrides.append('model={"name": "conv1d"}')
    raw = build_tagger(tiny(*overrides), sample_rate=16_000, num_classes=3)
    tensorboard.write_windows(tmp_path, raw, [(tf.zeros((2, 16_000)), tf.eye(3)[:2])], NAMES)
    assert not images_in(tmp_path)
    assert tensorboard.log_folders([keras.callbacks.TensorBoard(str(tmp_path)), keras.callbacks.History()]) == [
        tmp_path
    ]
