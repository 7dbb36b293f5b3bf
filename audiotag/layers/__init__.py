"""How does sound become a picture, and how is it disturbed?"""

from audiotag.layers.attention import SimpleSelfAttention
from audiotag.layers.augmentation.crops import RandomCrop, RandomResizedCrop
from audiotag.layers.augmentation.flips import FlipLabels
from audiotag.layers.augmentation.lighting import Lighting
from audiotag.layers.augmentation.loudness import Gain, Noise
from audiotag.layers.augmentation.masking import Bars, FrequencyMask, TimeMask
from audiotag.layers.augmentation.mixing import ConcatMix, MixUp
from audiotag.layers.augmentation.shifts import TimeRoll
from audiotag.layers.augmentation.zoom import Zoom
from audiotag.layers.frontends.filterbank import LogFilterbank
from audiotag.layers.frontends.mfcc import Mfcc
from audiotag.layers.frontends.pcen import PcenMel
from audiotag.layers.frontends.perceptual import PerceptualMel
from audiotag.layers.frontends.raw_waveform import RawWave
from audiotag.layers.frontends.spectrograms import LogMel, MelSpectrogram
from audiotag.layers.preprocessing.channels import ColourMap, Deltas, FrequencyChannel, RepeatChannels
from audiotag.layers.preprocessing.normalization import AdaptedStandardise, EightBit, Normalise, Standardise, ToPicture
from audiotag.layers.preprocessing.resizing import FitFrames, Resize

# The names an experiment file may use: waveform → waveform, waveform → spectrogram, picture → picture, and disturbances
# of pictures. Those of LABELLED take (sound, labels) and return both; the others know nothing of labels.
WAVEFORMS = {"gain": Gain, "noise": Noise, "time_roll": TimeRoll, "mixup": MixUp, "concat_mix": ConcatMix}
FRONTENDS = {
    "log_mel": LogMel,
    "perceptual_mel": PerceptualMel,
    "log_filterbank": LogFilterbank,
    "mfcc": Mfcc,
    "pcen_mel": PcenMel,
    "raw_wave": RawWave,
}
PICTURES = {
    "standardise": Standardise,
    "adapted_standardise": AdaptedStandardise,
    "normalise": Normalise,
    "eight_bit": EightBit,
    "resize": Resize,
    "fit_frames": FitFrames,
    "repeat_channels": RepeatChannels,
    "deltas": Deltas,
    "frequency_channel": FrequencyChannel,
    "colour_map": ColourMap,
}
AUGMENTS = {
    "time_mask": TimeMask,
    "frequency_mask": FrequencyMask,
    "bars": Bars,
    "zoom": Zoom,
    "lighting": Lighting,
    "random_crop": RandomCrop,
    "random_resized_crop": RandomResizedCrop,
    "mixup": MixUp,
    "concat_mix": ConcatMix,
    "flip_labels": FlipLabels,
}
LABELLED = (MixUp, ConcatMix, FlipLabels)

__all__ = [
    "AUGMENTS",
    "FRONTENDS",
    "LABELLED",
    "PICTURES",
    "WAVEFORMS",
    "AdaptedStandardise",
    "Bars",
    "ColourMap",
    "ConcatMix",
    "Deltas",
    "EightBit",
    "FitFrames",
    "FlipLabels",
    "FrequencyChannel",
    "FrequencyMask",
    "Gain",
    "Lighting",
    "LogFilterbank",
    "LogMel",
    "MelSpectrogram",
    "Mfcc",
    "MixUp",
    "Noise",
    "Normalise",
    "PcenMel",
    "PerceptualMel",
    "RandomCrop",
    "RandomResizedCrop",
    "RawWave",
    "RepeatChannels",
    "Resize",
    "SimpleSelfAttention",
    "Standardise",
    "TimeMask",
    "TimeRoll",
    "ToPicture",
    "Zoom",
]
