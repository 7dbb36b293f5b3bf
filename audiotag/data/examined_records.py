"""Examines the sound of every clip of records."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from audiotag import progress
from audiotag.data.audio import worker_pool
from audiotag.data.audio.examination import Examination, examine
from audiotag.data.records.manifest import Manifest


def examine_records(
    manifest: Manifest, clips: pd.DataFrame, *, num_workers: int, label: str = "examine"
) -> list[Examination]:
    """What `examine` says of clips of records.

    Args:
        manifest: The `Manifest` of the records.
        clips: Rows of their table of clips, with any index.
        num_workers: Processes that examine.
        label: The name of the progress bar.

    Returns:
        An `Examination` per row.
    """
    rows: list[int] = []
    waveforms = _waveforms(manifest, clips.reset_index(drop=True), rows)
    results = progress.bar(
        worker_pool.in_order(examine, waveforms, workers=num_workers), total=len(clips), unit="clip", label=label
    )
    examinations = [Examination()] * len(clips)
    for number, (examination, reason) in enumerate(results):
        examinations[rows[number]] = examination or Examination(fault=reason or "")
    return examinations


def _waveforms(manifest: Manifest, clips: pd.DataFrame, rows: list[int]) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (int16 [N], sample rate) of each clip, and appends its row to `rows`."""
    # It imports TensorFlow, which recordings do not need.
    from audiotag.data.pipeline import evaluation_batches, explain_damage
    from audiotag.data.records.offsets import find_offsets

    with explain_damage(manifest):
        batches = evaluation_batches(
            manifest, clips, window_samples=manifest.sample_rate, batch_size=8, offsets=find_offsets(manifest)
        )
        for batch, numbers in batches:
            for waveform, row in zip(batch.numpy(), numbers.numpy().tolist()):
                rows.append(row)
                yield waveform[: clips["num_samples"][row]].copy(), manifest.sample_rate
