"""Records → batches, in tf.data: find the clip's row, draw a window, decode only that window.

Sound comes from the records; which clips there are, and what is heard in them,
comes from a table joined by name. Every draw is a function of the seed, the
epoch and the clip, so neither the order of reading, nor the number of threads,
nor a resumed run changes it.
"""

import contextlib
import io
import time

import numpy as np
import soundfile as sf
import tensorflow as tf

from audiotag.data.audio import decoding
from audiotag.data.records import schema
from audiotag.data.records.manifest import damage_error, damaged_shards, refuse_replaced
from audiotag.errors import DataError

try:
    import tensorflow_io as tfio  # decodes compressed records inside the graph: audiotag[io]
except ImportError:
    tfio = None

SHARDS_AT_ONCE = 4
SHUFFLED_WINDOWS = 512  # held in memory; names are hashed into shards, so neighbours are strangers already


def training_batches(
    manifest, clips, truth, *, window_samples, short_clips, batch_size, seed, epochs, shares=None, steps=None
):
    """Batches of random windows, in a new order every epoch.

    In every epoch each clip gives one window; or, with `shares`, clips are drawn
    with replacement, and one that is drawn twice gives two different windows.

    Args:
        manifest: What `read_manifest` answers.
        clips: The rows to train on of a table of clips.
        truth: [len(clips), K]: what is heard in each of them.
        window_samples: Samples in a window.
        short_clips: What fills a window when the clip is shorter: "repeat" the clip, or "zeros" on
            both sides.
        batch_size: Windows in a batch; what does not fill the last batch of an epoch is left out.
        seed: Decides, with the epoch and the clip's name, every draw.
        epochs: The range of epochs to go through.
        shares: [len(clips)], how often each clip is drawn, in any unit; None hears each once an epoch.
        steps: Batches in an epoch of draws.

    Returns:
        A `tf.data.Dataset` of (waveform float32 [B, N], truth float32 [B, K]), with
        len(clips) // batch_size batches an epoch, or `steps`.

    Raises:
        DataError: Fewer clips than a batch holds, or clips that are not in the records.
    """
    if shares is None and len(clips) < batch_size:
        raise DataError(
            f"{len(clips)} clips do not fill a batch of {batch_size}. Give more clips or a smaller batch_size."
        )
    truth = tf.constant(truth, tf.float32)  # [clips, K]
    windows = _Windows(manifest, clips, window_samples=window_samples, short_clips=short_clips, seed=seed)
    log_shares = None if shares is None else tf.math.log(tf.constant(shares, tf.float64))[None]  # [1, clips]

    def batches_of(epoch):
        heard = windows.once(epoch) if shares is None else windows.drawn(epoch, log_shares, steps * batch_size)
        return heard.batch(batch_size, drop_remainder=True)

    def finish(window, row):
        pcm = (
            tf.io.decode_raw(window, tf.int16, fixed_length=2 * window_samples) if window.dtype == tf.string else window
        )
        waveform = tf.cast(pcm, tf.float32) / decoding.FULL_SCALE  # [B, N]
        return tf.ensure_shape(waveform, [batch_size, window_samples]), tf.gather(truth, row)

    return (
        tf.data.Dataset.range(epochs.start, epochs.stop)
        .flat_map(batches_of)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        .apply(tf.data.experimental.assert_cardinality(len(epochs) * (steps or len(clips) // batch_size)))
        .prefetch(tf.data.AUTOTUNE)
    )


class _Windows:
    """Random windows of clips in records, in a random order: datasets of (window, row of the clip).

    Where a window lies follows from the seed, the epoch, the clip, and the number of the draw if any.
    """

    def __init__(self, manifest, clips, *, window_samples, short_clips, seed):
        self.paths = tf.constant(_paths(manifest, clips))
        self.find_row = _rows_by_name(clips)
        self.beside_others = _beside_others(manifest, clips)
        self.num_clips, self.window_samples, self.seed = len(clips), window_samples, seed
        if manifest.options["codec"] == "pcm":
            short = bool((clips["num_samples"] < window_samples).any())
            self.kind, self.cut = tf.string, _cut_pcm(window_samples, short and short_clips)
        else:
            self.kind, self.cut = tf.int16, _cut_coded(window_samples, short_clips)

    def once(self, epoch):
        """One window of each clip."""

        def heard(serialised):
            record = schema.decode(serialised)
            return self._window(record, epoch), self.find_row(record["name"])

        windows = self._records(epoch).map(heard, num_parallel_calls=tf.data.AUTOTUNE)
        if self.beside_others:
            windows = windows.filter(lambda _, row: row >= 0)
        return self._shuffled(windows.apply(tf.data.experimental.assert_cardinality(self.num_clips)), epoch)

    def drawn(self, epoch, log_shares, size):
        """`size` windows of clips that are drawn by their shares [1, clips], with replacement."""
        # In rounds of no more windows than there are clips, or a batch would be full of a few clips' windows.
        rounds = -(-size // self.num_clips)
        ends = tf.constant(np.arange(rounds + 1) * size // rounds, tf.int32)

        def one_round(number):
            return self._round(epoch * rounds + number, log_shares, ends[number + 1] - ends[number])

        windows = tf.data.Dataset.range(rounds).flat_map(one_round)
        return windows.apply(tf.data.experimental.assert_cardinality(size))

    def _round(self, number, log_shares, size):
        chosen = tf.random.stateless_categorical(log_shares, size, seed=[self.seed, number])[0]  # [size]
        counts = tf.math.bincount(tf.cast(chosen, tf.int32), minlength=self.num_clips)  # [clips]

        def heard(serialised):
            record = schema.decode(serialised)
            row = self.find_row(record["name"])
            count = tf.where(row >= 0, counts[tf.maximum(row, 0)], 0)
            windows = tf.map_fn(
                lambda draw: self._window(record, number, draw), tf.range(count), fn_output_signature=self.kind
            )
            return windows, tf.fill([count], row)

        windows = self._records(number).map(heard, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
        return self._shuffled(windows, number)

    def _records(self, epoch):
        shards = tf.random.experimental.stateless_shuffle(self.paths, [self.seed, epoch])
        return _read(tf.data.Dataset.from_tensor_slices(shards))

    def _window(self, record, epoch, *draw):
        numbers = [tf.strings.as_string(number) for number in (epoch, *draw)]
        dice = tf.strings.join([str(self.seed), *numbers, record["name"]], "/")
        starts = tf.maximum(record["num_samples"] - self.window_samples, 0) + 1  # places where a window may start
        return self.cut(record, tf.strings.to_hash_bucket_fast(dice, 1 << 52) % starts)

    def _shuffled(self, windows, number):
        tf.random.set_seed(self.seed + 1)  # of this graph alone: the order shall not depend on that of the program
        return windows.shuffle(SHUFFLED_WINDOWS, seed=self.seed + number, reshuffle_each_iteration=False)


def evaluation_batches(manifest, clips, *, window_samples, batch_size):
    """Batches of whole clips; every clip exactly once, beside clips of about its own length.

    Args:
        manifest: What `read_manifest` answers.
        clips: The rows to listen to of a table of clips.
        window_samples: Samples in a window.
        batch_size: How many windows' worth of sound a batch may hold.

    Returns:
        A `tf.data.Dataset` of (waveform float32 [B, N], row int64 [B]): `row` counts the rows of
        `clips`, and zeros after the end fill the shorter clips of a batch.
    """
    find_row = _rows_by_name(clips)

    def whole(serialised):
        record = schema.decode(serialised)
        return _decode_whole(record, manifest.options["codec"]), find_row(record["name"])  # [N], []

    # Few different lengths, so that a compiled model meets few shapes; and the longer the clips, the fewer in a batch.
    steps = np.arange(1 + int(np.ceil(2 * np.log2(max(clips["num_samples"].max() / window_samples, 1)))))
    lengths = np.ceil(window_samples * 2 ** (steps / 2)).astype("int64")
    batch_sizes = np.maximum(1, batch_size * window_samples // lengths)
    num_clips = np.bincount(np.searchsorted(lengths, clips["num_samples"]), minlength=len(lengths))
    return (
        _read(tf.data.Dataset.from_tensor_slices(_paths(manifest, clips)))
        .map(whole, num_parallel_calls=tf.data.AUTOTUNE)
        .filter(lambda _, row: row >= 0)
        .apply(tf.data.experimental.assert_cardinality(len(clips)))
        .bucket_by_sequence_length(
            lambda pcm, _: tf.shape(pcm)[0],
            bucket_boundaries=(lengths + 1).tolist(),
            bucket_batch_sizes=[*batch_sizes.tolist(), 1],
            pad_to_bucket_boundary=True,
        )
        .map(lambda pcm, row: (tf.cast(pcm, tf.float32) / decoding.FULL_SCALE, row))
        .apply(tf.data.experimental.assert_cardinality(int(np.sum(-(-num_clips // batch_sizes)))))
        .prefetch(tf.data.AUTOTUNE)
    )


# Reading


@contextlib.contextmanager
def damage_named(manifest):
    """Turns TensorFlow's complaint about a record into an error that names the shard.

    Raises:
        DataError: A shard is not what make-records wrote, or the records were replaced meanwhile.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        refuse_replaced(manifest)
        damage = list(damaged_shards(manifest))
        if not damage:
            raise
        raise damage_error(damage) from error


def _paths(manifest, clips):
    """The shards that hold the clips, or DataError where some lie in none."""
    held = {name for shard in manifest.shards for name in shard.clips}
    absent = [name for name in clips["name"] if name not in held]
    if absent:
        raise DataError(f"{manifest.directory}: {len(absent)} clips are not in these records, such as {absent[0]}.")
    return manifest.paths_holding(clips["name"])


def _beside_others(manifest, clips):
    """Whether the clips' shards hold other clips too; where not, nothing need be asked of every record."""
    names = set(clips["name"])
    return any(0 < len(names.intersection(shard.clips)) < len(shard.clips) for shard in manifest.shards)


def _rows_by_name(clips):
    """A function in the graph: a clip's name → its row in the table, -1 where it has none."""

    def fingerprint(name):
        return tf.strings.to_hash_bucket_fast(name, 1 << 62)

    # Not a lookup table: a deterministic run would not let several threads use one.
    known = fingerprint(tf.constant(clips["name"].tolist())).numpy()  # [clips]
    order = np.argsort(known)
    known, order = tf.constant(known[order]), tf.constant(order)

    def find_row(name):
        wanted = fingerprint(name)
        place = tf.minimum(tf.searchsorted(known, [wanted])[0], len(clips) - 1)
        return tf.where(known[place] == wanted, order[place], -1)

    return find_row


def _read(paths):
    """Serialised records of several shards at once, in an order that does not depend on the machine."""
    return paths.interleave(
        lambda path: tf.data.TFRecordDataset(path, buffer_size=1 << 20),
        cycle_length=SHARDS_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


# Decoding: each returns a function of (record, start) → one window


def _cut_pcm(window_samples, short_clips):
    """Windows as bytes, so that PCM is copied once and decoded a batch at a time."""

    def cut(record, start):
        samples = tf.minimum(record["num_samples"], window_samples)
        window = tf.strings.substr(record["audio"], 2 * start, 2 * samples)
        missing = window_samples - samples
        if short_clips == "repeat":
            repeats = (window_samples - 1) // samples + 1
            return tf.strings.reduce_join(tf.tile([window], [repeats]))  # decode_raw drops what is too much
        if short_clips == "zeros":
            silence = tf.constant(bytes(2 * window_samples))
            before = tf.strings.substr(silence, tf.zeros_like(missing), 2 * (missing // 2))
            return tf.cond(missing > 0, lambda: before + window, lambda: window)  # decode_raw adds what follows
        return window

    return cut


def _cut_coded(window_samples, short_clips):
    """Windows of compressed records as int16 [N]."""

    def cut(record, start):
        pcm = _decode_coded(record, start, tf.minimum(record["num_samples"], window_samples))
        samples = tf.size(pcm)
        missing = window_samples - samples
        if short_clips == "repeat":
            pcm = tf.tile(pcm, [(window_samples - 1) // tf.maximum(samples, 1) + 1])[:window_samples]
        else:
            pcm = tf.pad(pcm, [[missing // 2, missing - missing // 2]])
        return tf.ensure_shape(pcm, [window_samples])

    return cut


def _decode_whole(record, codec):
    """int16 [N] of the whole clip."""
    if codec == "pcm":
        return tf.io.decode_raw(record["audio"], tf.int16)
    return _decode_coded(record, tf.constant(0, tf.int64), record["num_samples"])


def _decode_coded(record, start, samples):
    """int16 [at most `samples`] from `start` on, of a record in any codec.

    Both ways take the silence that an encoder put before an MP3 away where its header tells how much
    that is, and leave it where it does not, so they agree in place and length.
    """
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


def _mono_pcm(channels):
    """float32 [N, channels] in -1 to 1 → int16 [N], rounded as make-records rounds."""
    waveform = tf.reduce_mean(channels, axis=1)  # [N]
    scaled = tf.round(waveform * decoding.FULL_SCALE)
    return tf.cast(tf.clip_by_value(scaled, -decoding.FULL_SCALE, decoding.FULL_SCALE - 1), tf.int16)


def _decode_with_soundfile(coded, start, samples):
    """The same as tensorflow-io's decoders, in Python: only the samples asked for, but one clip at a time."""
    with sf.SoundFile(io.BytesIO(coded)) as file:
        if file.format == "FLAC":
            file.seek(int(start))
            return file.read(int(samples), dtype="int16", always_2d=True)[:, 0]
        # From the beginning: after a seek, libsndfile 1.2 plays some places of a Vorbis file wrongly.
        return decoding.to_pcm(file.read(int(start + samples), dtype="float32", always_2d=True)[start:].mean(axis=1))


# How long the device waits for all this


class Stopwatch:
    """Adds up the seconds between asking for a batch and getting it."""

    def __init__(self):
        self.seconds = 0.0
        self.asked_at = None

    def timed(self, batches):
        """The same batches, under this stopwatch."""

        def tick(method):
            # Not tf.timestamp, which deterministic runs forbid; and "stateless", or they would stop all prefetching.
            return tf.data.Dataset.counter().map(lambda n: tf.numpy_function(method, [n], tf.bool, stateful=False))

        # zip asks its sources one after another, in the thread that asks for the batch, unless another runs ahead.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_parallelization = False
        ticks = tf.data.Dataset.zip(tick(self._ask), batches, tick(self._get))
        return ticks.map(lambda asked, batch, got: batch).with_options(options)

    def _ask(self, _):
        self.asked_at = time.monotonic()
        return True

    def _get(self, _):
        self.seconds += time.monotonic() - self.asked_at
        return True
