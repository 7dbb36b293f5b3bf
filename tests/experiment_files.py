"""An experiment file with every section, and ways to change it and to read why it is refused."""

import copy

import pytest

from audiotag.config.loading import load
from audiotag.errors import ConfigError

FILE = {
    "about": "All sections, and every kind of component.",
    "command": "audiotag fit all.json",
    "expect": "it loads",
    "records": "tfrecords/demo",
    "window": {"seconds": 2.0, "pad": "zeros"},
    "frontend": {"name": "log_mel", "num_bands": 64, "reference": "max"},
    "image_preprocess": [{"name": "standardize"}, {"name": "resize", "height": 32, "width": 48}],
    "augment": [{"name": "frequency_mask", "max_width": 8, "count": 2}],
    "model": {"name": "conv_skip", "filters": [16, 32]},
    "stages": [
        {
            "name": "noisy",
            "subset": "noisy",
            "epochs": 3,
            "batch_size": 32,
            "optimizer": {"name": "adam", "learning_rate": 2e-3},
            "loss": {"name": "binary_crossentropy", "label_smoothing": 0.2},
            "callbacks": [{"name": "CSVLogger"}, {"name": "EarlyStopping", "patience": 3}, {"name": "TensorBoard"}],
        },
        {
            "name": "curated",
            "subset": "curated",
            "epochs": 5,
            "batch_size": 32,
            "start_from": "noisy",
            "optimizer": {"name": "sgd"},
            "loss": {"name": "binary_crossentropy"},
        },
    ],
    "validation": {"folds": {"num_folds": 5, "held_out": [0, 2]}},
    "predict": {"overlap": 0.25, "pool": "max"},
}
STAGE = FILE["stages"][0]


def changed(place, value):
    """FILE with another value at a place such as "stages.0.epochs"."""
    content = copy.deepcopy(FILE)
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner = content
    for key in path:
        inner = inner[key]
    inner[last] = value
    return content


def refusal(path, overrides=()):
    """The message with which a file is refused, without the file's name."""
    with pytest.raises(ConfigError) as error:
        load(path, overrides)
    return str(error.value).replace(f"{path}: ", "")
