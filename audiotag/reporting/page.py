"""Self-contained HTML pages: templates, SVG charts, audio, images.

A page needs no network and no script. Templates escape what they are given, and charts
escape their texts here, so a label may hold any text.
"""

import base64
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import soundfile as sf
import soxr
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from audiotag import files

FFT_SECONDS, LOW_HZ, NUM_BANDS, NUM_FRAMES = 0.04, 50.0, 96, 250  # of spectrograms; at most so many frames
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("audiotag.reporting"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def write_page(path: str | Path, template: str, **content: Any) -> None:
    """Fills a template and writes the page atomically."""
    files.write_text(path, TEMPLATES.get_template(template).render(**content))


def cells(table: pd.DataFrame, *, digits: int = 3) -> dict[str, list]:
    """A table for the templates.

    Returns:
        {"columns": [...], "rows": [[(text, is a number), ...], ...]}.

    Example:
        >>> cells(pd.DataFrame({"class": ["Bark"], "clips": [3], "lwlrap": [0.5]}))["rows"]
        [[('Bark', False), ('3', True), ('0.500', True)]]
    """
    rows = [[_cell(value, digits) for value in row] for row in table.itertuples(index=False, name=None)]
    return {"columns": [str(column).replace("_", " ") for column in table], "rows": rows}


def chart_column(charts: Iterable[str]) -> pd.Series:
    """A column of charts; pandas would make plain text of them, which is escaped."""
    return pd.Series([*charts], dtype=object)


def _cell(value, digits):
    if isinstance(value, (float, np.floating)):
        return ("–" if np.isnan(value) else f"{value:.{digits}f}", True)
    if isinstance(value, (int, np.integer)):
        return (f"{value:,}", True)
    return (value, False)


# Charts: SVG in the colors of the page


def line_chart(
    lines: Mapping[str, tuple],
    *,
    x: str,
    y: str,
    low: float | None = None,
    high: float | None = None,
    marks: Mapping[str, float] | None = None,
) -> str:
    """Lines over a common horizontal axis.

    Args:
        lines: {name: (xs, ys)}, or (xs, ys, deviations) with a band of one deviation to either side, or of two, below
            and above; points with NaN are left out.
        x: The name of the horizontal axis.
        y: The name of the vertical axis, for screen readers.
        low: The lower end of the vertical axis; None is the least value.
        high: Its upper end; None is the greatest value.
        marks: {name: x}, vertical lines.

    Returns:
        A figure with a legend; "" without points.
    """
    curves = {name: _points(*line) for name, line in lines.items()}
    curves = {name: points for name, points in curves.items() if points.size}
    if not curves:
        return ""
    all_points = np.concatenate([*curves.values()], axis=1)  # [4, points]
    left, right = all_points[0].min(), all_points[0].max()
    bottom = (all_points[1] - all_points[2]).min() if low is None else low
    top = (all_points[1] + all_points[3]).max() if high is None else high
    to_x = lambda value: 56 + 372 * (value - left) / max(right - left, 1e-9)
    to_y = lambda value: 204 - 190 * (value - bottom) / max(top - bottom, 1e-9)
    shapes = [_grid_lines(_ticks(bottom, top), to_y, left=52, right=432)]
    shapes += [_text(to_x(value), 222, f"{value:g}", "middle") for value in _ticks(left, right, whole=True)]
    shapes.append(_text(242, 242, x, "middle"))
    for name, position in (marks or {}).items():
        shapes.append(
            f'<line class="faint" x1="{to_x(position):.1f}" x2="{to_x(position):.1f}" y1="14" y2="204">'
            f"<title>{escape(name)}</title></line>"
        )
    for index, (name, (xs, ys, below, above)) in enumerate(curves.items()):
        style = f'class="line line-{index % 6}"'
        title = f"<title>{escape(name)}</title>"
        if below.any() or above.any():
            edges = [*zip(xs, ys + above), *zip(xs[::-1], (ys - below)[::-1])]
            outline = " ".join(f"{to_x(a):.1f},{to_y(b):.1f}" for a, b in edges)
            shapes.append(f'<polygon class="band line-{index % 6}" points="{outline}" />')
        if len(xs) == 1:
            shapes.append(f'<circle {style} cx="{to_x(xs[0]):.1f}" cy="{to_y(ys[0]):.1f}" r="3">{title}</circle>')
        path = " ".join(f"{to_x(a):.1f},{to_y(b):.1f}" for a, b in zip(xs, ys))
        shapes.append(f'<polyline {style} points="{path}">{title}</polyline>')
    legend = "".join(f'<li class="line-{i % 6}">{escape(name)}</li>' for i, name in enumerate(curves))
    legend += "".join(f'<li class="mark">{escape(name)}</li>' for name in marks or {})
    chart = f'<svg viewBox="0 0 440 250" role="img" aria-label="{escape(y)} over {escape(x)}">{"".join(shapes)}</svg>'
    return Markup(f'<figure>{chart}<figcaption><ul class="legend">{legend}</ul></figcaption></figure>')


def _points(xs, ys, deviations=None):
    """The points of a line without NaN: float64 [4, N], x, y, and the deviations below and above."""
    ys = np.asarray(ys, float)
    deviations = np.zeros_like(ys) if deviations is None else np.nan_to_num(np.asarray(deviations, float))
    points = np.concatenate([[np.asarray(xs, float), ys], np.broadcast_to(deviations, (2, len(ys)))])
    return points[:, ~np.isnan(points).any(axis=0)]


def column_chart(low: ArrayLike, high: ArrayLike, *, right: float, x: str, y: str) -> str:
    """Adjacent columns of one width: a histogram, a spectrum, or a waveform.

    Args:
        low: The lower end of each column, [N], N >= 1; 0 for all of a histogram.
        high: The upper ends, [N].
        right: The value at the right edge of the chart; 0 is at the left.
        x: The name of the horizontal axis.
        y: What the columns show, for screen readers.
    """
    low, high = np.broadcast_arrays(np.asarray(low, float), np.asarray(high, float))  # [N]
    bottom, top = low.min(), high.max()
    to_x = lambda value: 48 + 246 * value / max(right, 1e-9)
    to_y = lambda value: 124 - 112 * (value - bottom) / max(top - bottom, 1e-9)
    edges = to_x(np.linspace(0, right, len(low) + 1)).repeat(2)[1:-1]  # [2 N]
    outline = [*zip(edges, to_y(high).repeat(2)), *zip(edges[::-1], to_y(low[::-1]).repeat(2))]
    points = " ".join(f"{place:.1f},{height:.1f}" for place, height in outline)
    shapes = [_grid_lines(_ticks(bottom, top, count=3), to_y, left=44, right=296)]
    shapes.append(f'<polygon class="fill" points="{points}" />')
    shapes += [_text(to_x(value), 142, f"{value:g}", "middle") for value in _ticks(0, right, count=4)]
    shapes.append(_text(171, 160, x, "middle"))
    label = f"{escape(y)} over {escape(x)}"
    return Markup(f'<svg class="small" viewBox="0 0 310 166" role="img" aria-label="{label}">{"".join(shapes)}</svg>')


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> str:
    """How often clips of one class were given each class, as a table.

    A cell is colored by its fraction of the row.

    Args:
        counts: int [K, K], rows are the given labels, columns the most probable classes.
        names: Of the classes.
    """
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    rows = []
    for name, row in zip(names, counts):
        total = max(1, row.sum())
        cells = []
        for other, count in zip(names, row):
            kind = "right" if other == name else "wrong"
            title = f"{name} → {other}: {count} of {row.sum()}"
            style = f' class="{kind}" style="--share: {100 * count / total:.0f}%"' if count else ""
            cells.append(f'<td{style} title="{escape(title)}">{count or ""}</td>')
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return Markup(
        f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def spectrogram_axes(seconds: float, low_hz: float, high_hz: float, position: Callable[[float], float]) -> dict:
    """The labels along a spectrogram.

    Args:
        seconds: Its length.
        low_hz: Frequency at its lower edge.
        high_hz: Frequency at its upper edge.
        position: Converts Hz to an axis on which the image is even, such as mel.

    Returns:
        {"hz": [(text, percent from the bottom)], "seconds": [(text, percent from the left)]}.
    """
    bottom, top = position(low_hz), position(high_hz)
    hz = [
        (f"{value // 1000} kHz" if value >= 1000 else f"{value} Hz", 100 * (position(value) - bottom) / (top - bottom))
        for value in (200, 500, 1_000, 2_000, 4_000, 8_000, 16_000)
        if low_hz < value <= 0.95 * high_hz
    ]
    times = [(f"{value:g} s", 100 * value / seconds) for value in _ticks(0, seconds, count=4) if value < seconds * 0.97]
    return {"hz": hz, "seconds": times}


def reliability_chart(table: pd.DataFrame) -> str:
    """The reliability curve of `thresholds.calibration`, beside the diagonal."""
    to_x, to_y = lambda value: 40 + 200 * value, lambda value: 210 - 200 * value
    largest = max(table["predictions"].max(), 1)
    shapes = [
        _grid_lines(np.linspace(0, 1, 5), to_y, left=40, right=240),
        '<line class="faint" x1="40" y1="210" x2="240" y2="10" />',
    ]
    for row in table.itertuples():
        radius = 2 + 5 * np.sqrt(row.predictions / largest)
        title = f"<title>{row.predictions:,} predictions of {row.probability:.2f}: {row.fraction:.2f} correct</title>"
        shapes.append(
            f'<circle class="dot" cx="{to_x(row.probability):.1f}" cy="{to_y(row.fraction):.1f}" r="{radius:.1f}">'
            f"{title}</circle>"
        )
    shapes += [_text(to_x(value), 226, f"{value:g}", "middle") for value in (0, 0.5, 1)]
    shapes.append(_text(140, 240, "probability", "middle"))
    return Markup(
        '<svg class="square" viewBox="0 0 250 244" role="img" aria-label="Fraction of correct predictions over their '
        f'probability">{"".join(shapes)}</svg>'
    )


def interval_bar(value: float, low: float, high: float, chance: float) -> str:
    """A value from 0 to 1 as a bar with its interval, and a tick at the chance level."""
    to_x = lambda fraction: 160 * min(max(0, fraction), 1)  # 0 for NaN
    return Markup(
        '<svg class="bar" viewBox="0 0 160 14" role="img" '
        f'aria-label="{value:.2f}, {low:.2f} to {high:.2f}, chance {chance:.2f}">'
        f'<rect class="fill" x="0" y="3" width="{to_x(value):.1f}" height="8" />'
        f'<line class="whisker" x1="{to_x(low):.1f}" x2="{to_x(high):.1f}" y1="7" y2="7" />'
        f'<line class="tick" x1="{to_x(chance):.1f}" x2="{to_x(chance):.1f}" y1="0" y2="14" /></svg>'
    )


def fraction_bar(value: float) -> str:
    """A value from 0 to 1 as a bar; "" for NaN."""
    if np.isnan(value):
        return ""
    return Markup(
        f'<svg class="bar" viewBox="0 0 160 14" role="img" aria-label="{value:.2f}">'
        f'<rect class="fill" x="0" y="2" width="{160 * value:.1f}" height="10" /></svg>'
    )


def difference_bar(value: float, low: float, high: float, widest: float) -> str:
    """A difference as a dot with its interval, and a tick at 0; "" for NaN.

    Args:
        value: The difference.
        low: The lower end of its interval.
        high: The upper end.
        widest: The difference at the right end of the bar.
    """
    if np.isnan([value, low, high]).any():
        return ""
    to_x = lambda difference: 80 + 74 * difference / widest
    return Markup(
        f'<svg class="bar" viewBox="0 0 160 14" role="img" aria-label="{value:+.3f}, {low:+.3f} to {high:+.3f}">'
        '<line class="tick" x1="80" x2="80" y1="0" y2="14" />'
        f'<line class="whisker" x1="{to_x(low):.1f}" x2="{to_x(high):.1f}" y1="7" y2="7" />'
        f'<circle class="dot" cx="{to_x(value):.1f}" cy="7" r="3.5" /></svg>'
    )


def count_bar(counts: Sequence[int], largest: int) -> str:
    """Counts as one stacked bar, whose full width is `largest`."""
    shapes, left = [], 0.0
    for index, count in enumerate(counts):
        width = 160 * count / max(largest, 1)
        shapes.append(f'<rect class="fill fill-{index}" x="{left:.1f}" y="2" width="{width:.1f}" height="10" />')
        left += width
    label = " and ".join(map(str, counts))
    return Markup(f'<svg class="bar" viewBox="0 0 160 14" role="img" aria-label="{label}">{"".join(shapes)}</svg>')


def violin(seconds: Sequence[float], longest: float) -> str:
    """A horizontal violin plot of durations, with a tick at the median.

    It reaches from 0 to `longest` seconds. The density is a Gaussian kernel estimate whose width
    follows Silverman's rule (1986).
    """
    durations = np.asarray(seconds, float)  # [N]
    if not len(durations):
        return ""
    grid = np.linspace(0, longest, 81)
    width = max(1.06 * durations.std() * len(durations) ** -0.2, longest / 60)
    density = np.exp(-0.5 * ((grid[:, None] - durations) / width) ** 2).sum(axis=1)  # [81]
    density = 9 * density / density.max()
    upper = [f"{2 * index:.1f},{11 - height:.1f}" for index, height in enumerate(density)]
    lower = [f"{2 * index:.1f},{11 + height:.1f}" for index, height in enumerate(density)]
    median = 160 * np.median(durations) / longest
    return Markup(
        f'<svg class="bar" viewBox="0 0 160 22" role="img" aria-label="median {np.median(durations):.1f} s, '
        f'{durations.min():.1f} to {durations.max():.1f} s"><polygon class="fill" '
        f'points="{" ".join(upper + lower[::-1])}" />'
        f'<line class="tick" x1="{median:.1f}" x2="{median:.1f}" y1="0" y2="22" /></svg>'
    )


def _ticks(low, high, *, count=5, whole=False):
    """About `count` round numbers from low to high."""
    values = MaxNLocator(nbins=count, integer=whole, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = values[(values >= low - 1e-9) & (values <= high + 1e-9)]
    return inside if len(inside) else np.array([low])


def _grid_lines(values, to_y, *, left, right):
    """Horizontal lines with their values."""
    shapes = []
    for value in values:
        shapes.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{to_y(value):.1f}" y2="{to_y(value):.1f}" />')
        shapes.append(_text(left - 4, to_y(value) + 4, f"{value:.3g}", "end"))
    return "".join(shapes)


def _text(x, y, text, anchor):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


# Audio and images inside the page


def sound_url(waveform: np.ndarray, sample_rate: int) -> str:
    """A waveform [N] as the data URL of an MP3, or a WAV without MP3 support."""
    rate = sample_rate if sample_rate in MP3_RATES else 44_100
    sound = np.clip(waveform if rate == sample_rate else soxr.resample(waveform, sample_rate, rate), -1, 1)
    file_format, subtype = ("MP3", "mpeg") if "MP3" in sf.available_formats() else ("WAV", "wav")
    encoded = io.BytesIO()
    sf.write(encoded, sound, rate, format=file_format)
    return f"data:audio/{subtype};base64,{base64.b64encode(encoded.getvalue()).decode()}"


def spectrogram(waveform: np.ndarray, sample_rate: int) -> dict[str, Any]:
    """The mel spectrogram of a waveform [N] for the template `spectrogram.html`.

    Returns:
        {"image": the data URL of a PNG, "axes": what `spectrogram_axes` returns}.
    """
    image = image_url(mel_decibels(waveform, sample_rate))
    return {"image": image, "axes": mel_axes(len(waveform) / sample_rate, sample_rate)}


def mel_decibels(
    waveform: np.ndarray, sample_rate: int, *, num_bands: int = NUM_BANDS, num_frames: int = NUM_FRAMES
) -> np.ndarray:
    """The mel spectrogram of a waveform [N] in dB, down to 80 below its loudest.

    Args:
        waveform: float [N].
        sample_rate: In Hz.
        num_bands: M.
        num_frames: About the most frames.

    Returns:
        float32 [T, M].
    """
    import librosa  # here: it takes a second, and not every page has spectrograms

    fft_length = 2 ** int(np.ceil(np.log2(FFT_SECONDS * sample_rate)))
    low, high = _mel_range(sample_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of clips shorter than a window, and of bands without a bin
        power = librosa.feature.melspectrogram(
            y=np.asarray(waveform, "float32"), sr=sample_rate, n_fft=fft_length, n_mels=num_bands, fmin=low, fmax=high,
            hop_length=max(fft_length // 16, len(waveform) // num_frames),
        )  # fmt: skip
        return librosa.power_to_db(power, ref=np.max, top_db=80.0).T


def mel_axes(seconds: float, sample_rate: int) -> dict:
    """`spectrogram_axes` of `mel_decibels`."""
    import librosa

    low, high = _mel_range(sample_rate)
    return spectrogram_axes(seconds, low, high, lambda hz: float(librosa.hz_to_mel(hz)))


def _mel_range(sample_rate):
    """The lowest and the highest frequency of a spectrogram, in Hz."""
    return min(LOW_HZ, sample_rate / 8), sample_rate / 2


def image_url(decibels: np.ndarray) -> str:
    """A spectrogram [T, M] in dB as the data URL of a PNG, low bands at the bottom."""
    return f"data:image/png;base64,{base64.b64encode(image_png(decibels)).decode()}"


def image_png(decibels: np.ndarray) -> bytes:
    """A spectrogram [T, M] in dB as a PNG, low bands at the bottom."""
    image = np.asarray(decibels).T[::-1]  # [M, T]
    scaled = (image - image.min()) / max(np.ptp(image), 1e-9)
    encoded = io.BytesIO()
    imsave(encoded, colormaps["magma"](scaled, bytes=True), format="png")
    return encoded.getvalue()
