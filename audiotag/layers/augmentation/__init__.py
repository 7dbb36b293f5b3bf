"""Random augmentations of waveforms, spectrograms and images."""
