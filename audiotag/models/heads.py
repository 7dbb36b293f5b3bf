"""The head of a network: its last layers, which turn embeddings into logits.

They are the layers whose names start with logits or head. All before them is the backbone.
"""

import functools
from typing import Any

import keras

HEAD_PREFIXES = ("logits", "head")


def is_head(layer_name: str) -> bool:
    """Whether a layer of this name belongs to the head of its network.

    Example:
        >>> is_head("logits"), is_head("head_norm"), is_head("conv2d_3")
        (True, True, False)
    """
    return layer_name.startswith(HEAD_PREFIXES)


class NetworkParts:
    """The backbone and the head of a network as models that share its layers.

    Each is made when it is first used.

    Args:
        network: A functional `keras.Model`: image [B, M, T, C] → logits [B, K].
    """

    def __init__(self, network: keras.Model) -> None:
        self._network = network

    @functools.cached_property
    def features(self) -> Any:
        """The symbolic tensor that enters the head, [B, D] or a feature map.

        Raises:
            ValueError: None does, or several.
        """
        head = [layer for layer in self._network.layers if is_head(layer.name)]
        inside = {id(tensor) for layer in head for tensor in keras.tree.flatten(layer.output)}
        entering = {id(tensor): tensor for layer in head for tensor in keras.tree.flatten(layer.input)}
        found = [tensor for key, tensor in entering.items() if key not in inside]
        if len(found) != 1:
            raise ValueError(
                f"{self._network.name}: {len(found)} tensors enter its head, the layers whose names start with "
                f"{' or '.join(HEAD_PREFIXES)}. Expected one: name the last layers so, and no others."
            )
        return found[0]

    @functools.cached_property
    def backbone(self) -> keras.Model:
        """Image [B, M, T, C] → features [B, ..., D]."""
        return keras.Model(self._network.input, self.features, name="backbone")

    @functools.cached_property
    def head(self) -> keras.Model:
        """Features [B, ..., D] → logits [B, K]."""
        return keras.Model(self.features, self._network.output, name="head")


def pooled(features: Any) -> Any:
    """The embeddings of a feature map: [B, ..., D] → [B, D].

    They are its mean over all axes but the first and the last.

    Example:
        >>> pooled(keras.ops.ones((2, 4, 5, 8))).shape
        TensorShape([2, 8])
    """
    return (
        keras.ops.mean(features, axis=tuple(range(1, len(features.shape) - 1))) if len(features.shape) > 2 else features
    )


def linear(embeddings: Any, num_logits: int) -> Any:
    """One dense layer on the embeddings.

    Most networks have it already. It replaces other heads, such as the convolution of vgg_gap, with one that
    `initial_head` can solve for.

    Args:
        embeddings: Symbolic tensor [B, D].
        num_logits: Number of logits, L.

    Returns:
        Symbolic tensor [B, L], float32.

    Example:
        >>> linear(keras.Input((8,)), 5).shape
        (None, 5)
    """
    return keras.layers.Dense(num_logits, dtype="float32", name="logits")(embeddings)


def mlp(embeddings: Any, num_logits: int, *, units: tuple[int, ...] = (512,), dropout: float = 0.3) -> Any:
    """Dense layers with ReLU and dropout on the embeddings, then a dense layer.

    For a frozen backbone and enough clips; with a few dozen per class, `linear` is as good.

    Args:
        embeddings: Symbolic tensor [B, D].
        num_logits: Number of logits, L.
        units: Units of each hidden layer.
        dropout: Fraction of the units dropped after each, 0 to below 1.

    Returns:
        Symbolic tensor [B, L], float32.

    Raises:
        ValueError: There is no hidden layer, or an option is out of range.

    Example:
        >>> mlp(keras.Input((8,)), 5, units=(16,)).shape
        (None, 5)
    """
    if not units or min(units) < 1:
        raise ValueError(f"units must be one or more numbers, each at least 1. Received: units={units}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1. Received: dropout={dropout}")
    x = embeddings
    for number, width in enumerate(units, start=1):
        x = keras.layers.Dense(width, activation="relu", name=f"head_hidden_{number}")(x)  # [B, width]
        x = keras.layers.Dropout(dropout, name=f"head_dropout_{number}")(x)
    return linear(x, num_logits)


HEADS = {"linear": linear, "mlp": mlp}
