"""Models that are traced once for all stages and folds with the same graph."""

import numpy as np
import pytest

from audiotag.config.loading import load
from audiotag.models.tagger import Tagger
from audiotag.runs.models import load_tagger
from audiotag.training.compiling import compile_tagger, set_class_weights, stage_tagger
from audiotag.training.loop import fit
from audiotag.training.state import state_variables
from audiotag.training.traced_models import TracedModels

ONE_EPOCH = [f"stages.{stage}.epochs=1" for stage in ("noisy", "curated")]
TWO_FOLDS = 'validation={"folds": {"num_folds": 5, "held_out": [0, 1]}}'


@pytest.fixture
def num_traced(monkeypatch):
    """A list with an entry for each time that a training step is traced."""
    traced, training_logits = [], Tagger._training_logits
    monkeypatch.setattr(Tagger, "_training_logits", lambda *args: traced.append(1) or training_logits(*args))
    return traced


def test_stages_and_folds_of_one_graph_are_traced_once_and_train_as_alone(tiny_file, tmp_path, num_traced):
    dropout = 'model={"name": "conv_skip", "filters": [8], "dropout": 0.3}'
    experiment = load(tiny_file, [*ONE_EPOCH, dropout, TWO_FOLDS, "stages.curated.optimizer.learning_rate=0.003"])
    together = fit(experiment, tmp_path / "together", say=lambda sentence: None)
    assert len(num_traced) == 1
    alone = fit(experiment, tmp_path / "alone", fold=1, say=lambda sentence: None)
    assert len(num_traced) == 2
    for ours, expected in zip(load_tagger(together, 1, "curated").weights, load_tagger(alone, 1, "curated").weights):
        np.testing.assert_array_equal(ours, expected)


def compiled(experiment, stage):
    """A model of a stage as `fit` hands it over."""
    tagger = stage_tagger(experiment, stage, sample_rate=16_000, num_classes=2)
    compile_tagger(tagger, experiment, stage, num_steps=3)
    tagger.optimizer.build(tagger.trainable_variables)
    set_class_weights(tagger, stage, (), ["Bird", "Dog"])
    return tagger


@pytest.mark.parametrize(
    "change, is_another",
    [
        ('loss={"name": "binary_crossentropy", "label_smoothing": 0.1}', True),
        ('class_weights={"Bird": 2.0}', True),
        ('schedule={"name": "cosine"}', True),
        ("optimizer.beta_1=0.8", True),
        ("augment=[]", True),
        ("optimizer.learning_rate=0.1", False),
        ("epochs=7", False),
        ("keep=last", False),
    ],
)
def test_a_stage_that_computes_something_else_is_traced_again(tiny_file, change, is_another):
    experiment, changed = load(tiny_file), load(tiny_file, [f"stages.noisy.{change}"])
    models, sizes = TracedModels(), {"num_steps": 3, "num_validation": 8}
    first = compiled(experiment, experiment.stages[0])
    assert models.reuse(first, experiment, experiment.stages[0], **sizes) is first
    second = compiled(changed, changed.stages[0])
    used = models.reuse(second, changed, changed.stages[0], **sizes)
    assert used is (second if is_another else first)
    for ours, expected in zip(state_variables(used), state_variables(second), strict=True):
        np.testing.assert_array_equal(ours, expected)
