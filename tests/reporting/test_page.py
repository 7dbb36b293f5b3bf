import base64
import io

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from audiotag.reporting.page import (
    cells,
    chart_column,
    column_chart,
    confusion_matrix,
    count_bar,
    image_url,
    interval_bar,
    line_chart,
    reliability_chart,
    sound_url,
    spectrogram,
    spectrogram_axes,
    violin,
    write_page,
)

HOSTILE = "<script>alert(1)</script>\"'"


def decoded(url):
    return io.BytesIO(base64.b64decode(url.split(",", 1)[1]))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 20_000])
def test_a_sound_can_be_decoded_again(rate):
    seconds = np.arange(2 * rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * seconds)).astype("float32")
    url = sound_url(tone, rate)
    sound, decoded_rate = sf.read(decoded(url))
    assert url.startswith("data:audio/mpeg;base64,") and len(url) < 70_000
    assert len(sound) / decoded_rate == pytest.approx(2, abs=0.1)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert spectrum.argmax() * decoded_rate / len(sound) == pytest.approx(440, abs=3)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.05)


def test_an_image_has_a_pixel_per_frame_and_band_with_low_bands_at_the_bottom():
    decibels = np.zeros((50, 20))
    decibels[:, 0] = 80  # the lowest band is loud
    image = matplotlib.image.imread(decoded(image_url(decibels)))
    assert image.shape[:2] == (20, 50)
    assert image[-1, :, :3].mean() > 0.8 and image[:-1, :, :3].max() < 0.05
    assert np.isfinite(matplotlib.image.imread(decoded(image_url(np.zeros((3, 4)))))).all()  # silence


def test_texts_in_charts_are_escaped():
    chart = line_chart({HOSTILE: ([1, 2], [0.1, np.nan])}, x=HOSTILE, y=HOSTILE)
    assert "<script" not in chart and "&lt;script&gt;" in chart
    assert line_chart({}, x="epoch", y="loss") == ""


def test_columns_have_the_height_of_their_values():
    chart = column_chart([0, 0, -1], [2, 4, 1], right=3.0, x=HOSTILE, y=HOSTILE)
    assert "<script" not in chart
    points = chart.split('points="')[1].split('"')[0].split()
    x, y = np.array([point.split(",") for point in points], float).T
    tops = y[:6].reshape(3, 2)  # two corners of each column
    assert (tops[:, 0] == tops[:, 1]).all() and x[0] < x[1] == x[2] < x[3] == x[4] < x[5]
    np.testing.assert_allclose((tops[2, 0] - tops[:, 0]) / (tops[0, 0] - tops[1, 0]), [0.5, 1.5, 0], atol=0.01)
    np.testing.assert_allclose(np.ptp(y) / (tops[0, 0] - tops[1, 0]), 5 / 2, atol=0.01)
    assert "nan" not in column_chart(0, [0.0], right=0, x="s", y="nothing")


def test_a_line_passes_through_its_points():
    chart = line_chart({"fold 0": ([1, 2, 3], [0.0, 0.5, 1.0])}, x="epoch", y="lwlrap")
    assert 'points="56.0,204.0 242.0,109.0 428.0,14.0"' in chart


def test_several_folds_have_a_band_and_an_epoch_can_be_marked():
    chart = line_chart(
        {"validation": ([1, 2, 3], [0.0, 0.5, 1.0], [0.0, 0.1, np.nan])}, x="epoch", y="lwlrap", low=0, high=1,
        marks={"epoch 2, which was kept": 2.0},
    )  # fmt: skip
    assert (
        '<polygon class="band line-0" points="56.0,204.0 242.0,90.0 428.0,14.0 428.0,14.0 242.0,128.0 56.0,204.0"'
        in chart
    )
    assert 'x1="242.0" x2="242.0"' in chart and '<li class="mark">epoch 2, which was kept</li>' in chart


def test_a_confusion_matrix_is_colored_by_the_fraction_of_its_row():
    table = confusion_matrix(np.array([[3, 1], [0, 0]]), ["Bark", HOSTILE])
    assert "<script" not in table and table.count("<tr>") == 3
    assert '<td class="right" style="--share: 75%" title="Bark → Bark: 3 of 4">3</td>' in table
    assert '<td class="wrong" style="--share: 25%"' in table and "0 of 0" in table


def test_the_axes_of_a_spectrogram_have_round_numbers():
    axes = spectrogram_axes(2.0, 50, 4_000, lambda hz: hz)
    assert [text for text, _ in axes["hz"]] == ["200 Hz", "500 Hz", "1 kHz", "2 kHz"]
    assert axes["hz"][2][1] == pytest.approx(100 * 950 / 3950)
    assert axes["seconds"] == [("0 s", 0), ("0.5 s", 25), ("1 s", 50), ("1.5 s", 75)]


def test_bars_are_as_long_as_their_values():
    bar = interval_bar(0.5, 0.25, 1.0, 0.1)
    assert 'width="80.0"' in bar and 'x1="40.0" x2="160.0"' in bar and 'x1="16.0"' in bar
    assert count_bar([10, 30], 40).count("<rect") == 2 and 'width="120.0"' in count_bar([10, 30], 40)
    assert 'x1="nan"' not in interval_bar(*[float("nan")] * 3, 0.1)


def test_a_violin_is_thickest_at_the_most_frequent_duration():
    shape = violin(np.random.default_rng(0).normal(3, 0.3, 200), 12)
    points = [tuple(map(float, pair.split(","))) for pair in shape.split('points="')[1].split('"')[0].split()]
    thickest = min(points, key=lambda point: point[1])
    assert thickest[0] == pytest.approx(160 * 3 / 12, abs=4)
    assert violin([], 12) == ""
    assert "polygon" in violin([1.0, 1.0], 12)


def test_a_reliability_point_is_at_its_probability_and_fraction():
    table = pd.DataFrame({"predictions": [10], "probability": [0.5], "fraction": [1.0]})
    assert 'cx="140.0" cy="10.0"' in reliability_chart(table)


def test_templates_escape_texts_but_not_charts(tmp_path):
    table = pd.DataFrame({HOSTILE: [HOSTILE], "fraction": [np.nan]})
    table["chart"] = chart_column([count_bar([1], 1)])
    content = {name: cells(table) for name in ("subsets", "labels_per_clip", "classes", "pairs")}
    write_page(
        tmp_path / "page.html", "dataset.html", title=HOSTILE, source=HOSTILE, version="0", cards=[], bars=[HOSTILE],
        measured=False, **content,
    )  # fmt: skip
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text and "<svg" in text and "–" in text


@pytest.mark.parametrize(("rate", "samples"), [(16_000, 16_000), (44_100, 441_000), (8_000, 200)])
def test_a_tone_is_bright_at_its_frequency(rate, samples):
    drawn = spectrogram(np.sin(2 * np.pi * 2000 * np.arange(samples) / rate), rate)
    image = matplotlib.image.imread(decoded(drawn["image"]), format="png")[:, :, :3].sum(axis=2)  # [M, T]
    assert image.shape[1] <= 260
    percent = 100 * (1 - (image.mean(axis=1).argmax() + 0.5) / len(image))
    assert abs(percent - dict(drawn["axes"]["hz"])["2 kHz"]) < 2.5
