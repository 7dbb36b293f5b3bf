"""A convolutional network on the raw waveform, without a spectrogram."""

import keras
from keras import layers

MIN_SAMPLES = 1616  # leave one frame for the last convolution

# Filters and kernel size of two convolutions, and the pool size after them.
PAIRS = ((16, 9, 16), (32, 3, 4), (32, 3, 4))


def conv1d(input_shape: tuple[int | None, ...], num_classes: int) -> keras.Model:
    """Eight convolutions on raw waveforms, then global max pooling over time.

    It learns its own front end, so its errors differ from those of a network on
    spectrograms: of use in an ensemble. Made for two seconds at 16 kHz, each clip
    scaled to -0.5 to 0.5.

    The network of Maxwell_110's Kaggle notebook (FSDKaggle2019), 394,470
    parameters for 74 classes. Its 1028 units are as published. It was trained
    with softmax and categorical crossentropy.

    Args:
        input_shape: (N, 1) of a waveform of at least 1616 samples; N may be None.
        num_classes: Number of logits.

    Returns:
        A `keras.Model`: waveforms [B, N, 1] → logits [B, num_classes], float32.

    Raises:
        ValueError: The input is not a waveform, or is too short.

    Example:
        >>> conv1d((32_000, 1), 80).count_params()
        400644
    """
    if len(input_shape) != 2 or input_shape[1] != 1:
        raise ValueError(
            f"conv1d expects waveforms, (N, 1). Received: input_shape={tuple(input_shape)}. "
            'Use {"name": "raw_waveform"} as the front end.'
        )
    samples = input_shape[0]
    if samples is not None and samples < MIN_SAMPLES:
        raise ValueError(
            f"conv1d needs waveforms of at least {MIN_SAMPLES} samples. Received: "
            f"input_shape={tuple(input_shape)}. Use a longer window."
        )
    waveform = keras.Input(input_shape)
    x = waveform
    for filters, kernel_size, pool_size in PAIRS:
        for _ in range(2):
            x = layers.Conv1D(filters, kernel_size, activation="relu")(x)
        x = layers.Dropout(0.1)(layers.MaxPooling1D(pool_size)(x))
    # [B, N / 256, 32]
    for _ in range(2):
        x = layers.Conv1D(256, 3, activation="relu")(x)
    x = layers.Dropout(0.2)(layers.GlobalMaxPooling1D()(x))  # [B, 256]
    for units in (64, 1028):
        x = layers.Dense(units, activation="relu")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(waveform, logits, name="conv1d")
