"""Front ends: layers that turn waveforms into spectrograms."""
