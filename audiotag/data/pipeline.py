"""Records → batches of waveforms and truth, in tf.data.

Waveforms come from the records; which clips to use, and their truth, come from a table joined by name. Only the window
of a clip is decoded; of PCM in a local folder, only the window is read. Every random choice depends only on the seed,
the epoch and the clip, so the way of reading, the number of threads and resuming do not change it.
"""

import contextlib
import functools
import io
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile as sf
import tensorflow as tf

from audiotag.data.audio import decoding
from audiotag.data.records import schema
from audiotag.data.records.manifest import Manifest, damage_error, damaged_shards, refuse_replaced
from audiotag.data.records.offsets import PcmShard, RemoteShard, Shards
from audiotag.errors import AudiotagError, DataError
from audiotag.padding import num_repeats, num_sliding_windows, zeros_before

SHARDS_AT_ONCE = 4
READ_AT_ONCE = 32  # windows of shards at a URL
CACHED_BYTES = 1 << 28  # of batches that are read in every epoch
# AutoGraph would rewrite the functions below, which takes 0.3 s and which none of them needs.
as_written = tf.autograph.experimental.do_not_convert
SHUFFLE_BUFFER = 512  # windows; small, as the hash of the name already assigns clips to shards at random


@dataclass(frozen=True, eq=False)
class WindowFeatures:
    """Features of the windows of clips, those of one clip after the other.

    Args:
        values: [windows, ..., D].
        counts: int [clips], the windows of each clip.
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """The row of `values` of the first window of each clip, int64 [clips]."""
        return (np.cumsum(self.counts) - self.counts).astype("int64")


@as_written
def training_batches(
    manifest: Manifest,
    clips: pd.DataFrame,
    truth: np.ndarray,
    *,
    window_samples: int,
    pad: str,
    batch_size: int,
    seed: int,
    epochs: range,
    probabilities: np.ndarray | None = None,
    num_steps: int | None = None,
    offsets: Shards | None = None,
    hop: int | None = None,
    features: WindowFeatures | None = None,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of random windows, in a new order every epoch.

    Every epoch has one window of each clip. With `probabilities`, clips are drawn with replacement instead; a clip
    drawn twice gives two different windows. With `hop` a window is drawn among the sliding ones.

    Args:
        manifest: The records, as `read_manifest` returns them.
        clips: The rows of a table of clips to train on.
        truth: [len(clips), K], the target of each clip.
        window_samples: Samples per window.
        pad: How a window is filled if the clip is shorter: "repeat" repeats the clip, "zeros" adds zeros on both
            sides, "random_zeros" too, with the clip at a random place.
        batch_size: Windows per batch; an incomplete last batch of an epoch is dropped.
        seed: Determines every draw, with the epoch and the name of the clip.
        epochs: The epochs to yield, counted from 0.
        probabilities: [len(clips)], how often each clip is drawn, in any unit; None uses each clip once per epoch.
        num_steps: Batches per epoch; required with `probabilities`.
        offsets: What `find_offsets` returns; windows are then read by position. None reads whole shards. The batches
            are the same.
        hop: Samples from one sliding window to the next; the last ends with the clip. None starts windows anywhere.
        features: Those of the sliding windows of each clip, in place of waveforms; needs `hop`. The windows drawn are
            the same.
        share: (i, n) yields the i-th of n equal parts of each batch, in place of B all its rows. With `offsets` only
            this part is read.

    Returns:
        A `tf.data.Dataset` of (waveform int16 [B, N], truth float32 [B, K]) with len(clips) // batch_size batches
        per epoch, or `num_steps`; with `features` of (features [B, ..., D], truth).

    Raises:
        DataError: There are fewer clips than a batch needs, or clips that are not in the records.
    """
    if probabilities is None and len(clips) < batch_size:
        raise DataError(
            f"{len(clips)} clips do not fill a batch of {batch_size}. Give more clips or a smaller batch_size."
        )
    truth = tf.constant(truth, tf.float32)  # [clips, K]
    options = {"window_samples": window_samples, "pad": pad, "seed": seed, "hop": hop}
    windows: _Windows
    if features is not None:
        windows = _FeaturesOfWindows(manifest, clips, features, **options)
    elif offsets is None:
        windows = _SequentialWindows(manifest, clips, **options)
    else:
        windows = _WindowsByOffset(manifest, clips, offsets, **options)
    logits = None if probabilities is None else tf.math.log(tf.constant(probabilities, tf.float64))[None]  # [1, clips]

    def batches_of(epoch):
        if probabilities is None:
            selected = windows.one_per_clip(epoch)
        else:
            selected = windows.drawn(epoch, logits, num_steps * batch_size)
        return selected.batch(batch_size, drop_remainder=True)

    num_rows = batch_size // share[1]

    def finish(row, window):
        row, window = (each[share[0] * num_rows : (share[0] + 1) * num_rows] for each in (row, window))
        waveform = windows.waveforms(row, window)  # [B, N], or features [B, ..., D]
        shape = [window_samples] if features is None else features.values.shape[1:]
        return tf.ensure_shape(waveform, [num_rows, *shape]), tf.gather(truth, row)

    return (
        tf.data.Dataset.range(epochs.start, epochs.stop)
        .flat_map(batches_of)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        .apply(tf.data.experimental.assert_cardinality(len(epochs) * (num_steps or len(clips) // batch_size)))
        .prefetch(tf.data.AUTOTUNE)
    )


@as_written
def window_batches(
    manifest: Manifest,
    clips: pd.DataFrame,
    *,
    window_samples: int,
    pad: str,
    hop: int,
    batch_size: int,
    offsets: Shards | None = None,
) -> tf.data.Dataset:
    """Batches of all sliding windows of clips, those of a clip one after the other.

    Args:
        manifest: The records, as `read_manifest` returns them.
        clips: Rows of a table of clips.
        window_samples: As for `training_batches`.
        pad: As for `training_batches`.
        hop: As for `training_batches`.
        batch_size: Windows per batch; the last may have fewer.
        offsets: As for `training_batches`.

    Returns:
        A `tf.data.Dataset` of (waveform int16 [B, N], row int [B]): `row` is the position in `clips`, from 0.

    Raises:
        DataError: Clips are not in the records.
    """
    options = {"window_samples": window_samples, "pad": pad, "seed": 0, "hop": hop, "every": True}
    windows: _Windows
    if offsets is None:
        windows = _SequentialWindows(manifest, clips, **options)
    else:
        windows = _WindowsByOffset(manifest, clips, offsets, **options)
    counts = num_sliding_windows(clips["num_samples"].to_numpy(), window_samples, hop)  # [clips]

    def finish(row, window):
        return tf.ensure_shape(windows.waveforms(row, window), [None, window_samples]), row

    return (
        windows.in_record_order(tf.constant(0, tf.int64), tf.constant(counts, tf.int32))
        .batch(batch_size)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


class _Windows:
    """Datasets of random windows in a random order: (row of the clip, window).

    The start of a window depends on the seed, the epoch, the name of the clip and, if clips are drawn, the draw. The
    order is that of the records, read from several shards at once, then shuffled in a small buffer.
    """

    def __init__(self, manifest, clips, *, window_samples, pad, seed, hop, every=False):
        self.paths = _paths(manifest, clips)
        self.remote = manifest.remote
        self.num_clips, self.window_samples, self.pad, self.seed = len(clips), window_samples, pad, seed
        self.hop, self.every = hop, every

    def one_per_clip(self, epoch):
        """One window of each clip."""
        return self._shuffled(self.in_record_order(epoch), epoch)

    def drawn(self, epoch, logits, num_windows):
        """`num_windows` windows of clips drawn with replacement; logits [1, clips]."""
        # In chunks of at most len(clips) windows: otherwise a batch would have many windows of few clips.
        num_chunks = -(-num_windows // self.num_clips)
        ends = tf.constant(np.arange(num_chunks + 1) * num_windows // num_chunks, tf.int32)

        def one_chunk(index):
            return self._chunk(epoch * num_chunks + index, logits, ends[index + 1] - ends[index])

        windows = tf.data.Dataset.range(num_chunks).flat_map(one_chunk)
        return windows.apply(tf.data.experimental.assert_cardinality(num_windows))

    def in_record_order(self, number, counts=None):
        """One window of each clip, or as many as `counts` [clips] has for it, in the order of the records."""
        raise NotImplementedError

    def waveforms(self, rows, windows):
        """A batch of windows as int16 [B, N]."""
        raise NotImplementedError

    def _chunk(self, number, logits, num_windows):
        rows = tf.random.stateless_categorical(logits, num_windows, seed=[self.seed, number])[0]  # [num_windows]
        counts = tf.math.bincount(tf.cast(rows, tf.int32), minlength=self.num_clips)  # [clips]
        return self._shuffled(self.in_record_order(number, counts), number)

    def _shuffled_shards(self, number):
        """The positions of the shards in `paths`, in a new order: [shards]."""
        order = tf.random.experimental.stateless_shuffle(tf.range(len(self.paths)), [self.seed, number])
        if self.remote is None:
            return order
        return tf.ensure_shape(tf.numpy_function(self._expect, [order], tf.int32, stateful=False), order.shape)

    def _expect(self, order):
        """Tells the cache in which order shards at a URL will be read."""
        self.remote.expect([Path(self.paths[place]).name for place in order], "training")
        return order

    def _place(self, name, num_samples, number, *draw):
        """The first sample of a window, or the zeros before a clip that is shorter; or those of several names."""
        spare = num_samples - self.window_samples  # negative for a short clip
        if self.hop is not None:
            place = tf.minimum(self._window_number(name, num_samples, number, *draw) * self.hop, spare)
        else:
            place = self._hash(name, number, *draw) % (tf.abs(spare) + 1)
        return place if self.pad == "random_zeros" else tf.where(spare >= 0, place, zeros_before(-spare))

    def _window_number(self, name, num_samples, number, *draw):
        """Which of the sliding windows of a clip it is, or of several clips: the draw itself, or a random one."""
        if self.every:
            return tf.cast(draw[0], tf.int64)
        return self._hash(name, number, *draw) % num_sliding_windows(num_samples, self.window_samples, self.hop)

    def _hash(self, name, number, *draw):
        numbers = [tf.strings.as_string(number) for number in (number, *draw)]
        return tf.strings.to_hash_bucket_fast(tf.strings.join([str(self.seed), *numbers, name], "/"), 1 << 52)

    def _shuffled(self, windows, number):
        tf.random.set_seed(self.seed + 1)  # of this graph only: the seed of the program must not change the order
        return windows.shuffle(SHUFFLE_BUFFER, seed=self.seed + number, reshuffle_each_iteration=False)


class _SequentialWindows(_Windows):
    """Reads every shard from its start; a window is its bytes or its samples."""

    def __init__(self, manifest, clips, **options):
        super().__init__(manifest, clips, **options)
        self.find_row = _rows_by_name(clips)
        self.has_others = _has_others(manifest, clips)
        if manifest.options["codec"] == "pcm":
            short = bool((clips["num_samples"] < self.window_samples).any())
            self.kind, self.cut = tf.string, _cut_pcm(self.window_samples, short and self.pad)
        else:
            self.kind, self.cut = tf.int16, _cut_coded(self.window_samples, self.pad)

    def in_record_order(self, number, counts=None):
        paths = tf.gather(tf.constant(self.paths), self._shuffled_shards(number))
        records = _read(tf.data.Dataset.from_tensor_slices(paths), self.remote)
        if counts is None:
            windows = records.map(lambda record: self._one_window(record, number), num_parallel_calls=tf.data.AUTOTUNE)
            if self.has_others:
                windows = windows.filter(lambda row, _: row >= 0)
            return windows.apply(tf.data.experimental.assert_cardinality(self.num_clips))
        several = records.map(
            lambda record: self._several_windows(record, number, counts), num_parallel_calls=tf.data.AUTOTUNE
        )
        return several.unbatch()

    def waveforms(self, rows, windows):
        if windows.dtype == tf.string:
            return tf.io.decode_raw(windows, tf.int16, fixed_length=2 * self.window_samples)
        return windows

    def _one_window(self, serialized, number):
        record = schema.decode(serialized)
        return self.find_row(record["name"]), self._window(record, number)

    def _several_windows(self, serialized, number, counts):
        record = schema.decode(serialized)
        row = self.find_row(record["name"])
        count = tf.where(row >= 0, counts[tf.maximum(row, 0)], 0)
        windows = tf.map_fn(
            lambda draw: self._window(record, number, draw), tf.range(count), fn_output_signature=self.kind
        )
        return tf.fill([count], row), windows

    def _window(self, record, number, *draw):
        place = self._place(record["name"], record["num_samples"], number, *draw)
        is_short = record["num_samples"] < self.window_samples
        return self.cut(record, tf.where(is_short, tf.zeros_like(place), place), place)


class _WindowsByRow(_Windows):
    """Needs no shard for the order; until the windows are shuffled, a window is its first sample."""

    def __init__(self, manifest, clips, **options):
        super().__init__(manifest, clips, **options)
        row_of = {name: row for row, name in enumerate(clips["name"])}
        paths = set(self.paths)
        self.held = [shard for shard in manifest.shards if str(manifest.directory / shard.file) in paths]
        rows = np.array([row_of.get(name, -1) for shard in self.held for name in shard.clips])  # [records]
        ends = np.cumsum([len(shard.clips) for shard in self.held])  # [shards]
        self.rows, self.ends = tf.constant(rows), tf.constant([0, *ends], tf.int64)
        self.names = tf.constant(clips["name"].tolist())  # [clips]
        self.num_samples = clips["num_samples"].to_numpy("int64")

    def in_record_order(self, number, counts=None):
        num_samples = tf.constant(self.num_samples)

        def windows(records):
            rows = tf.gather(self.rows, records)  # [records]
            rows, draws = tf.boolean_mask(rows, rows >= 0), []  # [clips]
            if counts is not None:
                times = tf.gather(counts, rows)
                rows, draws = tf.repeat(rows, times), [tf.ragged.range(times).flat_values]  # [windows]
            names, lengths = tf.gather(self.names, rows), tf.gather(num_samples, rows)
            return tf.data.Dataset.from_tensor_slices((rows, self._place(names, lengths, number, *draws)))

        records = tf.data.Dataset.from_tensor_slices(self._shuffled_shards(number)).interleave(
            lambda shard: tf.data.Dataset.range(self.ends[shard], self.ends[shard + 1]), cycle_length=SHARDS_AT_ONCE
        )
        return records.batch(len(self.rows)).flat_map(windows)


class _FeaturesOfWindows(_WindowsByRow):
    """Features of windows in place of waveforms; a window is its number."""

    def __init__(self, manifest, clips, features, **options):
        super().__init__(manifest, clips, **options)
        self.remote = None  # no shard is read
        with tf.device("CPU"):
            self.values, self.first = tf.constant(features.values), tf.constant(features.first)

    def waveforms(self, rows, windows):
        return tf.gather(self.values, tf.gather(self.first, rows) + windows)

    def _place(self, name, num_samples, number, *draw):
        return self._window_number(name, num_samples, number, *draw)


class _WindowsByOffset(_WindowsByRow):
    """Reads only windows, several at a time: after they are shuffled, as a window takes much memory.

    Windows of shards at a URL are read before: after it, a few of each shard would be left for long, and the cache
    would have to keep or fetch the shard for them.
    """

    def __init__(self, manifest, clips, offsets, **options):
        super().__init__(manifest, clips, **options)
        self.places = _clip_places(manifest, clips, offsets)
        self.num_samples = self.places.num_samples

    def in_record_order(self, number, counts=None):
        windows = super().in_record_order(number, counts)
        if self.remote is None:
            return windows
        read = lambda rows, starts: (rows, tf.ensure_shape(self._read_all(rows, starts), [None, self.window_samples]))
        return windows.batch(READ_AT_ONCE).map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).unbatch()

    def waveforms(self, rows, windows):
        return windows if self.remote is not None else self._read_all(rows, windows)

    def _read_all(self, rows, starts):
        return tf.numpy_function(self._read, [rows, starts], tf.int16, stateful=False)

    def _read(self, rows, places):
        waveforms = _aligned((len(rows), self.window_samples))
        for waveform, row, place in zip(waveforms, rows.tolist(), places.tolist()):
            samples = min(int(self.num_samples[row]), self.window_samples)
            missing = self.window_samples - samples
            start, before = (0, place if self.pad != "repeat" else 0) if missing else (place, 0)
            shard, clip = self.places.shards[row], int(self.places.numbers[row])
            shard.read(clip, start, waveform[before : before + samples])
            if self.pad != "repeat":
                waveform[:before] = waveform[before + samples :] = 0
            elif missing:
                waveform[:] = np.resize(waveform[:samples], self.window_samples)
        return waveforms.astype("int16", copy=False)  # on a big-endian machine a copy


def _aligned(shape):
    """An array of little-endian int16 that TensorFlow uses without a copy, as it starts at a multiple of 64 bytes."""
    number = 2 * int(np.prod(shape))
    space = np.empty(number + 63, "uint8")
    start = -space.ctypes.data % 64
    return space[start : start + number].view("<i2").reshape(shape)


@as_written
def evaluation_batches(
    manifest: Manifest,
    clips: pd.DataFrame,
    *,
    window_samples: int,
    batch_size: int,
    offsets: Shards | None = None,
    repeated: bool = False,
) -> tf.data.Dataset:
    """Batches of complete clips, each exactly once, grouped by length.

    Args:
        manifest: The records, as `read_manifest` returns them.
        clips: The rows of a table of clips to evaluate.
        window_samples: Samples per window.
        batch_size: A batch has at most as many samples as this many windows, or one clip.
        offsets: As for `training_batches`. Other clips share a batch then, but each has the same samples.
        repeated: The batches are read several times; without `offsets` up to 256 MB of audio then stay in memory.

    Returns:
        A `tf.data.Dataset` of (waveform int16 [B, N], row int64 [B]): `row` is the position in `clips`, from 0.
        Shorter clips of a batch end with zeros.

    Raises:
        DataError: Clips are not in the records.
    """
    paths = _paths(manifest, clips)
    # Few different lengths, so that a compiled model sees few shapes; the longer the clips, the fewer in a batch.
    steps = np.arange(1 + int(np.ceil(2 * np.log2(max(clips["num_samples"].max() / window_samples, 1)))))
    lengths = np.ceil(window_samples * 2 ** (steps / 2)).astype("int64")
    batch_sizes = np.maximum(1, batch_size * window_samples // lengths)
    if offsets is not None:
        return _batches_by_offset(manifest, _clip_places(manifest, clips, offsets), lengths, batch_sizes)
    find_row = _rows_by_name(clips)

    def record_and_row(serialized):
        record = schema.decode(serialized)
        return record, find_row(record["name"])

    num_clips = np.bincount(np.searchsorted(lengths, clips["num_samples"]), minlength=len(lengths))
    batches = (
        _read(tf.data.Dataset.from_tensor_slices(paths), manifest.remote)
        .map(record_and_row, num_parallel_calls=tf.data.AUTOTUNE)
        .filter(lambda _, row: row >= 0)
        .map(
            lambda record, row: (_decode_clip(record, manifest.options["codec"]), row),  # [N], []
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .apply(tf.data.experimental.assert_cardinality(len(clips)))
        .bucket_by_sequence_length(
            lambda pcm, _: tf.shape(pcm)[0],
            bucket_boundaries=(lengths + 1).tolist(),
            bucket_batch_sizes=[*batch_sizes.tolist(), 1],
            pad_to_bucket_boundary=True,
        )
    )
    if repeated and 2 * clips["num_samples"].sum() <= CACHED_BYTES:
        batches = batches.cache()
    return batches.apply(tf.data.experimental.assert_cardinality(int(np.sum(-(-num_clips // batch_sizes))))).prefetch(
        tf.data.AUTOTUNE
    )


def _batches_by_offset(manifest, places, lengths, batch_sizes):
    """The batches of `evaluation_batches`, each read in one call."""
    order = np.argsort(places.rank)  # as in the records
    of_length = np.searchsorted(lengths, places.num_samples[order])  # [clips]
    batches = [
        (rows[start : start + batch_size], length)
        for rows, length, batch_size in zip(
            (order[of_length == number] for number in range(len(lengths))), lengths.tolist(), batch_sizes.tolist()
        )
        for start in range(0, len(rows), batch_size)
    ]
    batches.sort(key=lambda batch: places.rank[batch[0][-1]])  # shards once, as far as possible, not for each length
    if manifest.remote is not None:
        shard_of = [shard.file for shard in manifest.shards for _ in shard.clips]
        shards = list(dict.fromkeys(shard_of[rank] for rank in sorted(places.rank)))

    def read(number):
        if manifest.remote is not None and number == 0:
            manifest.remote.expect(shards, "evaluation")
        rows, length = batches[int(number)]
        waveforms = _aligned((len(rows), length))
        for waveform, row in zip(waveforms, rows.tolist()):
            num_samples = int(places.num_samples[row])
            places.shards[row].read(int(places.numbers[row]), 0, waveform[:num_samples])
            waveform[num_samples:] = 0
        return waveforms.astype("int16", copy=False), rows

    def batch(number):
        waveforms, rows = tf.numpy_function(read, [number], (tf.int16, tf.int64), stateful=False)
        return tf.ensure_shape(waveforms, [None, None]), tf.ensure_shape(rows, [None])

    return (
        tf.data.Dataset.range(len(batches)).map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    )


@as_written
def feature_batches(features: WindowFeatures, *, batch_size: int) -> tf.data.Dataset:
    """Batches of all windows of clips, from their features.

    Args:
        features: Those of the windows of each clip.
        batch_size: Clips per batch; the last may have fewer.

    Returns:
        A `tf.data.Dataset` of ({"features": [B, W, ..., D], "mask": bool [B, W]}, row int64 [B]): `row` is the position
        of the clip, from 0; clips of as many windows share a batch, and `mask` is False beyond the last of a clip.
    """
    with tf.device("CPU"):
        values, first, counts = map(tf.constant, (features.values, features.first, features.counts))

    def gather(rows):
        number = tf.range(tf.reduce_max(tf.gather(counts, rows)))  # [W]
        mask = number < tf.gather(counts, rows)[:, None]  # [B, W]
        places = tf.where(mask, tf.gather(first, rows)[:, None] + number, 0)
        return {"features": tf.gather(values, places), "mask": mask}, rows

    order = np.argsort(features.counts, kind="stable")
    return tf.data.Dataset.from_tensor_slices(order).batch(batch_size).map(gather).prefetch(tf.data.AUTOTUNE)


# Reading


@contextlib.contextmanager
def explain_damage(manifest: Manifest) -> Iterator[None]:
    """Turns TensorFlow's errors about records into one that names the damaged shard.

    For records at a URL it says why a shard cannot be fetched.

    Raises:
        DataError: A shard differs from what make-records wrote.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        refuse_replaced(manifest)
        if manifest.remote is not None and manifest.remote.failure is not None:
            raise manifest.remote.failure from error
        damage = [] if manifest.remote is not None else list(damaged_shards(manifest))
        if not damage:
            raise
        raise damage_error(damage) from error


def _paths(manifest, clips):
    """The shards that contain the clips; DataError if some clips are in none."""
    present = {name for shard in manifest.shards for name in shard.clips}
    absent = [name for name in clips["name"] if name not in present]
    if absent:
        raise DataError(f"{manifest.place}: {len(absent)} clips are not in these records, such as {absent[0]}.")
    return manifest.paths_holding(clips["name"])


def _has_others(manifest, clips):
    """Whether the shards contain other clips, which have to be filtered out."""
    names = set(clips["name"])
    return any(0 < len(names.intersection(shard.clips)) < len(shard.clips) for shard in manifest.shards)


@dataclass(frozen=True)
class _ClipPlaces:
    """Where clips are: for each its shard, its number there, its samples, its rank in the records."""

    shards: list[PcmShard | RemoteShard]
    numbers: np.ndarray
    num_samples: np.ndarray
    rank: np.ndarray


def _clip_places(manifest, clips, offsets):
    """The `_ClipPlaces` of clips that are all in the records."""
    held = [shard for shard in manifest.shards if shard.file in offsets]
    shards = [offsets[shard.file] for shard in held for _ in shard.clips]
    rank_of = {name: rank for rank, name in enumerate(name for shard in held for name in shard.clips)}
    rank = np.array([rank_of[name] for name in clips["name"]], "int64")
    numbers = np.concatenate([np.arange(len(shard.clips)) for shard in held])
    num_samples = np.concatenate([offsets[shard.file].num_samples for shard in held])
    return _ClipPlaces([shards[number] for number in rank], numbers[rank], num_samples[rank], rank)


def _rows_by_name(clips):
    """A graph function: name of a clip → its row in the table, -1 if absent."""

    def fingerprint(name):
        return tf.strings.to_hash_bucket_fast(name, 1 << 62)

    # Not a lookup table: with deterministic ops, several threads cannot use one.
    fingerprints = fingerprint(tf.constant(clips["name"].tolist())).numpy()  # [clips]
    order = np.argsort(fingerprints)
    fingerprints, order = tf.constant(fingerprints[order]), tf.constant(order)

    def find_row(name):
        wanted = fingerprint(name)
        index = tf.minimum(tf.searchsorted(fingerprints, [wanted])[0], len(clips) - 1)
        return tf.where(fingerprints[index] == wanted, order[index], -1)

    return find_row


def _read(paths, remote):
    """Serialized records of several shards at once, in the same order on any machine."""

    def read(path):
        try:
            return np.array(remote.read_records(Path(path.decode()).name), object)
        except AudiotagError as error:
            raise ValueError(str(error)) from error

    def records(path):
        if remote is None:
            return tf.data.TFRecordDataset(path, buffer_size=1 << 20)
        serialized = tf.numpy_function(read, [path], tf.string, stateful=False)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(serialized, [None]))

    return paths.interleave(
        records,
        cycle_length=SHARDS_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


# Decoding: the _cut functions return a function of (record, start, zeros before a short clip) → one window


def _cut_pcm(window_samples, pad):
    """Windows as bytes, so that PCM is copied once and decoded one batch at a time."""

    def cut(record, start, zeros):
        samples = tf.minimum(record["num_samples"], window_samples)
        window = tf.strings.substr(record["audio"], 2 * start, 2 * samples)
        if pad == "repeat":
            # decode_raw cuts what is too much
            return tf.strings.reduce_join(tf.tile([window], [num_repeats(window_samples, samples)]))
        if pad:  # decode_raw adds the zeros after it
            silence = tf.constant(bytes(2 * window_samples))
            before = tf.strings.substr(silence, tf.zeros_like(zeros), 2 * tf.maximum(zeros, 0))
            return tf.cond(samples < window_samples, lambda: before + window, lambda: window)
        return window

    return cut


def _cut_coded(window_samples, pad):
    """Windows of compressed records as int16 [N]."""

    def cut(record, start, zeros):
        pcm = _decode_coded(record, start, tf.minimum(record["num_samples"], window_samples))
        samples = tf.size(pcm)
        if pad == "repeat":
            pcm = tf.tile(pcm, [num_repeats(window_samples, tf.maximum(samples, 1))])[:window_samples]
        else:
            missing = tf.cast(window_samples - samples, tf.int64)
            before = tf.clip_by_value(zeros, 0, missing)
            pcm = tf.pad(pcm, [[before, missing - before]])
        return tf.ensure_shape(pcm, [window_samples])

    return cut


def _decode_clip(record, codec):
    """The complete clip, int16 [N]."""
    if codec == "pcm":
        return tf.io.decode_raw(record["audio"], tf.int16)
    return _decode_coded(record, tf.constant(0, tf.int64), record["num_samples"])


def _decode_coded(record, start, samples):
    """Samples from `start` of a record in any codec: int16 [at most `samples`].

    tensorflow-io and soundfile both remove the silence that an MP3 encoder adds at the start if the header gives its
    length, and keep it otherwise, so they agree in position and length.
    """
    tfio = tensorflow_io()
    if tfio is None:
        pcm = tf.numpy_function(_decode_with_soundfile, [record["audio"], start, samples], tf.int16, stateful=False)
        return tf.ensure_shape(pcm, [None])
    decoders = {
        "flac": lambda: tfio.audio.decode_flac(record["audio"], dtype=tf.int16)[:, 0],
        "ogg": lambda: _mono_pcm(tfio.audio.decode_vorbis(record["audio"])),
        "mp3": lambda: _mono_pcm(tfio.audio.decode_mp3(record["audio"])),
        "pcm": lambda: tf.io.decode_raw(record["audio"], tf.int16),
    }
    codec = tf.argmax(tf.equal(list(decoders), record["codec"]), output_type=tf.int32)
    return tf.switch_case(codec, list(decoders.values()))[start : start + tf.cast(samples, tf.int64)]


@functools.cache
def tensorflow_io() -> Any:
    """The module tensorflow_io if it is installed and decodes, else None.

    It decodes compressed records in the graph; audiotag-trainer[io] installs it. Beside a TensorFlow that it was not
    built for, it can be imported but its operations fail, so it decodes a short FLAC first.
    """
    flac = io.BytesIO()
    sf.write(flac, np.zeros(16, "int16"), 16_000, format="FLAC")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of libraries that cannot be loaded
        try:
            import tensorflow_io as tfio
        except ImportError:
            return None
        try:
            with tf.init_scope():
                tfio.audio.decode_flac(flac.getvalue(), dtype=tf.int16)
            return tfio
        except (NotImplementedError, AttributeError, RuntimeError):
            pass
    warnings.warn(
        f"tensorflow-io {tfio.__version__} cannot decode with TensorFlow {tf.__version__}, so compressed records are "
        "decoded by soundfile, more slowly. To decode them in the graph: pip install 'audiotag-trainer[io]'",
        stacklevel=2,
    )
    return None


def _mono_pcm(channels):
    """float32 [N, channels] in -1 to 1 → int16 [N], rounded as make-records does."""
    waveform = tf.reduce_mean(channels, axis=1)  # [N]
    scaled = tf.round(waveform * decoding.FULL_SCALE)
    return tf.cast(tf.clip_by_value(scaled, -decoding.FULL_SCALE, decoding.FULL_SCALE - 1), tf.int16)


def _decode_with_soundfile(coded, start, samples):
    """Like tensorflow-io's decoders, but in Python: one clip at a time."""
    with sf.SoundFile(io.BytesIO(coded)) as file:
        if file.format == "FLAC":
            file.seek(int(start))
            return file.read(int(samples), dtype="int16", always_2d=True)[:, 0]
        # From the start: after a seek, libsndfile 1.2 decodes some positions of a Vorbis file wrongly.
        return decoding.to_pcm(file.read(int(start + samples), dtype="float32", always_2d=True)[start:].mean(axis=1))


# Time that the device waits for batches


class Stopwatch:
    """Sums the seconds between the request for a batch and its arrival.

    Attributes:
        seconds: The sum so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.requested_at = None

    @as_written
    def timed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, timed by this stopwatch."""

        def tick(method):
            # Not tf.timestamp, which deterministic ops forbid; declared stateless, as they stop prefetching otherwise.
            return tf.data.Dataset.counter().map(lambda n: tf.numpy_function(method, [n], tf.bool, stateful=False))

        # zip reads its inputs one after another in the calling thread; these optimizations would let some run ahead.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_parallelization = False
        timed = tf.data.Dataset.zip(tick(self._start), batches, tick(self._stop))
        return timed.map(lambda started, batch, stopped: batch).with_options(options)

    def _start(self, _):
        self.requested_at = time.monotonic()
        return True

    def _stop(self, _):
        self.seconds += time.monotonic() - self.requested_at
        return True
