"""From a waveform of any length to what is heard in it: the whole chain in one model."""

import keras
from keras import ops

from audiotag.layers.augmentation.flips import FLIPS, FlipLabels
from audiotag.models import windowing
from audiotag.models.label_groups import by_share, by_subset
from audiotag.models.windowing import pooled


class Tagger(keras.Model):
    """Hears a whole clip through windows, and answers once.

    While training the clip is one window already, drawn by the pipeline. Otherwise
    windows are laid over the clip, each is heard on its own, and their answers are
    pooled. Clips of different lengths may share a batch: zeros at the end of a clip
    are taken for filling and never heard, so neither they nor the other clips change
    its answer.

    Labels go through the ear beside their sound while training, so that whatever
    mixes or flips the sound mixes or renames them in the same throw; the loss then
    compares the network's answer with the labels that came out.

    Args:
        ear: Model from (window [B, n], labels [B, K]) to (picture, labels [B, K], or [B, 4 K] with flips as labels).
        network: Model from a picture to as many logits.
        num_classes: K.
        window_samples: n, the samples in a window.
        short_clips: What fills a window when the clip is shorter: "repeat" the clip, or "zeros" on
            both sides.
        laid: How windows lie: "covering", the last of which ends where the clip ends; "slices" without overlap or
            tail; "random"; or "whole", a clip in one window as long as itself. Clips that share a batch are
            then to have the same `whole_window`, or the shorter ones are heard as part of a longer window.
        overlap: Share of a window that the next one hears again, 0 to below 1.
        count: How many windows are random.
        pool: "mean" of the windows' probabilities, their "max", or "log_mean_exp" of their logits.
        flips: Hear the four flips of every picture and average them; only where flips are labels.
        one_label: The network's logits are those of a softmax, for one label a clip. Outside training the
            answer is log p / (1 - p) of each class all the same.
        apart: Labels come as `subsets.kept_apart` writes them, [B, 2 (K + 1)], while training. Then logits may be
            [B, 2 K], the second half a head for noisy labels that is not heard outside training; and the
            attribute `noisy_loss` may be set to what takes the place of the loss for them.

    Input shape: waveform [B, N], float32 in -1 to 1, any N; while training (waveform [B, n], labels [B, K]).
    Output shape: logits [B, K], float32; while training (logits, labels), as many as the ear has labels.
    """

    def __init__(
        self,
        ear,
        network,
        *,
        num_classes,
        window_samples,
        short_clips="repeat",
        laid="covering",
        overlap=0.5,
        count=8,
        pool="mean",
        flips=False,
        one_label=False,
        apart=False,
        **kwargs,
    ):
        super().__init__(dtype="float32", **kwargs)
        self.ear = ear
        self.network = network
        self.num_classes = num_classes
        self.window_samples = window_samples
        self.short_clips = short_clips
        self.laid = laid
        self.overlap = overlap
        self.count = count
        self.pool = pool
        self.flips = flips
        self.one_label = one_label
        self.apart = apart
        self.noisy_loss = None

    def call(self, inputs, training=False):
        waveform, labels = inputs if isinstance(inputs, (tuple, list)) else (inputs, None)
        if training:
            picture, labels = self.ear((waveform, labels), training=True)
            return self.network(picture, training=True), labels
        sounds, heard = self.windows(waveform)  # [B, W, n], [B, W]
        batch, num_windows, n = ops.shape(sounds)
        logits = self.window_logits(ops.reshape(sounds, (-1, n)))  # [B * W, F K]
        logits = ops.reshape(logits, (batch, num_windows, logits.shape[-1]))  # [B, W, F K]
        logits = pooled(logits, heard[:, :, None], self.pool)  # [B, F K]
        if not self.flips:
            return logits  # [B, K]
        logits = ops.reshape(logits, (batch, len(FLIPS), self.num_classes))  # [B, F, K]
        return pooled(logits, True, "mean")  # [B, K]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compares the logits with the labels that came out of the ear beside them."""
        if isinstance(y_pred, (tuple, list)):
            y_pred, y = y_pred
        elif self.one_label:
            y_pred = ops.log_sigmoid(y_pred)  # log p: a softmax of it gives p back
        if not (self.apart and training):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        labels, share = by_subset(y)  # [B, 2, K], [B, 2]
        heads = y_pred[:, : self.num_classes], y_pred[:, -self.num_classes :]  # one and the same, if there is but one
        curated = super().compute_loss(x, labels[:, 0], heads[0], share[:, 0], training)
        if self.noisy_loss is not None:
            return curated + self.noisy_loss(labels[:, 1], heads[1], share[:, 1])
        return curated + super().compute_loss(x, labels[:, 1], heads[1], share[:, 1], training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Measures the logits; a class counts as heard where the disturbances left half of its label or more."""
        if isinstance(y_pred, (tuple, list)):
            if self.apart:
                y_pred = self._of_the_head_that_answers(*y_pred)
            blocks = (-1, y_pred[0].shape[1] // self.num_classes, self.num_classes)
            logits, labels = (ops.max(ops.reshape(tensor, blocks), axis=1) for tensor in y_pred)  # [B, K] both
            y_pred, y = logits, ops.cast(labels >= 0.5, "float32")
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _of_the_head_that_answers(self, logits, labels):
        """Its logits [B, K], and what it was asked, labels [B, K] by their shares in the window."""
        parts, _ = by_share(labels)  # [B, 2, K]
        one_head = logits.shape[1] == self.num_classes  # else noisy labels are not its own
        return logits[:, : self.num_classes], ops.sum(parts, axis=1) if one_head else parts[:, 0]

    @property
    def hop(self):
        """Samples from the beginning of a covering window to that of the next."""
        return max(1, round(self.window_samples * (1 - self.overlap)))

    def window_logits(self, windows):
        """The logits of windows [B, n], one answer a flip: float32 [B, F K], with F = 4 for flips, else 1."""
        windows = ops.convert_to_tensor(windows, "float32")
        flippers = [layer for layer in self.ear.layers if isinstance(layer, FlipLabels)]
        answers = []
        for flip in range(len(FLIPS) if self.flips else 1):
            for layer in flippers:
                layer.flip = flip
            picture, _ = self.ear((windows, self._no_labels(windows)), training=False)
            logits = self.network(picture, training=False)
            logits = ops.cast(logits[:, flip * self.num_classes : (flip + 1) * self.num_classes], "float32")
            answers.append(log_odds(logits) if self.one_label else logits)
        for layer in flippers:
            layer.flip = 0
        return ops.concatenate(answers, axis=1)  # [B, F K]

    def take_over(self, other):
        """Takes the network's weights, and what the ear has learned of the clips, from a tagger of the same parts."""
        self.network.set_weights(other.network.get_weights())
        for mine, theirs in zip(self._learned(), other._learned(), strict=True):
            mine.set_weights(theirs.get_weights())

    def adapt(self, windows):
        """Lets the steps of the ear that scale by statistics of the training clips gather them.

        Args:
            windows: A function without arguments that answers batches of waveforms [B, n], one pass over the clips.
        """
        for step in self._learned():
            before = keras.Model(self.ear.inputs, step.input)
            batches = (ops.convert_to_tensor(batch, "float32") for batch in windows())
            step.adapt(before((batch, self._no_labels(batch)), training=False) for batch in batches)

    def trunk(self):
        """The layers below the head, which is the network's layers called logits or head and something."""
        layers = [layer for layer in self.network.layers if not layer.name.startswith(("logits", "head"))]
        return [*self.ear.layers, *layers]

    def _no_labels(self, windows):
        return ops.zeros((ops.shape(windows)[0], self.ear.inputs[1].shape[1]))

    def _learned(self):
        return [layer for layer in self.ear.layers if hasattr(layer, "adapt")]

    def windows(self, waveform):
        """Lays windows over the clips of a batch.

        Args:
            waveform: [B, N], with zeros after the end of the shorter clips.

        Returns:
            (windows [B, W, n], heard [B, W]): W is enough for a clip of N samples; `heard` tells the
            windows that a shorter clip has from those beyond its end.
        """
        size, n = ops.shape(waveform)[1], self.window_samples
        length = windowing.clip_lengths(waveform)  # [B, 1]
        if self.laid == "slices":
            start, heard = windowing.slices(length, size, n)
        elif self.laid == "random":
            start, heard = windowing.scattered(length, n, count=self.count)
        elif self.laid == "whole":
            n = windowing.whole_window(size, n)
            start, heard = windowing.covering(length, size, n, hop=n)
        else:
            start, heard = windowing.covering(length, size, n, hop=self.hop)
        return windowing.cut(waveform, start, length, n, short_clips=self.short_clips), heard


def log_odds(logits):
    """log p / (1 - p) of each class of a softmax, exact for any logits: [B, K] → [B, K].

    Example:
        >>> alike = log_odds(ops.zeros((1, 4)))
        >>> [round(float(probability), 4) for probability in ops.sigmoid(alike)[0]]
        [0.25, 0.25, 0.25, 0.25]
    """
    itself = 1e30 * ops.eye(logits.shape[-1])  # [K, K]
    return logits - ops.logsumexp(logits[:, None, :] - itself, axis=-1)
