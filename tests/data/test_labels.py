import numpy as np
import pytest

from audiotag.data.labels import multi_hot, parse_labels, split_labels
from audiotag.errors import DataError


@pytest.mark.parametrize(
    "text, labels",
    [
        ("Bark", ("Bark",)),
        ("Meow,Bark", ("Meow", "Bark")),
        (" Meow , Bark ", ("Meow", "Bark")),
        ("Bathtub_(filling_or_washing),Tick-tock", ("Bathtub_(filling_or_washing)", "Tick-tock")),
        ("Dog bark", ("Dog bark",)),
        ("", ()),
        ("  ", ()),
    ],
)
def test_a_text_is_split_into_its_labels(text, labels):
    assert split_labels(text) == labels


@pytest.mark.parametrize("text", [",", "Bark,", ",Bark", "Bark,,Meow", "Bark, ,Meow"])
def test_an_empty_label_between_commas_is_refused(text):
    with pytest.raises(DataError, match='a label is empty. Write the names with one comma between them: "Bark,Meow"'):
        split_labels(text)


def test_a_label_that_is_listed_twice_is_refused():
    with pytest.raises(DataError, match="labels 'Bark,Meow,Bark': 'Bark' is listed twice. List each label once."):
        split_labels("Bark,Meow,Bark")


def test_the_message_about_an_unknown_label_names_the_nearest_class():
    with pytest.raises(
        DataError, match="unknown label 'Brak'. Did you mean 'Bark'. The vocabulary has 2 classes: Bark, Meow."
    ):
        parse_labels("Meow,Brak", ["Bark", "Meow"])


def test_a_prefix_of_a_class_is_not_the_class():
    with pytest.raises(DataError, match="unknown label 'Male_speech'"):
        parse_labels("Male_speech", ["Male_speech_and_man_speaking", "Bark"])


def test_a_message_about_a_large_vocabulary_stays_short():
    with pytest.raises(DataError, match=r"has 80 classes: c0, c1, c2, c3, c4, \.\.\.\.$"):
        parse_labels("?", [f"c{index}" for index in range(80)])


def test_multi_hot_puts_ones_where_the_labels_are():
    truth = multi_hot(["b", "c,a", ""], ["a", "b", "c"])
    assert truth.dtype == np.float32
    np.testing.assert_array_equal(truth, [[0, 1, 0], [1, 0, 1], [0, 0, 0]])


def test_multi_hot_agrees_with_counting_by_hand():
    vocabulary = [f"c{index}" for index in range(7)]
    rng = np.random.default_rng(0)
    expected = rng.random((50, 7)) < 0.3
    texts = [",".join(label for label, on in zip(vocabulary, row) if on) for row in expected]
    np.testing.assert_array_equal(multi_hot(texts, vocabulary), expected)


def test_multi_hot_refuses_an_unknown_label():
    with pytest.raises(DataError, match="unknown label 'Meaow'. Did you mean 'Meow'"):
        multi_hot(["Bark", "Meaow"], ("Bark", "Meow"))


def test_multi_hot_of_no_clips_has_no_rows():
    assert multi_hot([], ["a", "b"]).shape == (0, 2)
