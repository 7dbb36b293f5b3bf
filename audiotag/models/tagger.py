"""From a waveform of any length to what is heard in it: the whole chain in one model."""

import contextlib

import keras
from keras import ops

from audiotag.errors import ConfigError
from audiotag.experiment import options
from audiotag.layers import AUGMENTS, FRONTENDS, PICTURES, ToPicture
from audiotag.models import MODELS


class Tagger(keras.Model):
    """Hears a whole clip through windows, and answers once.

    While training the clip is one window already, drawn by the pipeline. Otherwise
    windows are laid over the clip, each is heard on its own, and their answers are
    pooled. Clips of different lengths may share a batch: zeros at the end of a clip
    are taken for filling and never heard, so neither they nor the other clips change
    its answer.

    Args:
        listener: Model from a window [B, n] to logits [B, K].
        window_samples: n, the samples in a window.
        short_clips: What fills a window when the clip is shorter: "repeat" the clip, or "zeros" on
            both sides.
        overlap: Share of a window that the next one hears again, 0 to below 1. The last window
            ends where the clip ends.
        pool: "mean" of the windows' probabilities, or their "max".

    Input shape: waveform [B, N], float32 in -1 to 1; N is n while training, any length otherwise.
    Output shape: logits [B, K], float32.
    """

    def __init__(self, listener, *, window_samples, short_clips="repeat", overlap=0.5, pool="mean", **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.listener = listener
        self.window_samples = window_samples
        self.short_clips = short_clips
        self.overlap = overlap
        self.pool = pool

    def call(self, waveform, training=False):
        if training:
            return self.listener(waveform, training=True)  # [B, K]
        windows, heard = self.windows(waveform)  # [B, W, n], [B, W]
        batch, num_windows, _ = ops.shape(windows)
        logits = self.listener(ops.reshape(windows, (-1, self.window_samples)), training=False)  # [B * W, K]
        logits = ops.reshape(logits, (batch, num_windows, logits.shape[-1]))  # [B, W, K]
        return pooled(ops.cast(logits, "float32"), heard[:, :, None], self.pool)  # [B, K]

    def windows(self, waveform):
        """Lays windows over the clips of a batch.

        Args:
            waveform: [B, N], with zeros after the end of the shorter clips.

        Returns:
            (windows [B, W, n], heard [B, W]): W is enough for a clip of N samples; `heard` tells the
            windows that a shorter clip has from those beyond its end.
        """
        size, n = ops.shape(waveform)[1], self.window_samples
        places = ops.arange(1, size + 1, dtype="int32")
        length = ops.max(ops.where(waveform != 0, places, 0), axis=1, keepdims=True)  # [B, 1]
        length = ops.where(length == 0, size, length)  # silence is heard whole
        hop = max(1, round(n * (1 - self.overlap)))
        num_windows = 1 + (ops.maximum(size - n, 0) + hop - 1) // hop
        number = ops.arange(num_windows, dtype="int32")[None]  # [1, W]
        beyond = ops.maximum(length - n, 0)  # [B, 1]
        heard = number * hop < beyond + hop  # [B, W]
        start = ops.minimum(number * hop, beyond)  # [B, W]
        place = start[:, :, None] + ops.arange(n, dtype="int32")  # [B, W, n]
        length = length[:, :, None]  # [B, 1, 1]
        if self.short_clips == "repeat":
            place = place % length
        else:
            place = place - ops.maximum(n - length, 0) // 2
        inside = (place >= 0) & (place < length)
        place = ops.reshape(ops.where(inside, place, 0), (ops.shape(waveform)[0], -1))  # [B, W * n]
        windows = ops.reshape(ops.take_along_axis(waveform, place, axis=1), ops.shape(inside))  # [B, W, n]
        return ops.where(inside, windows, 0.0), heard


def pooled(logits, heard, pool):
    """Logits of the mean, or the maximum, of the windows' probabilities, exact for any logits.

    The logit of the mean is log(sum of p) - log(sum of 1 - p), with both sums taken
    in logarithms, so that no probability rounds to 0 or 1 and makes a tie.

    Args:
        logits: [B, W, K].
        heard: [B, W, 1]: which windows count; at least one of each clip.
        pool: "mean" or "max".

    Returns:
        [B, K].
    """
    nothing = -1e30
    if pool == "max":
        return ops.max(ops.where(heard, logits, nothing), axis=1)
    present = ops.where(heard, ops.log_sigmoid(logits), nothing)
    absent = ops.where(heard, ops.log_sigmoid(-logits), nothing)
    return ops.logsumexp(present, axis=1) - ops.logsumexp(absent, axis=1)


def build_tagger(experiment, *, sample_rate, num_classes):
    """The network of an experiment, front end and disturbances included, with fresh weights.

    Args:
        experiment: An `Experiment`.
        sample_rate: Rate of the waveforms in Hz.
        num_classes: K.

    Returns:
        A built `Tagger`.

    Raises:
        ConfigError: A part refuses its settings, or does not fit what comes before it.
    """
    window_samples = round(experiment.window.seconds * sample_rate)
    if window_samples < 1:
        raise ConfigError(f"window.seconds: {experiment.window.seconds} s at {sample_rate} Hz hold no sample.")
    with _precision(experiment.precision):
        window = keras.Input((window_samples,), dtype="float32", name="waveform")  # [B, n]
        with _blamed_on(f"frontend {experiment.frontend.name}"):
            front_end = FRONTENDS[experiment.frontend.name](sample_rate=sample_rate, **options(experiment.frontend))
            picture = ToPicture()(front_end(window))  # [B, M, T, 1]
        for index, part in enumerate(experiment.picture):
            with _blamed_on(f"picture[{index}] {part.name}"):
                picture = PICTURES[part.name](**options(part))(picture)  # [B, M, T, C]
        for index, part in enumerate(experiment.augment):
            with _blamed_on(f"augment[{index}] {part.name}"):
                picture = AUGMENTS[part.name](**options(part), seed=experiment.seed + index)(picture)
        with _blamed_on(f"model {experiment.model.name}"):
            network = MODELS[experiment.model.name](picture.shape[1:], num_classes, **options(experiment.model))
        listener = keras.Model(window, network(picture), name="listener")
    tagger = Tagger(
        listener,
        window_samples=window_samples,
        short_clips=experiment.window.short_clips,
        overlap=experiment.predict.overlap,
        pool=experiment.predict.pool,
    )
    tagger.build((None, window_samples))
    return tagger


@contextlib.contextmanager
def _precision(policy):
    """Layers made inside compute in this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _blamed_on(where):
    """Turns a part's refusal into an error that names its place in the experiment."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{where}: {error}") from error
