"""Stores the weights of a LiteRT file in 8 bits.

The 8-bit files of TensorFlow's converter round the inputs of layers, too, with which a CPU takes longer, not less long;
and the last layer, whose weights span many orders of magnitude where ridge regression fits them, as embeddings do.
Here neither is rounded.
"""

from audiotag.serving.converted_models import import_extra

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
LEAST_NUMBERS = 1024  # of weights in 8 bits: less than that saves nothing


def quantize_weights(content: bytes) -> bytes:
    """The same LiteRT file with 8-bit weights of convolutions and dense layers.

    Each output channel has 256 levels, from its smallest weight to its largest; as many of each sign cost a YAMNet
    whose layers were all trained 0.014 of its lwlrap. The interpreter turns them into float32 once, when it loads
    the file. The weights of the layer `logits` are left as they are.

    Reference: https://github.com/google-ai-edge/ai-edge-quantizer (weight only); Krishnamoorthi, "Quantizing deep
    convolutional networks for efficient inference", 2018.

    Args:
        content: A LiteRT file of float32 operators.

    Raises:
        DataError: ai-edge-quantizer is not installed.
    """
    quantizer = import_extra("ai_edge_quantizer.quantizer", "quantize")
    weights = {"num_bits": 8, "symmetric": False, "granularity": "CHANNELWISE", "dtype": "INT"}
    options = {"weight_tensor_config": weights, "compute_precision": "FLOAT", "explicit_dequantize": True}
    options["min_weight_elements"] = LEAST_NUMBERS
    rounding = {"regex": ".*", "algorithm_key": "min_max_uniform_quantize", "op_config": options}
    recipe = [rounding | {"operation": layer} for layer in LAYERS]
    recipe.append({"regex": "logits", "operation": "*", "algorithm_key": "no_quantize"})
    result = quantizer.Quantizer(bytearray(content), recipe).quantize(
        enable_progress_bar=False, enable_progress_report=False
    )
    return bytes(result.quantized_model)
