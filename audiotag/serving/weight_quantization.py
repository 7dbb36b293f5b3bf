"""Stores the weights of a LiteRT file in 8 bits.

An 8-bit file of TensorFlow's converter rounds the inputs of the layers, too, and the last layer. The weights of a last
layer that is fitted by ridge regression span many orders of magnitude, as embeddings do: rounded, they cost YAMNet a
twentieth of its lwlrap. Rounding inputs takes a CPU longer than it saves. Here only weights are rounded, but not those
of the last layer. The interpreter turns them into float32 once, when it loads the file.
"""

from typing import Any

import numpy as np

from audiotag.serving.converted_models import import_extra

LEAST_NUMBERS = 1024  # of weights in 8 bits: less than that saves nothing
IDENTIFIER = b"TFL3"
DEQUANTIZE_VERSION = 5  # of the operator, the first with a scale per channel


def quantize_weights(content: bytes) -> bytes:
    """The same LiteRT file with 8-bit weights.

    These are the weights of convolutions and dense layers; each output channel has a scale. The last layers,
    from which no other layer follows, are left as they are. Operators DEQUANTIZE, before all others, multiply weights
    and scales.

    Reference: LiteRT 8-bit quantization specification, https://ai.google.dev/edge/litert/models/quantization_spec
    (symmetric, per axis); Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018.

    Args:
        content: A LiteRT file of float32 operators, with one subgraph.

    Raises:
        DataError: LiteRT is not installed.
    """
    import flatbuffers

    schema = import_extra("ai_edge_litert.schema_py_generated", "litert")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    [graph] = model.subgraphs
    code = schema.BuiltinOperator.DEQUANTIZE
    model.operatorCodes.append(schema.OperatorCodeT(code, None, DEQUANTIZE_VERSION, code))
    steps = []
    for tensor, axis in _weights(schema, model, graph).items():
        weights = graph.tensors[tensor]
        values = np.frombuffer(bytes(model.buffers[weights.buffer].data), "<f4").reshape(weights.shape)
        rounded, scales = rounded_per_channel(values, axis)
        stored = schema.TensorT(
            shape=weights.shape,
            type=schema.TensorType.INT8,
            buffer=len(model.buffers),
            name=weights.name + b"/8_bit",
            quantization=schema.QuantizationParametersT(
                scale=scales, zeroPoint=np.zeros(len(scales), "int64"), quantizedDimension=axis
            ),
            hasRank=weights.hasRank,
        )
        model.buffers.append(schema.BufferT(data=rounded.reshape(-1).view("uint8")))
        weights.buffer = 0  # the empty one, of tensors that are computed
        steps.append(
            schema.OperatorT(
                opcodeIndex=len(model.operatorCodes) - 1,
                inputs=[len(graph.tensors)],
                outputs=[tensor],
                builtinOptionsType=schema.BuiltinOptions.DequantizeOptions,
                builtinOptions=schema.DequantizeOptionsT(),
            )
        )
        graph.tensors.append(stored)
    graph.operators = steps + graph.operators
    used = {tensor.buffer for tensor in graph.tensors} | {each.buffer for each in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def rounded_per_channel(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(weights rounded to -127 to 127: int8 [...], the scale of each output channel: float32 [C]).

    Args:
        values: float32 weights [...].
        axis: Of the C output channels.

    Example:
        >>> rounded, scales = rounded_per_channel(np.array([[1.27, -0.5], [0.0, 0.0]], "float32"), 0)
        >>> rounded.tolist(), scales.round(3).tolist()
        ([[127, -50], [0, 0]], [0.01, 0.0])
    """
    others = tuple(each for each in range(values.ndim) if each != axis)
    scales = np.abs(values).max(axis=others, keepdims=True) / np.float32(127)
    rounded = np.rint(values / np.maximum(scales, np.finfo("float32").tiny)).clip(-127, 127)
    return rounded.astype("int8"), scales.reshape(-1)


def _weights(schema: Any, model: Any, graph: Any) -> dict[int, int]:
    """{tensor of weights: axis of its output channels} of the layers that are stored in 8 bits."""
    kinds = schema.BuiltinOperator
    axes = {kinds.CONV_2D: 0, kinds.DEPTHWISE_CONV_2D: 3, kinds.FULLY_CONNECTED: 0}
    found, last = {}, set(graph.outputs)  # tensors from which no layer follows
    for operator in reversed(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        axis = axes.get(max(code.builtinCode, code.deprecatedBuiltinCode))
        is_last = not last.isdisjoint(operator.outputs)
        if axis is None:
            last.update(operator.inputs if is_last else ())
            continue
        tensor = operator.inputs[1]
        weights = graph.tensors[tensor]
        data = model.buffers[weights.buffer].data
        known = weights.type == schema.TensorType.FLOAT32 and data is not None
        if known and len(data) >= 4 * LEAST_NUMBERS and not is_last:
            found[tensor] = axis
    return found
