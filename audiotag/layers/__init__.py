"""How does sound become a picture, and how is it disturbed?"""

from audiotag.layers.attention import SimpleSelfAttention
from audiotag.layers.cepstrum import Mfcc
from audiotag.layers.channels import ColourMap, Deltas, FrequencyChannel, RepeatChannels
from audiotag.layers.crops import RandomCrop, RandomResizedCrop
from audiotag.layers.filterbank import LogFilterbank
from audiotag.layers.flips import FlipLabels
from audiotag.layers.lighting import Lighting
from audiotag.layers.loudness import Gain, Noise
from audiotag.layers.masking import Bars, FrequencyMask, TimeMask
from audiotag.layers.mixing import ConcatMix, MixUp
from audiotag.layers.pcen import PcenMel
from audiotag.layers.perceptual import PerceptualMel
from audiotag.layers.picture import AdaptedStandardise, EightBit, Normalise, Standardise, ToPicture
from audiotag.layers.resizing import FitFrames, Resize
from audiotag.layers.shifts import TimeRoll
from audiotag.layers.spectrograms import LogMel, MelSpectrogram
from audiotag.layers.waves import RawWave
from audiotag.layers.zoom import Zoom

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
