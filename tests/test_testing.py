"""Each property of audiotag.testing fails for a component that lacks it, and says so."""

import keras
import numpy as np
import pytest
from keras import ops

from audiotag.layers import MixUp, RandomAugmentation
from audiotag.testing import check_augmentation, check_layer, check_loss, check_model

PACKAGE = "test_testing"
SHAPE = (None, None, 4)
FEW = {"lengths": (8, 9, 16), "jit_compile": False}


@keras.saving.register_keras_serializable(PACKAGE)
class Scale(keras.layers.Layer):
    """A layer with every property."""

    def __init__(self, *, factor=2.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.weight = self.add_weight(shape=(), initializer="ones", name="weight")

    def call(self, inputs):
        return inputs * self.factor * self.weight

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


class ForgetsAnOption(Scale):
    def get_config(self):
        config = super().get_config()
        del config["factor"]
        return config


class PromisesAnotherShape(Scale):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2 * input_shape[-1])


class PromisesAnotherType(Scale):
    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float16")


class ForgetsAKnownSize(Scale):
    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, None, None), dtype=inputs.dtype)


class DependsOnTheBatch(Scale):
    def call(self, inputs):
        return super().call(inputs) / ops.max(ops.abs(inputs))


class IsInfiniteForSilence(Scale):
    def call(self, inputs):
        return super().call(ops.log(ops.abs(inputs)))


class HasAnInfiniteGradient(Scale):
    def call(self, inputs):
        return inputs + ops.sqrt(ops.abs(inputs) * (self.weight - 1))  # the weight is 1


class ReadsUnknownSizes(Scale):
    def call(self, inputs):
        return super().call(inputs) * (1 if inputs.shape[1] else 2)


class NeedsNumpy(Scale):
    def call(self, inputs):
        return ops.convert_to_tensor(np.asarray(inputs) * self.factor)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)


class ComputesInHalfPrecision(Scale):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.autocast = True


class IsNotRegistered(Scale):
    pass


WRONG_LAYERS = [
    (ForgetsAnOption, "get_config must return every option as it was passed", "no 'factor' in the config"),
    (PromisesAnotherShape, "compute_output_shape must give the real shape", "computed [(3, 8, 8)], real [(3, 8, 4)]"),
    (PromisesAnotherType, "In a model the type and known sizes of the output must be right", "float16"),
    (ForgetsAKnownSize, "In a model the type and known sizes of the output must be right", "[None, None, 4]"),
    (DependsOnTheBatch, "A clip's output must not depend on the other clips of its batch", "Mismatched elements"),
    (IsInfiniteForSilence, "Outputs and gradients must be finite, for silence too", "an output that is not finite"),
    (HasAnInfiniteGradient, "Outputs and gradients must be finite, for silence too", "weight that is not finite"),
    (ReadsUnknownSizes, "A graph of unknown batch size and length must give the numbers of eager calls", "Mismatched"),
    (
        NeedsNumpy,
        "A graph of unknown batch size and length must give the numbers of eager calls",
        "NotImplementedError",
    ),
    (ComputesInHalfPrecision, "With mixed_float16 the numbers must be those of float32", "float16"),
    (IsNotRegistered, "A .keras file and a SavedModel must give the same numbers", "IsNotRegistered"),
]


def message_of(check, *arguments, **options):
    with pytest.raises(AssertionError) as error:
        check(*arguments, **options)
    return str(error.value)


@pytest.mark.parametrize(("layer", "sentence", "found"), WRONG_LAYERS, ids=[row[0].__name__ for row in WRONG_LAYERS])
def test_a_layer_without_a_property_is_refused(layer, sentence, found):
    message = message_of(check_layer, layer, {"factor": 3.0}, SHAPE, **FEW)
    assert message.startswith(f"{layer.__name__}: {sentence}")
    assert found in message.partition(" Found: ")[2]


def test_a_layer_with_every_property_passes():
    check_layer(Scale, {"factor": 3.0}, SHAPE, **FEW)


@keras.saving.register_keras_serializable(PACKAGE)
class Louder(RandomAugmentation):
    """An augmentation with every property."""

    def get_random_transformation(self, inputs):
        factor = self.random_uniform((ops.shape(inputs)[0], 1, 1), 1, 2)
        return ops.where(self.random_selection(inputs), factor, 1.0)

    def transform_inputs(self, inputs, transformation):
        return inputs * transformation


class Unlike(keras.layers.Layer):
    pass


class HasNoSeed(Louder):
    def __init__(self, *, probability=1.0):
        super().__init__(probability=probability)


def registered(layer):
    return keras.saving.register_keras_serializable(PACKAGE)(layer)


@registered
class ChangesAtInference(Louder):
    def call(self, inputs, training=False):
        return super().call(inputs, training=True)


@registered
class ChangesTheType(Louder):
    def transform_inputs(self, inputs, transformation):
        return ops.cast(inputs * transformation, "float16")


@registered
class DrawsWithNumpy(Louder):
    def get_random_transformation(self, inputs):
        return np.random.default_rng().uniform(1, 2, (3, 1, 1)).astype("float32")


@registered
class DrawsOnce(Louder):
    def get_random_transformation(self, inputs):
        return keras.random.uniform((ops.shape(inputs)[0], 1, 1), 1, 2, seed=self.seed)


@registered
class DrawsOnePerBatch(Louder):
    def get_random_transformation(self, inputs):
        return self.random_uniform((1, 1, 1), 1, 2)


@registered
class DrawsLater(Louder):
    def transform_inputs(self, inputs, transformation):
        return super().transform_inputs(inputs, self.get_random_transformation(inputs))


@registered
class TreatsPairsDifferently(Louder):
    def call(self, inputs, training=False):
        outputs = super().call(inputs, training=training)
        return outputs if isinstance(inputs, (tuple, list)) else 2 * outputs


WRONG_AUGMENTATIONS = [
    (Unlike, "An augmentation must derive from audiotag.layers.RandomAugmentation", "bases ['Layer']"),
    (HasNoSeed, "An augmentation must accept the options probability and seed", "unexpected keyword argument 'seed'"),
    (ChangesAtInference, "At inference an augmentation must be the identity", "Mismatched elements"),
    (ChangesTheType, "While training the type and the shape must be those", "float32"),
    (DrawsWithNumpy, "One seed must repeat, eagerly and in a graph, and another seed must differ", "Mismatched"),
    (DrawsOnce, "Two calls of a graph must be changed differently", "two calls with equal results"),
    (DrawsOnePerBatch, "Every clip must be changed differently", "eight clips with equal results"),
    (DrawsLater, "transform_inputs and transform_labels must draw nothing", "Mismatched elements"),
    (TreatsPairsDifferently, "Clips without labels must be changed as clips with labels", "Mismatched elements"),
]


@pytest.mark.parametrize(
    ("layer", "sentence", "found"), WRONG_AUGMENTATIONS, ids=[row[0].__name__ for row in WRONG_AUGMENTATIONS]
)
def test_an_augmentation_without_a_property_is_refused(layer, sentence, found, monkeypatch):
    monkeypatch.setattr("audiotag.testing._check_layer", lambda *arguments: None)  # for layers, above
    options = {"probability": 1.0, "seed": 3} if layer is not HasNoSeed else {"probability": 1.0}
    message = message_of(check_augmentation, layer, options, SHAPE, **FEW)
    assert message.startswith(f"{layer.__name__}: {sentence}")
    assert found in message.partition(" Found: ")[2]


def test_an_augmentation_must_have_the_properties_of_layers_too():
    message = message_of(check_augmentation, ChangesAtInference, {"probability": 1.0, "seed": 3}, SHAPE, **FEW)
    assert message.startswith("ChangesAtInference: A clip's output must not depend on the other clips of its batch")


def test_augmentations_with_every_property_pass():
    check_augmentation(Louder, {"probability": 0.9, "seed": 3}, SHAPE, **FEW)
    check_augmentation(MixUp, {"probability": 0.9, "seed": 3}, SHAPE, **FEW)


@keras.saving.register_keras_serializable(PACKAGE)
class Operation(keras.layers.Layer):
    """Spoils one property of a network."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, inputs):
        match self.kind:
            case "of the batch":
                return inputs / (1e-3 + ops.max(ops.abs(inputs)))
            case "of static sizes":
                return inputs * (1 if inputs.shape[2] else 2)
            case "infinite":
                return ops.log(inputs - inputs)
            case "without gradient":
                return ops.stop_gradient(inputs)
            case "of another gradient":
                return ops.stop_gradient(2 * inputs) - inputs
        return inputs

    def get_config(self):
        return super().get_config() | {"kind": "of the batch" if self.kind == "not saved" else self.kind}


def network(input_shape, num_classes, *, kind="right"):
    """A small network, right or wrong in one property."""
    image = keras.Input(input_shape)
    x = Operation(kind)(image) if kind in ("of the batch", "of static sizes", "not saved") else image
    x = keras.layers.Conv2D(4, 3, padding="same", activation="elu")(x)
    x = Operation(kind)(x) if kind == "without gradient" else x
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(num_classes + (kind == "too many"), dtype=None if kind == "half" else "float32")(x)
    return keras.Model(image, Operation(kind)(logits) if kind in ("infinite", "of another gradient") else logits)


WRONG_NETWORKS = [
    ("too many", "A network must be a keras.Model from images of the input shape to one logit per class", "(None, 6)"),
    ("of static sizes", "A graph of unknown batch size and length must give the numbers of eager calls", "Mismatched"),
    ("infinite", "An image of any length must give finite float32 logits", "logits that are not finite at length 8"),
    ("of the batch", "A clip's logits must not depend on the other clips of its batch", "Mismatched elements"),
    ("not saved", "A .keras file must give the same numbers", "Mismatched elements"),
    ("without gradient", "A finite gradient must reach every weight", "the gradient of conv2d"),
    ("of another gradient", "A small step against the gradient must lower the loss", " instead of "),
    ("half", "With mixed_float16 the logits must be float32", "float16"),
]


@pytest.mark.parametrize(("kind", "sentence", "found"), WRONG_NETWORKS, ids=[row[0] for row in WRONG_NETWORKS])
def test_a_network_without_a_property_is_refused(kind, sentence, found):
    message = message_of(check_model, network, (6, None, 1), {"kind": kind}, num_classes=5, lengths=(8, 9))
    assert message.startswith(f"network: {sentence}")
    assert found in message.partition(" Found: ")[2]


def test_a_network_with_every_property_passes():
    check_model(network, (6, None, 1), {"kind": "right"}, num_classes=5, lengths=(8, 9))


@keras.saving.register_keras_serializable(PACKAGE)
class SquaredError(keras.losses.Loss):
    """A loss with every property, or wrong in one."""

    def __init__(self, *, factor=1.0, kind="right", **kwargs):
        super().__init__(**kwargs)
        self.factor, self.kind = factor, kind

    def call(self, y_true, y_pred):
        error = self.factor * ops.square(y_true - ops.sigmoid(y_pred))
        if self.kind == "not reduced":
            return error
        if self.kind == "of the batch":
            return ops.mean(error, axis=-1) / ops.max(error)
        if self.kind == "eager":
            return ops.mean(error, axis=-1) * (1 if keras.tree.flatten(y_true)[0].shape[0] else 2)
        if self.kind == "infinite":
            return -ops.mean(y_true * ops.log(ops.sigmoid(y_pred)), axis=-1)
        if self.kind == "infinite gradient":
            return ops.mean(ops.sqrt(error), axis=-1)
        return ops.mean(error, axis=-1)

    def get_config(self):
        return super().get_config() | {"factor": 1.0 if self.kind == "forgetful" else self.factor, "kind": self.kind}


class KeepsTheType(SquaredError):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.cast(super().__call__(y_true, y_pred, sample_weight), y_pred.dtype)


WRONG_LOSSES = [
    ("forgetful", "get_config must return every option as it was passed", "'factor' is 1.0 instead of 3.0"),
    ("not reduced", "call must return one float32 loss per clip, [B]", "(8, 9), float32"),
    ("of the batch", "The loss of a clip must not depend on its batch", "Mismatched elements"),
    ("eager", "A graph of unknown batch size must give the numbers of eager calls", "Not equal to tolerance"),
    ("infinite", "The loss and the gradient of extreme logits must be finite", "a loss of"),
    ("infinite gradient", "The loss and the gradient of extreme logits must be finite", "a gradient for logits of"),
]


@pytest.mark.parametrize(("kind", "sentence", "found"), WRONG_LOSSES, ids=[row[0] for row in WRONG_LOSSES])
def test_a_loss_without_a_property_is_refused(kind, sentence, found):
    message = message_of(check_loss, SquaredError, {"factor": 3.0, "kind": kind}, jit_compile=False)
    assert message.startswith(f"SquaredError: {sentence}")
    assert found in message.partition(" Found: ")[2]


def test_a_loss_in_half_precision_is_refused():
    keras.saving.register_keras_serializable(PACKAGE)(KeepsTheType)
    message = message_of(check_loss, KeepsTheType, {"factor": 3.0}, jit_compile=False)
    assert message.startswith("KeepsTheType: The loss of float16 logits must be computed in float32")
    assert message.endswith("Found: float16")


def test_a_loss_that_depends_on_its_batch_on_purpose_passes():
    check_loss(SquaredError, {"kind": "of the batch"}, batch_independent=False, jit_compile=False)


def test_a_loss_with_every_property_passes():
    check_loss(SquaredError, {"factor": 3.0, "kind": "right"}, jit_compile=False)
