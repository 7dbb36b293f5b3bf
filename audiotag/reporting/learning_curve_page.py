"""The page of `advise`: the learning curve and its forecast."""

from pathlib import Path

import numpy as np

from audiotag import __version__
from audiotag.evaluation.measures import MEASURES
from audiotag.reporting.page import cells, chart_column, difference_bar, line_chart, write_page
from audiotag.sweeps.learning_curve import Advice


def write_learning_curve_page(advice: Advice, path: str | Path, *, title: str) -> None:
    """Writes the page of a learning curve.

    Args:
        advice: What `advise` returns.
        path: The HTML file to write.
        title: The name of the run.
    """
    measured, fitted = advice.curve[advice.curve["models"] > 0], advice.fitted
    now = int(measured["clips"].iloc[-1])
    bands = np.stack([fitted["value"] - fitted["low"], fitted["high"] - fitted["value"]])
    chart = line_chart(
        {
            "fitted, with its 95% interval": (fitted["clips"], fitted["value"], bands),
            "mean of the trainings": (measured["clips"], measured["value"]),
        },
        x="training clips",
        y=advice.measure,
        marks={f"now: {now:,} clips": now},
    )
    widest = max(advice.classes[["low", "high"]].abs().max(axis=None), 1e-9)
    classes = advice.classes.copy()
    bars = [
        difference_bar(gain, low, high, widest)
        for gain, low, high in classes[["gain", "low", "high"]].itertuples(index=False)
    ]
    classes.insert(classes.columns.get_loc("gain"), " ", chart_column(bars))
    write_page(
        path,
        "learning_curve.html",
        version=__version__,
        title=f"Learning curve of {title}",
        sentences=advice.sentences,
        chart=chart,
        measure=advice.measure,
        meaning=MEASURES[advice.measure],
        curve=cells(advice.curve.rename(columns={"value": advice.measure})),
        classes=cells(classes),
    )
