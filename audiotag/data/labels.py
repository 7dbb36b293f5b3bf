"""The labels of a clip: "Bark,Meow" in a table, zeros and ones in training."""

from collections.abc import Collection, Sequence

import numpy as np

from audiotag.config.signatures import nearest
from audiotag.errors import DataError


def split_labels(text: str) -> tuple[str, ...]:
    """The labels in one field of a table, in their order; () for an empty field.

    Raises:
        DataError: A label is empty or listed twice.

    Example:
        >>> split_labels("Bark, Chink_and_clink")
        ('Bark', 'Chink_and_clink')
    """
    labels = tuple(label.strip() for label in text.split(","))
    if labels == ("",):
        return ()
    if "" in labels:
        raise DataError(f'labels {text!r}: a label is empty. Write the names with one comma between them: "Bark,Meow".')
    if len(set(labels)) < len(labels):
        repeated = next(label for label in labels if labels.count(label) > 1)
        raise DataError(f"labels {text!r}: {repeated!r} is listed twice. List each label once.")
    return labels


def parse_labels(text: str, vocabulary: Collection[str]) -> tuple[str, ...]:
    """`split_labels` that also checks that every label is a class.

    Raises:
        DataError: A label is not in the vocabulary; the message names the nearest class.

    Example:
        >>> parse_labels("Brak", ["Bark", "Meow"])
        Traceback (most recent call last):
        audiotag.errors.DataError: unknown label 'Brak'. Did you mean 'Bark'? The vocabulary has 2 classes: Bark, Meow.
    """
    labels = split_labels(text)
    for label in labels:
        if label not in vocabulary:
            some = ", ".join(list(vocabulary)[:5]) + (", ..." if len(vocabulary) > 5 else "")
            raise DataError(
                f"unknown label {label!r}. {nearest(label, vocabulary)}"
                f"The vocabulary has {len(vocabulary)} classes: {some}."
            )
    return labels


def multi_hot(labels: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """Labels as a multi-hot array: 1 where a clip has the class, 0 elsewhere.

    Args:
        labels: The labels of each clip as text, such as the column `labels` of a table of clips.
        vocabulary: Names of the K classes, in the order of the columns.

    Returns:
        float32 [n, K].

    Raises:
        DataError: A label is not in the vocabulary.

    Example:
        >>> multi_hot(["Bark", "", "Meow,Bark"], ["Bark", "Meow"]).tolist()
        [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    """
    column = {label: index for index, label in enumerate(vocabulary)}
    truth = np.zeros((len(labels), len(column)), "float32")  # [n, K]
    for row, text in enumerate(labels):
        truth[row, [column[label] for label in parse_labels(text, column)]] = 1.0
    return truth
