"""The complete model: preprocessor, network, and windows over clips.

Clips may have any length.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.crops import RandomCrop
from audiotag.layers.augmentation.flips import FLIPS, FlipsAsClasses
from audiotag.models import windowing
from audiotag.models.heads import NetworkParts, is_head, pooled
from audiotag.models.label_groups import split_groups, split_weighted_groups
from audiotag.padding import random_fractions

AS_IS = [FLIPS.index(flip) for flip in ("none", "frequency")]
IN_TIME = [FLIPS.index(flip) for flip in ("time", "both")]


class Tagger(keras.Model):
    """Predicts the logits of clips of any length, and trains on windows.

    In training the input is one window per clip, drawn by the pipeline. At inference the clip
    is cut into windows, each is scored, and their logits are pooled. Clips of different
    lengths can share a batch: zeros at the end of a clip count as padding, so neither they nor
    the other clips change its prediction.

    In training, labels pass through the preprocessor beside the waveform, so an augmentation
    that mixes or flips clips changes their labels with the same random parameters; the loss
    compares the logits with the labels that come out.

    Args:
        preprocessor: Front end, image preprocessing and augmentation as one model from (waveform [B, n],
            labels [B, K]) to (image, labels [B, K], or [B, 4 K] with flips as classes).
        network: Model from an image to as many logits.
        num_classes: K.
        window_samples: n, samples of a training window.
        pad: How a clip shorter than a window fills it: "repeat" the clip, or "zeros" on both sides; "random_zeros",
            whose places are random while training, are the same here.
        window_layout: "sliding" windows, the last of which ends with the clip; "drop_remainder", without overlap or
            remainder; "random"; "random_crops", crops of the image of the first window, each as wide as the
            preprocessor's `RandomCrop` makes it; or "full_clip", one window as long as the clip. With "full_clip",
            clips that share a batch should be padded to the same `windowing.full_clip_window`; else a shorter one is
            scored as part of a longer window.
        overlap: Of sliding windows, as a fraction of a window, 0 to below 1.
        num_windows: Number of random windows or random crops.
        pool: "mean" of the windows' probabilities, their "max", or "log_mean_exp" of their logits.
        flip_tta: Average over four flips, only with flips as classes: "clip" flips complete clips, which are then cut
            into windows, those that are flipped in time from the other end; "windows" flips every window.
        single_label: The network's logits are those of a softmax, for one label per clip. At inference the
            model returns log(p / (1 - p)) of each class in this case, too.
        separate_subsets: In training, labels are those of `label_groups.group_labels`, [B, 2 (K + 1)]. The network
            may then have [B, 2 K] logits, the second half an output layer for noisy labels that is unused at
            inference; and the attribute `noisy_loss` may replace the loss for noisy labels.

    Attributes:
        parts: The backbone and the head of the network.
        frozen: Whether the backbone is left as it is in training, see `freeze_backbone`.
        takes_features: Whether inputs are what `features` returns instead of waveforms. In training they are
            (features [B, ..., D], labels); at inference the windows of clips, {"features": [B, W, ..., D], "mask":
            [B, W]}.
        noisy_loss: Replaces the loss for noisy labels, with `separate_subsets`; None does not.
        class_weights: [K]; a clip's weight in the training loss is the mean of those of its labels, and 1 without
            labels. None weights all clips 1.
        validation_metrics: Keras metrics that `evaluate` computes once, from all clips: those whose result is too
            slow to compute after every step. Training does not update them.

    In comments F is the number of flips: 4 with "windows" of `flip_tta`, 2 for either end with "clip", else 1.

    Input shape: waveform [B, N], float32 in -1 to 1 or int16, any N; in training (waveform [B, n], labels [B, K]).
    Output shape: logits [B, K], float32; in training (logits, labels), as many as the preprocessor has labels.
    """

    def __init__(
        self,
        preprocessor,
        network,
        *,
        num_classes,
        window_samples,
        pad="repeat",
        window_layout="sliding",
        overlap=0.5,
        num_windows=8,
        pool="mean",
        flip_tta=False,
        single_label=False,
        separate_subsets=False,
        **kwargs,
    ):
        super().__init__(dtype="float32", **kwargs)
        self.preprocessor = preprocessor
        self.network = network
        self.num_classes = num_classes
        self.window_samples = window_samples
        self.pad = pad
        self.window_layout = window_layout
        self.overlap = overlap
        self.num_windows = num_windows
        self.pool = pool
        self.flip_tta = flip_tta
        self.single_label = single_label
        self.separate_subsets = separate_subsets
        self.parts = NetworkParts(network)
        self.frozen = False
        self.takes_features = False
        self.noisy_loss = None
        self.class_weights = None
        self.validation_metrics: tuple[keras.metrics.Metric, ...] = ()

    def compile(self, *args: Any, validation_metrics: Iterable[keras.metrics.Metric] = (), **options: Any) -> None:
        """As in Keras, and sets `validation_metrics`."""
        super().compile(*args, **options)
        self.__dict__["validation_metrics"] = tuple(validation_metrics)  # Keras refuses to track them in a built model

    def call(self, inputs, training=False):
        if self.takes_features:
            return self._call_on_features(inputs, training)
        waveform, labels = inputs if isinstance(inputs, (tuple, list)) else (inputs, None)
        waveform = windowing.to_float(waveform)
        if training:
            image, labels = self.preprocessor((waveform, ops.convert_to_tensor(labels)), training=True)
            return self._training_logits(image), labels
        return self.clip_logits(waveform)

    def clip_logits(
        self, waveform: Any, *, score: Callable[[windowing.Windows, Callable[[Any], Any]], Any] = windowing.score_all
    ) -> Any:
        """The logits of clips at inference.

        Args:
            waveform: float32 [B, N].
            score: How windows are passed to the network: a function with the arguments and the result of
                `windowing.score_all`. Scores of windows that are masked are not used.

        Returns:
            float32 [B, K].
        """
        if self.flip_tta == "clip":  # windows of a clip that is flipped in time start from its end
            sides = [
                self._flip_logits(waveform, score, flips=AS_IS),
                self._flip_logits(waveform, score, flips=IN_TIME, from_end=True),
            ]
            logits = ops.concatenate(sides, axis=1)  # [B, 4, K]
        else:
            flips = range(len(FLIPS)) if self.flip_tta else (0,)
            logits = self._flip_logits(waveform, score, flips=flips)  # [B, F, K]
        return windowing.pool_logits(logits, True, "mean") if self.flip_tta else logits[:, 0]  # [B, K]

    def _call_on_features(self, inputs, training):
        """As `call`, from what enters the head."""
        if not isinstance(inputs, dict):
            features, labels = inputs
            logits = self.parts.head(features, training=training)
            return (logits, labels) if training else self._class_logits(logits)
        features, mask = inputs["features"], inputs["mask"]  # [B, W, ..., D], [B, W]
        batch, num_windows, *shape = ops.shape(features)
        logits = self._class_logits(self.parts.head(ops.reshape(features, (-1, *shape)), training=False))
        logits = ops.reshape(logits, (batch, num_windows, self.num_classes))
        return windowing.pool_logits(logits, mask[:, :, None], self.pool)

    def _class_logits(self, logits, flip=0):
        """The columns of a flip among the network's logits: [B, K], log(p / (1 - p)) of each class."""
        logits = ops.cast(logits[:, flip * self.num_classes : (flip + 1) * self.num_classes], "float32")
        return log_odds(logits) if self.single_label else logits

    def _training_logits(self, image):
        """The logits of images in training: [B, M, T, C] → as many as the preprocessor has labels."""
        if not self.frozen:
            return self.network(image, training=True)
        features = ops.stop_gradient(self.parts.backbone(image, training=False))
        return self.parts.head(features, training=True)

    def _flip_logits(self, waveform, score, *, flips, from_end=False):
        """The pooled logits of each flip: [B, N] → [B, F, K]."""
        windows, num_columns = self.place_windows(waveform, from_end=from_end), len(flips) * self.num_classes
        if self.window_layout == "random_crops":  # W is 1
            logits = score(windows, lambda waveforms: self._crop_logits(waveforms, flips))  # [B, 1, num_windows * F K]
            logits = ops.reshape(logits, (-1, self.num_windows, num_columns))
        else:
            logits = score(windows, lambda waveforms: self.window_logits(waveforms, flips=flips))  # [B, W, F K]
        logits = windowing.pool_logits(logits, windows.mask[:, :, None], self.pool)  # [B, F K]
        return ops.reshape(logits, (-1, len(flips), self.num_classes))

    def _crop_logits(self, windows, flips):
        """The logits of the crops of windows: [V, n] → [V, num_windows * F K]."""
        crops = [layer for layer in self.preprocessor.layers if isinstance(layer, RandomCrop)]

        def score(position):
            for layer in crops:
                layer.position = position
            return self.window_logits(windows, flips=flips)

        try:
            logits = ops.map(score, ops.convert_to_tensor(random_fractions(self.num_windows)))  # [W, V, F K]
        finally:
            for layer in crops:
                layer.position = None
        return ops.reshape(ops.transpose(logits, (1, 0, 2)), (-1, self.num_windows * logits.shape[-1]))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of the logits against the labels that the preprocessor returned."""
        if isinstance(y_pred, (tuple, list)):
            y_pred, y = y_pred
            if self.class_weights is not None and not self.separate_subsets:
                sample_weight = self._clip_weights(y)
        elif self.single_label:
            y_pred = ops.log_sigmoid(y_pred)  # log p, whose softmax is p again
        if not (self.separate_subsets and training):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        labels, fractions = split_groups(y)  # [B, 2, K], [B, 2]
        if self.class_weights is not None:
            weights = [self._clip_weights(labels[:, group]) for group in range(2)]
            fractions = fractions * ops.stack(weights, axis=1)
        heads = y_pred[:, : self.num_classes], y_pred[:, -self.num_classes :]  # the same columns if there is one head
        trusted = super().compute_loss(x, labels[:, 0], heads[0], fractions[:, 0], training)
        if self.noisy_loss is not None:
            return trusted + self.noisy_loss(labels[:, 1], heads[1], fractions[:, 1])
        return trusted + super().compute_loss(x, labels[:, 1], heads[1], fractions[:, 1], training)

    def _clip_weights(self, labels):
        """The weight of each clip in the loss, the mean of the class weights over its labels: [B, F K] → [B]."""
        labels = ops.sum(ops.reshape(labels, (-1, labels.shape[1] // self.num_classes, self.num_classes)), axis=1)
        total = ops.sum(labels, axis=1)  # [B]
        weighted = ops.sum(labels * ops.cast(self.class_weights, labels.dtype), axis=1)
        return ops.where(total > 0, ops.divide_no_nan(weighted, total), 1.0)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics.

        A class is present if the augmentations left at least half of its label.
        """
        if isinstance(y_pred, (tuple, list)):
            if self.separate_subsets:
                y_pred = self._main_head(*y_pred)
            blocks = (-1, y_pred[0].shape[1] // self.num_classes, self.num_classes)
            logits, labels = (ops.max(ops.reshape(tensor, blocks), axis=1) for tensor in y_pred)  # [B, K] both
            y_pred, y = log_odds(logits) if self.single_label else logits, ops.cast(labels >= 0.5, "float32")
        else:
            for metric in self.validation_metrics:
                metric.update_state(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that Keras resets before each epoch and each validation."""
        return [*super().metrics, *self.validation_metrics]

    def get_metrics_result(self) -> dict[str, Any]:
        """The values of the metrics that are computed after every step."""
        metrics = [metric for metric in self.metrics if metric not in self.validation_metrics]
        results: dict[str, Any] = {}
        for metric in metrics:
            result = metric.result()
            results.update(result if isinstance(result, dict) else {metric.name: result})
        return results

    def evaluate(self, *args: Any, return_dict: bool = False, **options: Any) -> Any:
        """As in Keras; with `return_dict` also the values of `validation_metrics`."""
        results = super().evaluate(*args, return_dict=return_dict, **options)
        if return_dict:
            results |= {metric.name: float(metric.result()) for metric in self.validation_metrics}
        return results

    def _main_head(self, logits, labels):
        """The logits [B, K] of the head that predicts, and its labels [B, K] weighted by their fractions."""
        groups, _ = split_weighted_groups(labels)  # [B, 2, K]
        one_head = logits.shape[1] == self.num_classes  # with two, noisy labels belong to the other
        return logits[:, : self.num_classes], ops.sum(groups, axis=1) if one_head else groups[:, 0]

    @property
    def hop(self) -> int:
        """Samples from the start of a sliding window to the start of the next."""
        return max(1, round(self.window_samples * (1 - self.overlap)))

    def window_logits(self, windows: Any, *, flips: Iterable[int] = (0,)) -> Any:
        """The logits of windows, flipped in several ways.

        Each flip is read in its own columns of the network.

        Args:
            windows: [B, n].
            flips: F indices of `FLIPS`.

        Returns:
            float32 [B, F K].
        """
        windows = ops.convert_to_tensor(windows, "float32")
        flip_layers = [layer for layer in self.preprocessor.layers if isinstance(layer, FlipsAsClasses)]
        all_logits = []
        for flip in flips:
            for layer in flip_layers:
                layer.flip = flip
            image, _ = self.preprocessor((windows, self._no_labels(windows)), training=False)
            all_logits.append(self._class_logits(self.network(image, training=False), flip))
        for layer in flip_layers:
            layer.flip = 0
        return ops.concatenate(all_logits, axis=1)  # [B, F K]

    def copy_weights_from(self, other: "Tagger") -> None:
        """Copies the weights of a tagger of the same layers.

        It copies the network's weights, and those of the preprocessor, such as dataset statistics.
        """
        self.network.set_weights(other.network.get_weights())
        for mine, theirs in zip(self.weighted_layers(), other.weighted_layers(), strict=True):
            mine.set_weights(theirs.get_weights())

    def adapt(self, batches: Callable[[], Iterable[Any]]) -> None:
        """Computes the dataset statistics of preprocessor layers that scale by them.

        Args:
            batches: A function without arguments that returns batches of waveforms [B, n], float or int16, one pass
                over the clips.
        """
        for layer in self.adapted_layers():
            before = keras.Model(self.preprocessor.inputs, layer.input)
            waveforms = (windowing.to_float(ops.convert_to_tensor(batch)) for batch in batches())
            layer.adapt(before((waveform, self._no_labels(waveform)), training=False) for waveform in waveforms)

    def backbone(self) -> list[keras.layers.Layer]:
        """The layers below the head.

        The head is the network's layers whose names start with logits or head.
        """
        return [*self.preprocessor.layers, *(layer for layer in self.network.layers if not is_head(layer.name))]

    def freeze_backbone(self) -> None:
        """Trains the head alone from now on.

        Below the head nothing changes: no weight and no statistic. Dropout there is off, augmentations stay on, and no
        gradient is computed. Must be called before `compile`.

        Raises:
            ValueError: The network does not tell what its head is.
        """
        _ = self.parts.backbone, self.parts.head  # made here, not while a graph is traced
        for layer in self.backbone():
            layer.trainable = False
        self.frozen = True

    def embeddings(self, windows: Any) -> Any:
        """What the backbone makes of windows, before the head.

        A feature map is averaged over its bands and frames.

        Args:
            windows: [B, n], float32 in -1 to 1 or int16.

        Returns:
            float32 [B, D].

        Raises:
            ValueError: The network does not tell what its head is.
        """
        return pooled(ops.cast(self.features(windows), "float32"))

    def clip_embeddings(self, waveform: Any) -> Any:
        """The mean of the embeddings of the windows of each clip.

        Windows are placed as for predictions.

        Args:
            waveform: [B, N], with zeros after the end of the shorter clips.

        Returns:
            float32 [B, D].
        """
        windows, mask = self.windows(windowing.to_float(ops.convert_to_tensor(waveform)))  # [B, W, n], [B, W]
        batch, num_windows, n = ops.shape(windows)
        embeddings = self.embeddings(ops.reshape(windows, (-1, n)))  # [B * W, D]
        embeddings = ops.reshape(embeddings, (batch, num_windows, embeddings.shape[-1]))
        weights = ops.cast(mask, "float32")[:, :, None]
        return ops.sum(embeddings * weights, axis=1) / ops.sum(weights, axis=1)

    def features(self, windows: Any) -> Any:
        """What enters the head.

        The shapes are windows [B, n], float32 or int16 → [B, D] or a feature map [B, ..., D].
        """
        windows = windowing.to_float(ops.convert_to_tensor(windows))
        image, _ = self.preprocessor((windows, self._no_labels(windows)), training=False)
        return self.parts.backbone(image, training=False)

    def _no_labels(self, windows):
        return ops.zeros((ops.shape(windows)[0], self.preprocessor.inputs[1].shape[1]))

    def weighted_layers(self) -> list[keras.layers.Layer]:
        """The layers of the preprocessor with weights that are no counters."""
        return [
            layer
            for layer in self.preprocessor.layers
            if any(keras.backend.is_float_dtype(weight.dtype) for weight in layer.weights)
        ]

    def adapted_layers(self) -> list[keras.layers.Layer]:
        """The preprocessor's layers that have dataset statistics."""
        return [layer for layer in self.preprocessor.layers if hasattr(layer, "adapt")]

    def windows(self, waveform: Any, *, from_end: bool = False) -> tuple[Any, Any]:
        """Cuts the clips of a batch into windows.

        Arguments as for `place_windows`.

        Returns:
            (windows [B, W, n], mask [B, W]): W is enough for a clip of N samples; `mask` is False for
            windows beyond the end of a shorter clip.
        """
        windows = self.place_windows(waveform, from_end=from_end)
        return windows.cut(), windows.mask

    def place_windows(self, waveform: Any, *, from_end: bool = False) -> windowing.Windows:
        """Places windows on the clips of a batch.

        Args:
            waveform: [B, N], with zeros after the end of the shorter clips.
            from_end: Place them as if time ran backwards: the first ends with the clip.
        """
        size, n = ops.shape(waveform)[1], self.window_samples
        length = windowing.clip_lengths(waveform)  # [B, 1]
        if self.window_layout == "drop_remainder":
            start, mask = windowing.drop_remainder(length, size, n)
        elif self.window_layout == "random":
            start, mask = windowing.random_windows(length, n, num_windows=self.num_windows)
        elif self.window_layout == "full_clip":
            n = windowing.full_clip_window(size, n)
            start, mask = windowing.sliding(length, size, n, hop=n)
        elif self.window_layout == "random_crops":
            start, mask = ops.zeros_like(length), length > 0
        else:
            start, mask = windowing.sliding(length, size, n, hop=self.hop)
        if from_end:
            start = ops.maximum(length - n, 0) - start
        return windowing.Windows(waveform, start, mask, length, n, self.pad)


def log_odds(logits: Any) -> Any:
    """log(p / (1 - p)) of each class of a softmax: [B, K] → [B, K].

    The result is exact for any logits.

    Example:
        >>> equal = log_odds(ops.zeros((1, 4)))
        >>> [round(float(probability), 4) for probability in ops.sigmoid(equal)[0]]
        [0.25, 0.25, 0.25, 0.25]
    """
    itself = 1e30 * ops.eye(logits.shape[-1])  # [K, K]
    return logits - ops.logsumexp(logits[:, None, :] - itself, axis=-1)
