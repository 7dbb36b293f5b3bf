import io

import numpy as np
import pytest
import soundfile as sf

from audiotag.errors import DataError
from audiotag.inference.long_recordings import predict_windows
from audiotag.inference.predictor import Predictor
from audiotag.inference.streams import as_json, as_line, predict_stream, read_pcm

AUDIO_CONFIG = {"sample_rate": 16_000, "trim": None, "trim_db": 60.0, "peak_db": None}
NOISE = (0.2 * np.random.default_rng(0).standard_normal(3 * 16_000)).clip(-1, 1)
PCM = (32_767 * NOISE).astype("<i2")


def moments(windows):
    """A model: the mean, the spread and the maximum of a window, as logits."""
    return np.stack([windows.mean(axis=1), windows.std(axis=1), windows.max(axis=1)], axis=1)


MODEL = Predictor(moments, AUDIO_CONFIG, ("mean", "spread", "peak"), 16_000, 6_000, "max")


@pytest.mark.parametrize(("samples", "rate"), [(48_000, 16_000), (16_001, 16_000), (900, 16_000), (48_000, 22_050)])
@pytest.mark.parametrize("block", [800, 7_001])
def test_the_windows_and_logits_of_a_stream_are_those_of_its_file(tmp_path, samples, rate, block):
    sf.write(tmp_path / "same.wav", PCM[:samples], rate, subtype="PCM_16")
    stream = read_pcm(io.BytesIO(PCM[:samples].tobytes()), block=block)
    found = [*zip(*predict_stream(MODEL, stream, sample_rate=rate), strict=True)]
    for ours, of_file in zip(found, predict_windows(MODEL, tmp_path / "same.wav"), strict=True):
        np.testing.assert_allclose(ours, of_file, atol=1e-6)


def test_a_window_is_predicted_as_soon_as_its_last_sample_has_arrived():
    given = []

    def blocks():
        for number in range(60):
            given.append(number)
            yield np.zeros(800, "float32")

    for number, (_, end, _) in zip(range(5), predict_stream(MODEL, blocks(), sample_rate=16_000)):
        assert (end, len(given)) == (1 + number * 0.375, 21 + round(number * 7.5 - 0.01)), number


def test_a_cut_sample_at_the_end_is_left_out():
    read = np.concatenate([*read_pcm(io.BytesIO(PCM[:1_000].tobytes() + b"x"), block=300)])
    np.testing.assert_array_equal(read, PCM[:1_000] / np.float32(32_768))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input: has no samples"),
        (b"x", "standard input: has no samples"),
        (b"RIFF\0\0\0\0WAVEfmt ", "begins like a file in WAV. Expected raw samples .* add -f s16le -ac 1"),
        (b"OggS" + bytes(60), "begins like a file in Ogg"),
    ],
)
def test_what_is_no_raw_signal_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        next(read_pcm(io.BytesIO(content), block=800))


def test_a_model_that_scales_recordings_to_a_peak_is_refused():
    model = Predictor(moments, AUDIO_CONFIG | {"peak_db": -1.0}, ("mean", "spread", "peak"), 16_000, 6_000, "max")
    with pytest.raises(DataError, match="scales each recording to one peak"):
        next(predict_stream(model, [NOISE], sample_rate=16_000))


def test_a_window_is_a_line_of_its_classes_or_an_object_of_all_probabilities():
    logits = np.array([-3.0, 0.5, 3.0])
    assert as_line(MODEL)(0.375, 1.375, logits) == "     0.38       1.38  peak 95%, spread 62%"
    assert as_line(MODEL, 0.9)(0.375, 1.375, logits) == "     0.38       1.38  peak 95%"
    assert as_line(MODEL)(0, 1, logits - 9) == "     0.00       1.00  -"
    assert as_json(MODEL)(0.375, 1.375, logits) == (
        '{"start": 0.375, "end": 1.375, "probabilities": {"mean": 0.047426, "spread": 0.622459, "peak": 0.952574}}'
    )
