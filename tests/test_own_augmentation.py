"""The examples of docs/augmentations.md run."""

import importlib
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np

TEXT = (Path(__file__).parents[1] / "docs" / "augmentations.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_example_of_an_augmentation_is_complete(tmp_path, monkeypatch):
    source, test = blocks("python")
    (component,) = json.loads(*blocks("json"))["waveform_augment"]
    package, name = component.pop("name").split(":")
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "layers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        exec(test, namespace := {})
        namespace["test_chirp_has_every_property_of_an_augmentation"]()
        chirp = getattr(importlib.import_module(package), name)(**component, seed=1)
    finally:
        sys.modules.pop("mypackage.layers", None), sys.modules.pop("mypackage", None)
    silence, labels = np.zeros((1000, 800), "float32"), np.eye(4, dtype="float32")[np.zeros(1000, int)]
    clips, changed = map(keras.ops.convert_to_numpy, chirp((silence, labels), training=True))
    has_chirp = clips.any(axis=1)
    assert 150 < has_chirp.sum() < 250
    np.testing.assert_array_equal(changed, np.where(has_chirp[:, None], [[1, 0, 1, 0]], [[1, 0, 0, 0]]))
