"""Requests with which TensorFlow Serving warms a model up.

TensorFlow Serving reads them from assets.extra/tf_serving_warmup_requests, a TFRecord file of `PredictionLog` messages.
Their classes are in tensorflow-serving-api, which audiotag does not need: the few fields are encoded here.

Reference: tensorflow_serving/apis/prediction_log.proto, predict.proto and model.proto.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from audiotag import files

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
# Numbers of the fields.
LOG_PREDICT, PREDICT_REQUEST = 6, 1
REQUEST_MODEL, REQUEST_INPUTS, MODEL_SIGNATURE = 1, 2, 3
MAP_KEY, MAP_VALUE = 1, 2


def write_warmup(saved_model: Path, requests: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes warm-up requests into the folder of a SavedModel.

    Args:
        saved_model: The folder.
        requests: Pairs of the name of a signature and its inputs, {name: array}. All numbers of an array are equal.
    """
    (saved_model / FILE).parent.mkdir(exist_ok=True)
    with files.atomic_file(saved_model / FILE) as unfinished, tf.io.TFRecordWriter(str(unfinished)) as writer:
        for signature, inputs in requests:
            model = _field(REQUEST_MODEL, _field(MODEL_SIGNATURE, signature.encode()))
            tensors = [
                _field(MAP_KEY, name.encode()) + _field(MAP_VALUE, _constant(value)) for name, value in inputs.items()
            ]
            request = model + b"".join(_field(REQUEST_INPUTS, tensor) for tensor in tensors)
            writer.write(_field(LOG_PREDICT, _field(PREDICT_REQUEST, request)))


def _constant(value):
    """A TensorProto of an array of equal numbers: one number stands for all."""
    array = np.asarray(value)
    proto = tf.make_tensor_proto(array.flat[0])
    proto.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    return proto.SerializeToString(deterministic=True)


def _field(number, content):
    """A field of bytes in the format of protocol buffers."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number):
    """An integer of at least 0, seven bits to a byte, the lowest first."""
    low, high = number & 0x7F, number >> 7
    return bytes([low]) if not high else bytes([low | 0x80]) + _varint(high)
