"""What a pretrained backbone reaches without training, on validation clips.

Two classifiers need no training: the published classes, found by the names of the user's; and the nearest neighbors
of a clip among the training clips. A stage that ends below them has lost what the backbone knew.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from audiotag import files, progress
from audiotag.config.schema import Stage, expand_rounds, stage_of
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.splits import validation_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import WindowFeatures
from audiotag.errors import DataError
from audiotag.inference.embeddings import features_of_clips
from audiotag.models.heads import pooled
from audiotag.models.tagger import Tagger
from audiotag.models.windowing import pool_logits
from audiotag.runs.directory import Run
from audiotag.runs.metrics import build_metrics, direction
from audiotag.runs.pretrained import PUBLISHED, class_names, published_top
from audiotag.training.embedding_cache import cached_features

NUM_NEIGHBORS = 5
BLOCK = 1024  # clips that are compared with all training clips at a time
LEAST = 1e-6  # the lowest probability, so that its logit is finite
STOP_WORDS = {"a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "other", "the", "to", "with"}
STOP_WORDS |= {"sound", "sounds"}
ROUNDING = 1e-5  # of metrics, relative
NUM_SHOWN = 5  # classes in a sentence


def matching_classes(vocabulary: Sequence[str], published_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The published classes whose names are nearest to those of classes.

    Names are compared by their words, without endings such as -s and -ing: the number of words that both have, as a
    fraction of those that one of them has. Of a published name with commas, such as "Chicken, rooster", the part
    that is nearest counts.

    Args:
        vocabulary: Names of classes.
        published_names: Names of the published classes.

    Returns:
        {class: published names}, several if they are equally near, and none if no word is the same.

    Example:
        >>> matching_classes(["Dog_bark", "Waves", "Gong"], ["Dog", "Bark", "Bird", "Waves, surf", "Barking dogs"])
        {'Dog_bark': ('Barking dogs',), 'Waves': ('Waves, surf',), 'Gong': ()}
    """
    known = {name: [_words(text) for text in (name, *name.split(","))] for name in published_names}
    matches: dict[str, tuple[str, ...]] = {}
    for label in vocabulary:
        words = _words(label)
        near: dict[str, tuple[float, float]] = {}  # of the nearest part; of the name as a whole, which decides ties
        for name, texts in known.items():
            overlaps = [_overlap(words, other) for other in texts]
            near[name] = max(overlaps), overlaps[0]
        best = max(near.values(), default=(0.0, 0.0))
        matches[label] = tuple(name for name, value in near.items() if value == best) if best[0] else ()
    return matches


def _words(text):
    """The words of a name without their endings: "Waves_on_RocksLeft" → ("wav", "rock", "left")."""
    separate = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return tuple(_stem(word) for word in re.findall(r"[^\W\d_]+", separate.lower()) if word not in STOP_WORDS)


def _stem(word):
    """A word without the ending of a plural or a participle: crackling, crackle → crackl; cries → cry."""
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        word = word[:-3] + "y" if word.endswith("ies") else word[:-1]
    if word.endswith("ing") and len(word) > 5 and re.search("[aeiouy]", word[:-3]):
        word = word[:-3]
    word = word.removesuffix("e")
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word


def _overlap(words, others):
    """The words of both names as a fraction of all of theirs; 1 also for "gun shot" and "gunshot"."""
    if "".join(words) == "".join(others):
        return float(bool(words))
    return len(set(words) & set(others)) / len(set(words) | set(others))


def name_logits(
    features: WindowFeatures, kernel: np.ndarray, bias: np.ndarray, columns: Sequence[Sequence[int]], *, pool: str
) -> np.ndarray:
    """The logits of clips by the published classes that match each class.

    Args:
        features: Embeddings [windows, D] of the windows of clips.
        kernel, bias: [D, P] and [P], the published last layer.
        columns: For each of K classes, the published ones whose logits are averaged. A class without any gets the
            lowest logit of all.
        pool: How a clip's windows are pooled, as for `Tagger`.

    Returns:
        float32 [clips, K].
    """
    published = features.values @ kernel + bias  # [windows, P]
    logits = np.zeros((len(published), len(columns)), "float32")  # [windows, K]
    for column, places in enumerate(columns):
        logits[:, column] = published[:, list(places)].mean(axis=1) if places else published.min()
    mask = np.arange(features.counts.max()) < features.counts[:, None]  # [clips, W]
    of_clips = np.zeros((*mask.shape, len(columns)), "float32")  # [clips, W, K]
    of_clips[mask] = logits
    return keras.ops.convert_to_numpy(pool_logits(of_clips, mask[:, :, None], pool))


def nearest_neighbors(
    train_embeddings: np.ndarray, train_truth: np.ndarray, embeddings: np.ndarray, *, k: int = NUM_NEIGHBORS
) -> np.ndarray:
    """The labels of the nearest training clips, by the cosine of the embeddings.

    Args:
        train_embeddings: [N, D].
        train_truth: [N, K], zeros and ones.
        embeddings: [B, D], of the clips to label.
        k: How many neighbors count; all N if there are fewer.

    Returns:
        [B, K], 0 to 1: the mean of the neighbors' labels, weighted by their cosine (those below 0 count nothing).

    Example:
        >>> nearest_neighbors(np.eye(2), np.eye(2), np.array([[3.0, 1.0], [0.0, 2.0]]), k=2).round(3).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    train_unit, k = _unit(train_embeddings), min(k, len(train_embeddings))
    scores = []
    for start in range(0, len(embeddings), BLOCK):
        cosine = _unit(embeddings[start : start + BLOCK]) @ train_unit.T  # [block, N]
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        weights = np.maximum(np.take_along_axis(cosine, nearest, axis=1), LEAST)  # [block, k]
        weights /= weights.sum(axis=1, keepdims=True)
        scores.append(np.einsum("bk,bkc->bc", weights, train_truth[nearest]))
    return np.concatenate(scores)


def _unit(embeddings):
    """Embeddings of length 1; those of zeros stay so."""
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.maximum(lengths, np.finfo("float32").tiny)


def has_baselines(context: FoldContext) -> bool:
    """Whether a stage starts from published weights and has validation clips."""
    return _starts_published(context) and context.run.experiment.validation is not None


def _starts_published(context):
    """Whether a stage starts from published weights."""
    model = context.run.experiment.model
    return context.stage.start_from is None and model.name in PUBLISHED and getattr(model, "weights", None) is not None


def write_baselines(
    context: FoldContext, tagger: Tagger, clips: pd.DataFrame, *, say: Callable[[str], Any] = print
) -> None:
    """Scores the validation clips of a stage without training, as baselines.json.

    Args:
        context: The fold and the stage; `has_baselines` must be true.
        tagger: The `Tagger` that the stage starts with.
        clips: Its training clips.
        say: As for `cached_features`.

    Raises:
        DataError: The records are damaged, or an embedding is NaN or infinite.
    """
    run = context.run
    validated = validation_clips(run, context.clips, context.fold, context.stage).reset_index(drop=True)
    training = _embeddings(context, tagger, clips, "training", say)
    validation = _embeddings(context, tagger, validated, "validation", say)
    truth, train_truth = (multi_hot(each["labels"], run.vocabulary) for each in (validated, clips))
    near = nearest_neighbors(_clip_means(training), train_truth, _clip_means(validation)).clip(LEAST, 1 - LEAST)
    content: dict[str, Any] = {
        "clips": len(validated),
        "by_names": None,
        "by_neighbors": {"k": NUM_NEIGHBORS, "metrics": _metrics(context, truth, np.log(near / (1 - near)))},
    }
    if (published := _published_classes(context, validation.values.shape[-1])) is not None:
        kernel, bias, matches, columns = published
        logits = name_logits(validation, kernel, bias, columns, pool=tagger.pool)
        content["by_names"] = {"classes": matches, "metrics": _metrics(context, truth, logits)}
    files.write_text(context.files.baselines, json.dumps(content, indent=2) + "\n")


def head_by_names(context: FoldContext, num_embeddings: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The published last layer for the classes of a run, found by their names.

    Args:
        context: The fold and a stage.
        num_embeddings: D.

    Returns:
        (kernel [D, K], bias [K]): for each class the mean of the published ones that match, less the mean over the
        classes; zeros for a class without any. None if the stage does not start from published weights, or no class
        has a match.
    """
    if not _starts_published(context):
        return None
    published = _published_classes(context, num_embeddings)
    if published is None or not any(published[-1]):
        return None
    kernel, bias, _, columns = published
    head = np.zeros((num_embeddings + 1, len(columns)))  # [D + 1, K]
    found = [label for label, places in enumerate(columns) if places]
    for label in found:
        head[:, label] = np.concatenate([kernel, bias[None]])[:, columns[label]].mean(axis=1)
    head[:, found] -= head[:, found].mean(axis=1, keepdims=True)
    return head[:-1], head[-1]


def _published_classes(context, num_embeddings):
    """(kernel [D, P], bias [P], {class: published names}, their places for each class), or None.

    It is None for a backbone that audiotag trained, whose last layer is of other classes.
    """
    model, vocabulary = context.run.experiment.model, context.run.vocabulary
    try:
        kernel, bias = published_top(model.name, model.weights, num_embeddings)
    except DataError:
        return None
    names = class_names(model.name)
    matches = matching_classes(vocabulary, names)
    return kernel, bias, matches, [[names.index(name) for name in matches[label]] for label in vocabulary]


def _embeddings(context, tagger, clips, kind, say):
    """The embeddings [windows, D] of clips; stored ones if the stage stores them."""
    if context.stage.cache_embeddings or context.stage.initial_head is not None:
        features = cached_features(context, tagger, clips, kind, say=say)
    else:
        windows = features_of_clips(tagger, context.manifest, clips, kind, offsets=context.offsets)
        label = f"{stage_of(context.stage.name)}, fold {context.fold}: without training, {kind} clips"
        found: list[Any] = [None] * len(clips)
        for row, values in progress.bar(windows, total=len(clips), unit="clip", label=label):
            found[row] = keras.ops.convert_to_numpy(pooled(values))
        features = WindowFeatures(np.concatenate(found), np.array([len(values) for values in found]))
    return WindowFeatures(keras.ops.convert_to_numpy(pooled(features.values)), features.counts)


def _clip_means(features):
    """The mean embedding of each clip, [clips, D]."""
    return np.add.reduceat(features.values, features.first, axis=0) / features.counts[:, None]


def _metrics(context, truth, logits):
    """{name: value} of the metrics of the experiment; None for those that are NaN or infinite."""
    values = {}
    for metric in build_metrics(context.run.experiment, num_classes=truth.shape[1], num_clips=len(truth)):
        metric.update_state(truth, logits.astype("float32"))
        value = float(metric.result())
        values[metric.name] = value if math.isfinite(value) else None
    return values


def read_baselines(run: Run, fold: int, stage: Stage) -> dict[str, Any] | None:
    """The content of baselines.json of a stage; None without.

    A stage that starts from another has that of the other.
    """
    path = run.stage_files(fold, stage.name).baselines
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    stages = {each.name: each for each in (*run.experiment.stages, *expand_rounds(run.experiment))}
    return read_baselines(run, fold, stages[stage.start_from]) if isinstance(stage.start_from, str) else None


def compare_with_baselines(run: Run, fold: int, stage: Stage, result: dict[str, Any]) -> Iterator[str]:
    """Yields what to say of a finished stage beside its results without training.

    The second sentence, if there is one, warns that the stage ended below them.

    Args:
        run: The `Run`.
        fold: A fold.
        stage: A stage, or one of its rounds.
        result: The content of its result.json.
    """
    baselines = read_baselines(run, fold, stage)
    if baselines is None:
        return
    by_names, by_neighbors = baselines["by_names"], baselines["by_neighbors"]
    name = result["monitor"].removeprefix("val_")
    if name not in by_neighbors["metrics"]:  # a loss
        name = next(iter(by_neighbors["metrics"]))
    rows = []
    if by_names is not None:
        rows.append((by_names["metrics"][name], f"by the names of AudioSet's classes ({_found(by_names['classes'])})"))
    rows.append((by_neighbors["metrics"][name], f"by {by_neighbors['k']} nearest neighbors"))
    rows = [(value, how) for value, how in rows if value is not None]
    if not rows:
        return
    shown = ", ".join(f"{value:.4f} {how}" for value, how in rows)
    yield f"Without training, on the same {baselines['clips']} clips of fold {fold}: {name} {shown}."
    if result["monitor"] != f"val_{name}":
        return
    better = {"max": max, "min": min}[direction(run.experiment, name, len(run.vocabulary))]
    best = better(value for value, _ in rows)
    if better(result["value"], best) != result["value"] and not math.isclose(result["value"], best, rel_tol=ROUNDING):
        advice = 'Lower the learning rate, or freeze the backbone: "backbone_lr_multiplier": 0.'
        if stage.backbone_lr_multiplier == 0:
            advice = "Only the head was trained: more clips, a stronger regularization or another head may help."
        yield f"{stage.name} stage, fold {fold}, ended below: {name} {result['value']:.4f}. {advice}"


def _found(classes):
    """How many classes have a published one of a similar name, and which have none."""
    missing = [label for label, names in classes.items() if not names]
    if not missing:
        return f"all {len(classes)} found"
    more = ", …" if len(missing) > NUM_SHOWN else ""
    return f"{len(classes) - len(missing)} of {len(classes)} found; not {', '.join(missing[:NUM_SHOWN])}{more}"
