"""Metrics: functions of arrays, and the Keras metrics of experiments.

An experiment logs each metric for the training clips and, with `val_` before its name, for the validation clips. Mean
average precision and AUC rank all clips of a class, so they are no sums over clips: they store the scores of
`num_clips` clips, are exact, and are logged for the validation clips only.
"""

from audiotag.metrics.arrays import (
    areas_under_roc,
    average_precisions,
    average_precisions_at_k,
    chance_lwlrap,
    chance_map_at_k,
    chance_precision,
    lwlrap,
    mean_average_precision_at_k,
    per_class_lwlrap,
    per_clip_lwlrap,
    precisions,
    validate,
)
from audiotag.metrics.keras_metrics import (
    AreaUnderRoc,
    BinaryAccuracy,
    CategoricalAccuracy,
    FBeta,
    LabelRankingAveragePrecision,
    Lwlrap,
    MeanAveragePrecision,
    MeanAveragePrecisionAtK,
    label_precisions,
)

__all__ = [
    "AreaUnderRoc",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "FBeta",
    "LabelRankingAveragePrecision",
    "Lwlrap",
    "MeanAveragePrecision",
    "MeanAveragePrecisionAtK",
    "areas_under_roc",
    "average_precisions",
    "average_precisions_at_k",
    "chance_lwlrap",
    "chance_map_at_k",
    "chance_precision",
    "label_precisions",
    "lwlrap",
    "mean_average_precision_at_k",
    "per_class_lwlrap",
    "per_clip_lwlrap",
    "precisions",
    "validate",
]

# The names of metrics in experiment files. Those that take num_clips are computed for validation clips only.
METRICS = {
    "lwlrap": Lwlrap,
    "mean_average_precision": MeanAveragePrecision,
    "auc": AreaUnderRoc,
    "categorical_accuracy": CategoricalAccuracy,
    "binary_accuracy": BinaryAccuracy,
    "f_beta": FBeta,
    "lrap": LabelRankingAveragePrecision,
    "map_at_k": MeanAveragePrecisionAtK,
}
