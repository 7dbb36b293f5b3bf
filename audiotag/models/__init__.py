"""Networks: functions that build a Keras model.

Their arguments are the shape of an image and a number of classes.
"""

from audiotag.models import (
    conv1d,
    conv2d,
    conv_skip,
    convnext,
    densenet,
    efficientat,
    mobilenet,
    resnet,
    vgg_gap,
    xresnet,
    yamnet,
)

# The names that an experiment may use.
MODELS = {
    "conv_skip": conv_skip.conv_skip,
    "xresnet18": xresnet.xresnet18,
    "xresnet34": xresnet.xresnet34,
    "xresnet50": xresnet.xresnet50,
    "vgg_gap": vgg_gap.vgg_gap,
    "conv1d": conv1d.conv1d,
    "conv2d": conv2d.conv2d,
    "densenet169": densenet.densenet169,
    "resnet50": resnet.resnet50,
    "mobilenet": mobilenet.mobilenet,
    "mobilenet_v2": mobilenet.mobilenet_v2,
    "convnext_tiny": convnext.convnext_tiny,
    "yamnet": yamnet.yamnet,
    "mn04": efficientat.mn04,
    "mn10": efficientat.mn10,
}

__all__ = ["MODELS"]
