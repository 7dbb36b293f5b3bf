"""Stored embeddings: what a frozen backbone makes of each clip is computed once.

runs/NAME/embeddings/KEY/FOLD-NUMBER.npz   parts, each of some clips, in one folder for all folds
runs/NAME/fold-K/STAGE/embeddings.json     what the embeddings of this stage depend on; KEY is its SHA-256

A part is complete or it is not there, so a killed process loses at most the seconds since the last one.
"""

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from audiotag import files, progress
from audiotag.config.custom import source_hashes
from audiotag.config.schema import stage_of
from audiotag.crossval.fold_context import FoldContext
from audiotag.data.pipeline import WindowFeatures
from audiotag.data.records.manifest import refuse_replaced
from audiotag.errors import DataError
from audiotag.inference.embeddings import Kind, features_of_clips
from audiotag.layers import RandomAugmentation
from audiotag.models.tagger import Tagger
from audiotag.runs.arrays import load_arrays, save_arrays

SECONDS_PER_PART = 10.0
# What a message says if a part of the origin of stored embeddings differs.
SAID = {
    "backbone": "another backbone",
    "network": "another front end or network",
    "records": "other records",
    "windows": "other windows",
}
KEY_DIGITS = 24  # of the SHA-256 that names a folder


def cached_features(
    context: FoldContext, tagger: Tagger, clips: pd.DataFrame, kind: Kind, *, say: Callable[[str], Any] = print
) -> WindowFeatures:
    """What enters the head for the windows of clips.

    It is read from the cache, or computed and stored in it.

    Args:
        context: The fold and the stage.
        tagger: Its `Tagger`, whose backbone is that which the embeddings are of.
        clips: Rows of the table of clips.
        kind: As for `features_of_clips`.
        say: Called with a sentence if what was stored is of another backbone or of other records.

    Raises:
        DataError: The records are damaged, or an embedding is NaN or infinite.
    """
    origin = _origin(context, tagger, kind)
    _forget_others(context, kind, origin, say)
    folder = _folder(context, origin)
    found = _read_parts(folder)
    missing = clips[~clips["name"].isin(found)].reset_index(drop=True)
    if len(missing):
        found |= _compute(context, tagger, missing, kind, folder)
    values = [found[name] for name in clips["name"]]
    return WindowFeatures(np.concatenate(values), np.array([len(each) for each in values], "int64"))


def check_cache(tagger: Tagger) -> None:
    """Refuses a model whose features are not the same in each epoch.

    Raises:
        ValueError: A layer before the head is random, or images of complete clips have feature maps of several sizes.
    """
    for layer in tagger.preprocessor.layers:
        if isinstance(layer, RandomAugmentation) or any("seed_generator" in weight.path for weight in layer.variables):
            raise ValueError(
                f"cache_embeddings: {layer.name} is random, before the backbone. Leave it out, or cache_embeddings."
            )
    if tagger.window_layout == "full_clip" and len(tagger.parts.features.shape) > 2:
        raise ValueError(
            'cache_embeddings: the head takes feature maps, whose size differs with "full_clip" windows. Add "head": '
            '{"name": "linear"} to the experiment, or choose other predict.windows.'
        )


def _origin(context, tagger, kind):
    """Everything that the features of a clip depend on, by the keys of `SAID`."""
    run, experiment = context.run, context.run.experiment
    weights = [weight for layer in tagger.backbone() for weight in layer.weights]
    digest = hashlib.sha256()
    for weight in weights:
        if keras.backend.is_float_dtype(weight.dtype):  # not the states of random generators
            array = keras.ops.convert_to_numpy(weight)
            digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    content = experiment.model_dump(include={"frontend", "image_preprocess", "model", "dtype_policy"}, mode="json")
    content["model"].pop("weights", None)  # the initial ones
    origin = {
        "backbone": digest.hexdigest(),
        "network": content | {"components": source_hashes(experiment)},
        "records": run.fingerprint,
        "windows": {
            "kind": kind,
            "samples": tagger.window_samples,
            "hop": tagger.hop,
            "pad": tagger.pad,
            "layout": tagger.window_layout if kind == "validation" else "sliding",
            "num_windows": tagger.num_windows,
        },
    }
    return json.loads(json.dumps(origin))  # as it is read from the file


def _folder(context, origin):
    key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    return context.run.embeddings_folder / key[:KEY_DIGITS]


def _forget_others(context, kind, origin, say):
    """Stores the origin of a stage's embeddings; if it had another before, says so and removes those."""
    path = context.files.embeddings
    stored = _read_origins(path)
    before = stored.get(kind)
    if before == origin:
        return
    files.write_text(path, json.dumps(stored | {kind: origin}, indent=2) + "\n")
    if before is None:
        return
    changed = " and ".join(SAID[key] for key in origin if before.get(key) != origin[key])
    say(
        f"{context.stage.name} stage, fold {context.fold}: its stored embeddings are of {changed}. They are computed "
        "again."
    )
    others = map(_read_origins, context.run.folder.glob("fold-*/**/embeddings.json"))
    if not any(before in each.values() for each in others) and (old := _folder(context, before)).is_dir():
        files.remove(old)


def _read_origins(path):
    """{kind: origin} of what a stage has stored; {} if it has nothing, or the file is damaged."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(content := json.loads(path.read_text(encoding="utf-8")), dict):
            return content
    return {}


def _read_parts(folder: Path) -> dict[str, np.ndarray]:
    """{clip: features [W, ..., D]} of the complete parts in a folder."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("[0-9]*.npz")):
        try:
            (values, counts), names = load_arrays(path)
            found |= zip(names, np.split(values, np.cumsum(counts)[:-1]), strict=True)
        except Exception as error:  # zipfile and NumPy raise a dozen kinds
            print(f"{path}: damaged ({error}). Its embeddings are computed again.", file=sys.stderr)
            path.unlink(missing_ok=True)
    return found


def _compute(context, tagger, clips, kind, folder):
    """The features of clips by name, stored part by part."""
    folder.mkdir(parents=True, exist_ok=True)
    stage, fold = stage_of(context.stage.name), context.fold
    numbers = [int(path.stem.partition("-")[2]) for path in folder.glob(f"{fold}-*.npz")]
    number, saved = max(numbers, default=-1) + 1, time.monotonic()
    found: dict[str, np.ndarray] = {}
    part: dict[str, np.ndarray] = {}

    def save():
        nonlocal number, saved, part
        if part:
            arrays = [np.concatenate(list(part.values())), np.array([len(each) for each in part.values()])]
            refuse_replaced(context.manifest)
            save_arrays(folder / f"{fold}-{number:05d}.npz", arrays, list(part))
        number, saved, part = number + 1, time.monotonic(), {}

    clip_features = features_of_clips(tagger, context.manifest, clips, kind, offsets=context.offsets)
    label = f"embeddings for {stage}, fold {fold}, {kind} clips"
    with contextlib.ExitStack() as at_end:
        at_end.callback(save)  # at Ctrl-C, too
        for row, values in progress.bar(clip_features, total=len(clips), unit="clip", label=label):
            name = clips["name"][row]
            if not np.isfinite(values).all():
                raise DataError(
                    f"{context.manifest.place}: the backbone makes NaN or infinity of clip {name!r}. Leave the "
                    "clip out with a correction of weight 0, or start from other weights."
                )
            found[name] = part[name] = values
            if time.monotonic() - saved > SECONDS_PER_PART:
                save()
    return found
