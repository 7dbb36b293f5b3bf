"""Pages that need nothing but themselves: no network, no script, light or dark, wide or narrow.

Templates escape whatever they are given, and charts escape their words here, so a label may hold any text.
"""

import base64
import io

import jinja2
import numpy as np
import pandas as pd
import soundfile as sf
import soxr
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.image import imsave

from audiotag import files

MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("audiotag.reporting"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def write_page(path, template, **content):
    """Fills a template and writes the page, whole or not at all."""
    files.write_text(path, TEMPLATES.get_template(template).render(**content))


def cells(table, *, digits=3):
    """A table for the templates: {"columns": [...], "rows": [[(text, is a number), ...], ...]}.

    Example:
        >>> cells(pd.DataFrame({"class": ["Bark"], "clips": [3], "lwlrap": [0.5]}))["rows"]
        [[('Bark', False), ('3', True), ('0.500', True)]]
    """
    rows = [[_cell(value, digits) for value in row] for row in table.itertuples(index=False, name=None)]
    return {"columns": [str(column).replace("_", " ") for column in table], "rows": rows}


def drawn(charts):
    """A column of charts for a table: pandas would make plain text of them, which templates escape."""
    return pd.Series([*charts], dtype=object)


def _cell(value, digits):
    if isinstance(value, (float, np.floating)):
        return ("–" if np.isnan(value) else f"{value:.{digits}f}", True)
    if isinstance(value, (int, np.integer)):
        return (f"{value:,}", True)
    return (value, False)


# Charts: SVG in the colours of the page


def line_chart(lines, *, x, y, low=None, high=None):
    """Lines over a common axis.

    Args:
        lines: {name: (xs, ys)}; NaN is left out.
        x: What the horizontal axis counts.
        y: What the vertical axis tells; it stands in words beside the chart.
        low: Its lower end; None is the least value.
        high: Its upper end; None is the greatest value.
    """
    lines = {name: np.stack([np.asarray(xs, float), np.asarray(ys, float)]) for name, (xs, ys) in lines.items()}
    lines = {name: points[:, ~np.isnan(points).any(axis=0)] for name, points in lines.items()}
    lines = {name: points for name, points in lines.items() if points.size}
    if not lines:
        return ""
    everything = np.concatenate([*lines.values()], axis=1)
    (left, bottom), (right, top) = everything.min(axis=1), everything.max(axis=1)
    bottom, top = bottom if low is None else low, top if high is None else high
    across = lambda value: 48 + 580 * (value - left) / max(right - left, 1e-9)
    up = lambda value: 210 - 195 * (value - bottom) / max(top - bottom, 1e-9)
    parts = [_ruler(bottom, top, up)]
    parts += [_text(across(value), 228, f"{value:g}", "middle") for value in dict.fromkeys((left, right))]
    parts.append(_text(338, 228, x, "middle"))
    for index, (name, points) in enumerate(lines.items()):
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in points.T)
        kind = f'class="line line-{index % 6}"'
        title = f"<title>{escape(name)}</title>"
        if points.shape[1] == 1:
            center = f'cx="{across(points[0, 0]):.1f}" cy="{up(points[1, 0]):.1f}"'
            parts.append(f'<circle {kind} {center} r="3">{title}</circle>')
        parts.append(f'<polyline {kind} points="{path}">{title}</polyline>')
    legend = "".join(f'<li class="line-{i % 6}">{escape(name)}</li>' for i, name in enumerate(lines))
    chart = f'<svg viewBox="0 0 640 234" role="img" aria-label="{escape(y)} over {escape(x)}">{"".join(parts)}</svg>'
    return Markup(f'<figure>{chart}<figcaption><ul class="legend">{legend}</ul></figcaption></figure>')


def reliability_chart(table):
    """Share of answers that hold over their probability, beside the diagonal where the two agree."""
    across, up = lambda value: 40 + 200 * value, lambda value: 210 - 200 * value
    largest = max(table["answers"].max(), 1)
    parts = [_ruler(0, 1, up, right=240), '<line class="faint" x1="40" y1="210" x2="240" y2="10" />']
    for row in table.itertuples():
        radius = 2 + 5 * np.sqrt(row.answers / largest)
        title = f"<title>{row.answers:,} answers of {row.probability:.2f}: {row.share:.2f} hold</title>"
        parts.append(
            f'<circle class="dot" cx="{across(row.probability):.1f}" cy="{up(row.share):.1f}" r="{radius:.1f}">'
            f"{title}</circle>"
        )
    parts += [_text(across(value), 226, f"{value:g}", "middle") for value in (0, 0.5, 1)]
    parts.append(_text(140, 240, "probability", "middle"))
    return Markup(
        '<svg class="square" viewBox="0 0 250 244" role="img" aria-label="Share of answers that hold over their '
        f'probability">{"".join(parts)}</svg>'
    )


def interval_bar(value, low, high, chance):
    """A share as a bar with its interval, and a tick where chance lies."""
    x = lambda share: 160 * min(max(0, share), 1)  # 0 where there is no share
    return Markup(
        '<svg class="bar" viewBox="0 0 160 14" role="img" '
        f'aria-label="{value:.2f}, {low:.2f} to {high:.2f}, chance {chance:.2f}">'
        f'<rect class="fill" x="0" y="3" width="{x(value):.1f}" height="8" />'
        f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="7" y2="7" />'
        f'<line class="tick" x1="{x(chance):.1f}" x2="{x(chance):.1f}" y1="0" y2="14" /></svg>'
    )


def count_bar(counts, most):
    """Counts side by side as one bar, for instance of curated and noisy clips."""
    parts, left = [], 0.0
    for index, count in enumerate(counts):
        width = 160 * count / max(most, 1)
        parts.append(f'<rect class="fill fill-{index}" x="{left:.1f}" y="2" width="{width:.1f}" height="10" />')
        left += width
    words = " and ".join(map(str, counts))
    return Markup(f'<svg class="bar" viewBox="0 0 160 14" role="img" aria-label="{words}">{"".join(parts)}</svg>')


def violin(values, longest):
    """The density of some values between 0 and `longest`, as a violin lying down, with a tick at the median."""
    values = np.asarray(values, float)
    if not len(values):
        return ""
    places = np.linspace(0, longest, 81)
    width = max(1.06 * values.std() * len(values) ** -0.2, longest / 60)  # Silverman's rule
    density = np.exp(-0.5 * ((places[:, None] - values) / width) ** 2).sum(axis=1)
    density = 9 * density / density.max()
    upper = [f"{2 * index:.1f},{11 - thick:.1f}" for index, thick in enumerate(density)]
    lower = [f"{2 * index:.1f},{11 + thick:.1f}" for index, thick in enumerate(density)]
    middle = 160 * np.median(values) / longest
    return Markup(
        f'<svg class="bar" viewBox="0 0 160 22" role="img" aria-label="median {np.median(values):.1f} s, '
        f'{values.min():.1f} to {values.max():.1f} s"><polygon class="fill" points="{" ".join(upper + lower[::-1])}" />'
        f'<line class="tick" x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="22" /></svg>'
    )


def _ruler(bottom, top, up, *, right=628):
    """Horizontal lines with their values."""
    lines = []
    for value in np.linspace(bottom, top, 5):
        lines.append(f'<line class="grid" x1="40" x2="{right}" y1="{up(value):.1f}" y2="{up(value):.1f}" />')
        lines.append(_text(36, up(value) + 4, f"{value:.3g}", "end"))
    return "".join(lines)


def _text(x, y, words, anchor):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


# Sounds and pictures inside the page


def sound_url(waveform, sample_rate):
    """A waveform [N] as the address of an MP3 inside the page; WAV where soundfile writes no MP3."""
    rate = sample_rate if sample_rate in MP3_RATES else 44_100
    sound = np.clip(waveform if rate == sample_rate else soxr.resample(waveform, sample_rate, rate), -1, 1)
    kind, name = ("MP3", "mpeg") if "MP3" in sf.available_formats() else ("WAV", "wav")
    coded = io.BytesIO()
    sf.write(coded, sound, rate, format=kind)
    return f"data:audio/{name};base64,{base64.b64encode(coded.getvalue()).decode()}"


def picture_url(decibels):
    """A spectrogram [T, M] in decibels as the address of a PNG inside the page, low bands below."""
    picture = np.asarray(decibels).T[::-1]  # [M, T]
    scaled = (picture - picture.min()) / max(np.ptp(picture), 1e-9)
    coded = io.BytesIO()
    imsave(coded, colormaps["magma"](scaled, bytes=True), format="png")
    return f"data:image/png;base64,{base64.b64encode(coded.getvalue()).decode()}"
