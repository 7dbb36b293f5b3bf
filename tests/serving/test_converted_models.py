import numpy as np
import pytest
from keras import ops

from audiotag.data.audio.audio_config import AudioConfig
from audiotag.inference.blocks import predict_logits
from audiotag.models.tagger import Tagger
from audiotag.serving import converted_models
from audiotag.serving.converted_models import NUM_FLIPS, ConvertedModel, clip_logits

N, NUM_CLASSES = 40, 3
PROJECTIONS = np.random.default_rng(0).standard_normal((2, NUM_FLIPS, 4, NUM_CLASSES)).astype("float32")
LAYOUTS = ["sliding", "drop_remainder", "random", "full_clip"]


class Linear(Tagger):
    """A tagger whose logits are a linear function of four numbers of a window, another one for each flip."""

    def __init__(self, number, **options):
        super().__init__(None, None, num_classes=NUM_CLASSES, window_samples=N, **options)
        self.number = number

    def window_logits(self, windows, *, flips=(0,)):
        numbers = [ops.mean(windows, axis=1), ops.max(windows, axis=1), windows[:, 0], windows[:, -3]]
        numbers = ops.stack(numbers, axis=1)  # [V, 4]
        return ops.concatenate([ops.matmul(numbers, PROJECTIONS[self.number, flip]) for flip in flips], axis=1)


@pytest.fixture(scope="module")
def clips():
    """Ten clips of 1 to 299 samples in one batch; one is silent."""
    rng = np.random.default_rng(1)
    batch = np.zeros((10, 299), "float32")
    for row, length in enumerate([1, 7, 39, 40, 41, 60, 80, 200, 299]):
        batch[row, :length] = rng.standard_normal(length)
    batch[8, 100:180] = 0
    return batch


OPTIONS = [("repeat", "mean", False), ("zeros", "max", "clip"), ("repeat", "log_mean_exp", "windows")]


@pytest.mark.parametrize("windows", LAYOUTS)
@pytest.mark.parametrize(("pad", "pool", "flip_tta"), OPTIONS)
def test_windows_are_cut_and_pooled_as_the_tagger_does(clips, windows, pad, pool, flip_tta):
    options = {"pad": pad, "pool": pool, "flip_tta": flip_tta, "num_windows": 5}
    taggers = [Linear(number, window_layout=windows, overlap=0.7, **options) for number in range(2)]
    model = ConvertedModel(
        audio_config=AudioConfig(sample_rate=16_000, trim=None, trim_db=None, peak_db=None),
        vocabulary=("A", "B", "C"),
        thresholds=None,
        temperature=1.0,
        num_models=2,
        window_samples=N,
        hop=taggers[0].hop,
        windows=windows,
        **options,
    )
    flips = range(NUM_FLIPS) if flip_tta else (0,)

    def score(windows):
        logits = [np.asarray(tagger.window_logits(windows, flips=flips)) for tagger in taggers]
        return np.stack(logits, axis=1).reshape(len(windows), -1, NUM_CLASSES)

    np.testing.assert_allclose(clip_logits(model, score, clips), predict_logits(taggers, clips), atol=1e-5)


def test_a_network_sees_blocks_of_windows_of_one_length(monkeypatch):
    monkeypatch.setattr(converted_models, "SAMPLES_PER_BLOCK", 100)
    windows = [(number, np.zeros(length)) for number, length in enumerate([40, 40, 40, 50, 200, 40])]
    blocks = [[number for number, _ in block] for block in converted_models._blocks(iter(windows))]
    assert blocks == [[0, 1], [2], [3], [4], [5]]
