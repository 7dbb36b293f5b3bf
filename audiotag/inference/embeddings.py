"""What the backbone of a model makes of the windows of clips, before the head."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
from keras import ops

from audiotag.backend import compiled
from audiotag.data.pipeline import evaluation_batches, window_batches
from audiotag.data.records.manifest import Manifest
from audiotag.data.records.offsets import Shards
from audiotag.inference.records import BATCH_SIZE
from audiotag.models.tagger import Tagger
from audiotag.models.windowing import to_float
from audiotag.padding import num_sliding_windows

Kind = Literal["training", "validation"]


def features_of_clips(
    tagger: Tagger,
    manifest: Manifest,
    clips: pd.DataFrame,
    kind: Kind,
    *,
    offsets: Shards | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields what enters the head of a model for every window of clips.

    Args:
        tagger: A built `Tagger`.
        manifest: The `Manifest` of the records.
        clips: Rows of its table of clips.
        kind: "training" places windows like training batches with the tagger's `hop`; "validation" as the tagger
            does at inference. They differ where a clip ends with zeros, which inference takes for padding.
        offsets: What `find_offsets` returns; None reads whole shards.

    Yields:
        (row of the clip from 0, features float32 [W, ..., D]).
    """
    # float32, as NumPy's files cannot hold bfloat16
    features = compiled(lambda windows: ops.cast(tagger.features(windows), "float32"), [tagger])
    if kind == "training":
        yield from _of_training_windows(tagger, features, manifest, clips, offsets)
    else:
        yield from _of_inference_windows(tagger, features, manifest, clips, offsets)


def _of_training_windows(tagger, features, manifest, clips, offsets):
    n, hop = tagger.window_samples, tagger.hop
    counts = num_sliding_windows(clips["num_samples"].to_numpy(), n, hop)  # [clips]
    batches = window_batches(
        manifest, clips, window_samples=n, pad=tagger.pad, hop=hop, batch_size=BATCH_SIZE, offsets=offsets
    )
    row, found = -1, []
    for waveform, rows in batches:
        for each, values in zip(rows.numpy().tolist(), ops.convert_to_numpy(features(waveform))):
            row, found = each, [*found, values]
            if len(found) == counts[row]:
                yield row, np.stack(found)
                found = []


def _of_inference_windows(tagger, features, manifest, clips, offsets):
    windows_of = compiled(tagger.windows, [])
    batches = evaluation_batches(
        manifest, clips, window_samples=tagger.window_samples, batch_size=BATCH_SIZE, offsets=offsets
    )
    for waveform, rows in batches:
        windows, mask = map(ops.convert_to_numpy, windows_of(to_float(waveform)))  # [B, W, n], [B, W]
        values = ops.convert_to_numpy(features(windows[mask]))  # [windows of the batch, ..., D]
        counts = mask.sum(axis=1)
        yield from zip(rows.numpy().tolist(), np.split(values, np.cumsum(counts)[:-1]))
