import dataclasses
import json
import shutil

import numpy as np
import pytest

from audiotag.errors import ConfigError, DataError
from audiotag.runs import models
from audiotag.runs.models import load_tagger, load_taggers, with_predict_options


def test_the_weights_of_any_stage_can_be_loaded(run):
    last, noisy = load_taggers(run)[0], load_taggers(run, "noisy")[0]
    assert any(np.any(a != b) for a, b in zip(last.get_weights(), noisy.get_weights()))
    for a, b in zip(noisy.get_weights(), load_tagger(run, 0, "noisy").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stage_that_does_not_exist_or_is_not_trained_is_refused(run, tmp_path):
    with pytest.raises(DataError, match=r"no stage 'nosy'\. Did you mean 'noisy'\? Accepted: noisy, curated\."):
        load_taggers(run, "nosy")
    with pytest.raises(DataError, match="stage 'curated' of fold 3 is not trained. Name another fold."):
        load_taggers(run, fold=3)
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("curated"))
    with pytest.raises(DataError, match=r"run: stage 'curated' is not trained yet\. Finish the run with: audiotag fit"):
        load_taggers(dataclasses.replace(run, folder=tmp_path / "run"))


def test_only_the_predict_settings_of_a_trained_run_can_change(run):
    message = "--set seed=3: only the predict settings of a trained run can change. Expected one of: predict.overlap, "
    with pytest.raises(ConfigError, match=message):
        with_predict_options(run, ["seed=3"])
    with pytest.raises(ConfigError, match="predict.pool: "):
        with_predict_options(run, ["predict.pool=best"])


@pytest.mark.parametrize(("weights", "momentum"), [("imagenet", 0.99), ("gone.weights.h5", 0.99), (None, 0.9)])
def test_a_trained_model_loads_without_its_initial_weights(run, tiny, monkeypatch, weights, momentum):
    def download(*args, **options):
        pytest.fail("downloaded")

    image = 'image_preprocess=[{"name": "resize", "height": 32, "width": 32}, {"name": "repeat_channels"}]'
    pretrained = tiny(image, f"model={json.dumps({'name': 'mobilenet', 'weights': weights})}")
    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", download)
    monkeypatch.setattr(models, "load_weights", lambda tagger, path: None)
    network = load_tagger(dataclasses.replace(run, experiment=pretrained), 0, "curated").network
    assert network.name == "mobilenet"
    assert {layer.momentum for layer in network.layers if hasattr(layer, "momentum")} == {momentum}  # as in training
