import numpy as np
import pytest
import soundfile as sf

from audiotag.errors import DataError
from audiotag.inference.label_next import labeling_order, margins, rank_to_label
from audiotag.inference.predictor import Predictor

AUDIO = {"sample_rate": 8_000, "trim": None, "trim_db": 60.0, "peak_db": None}


@pytest.fixture
def predictor():
    """A model of two classes: its logits are the mean and 0, its embeddings the mean and the deviation."""
    logits = lambda waveform: np.stack([waveform.mean(axis=1), 0 * waveform.mean(axis=1)], axis=1)
    embeddings = lambda waveform: np.stack([waveform.mean(axis=1), waveform.std(axis=1)], axis=1)
    return Predictor(logits, AUDIO, ("Bark", "Meow"), 800, 400, "mean", embeddings=embeddings)


def test_the_chosen_are_unsure_and_of_every_kind():
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(4), 25)  # four kinds of clips
    embeddings = 5 * np.eye(6)[kind] + rng.normal(0, 0.1, (100, 6))
    logits = np.stack([rng.uniform(0.5, 2, 100), np.zeros(100)], axis=1)
    unsure = np.arange(4, 100, 8)  # 12 clips, three of each kind
    logits[unsure, 0] = rng.uniform(0, 0.1, 12)
    chosen = labeling_order(logits, embeddings, 4)
    assert set(chosen) <= set(unsure) and sorted(kind[chosen]) == [0, 1, 2, 3]
    assert (np.diff(margins(logits)[chosen]) >= 0).all() and labeling_order(logits, embeddings, 4) == chosen
    assert sorted(labeling_order(logits, embeddings, 500)) == list(range(100))
    alike = labeling_order(logits, np.ones((100, 6)), 4)
    assert len(set(alike)) == 4 and set(alike) <= set(unsure)
    np.testing.assert_allclose(margins(np.array([[0.0, 0.0, -9.0], [50.0, -50.0, 0.0]])), [0, 0.5])


def test_files_are_ranked_and_bad_ones_left_out(predictor, tmp_path, capsys):
    levels = {"a": 0.5, "b": 0.01, "c": 0.02, "d": -0.4}
    for name, level in levels.items():
        sf.write(tmp_path / f"{name}.wav", np.full(2_000, level) + 0.001 * np.arange(2_000) % 0.01, 8_000)
    (tmp_path / "bad.wav").write_text("not audio")
    paths = sorted(tmp_path.iterdir())
    table = rank_to_label(predictor, paths, top=2)
    assert table["fname"][0] == str(tmp_path / "b.wav") and len(table) == 2
    assert table["margin"][0] == pytest.approx(1 / (1 + np.exp(-0.0145)) - 0.5, abs=1e-3)
    assert table["predicted"][0] == "Bark 0.50, Meow 0.50"
    assert f"Left out: {tmp_path / 'bad.wav'}: " in capsys.readouterr().err
    with pytest.raises(DataError, match="none of 1 files can be read"):
        rank_to_label(predictor, [tmp_path / "bad.wav"], top=2)


def test_a_model_without_embeddings_is_refused(predictor):
    without = Predictor(predictor.logits, AUDIO, ("Bark", "Meow"), 800, 400, "mean")
    with pytest.raises(DataError, match=r"^the model has no embeddings: it is an .* Give the directory of a run; or"):
        rank_to_label(without, ["a.wav"], top=1)
    one = Predictor(predictor.logits, AUDIO, ("Bark",), 800, 400, "mean", embeddings=predictor.embeddings)
    with pytest.raises(DataError, match="the model has one class"):
        rank_to_label(one, ["a.wav"], top=1)
