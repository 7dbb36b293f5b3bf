"""The head that a stage starts with.

It is solved for, from the embeddings of the training clips.
"""

import json
from typing import Any

import keras
import numpy as np
import pandas as pd

from audiotag import files
from audiotag.config.components import Section
from audiotag.config.custom import accepts, create
from audiotag.config.schema import stage_of
from audiotag.crossval.fold_context import FoldContext
from audiotag.data.folds import stratified_folds
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import WindowFeatures
from audiotag.errors import ConfigError, error_context
from audiotag.models.initial_heads import INITIAL_HEADS
from audiotag.models.tagger import Tagger
from audiotag.training.baselines import head_by_names

NUM_FOLDS = 5  # of the training clips, to choose by
BATCH_SIZE = 1024  # windows


def check_initial_head(tagger: Tagger) -> None:
    """Refuses a network whose last layer cannot be solved for.

    It must be a dense layer with one output per class.

    Raises:
        ValueError: It is another.
    """
    layers = [layer for layer in tagger.network.layers if layer.name == "logits"]
    if len(layers) != 1 or not isinstance(layers[0], keras.layers.Dense) or len(layers[0].input.shape) != 2:
        raise ValueError(
            'initial_head needs a network that ends in one dense layer called logits. Add "head": {"name": "linear"} '
            "to the experiment."
        )
    if layers[0].units != tagger.num_classes:
        raise ValueError(
            f"initial_head needs one output per class, {tagger.num_classes}, and the network has {layers[0].units}. "
            "Leave out noisy_head and flips_as_classes, or initial_head."
        )


def check_options(initial_head: Section, num_classes: int, where: str) -> None:
    """Solves for the initial head of a stage on four made-up rows.

    A wrong option thus fails early.

    Raises:
        ConfigError: The component refuses an option, or returns what is no kernel and bias.
    """
    rows = {"inputs": np.eye(4), "truth": np.eye(4, num_classes), "weights": np.ones(4), "folds": np.arange(4)}
    with error_context(where):
        kernel, bias, _ = create(initial_head, INITIAL_HEADS, **rows)
    if np.shape(kernel) != (4, num_classes) or np.shape(bias) != (num_classes,):
        raise ConfigError(
            f"{where}: returns the shapes {np.shape(kernel)} and {np.shape(bias)}. Expected a kernel "
            f"(4, {num_classes}) and a bias ({num_classes},) for 4 inputs and {num_classes} classes."
        )


def set_initial_head(
    context: FoldContext,
    tagger: Tagger,
    clips: pd.DataFrame,
    features: WindowFeatures,
    probabilities: np.ndarray | None = None,
) -> dict[str, Any]:
    """Sets the last layer of a stage's model as its `initial_head` says.

    Each clip counts as its windows together, and as often as training draws it. A stage that starts from published
    weights gives the published head of the classes with the same names as `prior`. What was chosen is stored in
    initial_head.json of the stage.

    Args:
        context: The fold and the stage.
        tagger: Its `Tagger`.
        clips: Its training clips.
        features: What enters the head, for the windows of these clips.
        probabilities: [clips], how often training draws each clip, in any unit; None draws all alike.

    Returns:
        What was chosen, such as {"alpha": 100.0}.

    Raises:
        ConfigError: The component refuses an option, or its result does not fit.
    """
    run, initial_head = context.run, context.stage.initial_head
    assert initial_head is not None
    where = f"stages.{stage_of(context.stage.name)}.initial_head"
    layer = tagger.network.get_layer("logits")
    inputs = _inputs_of(layer, tagger, features.values)  # [windows, D]
    weights = np.ones(len(clips)) if probabilities is None else probabilities / np.mean(probabilities)  # [clips]
    counts = features.counts
    prior = {}
    if layer.input is tagger.parts.features and accepts(initial_head, INITIAL_HEADS, "prior"):
        prior["prior"] = head_by_names(context, inputs.shape[1])
    with error_context(where):
        kernel, bias, chosen = create(
            initial_head,
            INITIAL_HEADS,
            inputs=inputs,
            truth=np.repeat(multi_hot(clips["labels"], run.vocabulary), counts, axis=0),
            weights=np.repeat(weights / counts, counts),
            folds=np.repeat(_folds(clips, run.experiment.seed), counts),
            **prior,
        )
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ConfigError(f"{where}: its weights are NaN or infinite. Choose a larger alpha.")
        layer.set_weights([kernel, bias])
    chosen = {"name": initial_head.name, **chosen}
    files.write_text(context.files.initial_head, json.dumps(chosen, indent=2) + "\n")
    return chosen


def _inputs_of(layer, tagger, features):
    """What enters the last layer of the head, for the features [windows, ...] that enter the head."""
    if layer.input is tagger.parts.features:
        return features
    before = keras.Model(tagger.parts.features, layer.input)
    batches = (features[start : start + BATCH_SIZE] for start in range(0, len(features), BATCH_SIZE))
    return np.concatenate([keras.ops.convert_to_numpy(before(batch, training=False)) for batch in batches])


def _folds(clips, seed):
    """A fold of each training clip, clips of one recording in the same: int [clips]."""
    num_units = clips["group"].replace("", np.nan).nunique() + (clips["group"] == "").sum()
    if num_units < 2:
        return np.zeros(len(clips), int)
    return stratified_folds(clips, min(NUM_FOLDS, num_units), seed=seed, groups="group").to_numpy()
