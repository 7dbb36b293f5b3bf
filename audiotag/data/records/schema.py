"""The schema of a record, and its encoding and decoding."""

from dataclasses import dataclass
from typing import Any

CODECS = ("pcm", "flac", "source")  # int16; lossless FLAC; Ogg and MP3 files unchanged and FLAC for the rest


@dataclass(frozen=True)
class Record:
    """One clip: its name and its audio.

    Args:
        name: The clip's name, which joins it with its row in a table of clips.
        audio: Little-endian int16 PCM, or the bytes of a FLAC, Ogg or MP3 file.
        codec: "pcm", "flac", "ogg" or "mp3".
        sample_rate: In Hz.
        num_samples: The number of samples that `audio` decodes to.
    """

    name: str
    audio: bytes
    codec: str
    sample_rate: int
    num_samples: int


def encode(record: Record) -> bytes:
    """A `Record` as the bytes of a `tf.train.Example`."""
    import tensorflow as tf

    text = lambda value: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    number = lambda value: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    features = {
        "name": text(record.name.encode()),
        "audio": text(record.audio),
        "codec": text(record.codec.encode()),
        "sample_rate": number(record.sample_rate),
        "num_samples": number(record.num_samples),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def decode(serialized: Any) -> dict[str, Any]:
    """The bytes of a record, a scalar string tensor → {field name: scalar tensor}."""
    import tensorflow as tf

    types = {
        "name": tf.string,
        "audio": tf.string,
        "codec": tf.string,
        "sample_rate": tf.int64,
        "num_samples": tf.int64,
    }
    return tf.io.parse_single_example(serialized, {key: tf.io.FixedLenFeature([], kind) for key, kind in types.items()})
