"""A network."""

import keras


def small_cnn(input_shape, num_classes, *, filters: list[int] | None = None) -> keras.Model:
    """Two convolutions and the mean over the image: [B, M, T, C] → logits [B, K]."""
    outputs = image = keras.Input(input_shape)
    for count in filters or [8, 16]:
        outputs = keras.layers.Conv2D(count, 3, strides=2, padding="same", activation="relu")(outputs)
    outputs = keras.layers.GlobalAveragePooling2D()(outputs)
    return keras.Model(image, keras.layers.Dense(num_classes, dtype="float32", name="logits")(outputs))
