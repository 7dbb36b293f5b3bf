import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from record_folders import RATE
from tiers import law

from audiotag.data.records.schema import Record, decode, encode


@law
@given(
    name=st.text(min_size=1),
    audio=st.binary(max_size=300),
    codec=st.sampled_from(["pcm", "flac", "ogg", "mp3"]),
    sample_rate=st.integers(4_000, 384_000),
    num_samples=st.integers(1, 2**40),
)
def test_decode_is_the_inverse_of_encode(**fields):
    decoded = decode(encode(Record(**fields)))
    assert {key: value.numpy() for key, value in decoded.items()} == {
        key: value.encode() if isinstance(value, str) else value for key, value in fields.items()
    }


def test_a_record_is_a_tf_train_example():
    example = tf.train.Example.FromString(encode(Record("1.wav", b"\1\0", "pcm", RATE, 1)))
    assert sorted(example.features.feature) == ["audio", "codec", "name", "num_samples", "sample_rate"]
    assert example.features.feature["name"].bytes_list.value == [b"1.wav"]
    assert example.features.feature["sample_rate"].int64_list.value == [RATE]
