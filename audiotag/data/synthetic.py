"""A small dataset of synthesized sounds, some with wrong labels.

It has FSDKaggle2019's layout on Kaggle. In order: one function per sound, the table of sounds, the clips of a subset,
the waveform of a clip, the files. Every clip has a random generator of its own, seeded by the seed, its subset and its
index, so it depends on no other clip.
"""

import csv
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf

from audiotag.errors import DataError
from audiotag.files import atomic_folder

SAMPLE_RATE = 44_100
SUBSETS = ("train_curated", "train_noisy", "test")
WRONG_FRACTION = {"train_curated": 0.0, "train_noisy": 0.4, "test": 0.0}
PUBLIC_FRACTION = 0.25
SHORTEST_SECONDS, LONGEST_SECONDS = 0.3, 15.0


# Building blocks; waveforms are float64 [N].


def generator(seed: int, *key: int) -> np.random.Generator:
    """A random generator for `key`, independent of all other draws."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from low to high, log-uniform."""
    return low * (high / low) ** rng.random()


def times(seconds: float) -> np.ndarray:
    """The time of every sample, in seconds."""
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE  # [N]


def sine(hz: np.ndarray) -> np.ndarray:
    """A tone with the instantaneous frequencies `hz` [N]."""
    return np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE)


def fade(num_samples: int, fade_seconds: float) -> np.ndarray:
    """An envelope with a linear fade-in and fade-out."""
    seconds = np.arange(num_samples) / SAMPLE_RATE  # [N]
    return np.clip(np.minimum(seconds, seconds[::-1]) / fade_seconds, 0, 1)


def band_pass(waveform: np.ndarray, low_hz: float, high_hz: float, slope: float = 0.0) -> np.ndarray:
    """Band-passes a waveform and weights it by frequency to the power `slope`."""
    fft_length = 1 << (len(waveform) - 1).bit_length()  # a power of two is much faster than most lengths
    hz = np.maximum(np.fft.rfftfreq(fft_length, 1 / SAMPLE_RATE), 1.0)  # [F]
    gain = (hz / low_hz) ** slope / ((1 + (low_hz / hz) ** 4) * (1 + (hz / high_hz) ** 4))
    return np.fft.irfft(gain * np.fft.rfft(waveform, fft_length))[: len(waveform)]  # [N]


def noise(rng: np.random.Generator, num_samples: int, low_hz: float, high_hz: float, slope: float = 0.0) -> np.ndarray:
    """Gaussian noise between two frequencies."""
    return band_pass(rng.standard_normal(num_samples), low_hz, high_hz, slope)


def rhythm(rng: np.random.Generator, seconds: float, pause: float, jitter: float = 0.1) -> np.ndarray:
    """Start times in seconds, about `pause` seconds apart."""
    steps = pause * rng.uniform(1 - jitter, 1 + jitter, size=1 + int(seconds / pause / (1 - jitter)))
    starts = np.cumsum(steps) - steps[0] + rng.uniform(0, min(0.15 * seconds, pause))
    return starts[starts < seconds]


def mix(seconds: float, starts: Sequence[float] | np.ndarray, sounds: Iterable[np.ndarray]) -> np.ndarray:
    """The sum of `sounds`, each from its start time; cut at `seconds`."""
    waveform = np.zeros(round(seconds * SAMPLE_RATE))
    for start, sound in zip(starts, sounds):
        rest = waveform[round(start * SAMPLE_RATE) :]
        rest[: len(sound)] += sound[: len(rest)]
    return waveform


def repeated(rng: np.random.Generator, seconds: float, starts: np.ndarray, stroke: np.ndarray) -> np.ndarray:
    """One stroke at every start time, at random levels."""
    return mix(seconds, starts, (rng.uniform(0.5, 1.0) * stroke for _ in starts))


# The sounds: each draws its pitch, speed, decay and brightness and fills `seconds`.


def alarm(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """An alarm clock: a hard, high tone switched on and off."""
    pitch, rate, hardness = draw(rng, 1500, 3200), draw(rng, 3.5, 9), draw(rng, 1.5, 5)
    beep = np.tanh(hardness * sine(np.full(round(SAMPLE_RATE * rng.uniform(0.45, 0.65) / rate), pitch)))
    return repeated(rng, seconds, rhythm(rng, seconds, 1 / rate, jitter=0.0), beep * fade(len(beep), 0.004))


def bell(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A church bell: long inharmonic partials; higher ones decay faster."""
    pitch, ring, brightness = draw(rng, 300, 1000), draw(rng, 0.5, 2.0), rng.uniform(0.7, 0.95)
    t = times(4 * ring)
    partials = (
        brightness**rank * np.exp(-t * ratio / ring) * np.sin(2 * np.pi * ratio * pitch * t)
        for rank, ratio in enumerate((0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 3.0, 4.1, 5.4, 6.8))
    )
    return repeated(rng, seconds, rhythm(rng, seconds, draw(rng, 0.7, 2.5)), sum(partials, np.zeros_like(t)))


def chirp(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A bird: phrases of short, high syllables that sweep up or down."""
    pitch, length = draw(rng, 2800, 5500), draw(rng, 0.04, 0.12)
    sweep = rng.choice([-1, 1]) * rng.uniform(0.3, 0.8)  # octaves
    syllable = sine(pitch * 2 ** (sweep * times(length) / length))
    syllable *= fade(len(syllable), length / 2)
    phrase_starts = rhythm(rng, seconds, draw(rng, 0.5, 1.2), jitter=0.3)
    starts = np.add.outer(phrase_starts, 1.4 * length * np.arange(rng.integers(2, 6))).ravel()
    return repeated(rng, seconds, starts, syllable)


def clicks(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A clock: regular ticks, a few milliseconds of high noise each."""
    t, decay = times(0.03), draw(rng, 0.001, 0.004)
    tick = np.exp(-t / decay) * noise(rng, len(t), draw(rng, 1500, 3500), draw(rng, 6000, 14000))
    return repeated(rng, seconds, rhythm(rng, seconds, 1 / draw(rng, 3, 9), jitter=0.03), tick)


def drip(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Water drops: short bubbles of rising pitch."""
    pitch, rise, decay = draw(rng, 450, 1100), draw(rng, 8, 20), draw(rng, 0.02, 0.05)
    t = times(5 * decay)
    starts = rhythm(rng, seconds, 1 / draw(rng, 2, 6), jitter=0.6)
    drops = (np.exp(-t / decay) * sine(pitch * rng.uniform(0.8, 1.25) * (1 + rise * t)) for _ in starts)
    return mix(seconds, starts, drops)


def drum(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A bass drum: a deep tone of falling pitch after a thud of noise."""
    pitch, decay, thud = draw(rng, 50, 110), draw(rng, 0.08, 0.2), draw(rng, 0.3, 1.2)
    t = times(5 * decay)
    skin = np.exp(-t / decay) * sine(pitch * (1 + 3 * np.exp(-t / 0.025)))
    stroke = skin + thud * np.exp(-t / 0.01) * noise(rng, len(t), 200, 4000)
    return repeated(rng, seconds, rhythm(rng, seconds, 1 / draw(rng, 1.5, 5)), stroke)


def engine(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A motor: four unequal cylinders at a speed that rises and falls."""
    t = times(seconds)
    rate, swing, period = draw(rng, 35, 90), rng.uniform(0.3, 1.0), rng.uniform(0.5, 1.2) * max(seconds, 1.0)
    speed = rate * 2 ** (swing * np.sin(2 * np.pi * (t / period + rng.random())))
    turns = np.cumsum(speed) / SAMPLE_RATE
    firing = np.exp(draw(rng, 4, 15) * (-np.cos(2 * np.pi * turns) - 1))
    firing *= rng.uniform(0.5, 1.0, size=4)[turns.astype(int) % 4]
    return band_pass(firing * (1 + 0.3 * rng.standard_normal(len(t))), 60, draw(rng, 600, 2500))


def hiss(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Steam: steady noise of high frequencies only."""
    steam = noise(rng, round(seconds * SAMPLE_RATE), draw(rng, 3000, 6000), draw(rng, 10000, 18000))
    return steam * fade(len(steam), seconds * draw(rng, 0.02, 0.3))


def hum(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A transformer: steady, slowly beating low harmonics; even ones are stronger."""
    t, pitch, tilt, beat = times(seconds), draw(rng, 48, 75), rng.uniform(0.5, 1.3), draw(rng, 0.3, 2)
    rank = np.arange(1, 15)
    level = rng.uniform(0.5, 1, size=14) * np.where(rank % 2 == 0, 2, 1) / rank**tilt
    harmonics = sum(a * np.sin(2 * np.pi * (k * pitch * t + rng.random())) for k, a in zip(rank, level))
    return harmonics * (1 + 0.2 * np.sin(2 * np.pi * beat * t))


def knock(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A fist on a door: groups of dull wooden blows."""
    t, decay = times(0.2), draw(rng, 0.012, 0.03)
    wood = sum(np.sin(2 * np.pi * draw(rng, 180, 900) * t) for _ in range(4))
    blow = np.exp(-t / decay) * (wood + draw(rng, 0.3, 1) * noise(rng, len(t), 300, 2500))
    group_starts = rhythm(rng, seconds, draw(rng, 1.1, 1.8), jitter=0.2)
    starts = np.add.outer(group_starts, draw(rng, 0.12, 0.22) * np.arange(rng.integers(3, 6))).ravel()
    return repeated(rng, seconds, starts, blow)


def pluck(rng: np.random.Generator, hz: float, ring_seconds: float, brightness: float) -> np.ndarray:
    """One plucked note: a burst of noise in a loop that damps high frequencies.

    Reference: Karplus and Strong, "Digital Synthesis of Plucked-String and Drum Timbres", 1983; all turns of the
    loop are computed at once.
    """
    period = round(SAMPLE_RATE / hz)
    turn = np.arange(round(3 * ring_seconds * hz))[:, None]  # [turns, 1]
    burst = np.fft.rfft(rng.uniform(-1, 1, size=period))  # [F]
    rank = np.arange(len(burst))
    loss = np.abs(np.cos(np.pi * rank / period)) ** (turn + 20 * (1 - brightness))  # [turns, F]
    return np.fft.irfft(burst * loss * np.exp(-turn / hz / ring_seconds) * (rank > 0), period).ravel()  # [N]


def plucked_string(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A guitar: overlapping plucked notes of one scale."""
    lowest, ring, brightness = rng.uniform(45, 60), draw(rng, 0.3, 1.0), rng.random()
    starts = rhythm(rng, seconds, 1 / draw(rng, 1.8, 5))
    pitches = librosa.midi_to_hz(lowest + rng.choice([0, 2, 4, 7, 9, 12], size=len(starts)))
    return mix(seconds, starts, (pluck(rng, hz, ring, brightness) for hz in pitches))


def rain(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Rain: soft noise with thousands of single drops."""
    num_samples = round(seconds * SAMPLE_RATE)
    drops = rng.standard_normal(num_samples) * (rng.random(num_samples) < draw(rng, 100, 500) / SAMPLE_RATE)
    patter = band_pass(drops, draw(rng, 600, 1500), draw(rng, 4000, 9000))
    rush = noise(rng, num_samples, 300, 9000, slope=-0.7)
    return patter / patter.std() + draw(rng, 0.3, 0.8) * rush / rush.std()


def siren(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A siren: a loud tone that sweeps up and down without a pause."""
    t = times(seconds)
    lowest, octaves, rate = draw(rng, 400, 700), rng.uniform(0.8, 1.3), max(draw(rng, 0.3, 3), 1.2 / seconds)
    rise = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * t + rng.random()))
    return np.tanh(draw(rng, 1, 4) * sine(lowest * 2 ** (octaves * rise)))


def whistle(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A person whistling: pure notes with vibrato that slide into pitch, and breath."""
    lowest, length = rng.uniform(79, 89), draw(rng, 0.2, 0.5)
    t = times(0.9 * length)
    slide = rng.uniform(-3, 3) * np.exp(-t / 0.04)
    vibrato = rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * draw(rng, 4, 7) * t)
    starts = rhythm(rng, seconds, length, jitter=0.05)
    tune = lowest + rng.choice([0, 2, 4, 7, 9, 12], size=len(starts))
    notes = (sine(librosa.midi_to_hz(note + slide + vibrato)) * fade(len(t), 0.03) for note in tune)
    breath = noise(rng, round(seconds * SAMPLE_RATE), 1500, 5000)
    return mix(seconds, starts, notes) + draw(rng, 0.01, 0.05) * breath / breath.std()


SOUNDS = {
    "Alarm_clock": alarm,
    "Bell": bell,
    "Chirp_and_tweet": chirp,
    "Clicks": clicks,
    "Drip": drip,
    "Drum": drum,
    "Engine": engine,
    "Hiss": hiss,
    "Hum": hum,
    "Knock": knock,
    "Plucked_string": plucked_string,
    "Rain": rain,
    "Siren": siren,
    "Whistle": whistle,
}


# The clips: first their properties, then their waveforms.


@dataclass(frozen=True)
class Clip:
    """The properties of a clip of the demo.

    Args:
        name: File name: eight hex digits and `.wav`.
        truth: The sounds in it, sorted.
        given: Its labels in the table: the truth, or as many labels that are all wrong.
        seconds: Its duration.
        key: The key of its random generator: seed, number of the subset, index.
    """

    name: str
    truth: tuple[str, ...]
    given: tuple[str, ...]
    seconds: float
    key: tuple[int, int, int]


def plan(subset: str, num_clips: int, *, seed: int) -> list[Clip]:
    """Draws the properties of the clips of a subset, sorted by name.

    The first sounds cycle through the classes, every fifth clip has a second sound, and the fraction of clips that
    are labeled wrong is exact, up to rounding.

    Args:
        subset: One of `SUBSETS`.
        num_clips: Number of clips.
        seed: Another seed gives other clips.

    Example:
        >>> [clip.truth for clip in plan("test", 2, seed=1)]
        [('Bell',), ('Alarm_clock',)]
    """
    number, classes = SUBSETS.index(subset), sorted(SOUNDS)
    wrong = generator(seed, number).permutation(num_clips)[: round(WRONG_FRACTION[subset] * num_clips)]
    clips = []
    for index in range(num_clips):
        rng = generator(seed, number, index, 0)
        first = classes[index % len(classes)]
        others = rng.permutation([label for label in classes if label != first]).tolist()
        truth = sorted([first, others.pop()] if index % 5 == 4 else [first])
        given = sorted(others[: len(truth)]) if index in wrong else truth
        # Most clips last 1 to 6 s, few are near the limits.
        seconds = SHORTEST_SECONDS * (LONGEST_SECONDS / SHORTEST_SECONDS) ** rng.beta(3, 5)
        # The factor is odd, so all 2**32 names occur before one repeats: names are unique.
        name = f"{(seed + (len(SUBSETS) * index + number) * 0x9E3779B1) % 2**32:08x}.wav"
        clips.append(Clip(name, tuple(truth), tuple(given), seconds, (seed, number, index)))
    return sorted(clips, key=lambda clip: clip.name)


def waveform_of(clip: Clip) -> np.ndarray:
    """The waveform of a clip: float64 [N] at 44.1 kHz, peak 0.1 to 0.9.

    A second sound is at -6 to 6 dB relative to the first; a background of white to brown noise is at -45 to -15 dB.
    """
    rng = generator(*clip.key, 1)
    sounds = [SOUNDS[label](rng, clip.seconds) for label in clip.truth]
    levels_db = [0.0, rng.uniform(-6, 6)]
    waveform = sum(10 ** (db / 20) * sound / sound.std() for db, sound in zip(levels_db, sounds))
    background = noise(rng, len(waveform), 40, 16000, slope=rng.uniform(-1, 0))
    waveform += 10 ** (rng.uniform(-45, -15) / 20) * background / background.std()
    return waveform / np.abs(waveform).max() * draw(rng, 0.1, 0.9)


# The files.


def make_demo(
    folder: str | Path, *, seed: int = 2019, curated: int = 280, noisy: int = 504, test: int = 196
) -> dict[str, int | float]:
    """Writes a dataset of synthesized clips in FSDKaggle2019's layout on Kaggle.

    Its fourteen sounds are easy to distinguish, so a complete run takes minutes. The labels of curated and test clips
    are correct, those of 40% of the noisy clips are wrong. Besides the competition's files there are
    `test_labels.csv` and `noisy_truth.csv`, which lists the correct labels of noisy clips: for evaluation, never for
    training. The same seed gives the same bytes.

    Args:
        folder: The folder to write; it must be absent or empty and appears once it is complete.
        seed: Another seed gives another dataset; at least 0.
        curated: Number of curated clips.
        noisy: Number of noisy clips.
        test: Number of test clips.

    Returns:
        The numbers of `curated`, `noisy` and `test` clips, of noisy clips with `wrong` labels, and the total
        `seconds`.

    Raises:
        DataError: `folder` is a file or is not empty.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "demo"
        >>> summary = make_demo(folder, curated=2, noisy=5, test=1)
        >>> summary["noisy"], summary["wrong"], len(list(folder.glob("train_noisy/*.wav")))
        (5, 2, 5)
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not an empty folder. Choose another one, or remove it first.")

    plans = {s: plan(s, num_clips, seed=seed) for s, num_clips in zip(SUBSETS, (curated, noisy, test))}
    with atomic_folder(folder) as unfinished:
        for subset, clips in plans.items():
            write_clips(unfinished / subset, clips)
        write_tables(unfinished, plans)
    return {
        "curated": curated,
        "noisy": noisy,
        "test": test,
        "wrong": sum(clip.given != clip.truth for clip in plans["train_noisy"]),
        "seconds": sum(clip.seconds for clips in plans.values() for clip in clips),
    }


def write_clips(folder: Path, clips: Sequence[Clip]) -> None:
    """Synthesizes every clip into a 16-bit WAV file of its name."""

    def write(clip):
        pcm = np.round(32767 * waveform_of(clip)).astype("int16")  # [N]
        sf.write(folder / clip.name, pcm, SAMPLE_RATE, subtype="PCM_16")

    folder.mkdir(parents=True)
    # NumPy releases the interpreter lock for most of the work, so threads use several cores.
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, clips))


def write_tables(folder: Path, plans: dict[str, list[Clip]]) -> None:
    """Writes the tables of labels, sorted by fname, and the sample submission."""
    curated, noisy, test = (plans[subset] for subset in SUBSETS)
    classes = sorted(SOUNDS)
    # As in FSDKaggle2019, the public clips come first in the order of names.
    num_public = round(PUBLIC_FRACTION * len(test))
    usages = ["Public"] * num_public + ["Private"] * (len(test) - num_public)
    tables: dict[str, list[tuple]] = {
        "train_curated.csv": [("fname", "labels"), *named_labels(curated)],
        "train_noisy.csv": [("fname", "labels"), *named_labels(noisy)],
        "test_labels.csv": [("fname", "labels", "usage"), *((*row, u) for row, u in zip(named_labels(test), usages))],
        "sample_submission.csv": [("fname", *classes), *((clip.name, *[0] * len(classes)) for clip in test)],
        "noisy_truth.csv": [
            ("fname", "given", "true", "right"),
            *((*row, ",".join(c.truth), int(c.given == c.truth)) for row, c in zip(named_labels(noisy), noisy)),
        ],
    }
    for name, rows in tables.items():
        with open(folder / name, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def named_labels(clips: Sequence[Clip]) -> list[tuple[str, str]]:
    """(file name, labels) of every clip."""
    return [(clip.name, ",".join(clip.given)) for clip in clips]
