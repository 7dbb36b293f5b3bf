"""Models whose training step is traced already.

The next stage or fold that computes the same trains them again. Tracing a training step into a graph takes seconds,
for a deep network a minute; building the model takes a fraction of that.
"""

import json

from audiotag.config.custom import custom_components
from audiotag.config.schema import Experiment, Stage
from audiotag.models.tagger import Tagger
from audiotag.training.state import state_variables

# Settings of a stage that its graph does not depend on: the clips it trains on, how long, and from which weights.
OUTSIDE_THE_GRAPH = {
    "name",
    "subset",
    "epochs",
    "steps_per_epoch",
    "subset_sampling_weights",
    "class_balanced",
    "validation_freq",
    "validation_subset",
    "windows",
    "start_from",
    "keep",
    "initial_head",
    "class_weights",
    "select",
    "distill",
    "callbacks",
}


class TracedModels:
    """The compiled models of the stages of one experiment, one for each graph."""

    def __init__(self) -> None:
        self._taggers: dict[str, Tagger] = {}

    def reuse(
        self, tagger: Tagger, experiment: Experiment, stage: Stage, *, num_steps: int, num_validation: int
    ) -> Tagger:
        """The model to train in place of one that was just built.

        Components from outside audiotag may keep a state in Python, so models with one are not used again.

        Args:
            tagger: A compiled `Tagger` whose optimizer is built and whose `class_weights` are set.
            experiment: The `Experiment`, always the same one.
            stage: One of its stages.
            num_steps: Batches per epoch.
            num_validation: Number of validation clips.

        Returns:
            The model of an earlier call whose graph is the same, with all variables of `tagger`; or `tagger`.
        """
        if next(custom_components(experiment), None) is not None:
            return tagger
        graph = stage.model_dump(mode="json", exclude=OUTSIDE_THE_GRAPH) | {
            # Pretrained weights change settings of some layers.
            "pretrained": stage.start_from is None and getattr(experiment.model, "weights", None) is not None,
            "class_weights": None if tagger.class_weights is None else tagger.class_weights.tolist(),
            "schedule_steps": None if stage.schedule is None else [stage.epochs, num_steps],
            "num_validation": num_validation,
        }
        if stage.schedule is None:
            graph["optimizer"].pop("learning_rate", None)  # a variable
        traced = self._taggers.setdefault(json.dumps(graph), tagger)
        if traced is not tagger:
            for variable, initial in zip(state_variables(traced), state_variables(tagger), strict=True):
                variable.assign(initial)
            traced.takes_features = False
        return traced
