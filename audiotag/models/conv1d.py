"""Convolutions over the waveform itself, without a spectrogram."""

import keras
from keras import layers

LEAST_SAMPLES = 1616  # leave one place for the last convolution

# Filters and kernel of two convolutions each, and the pool after them.
PAIRS = ((16, 9, 16), (32, 3, 4), (32, 3, 4))


def conv1d(input_shape, num_classes):
    """Eight convolutions over raw waves, and their loudest answers over time.

    It must find for itself what a front end would have given it, and hears
    another way than a network that sees pictures: of use in an ensemble. Made
    for two seconds at 16 kHz, each clip scaled to -0.5 to 0.5.

    The network of Maxwell_110's Keras kernel (FSDKaggle2019), 394,470
    parameters for 74 classes. Its 1028 units are as published. It was trained
    with the categorical crossentropy of softmax.

    Args:
        input_shape: (N, 1) of a waveform of at least 1616 samples; N may be None.
        num_classes: How many logits.

    Returns:
        A `keras.Model`: waveforms [B, N, 1] → logits [B, num_classes], float32.

    Raises:
        ValueError: Not a waveform, or one too short.

    Example:
        >>> conv1d((32_000, 1), 80).count_params()
        400644
    """
    if len(input_shape) != 2 or input_shape[1] != 1:
        raise ValueError(
            f"conv1d hears waveforms, (N, 1). Received: input_shape={tuple(input_shape)}. "
            'Take {"name": "raw_wave"} as the front end.'
        )
    samples = input_shape[0]
    if samples is not None and samples < LEAST_SAMPLES:
        raise ValueError(
            f"conv1d needs waveforms of at least {LEAST_SAMPLES} samples. Received: "
            f"input_shape={tuple(input_shape)}. Take a longer window."
        )
    wave = keras.Input(input_shape)
    x = wave
    for filters, kernel, pool in PAIRS:
        for _ in range(2):
            x = layers.Conv1D(filters, kernel, activation="relu")(x)
        x = layers.Dropout(0.1)(layers.MaxPooling1D(pool)(x))
    # [B, N / 256, 32]
    for _ in range(2):
        x = layers.Conv1D(256, 3, activation="relu")(x)
    x = layers.Dropout(0.2)(layers.GlobalMaxPooling1D()(x))  # [B, 256]
    for units in (64, 1028):
        x = layers.Dense(units, activation="relu")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(wave, logits, name="conv1d")
