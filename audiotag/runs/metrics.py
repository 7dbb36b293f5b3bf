"""The metrics of an experiment, and which of their values are better."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.config.components import CustomComponent
from audiotag.config.custom import KERAS_MODULES, bound, create, errors_of, parameters
from audiotag.config.schema import Experiment
from audiotag.config.validation import log_name
from audiotag.errors import ConfigError, error_context
from audiotag.metrics import METRICS


def build_metrics(experiment: Experiment, *, num_classes: int, num_clips: int) -> list[keras.metrics.Metric]:
    """The Keras metrics of an experiment, in its order.

    Those of audiotag and of users get logits, those of `keras.metrics` the probabilities that they expect.

    Args:
        experiment: An `Experiment`.
        num_classes: K.
        num_clips: Number of validation clips, for metrics that store the scores of all of them.

    Raises:
        ConfigError: A metric refuses its options, or its result is not a number.
    """
    metrics = []
    for component in experiment.metrics:
        sizes = {"num_classes": num_classes, "num_clips": num_clips}
        with error_context(f"metrics.{component.name}"):
            if isinstance(component, CustomComponent):
                metrics.append(_custom_metric(component, **sizes))
            else:
                metrics.append(create(component, METRICS, name=component.name, **sizes))
    return metrics


def _custom_metric(component, *, num_classes, **sizes):
    """A metric from outside audiotag, tried once on two clips."""
    make = bound(component, METRICS)
    kind: Any = make.func
    if component.name.partition(":")[0] in KERAS_MODULES:
        kind = type(kind.__name__, (_OfProbabilities, kind), {})
    sizes = {key: size for key, size in (sizes | {"num_classes": num_classes}).items() if key in parameters(make.func)}
    with errors_of(component):
        metric = kind(**make.keywords, **sizes)
        metric.update_state(ops.eye(2, num_classes), ops.zeros((2, num_classes)))
        result = np.asarray(ops.convert_to_numpy(metric.result()))
        metric.reset_state()
        if result.shape != () or result.dtype.kind not in "fiub":
            found = f"the shape {list(result.shape)}" if result.shape else f"the type {type(result.item()).__name__}"
            raise ValueError(f"its result has {found}. Expected one number")
    metric.name = log_name(component)
    return metric


class _OfProbabilities(keras.metrics.Metric):
    """Before a metric of Keras among the bases: turns the logits of audiotag's models into probabilities."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true, ops.sigmoid(y_pred), sample_weight=sample_weight)


def direction(experiment: Experiment, monitor: str, num_classes: int = 1) -> Literal["max", "min"]:
    """Whether the highest ("max") or lowest ("min") value of a monitor is best.

    Args:
        experiment: An `Experiment`.
        monitor: "loss" or one of its metrics, with or without "val_" before it.
        num_classes: K; metrics from outside audiotag may need it.

    Raises:
        ConfigError: The metric does not say it.
    """
    name = monitor.removeprefix("val_")
    if name == "loss":
        return "min"
    metrics = build_metrics(experiment, num_classes=num_classes, num_clips=1)
    found = next((metric for metric in metrics if metric.name == name), None)
    better = getattr(found, "_direction", None)  # as Keras' callbacks find it
    if better is None:
        raise ConfigError(
            f"monitor: the metric {name!r} does not say whether higher or lower is better. Monitor another one, such "
            "as val_loss."
        )
    return "max" if better == "up" else "min"
