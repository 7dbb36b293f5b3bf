"""Keras layers: front ends, image preprocessing and random augmentations.

Shapes: B clips, N samples, T frames, M bands, C channels, K classes, F bins of an FFT.
"""

from audiotag.layers.attention import SimpleSelfAttention
from audiotag.layers.augmentation.brightness_contrast import BrightnessContrast
from audiotag.layers.augmentation.crops import RandomCrop, RandomResizedCrop
from audiotag.layers.augmentation.filter_augment import FilterAugment
from audiotag.layers.augmentation.flips import FlipsAsClasses
from audiotag.layers.augmentation.loudness import Gain, WhiteNoise
from audiotag.layers.augmentation.low_pass import LowPass
from audiotag.layers.augmentation.masking import BarErasing, FrequencyMask, TimeMask
from audiotag.layers.augmentation.mixing import ConcatMix, MixUp
from audiotag.layers.augmentation.random_augmentation import RandomAugmentation
from audiotag.layers.augmentation.shifts import TimeRoll
from audiotag.layers.augmentation.zoom import Zoom
from audiotag.layers.frontends.efficientat_mel import EfficientATMel
from audiotag.layers.frontends.filterbank import LogFilterbank
from audiotag.layers.frontends.mfcc import Mfcc
from audiotag.layers.frontends.pcen import PcenMel
from audiotag.layers.frontends.perceptual import PerceptualMel
from audiotag.layers.frontends.raw_waveform import RawWaveform
from audiotag.layers.frontends.spectrograms import LogMel, MelSpectrogram
from audiotag.layers.frontends.yamnet_mel import YamnetMel
from audiotag.layers.preprocessing.channels import Colormap, Deltas, FlipBands, FrequencyChannel, RepeatChannels
from audiotag.layers.preprocessing.normalization import (
    DatasetStandardize,
    Normalize,
    Quantize8Bit,
    Standardize,
    ToImage,
)
from audiotag.layers.preprocessing.resizing import FixFrames, Resize, StretchFrames

# The component names of experiment files: waveform → waveform, waveform → spectrogram, image → image, and image → image
# while training. Augmentations, which are `RandomAugmentation`s, also take and return (clips, labels).
WAVEFORM_AUGMENTATIONS = {
    "gain": Gain,
    "white_noise": WhiteNoise,
    "low_pass": LowPass,
    "time_roll": TimeRoll,
    "mixup": MixUp,
    "concat_mix": ConcatMix,
}
FRONTENDS = {
    "log_mel": LogMel,
    "perceptual_mel": PerceptualMel,
    "log_filterbank": LogFilterbank,
    "mfcc": Mfcc,
    "pcen_mel": PcenMel,
    "raw_waveform": RawWaveform,
    "yamnet_mel": YamnetMel,
    "efficientat_mel": EfficientATMel,
}
IMAGE_PREPROCESSING = {
    "standardize": Standardize,
    "dataset_standardize": DatasetStandardize,
    "normalize": Normalize,
    "quantize_8bit": Quantize8Bit,
    "resize": Resize,
    "fix_frames": FixFrames,
    "stretch_frames": StretchFrames,
    "repeat_channels": RepeatChannels,
    "deltas": Deltas,
    "frequency_channel": FrequencyChannel,
    "colormap": Colormap,
    "flip_bands": FlipBands,
}
IMAGE_AUGMENTATIONS = {
    "time_mask": TimeMask,
    "frequency_mask": FrequencyMask,
    "bar_erasing": BarErasing,
    "zoom": Zoom,
    "brightness_contrast": BrightnessContrast,
    "filter_augment": FilterAugment,
    "random_crop": RandomCrop,
    "random_resized_crop": RandomResizedCrop,
    "mixup": MixUp,
    "concat_mix": ConcatMix,
    "flips_as_classes": FlipsAsClasses,
}

__all__ = [
    "FRONTENDS",
    "IMAGE_AUGMENTATIONS",
    "IMAGE_PREPROCESSING",
    "WAVEFORM_AUGMENTATIONS",
    "BarErasing",
    "BrightnessContrast",
    "Colormap",
    "ConcatMix",
    "DatasetStandardize",
    "Deltas",
    "EfficientATMel",
    "FilterAugment",
    "FixFrames",
    "FlipBands",
    "FlipsAsClasses",
    "FrequencyChannel",
    "FrequencyMask",
    "Gain",
    "LogFilterbank",
    "LogMel",
    "LowPass",
    "MelSpectrogram",
    "Mfcc",
    "MixUp",
    "Normalize",
    "PcenMel",
    "PerceptualMel",
    "Quantize8Bit",
    "RandomAugmentation",
    "RandomCrop",
    "RandomResizedCrop",
    "RawWaveform",
    "RepeatChannels",
    "Resize",
    "SimpleSelfAttention",
    "Standardize",
    "StretchFrames",
    "TimeMask",
    "TimeRoll",
    "ToImage",
    "WhiteNoise",
    "YamnetMel",
    "Zoom",
]
