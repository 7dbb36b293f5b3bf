"""How audio files are read; stored with records, runs and exported models."""

from typing import Literal

from pydantic import Field

from audiotag.config.components import Section


class AudioConfig(Section):
    """The options of `decoding.read_waveform`.

    With them, a model reads files as its records were made. `sample_rate` is in Hz, `trim_db` in dB, `peak_db` in
    dBFS; None leaves out the trimming or the scaling.
    """

    sample_rate: int = Field(gt=0)
    trim: Literal["relative", "absolute"] | None
    trim_db: float | None
    peak_db: float | None
