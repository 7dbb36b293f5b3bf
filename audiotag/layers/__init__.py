"""How does sound become a picture, and how is it disturbed?"""

from audiotag.layers.masking import FrequencyMask, TimeMask
from audiotag.layers.picture import EightBit, RepeatChannels, Resize, Standardise, ToPicture
from audiotag.layers.spectrograms import LogMel

# The names an experiment file may use: waveform → spectrogram, picture → picture, and the same with dice.
FRONTENDS = {"log_mel": LogMel}
PICTURES = {"standardise": Standardise, "eight_bit": EightBit, "resize": Resize, "repeat_channels": RepeatChannels}
AUGMENTS = {"time_mask": TimeMask, "frequency_mask": FrequencyMask}

__all__ = [
    "AUGMENTS",
    "FRONTENDS",
    "PICTURES",
    "EightBit",
    "FrequencyMask",
    "LogMel",
    "RepeatChannels",
    "Resize",
    "Standardise",
    "TimeMask",
    "ToPicture",
]
