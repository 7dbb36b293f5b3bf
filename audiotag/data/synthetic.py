"""A dataset to start with: synthesised sounds in FSDKaggle2019's layout, with right labels and wrong ones.

It reads downward: one function a sound, the table of sounds, the plan of a subset, a clip's waveform, the
files. Every clip throws its own dice, so it depends on the seed, its subset and its index, and on no other clip.
"""

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf

from audiotag.errors import DataError
from audiotag.files import whole_folder

SAMPLE_RATE = 44_100
SUBSETS = ("train_curated", "train_noisy", "test")
WRONG_SHARE = {"train_curated": 0.0, "train_noisy": 0.4, "test": 0.0}
PUBLIC_SHARE = 0.25
SHORTEST_SECONDS, LONGEST_SECONDS = 0.3, 15.0


# What the sounds are made of: waveforms are float64 [N].


def dice(seed, *key):
    """A generator of random numbers for `key` alone, whatever else has been drawn."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw(rng, low, high):
    """A number from low to high, every octave between them as likely as the next."""
    return low * (high / low) ** rng.random()


def times(seconds):
    """The time of every sample, in seconds."""
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE  # [N]


def sine(hz):
    """A tone that follows the frequencies `hz` [N]."""
    return np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE)


def swell(num_samples, fade_seconds):
    """An envelope that rises from silence, stays, and falls back."""
    steps = np.arange(num_samples) / SAMPLE_RATE
    return np.clip(np.minimum(steps, steps[::-1]) / fade_seconds, 0, 1)


def filtered(waveform, low_hz, high_hz, slope=0.0):
    """The part of a waveform between two frequencies, weighted by frequency to the power `slope`."""
    fft_length = 1 << (len(waveform) - 1).bit_length()  # a power of two is much quicker than most lengths
    hz = np.maximum(np.fft.rfftfreq(fft_length, 1 / SAMPLE_RATE), 1.0)  # [F]
    gain = (hz / low_hz) ** slope / ((1 + (low_hz / hz) ** 4) * (1 + (hz / high_hz) ** 4))
    return np.fft.irfft(gain * np.fft.rfft(waveform, fft_length))[: len(waveform)]  # [N]


def noise(rng, num_samples, low_hz, high_hz, slope=0.0):
    """Gaussian noise between two frequencies."""
    return filtered(rng.standard_normal(num_samples), low_hz, high_hz, slope)


def rhythm(rng, seconds, pause, looseness=0.1):
    """Start times, in seconds: one near the beginning, then one about every `pause` seconds to the end."""
    steps = pause * rng.uniform(1 - looseness, 1 + looseness, size=1 + int(seconds / pause / (1 - looseness)))
    starts = np.cumsum(steps) - steps[0] + rng.uniform(0, min(0.15 * seconds, pause))
    return starts[starts < seconds]


def laid(seconds, starts, sounds):
    """The sum of `sounds`, each from its start time on; what reaches beyond the end is cut off."""
    waveform = np.zeros(round(seconds * SAMPLE_RATE))
    for start, sound in zip(starts, sounds):
        rest = waveform[round(start * SAMPLE_RATE) :]
        rest[: len(sound)] += sound[: len(rest)]
    return waveform


def struck(rng, seconds, starts, stroke):
    """One stroke again and again, now louder, now softer."""
    return laid(seconds, starts, (rng.uniform(0.5, 1.0) * stroke for _ in starts))


# The sounds: each draws its pitch, speed, decay and brightness, and fills the seconds it is given.


def alarm(rng, seconds):
    """An alarm clock: a hard, high tone switched on and off."""
    pitch, rate, hardness = draw(rng, 1500, 3200), draw(rng, 3.5, 9), draw(rng, 1.5, 5)
    beep = np.tanh(hardness * sine(np.full(round(SAMPLE_RATE * rng.uniform(0.45, 0.65) / rate), pitch)))
    return struck(rng, seconds, rhythm(rng, seconds, 1 / rate, looseness=0.0), beep * swell(len(beep), 0.004))


def bell(rng, seconds):
    """A church bell: inharmonic partials that ring long, the higher the shorter."""
    pitch, ring, brightness = draw(rng, 300, 1000), draw(rng, 0.5, 2.0), rng.uniform(0.7, 0.95)
    t = times(4 * ring)
    partials = (
        brightness**rank * np.exp(-t * ratio / ring) * np.sin(2 * np.pi * ratio * pitch * t)
        for rank, ratio in enumerate((0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 3.0, 4.1, 5.4, 6.8))
    )
    return struck(rng, seconds, rhythm(rng, seconds, draw(rng, 0.7, 2.5)), sum(partials))


def chirp(rng, seconds):
    """A bird: phrases of quick, high syllables that sweep up or down."""
    pitch, length = draw(rng, 2800, 5500), draw(rng, 0.04, 0.12)
    sweep = rng.choice([-1, 1]) * rng.uniform(0.3, 0.8)  # octaves
    syllable = sine(pitch * 2 ** (sweep * times(length) / length))
    syllable *= swell(len(syllable), length / 2)
    phrase_starts = rhythm(rng, seconds, draw(rng, 0.5, 1.2), looseness=0.3)
    starts = np.add.outer(phrase_starts, 1.4 * length * np.arange(rng.integers(2, 6))).ravel()
    return struck(rng, seconds, starts, syllable)


def clicks(rng, seconds):
    """A clock: regular ticks, a few milliseconds of high noise each."""
    t, decay = times(0.03), draw(rng, 0.001, 0.004)
    tick = np.exp(-t / decay) * noise(rng, len(t), draw(rng, 1500, 3500), draw(rng, 6000, 14000))
    return struck(rng, seconds, rhythm(rng, seconds, 1 / draw(rng, 3, 9), looseness=0.03), tick)


def drip(rng, seconds):
    """Water drops: each a short bubble whose pitch rises as it shrinks."""
    pitch, rise, decay = draw(rng, 450, 1100), draw(rng, 8, 20), draw(rng, 0.02, 0.05)
    t = times(5 * decay)
    starts = rhythm(rng, seconds, 1 / draw(rng, 2, 6), looseness=0.6)
    drops = (np.exp(-t / decay) * sine(pitch * rng.uniform(0.8, 1.25) * (1 + rise * t)) for _ in starts)
    return laid(seconds, starts, drops)


def drum(rng, seconds):
    """A bass drum: a deep tone that falls, behind a thud of noise."""
    pitch, decay, thud = draw(rng, 50, 110), draw(rng, 0.08, 0.2), draw(rng, 0.3, 1.2)
    t = times(5 * decay)
    skin = np.exp(-t / decay) * sine(pitch * (1 + 3 * np.exp(-t / 0.025)))
    stroke = skin + thud * np.exp(-t / 0.01) * noise(rng, len(t), 200, 4000)
    return struck(rng, seconds, rhythm(rng, seconds, 1 / draw(rng, 1.5, 5)), stroke)


def engine(rng, seconds):
    """A motor: four unequal cylinders fire in turn while the speed rises and falls."""
    t = times(seconds)
    rate, swing, period = draw(rng, 35, 90), rng.uniform(0.3, 1.0), rng.uniform(0.5, 1.2) * max(seconds, 1.0)
    speed = rate * 2 ** (swing * np.sin(2 * np.pi * (t / period + rng.random())))
    turns = np.cumsum(speed) / SAMPLE_RATE
    firing = np.exp(draw(rng, 4, 15) * (-np.cos(2 * np.pi * turns) - 1))
    firing *= rng.uniform(0.5, 1.0, size=4)[turns.astype(int) % 4]
    return filtered(firing * (1 + 0.3 * rng.standard_normal(len(t))), 60, draw(rng, 600, 2500))


def hiss(rng, seconds):
    """Steam: steady noise with nothing but high frequencies."""
    steam = noise(rng, round(seconds * SAMPLE_RATE), draw(rng, 3000, 6000), draw(rng, 10000, 18000))
    return steam * swell(len(steam), seconds * draw(rng, 0.02, 0.3))


def hum(rng, seconds):
    """A transformer: steady low harmonics, the even ones stronger, that beat slowly."""
    t, pitch, tilt, beat = times(seconds), draw(rng, 48, 75), rng.uniform(0.5, 1.3), draw(rng, 0.3, 2)
    rank = np.arange(1, 15)
    level = rng.uniform(0.5, 1, size=14) * np.where(rank % 2 == 0, 2, 1) / rank**tilt
    harmonics = sum(a * np.sin(2 * np.pi * (k * pitch * t + rng.random())) for k, a in zip(rank, level))
    return harmonics * (1 + 0.2 * np.sin(2 * np.pi * beat * t))


def knock(rng, seconds):
    """A fist on a door: groups of dull wooden blows."""
    t, decay = times(0.2), draw(rng, 0.012, 0.03)
    wood = sum(np.sin(2 * np.pi * draw(rng, 180, 900) * t) for _ in range(4))
    blow = np.exp(-t / decay) * (wood + draw(rng, 0.3, 1) * noise(rng, len(t), 300, 2500))
    group_starts = rhythm(rng, seconds, draw(rng, 1.1, 1.8), looseness=0.2)
    starts = np.add.outer(group_starts, draw(rng, 0.12, 0.22) * np.arange(rng.integers(3, 6))).ravel()
    return struck(rng, seconds, starts, blow)


def pluck(rng, hz, ring_seconds, brightness):
    """One plucked note: a burst of noise goes round a string and loses its highs at every turn.

    Karplus and Strong, "Digital Synthesis of Plucked-String and Drum Timbres", 1983, all turns at once.
    """
    period = round(SAMPLE_RATE / hz)
    turn = np.arange(round(3 * ring_seconds * hz))[:, None]  # [turns, 1]
    burst = np.fft.rfft(rng.uniform(-1, 1, size=period))  # [F]
    rank = np.arange(len(burst))
    loss = np.abs(np.cos(np.pi * rank / period)) ** (turn + 20 * (1 - brightness))  # [turns, F]
    return np.fft.irfft(burst * loss * np.exp(-turn / hz / ring_seconds) * (rank > 0), period).ravel()  # [N]


def plucked_string(rng, seconds):
    """A guitar: plucked notes of one scale that ring into each other."""
    lowest, ring, brightness = rng.uniform(45, 60), draw(rng, 0.3, 1.0), rng.random()
    starts = rhythm(rng, seconds, 1 / draw(rng, 1.8, 5))
    pitches = librosa.midi_to_hz(lowest + rng.choice([0, 2, 4, 7, 9, 12], size=len(starts)))
    return laid(seconds, starts, (pluck(rng, hz, ring, brightness) for hz in pitches))


def rain(rng, seconds):
    """Rain: a soft rush and thousands of single drops in it."""
    num_samples = round(seconds * SAMPLE_RATE)
    drops = rng.standard_normal(num_samples) * (rng.random(num_samples) < draw(rng, 100, 500) / SAMPLE_RATE)
    patter = filtered(drops, draw(rng, 600, 1500), draw(rng, 4000, 9000))
    rush = noise(rng, num_samples, 300, 9000, slope=-0.7)
    return patter / patter.std() + draw(rng, 0.3, 0.8) * rush / rush.std()


def siren(rng, seconds):
    """A siren: a loud tone that wails up and down without a pause."""
    t = times(seconds)
    lowest, octaves, rate = draw(rng, 400, 700), rng.uniform(0.8, 1.3), max(draw(rng, 0.3, 3), 1.2 / seconds)
    rise = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * t + rng.random()))
    return np.tanh(draw(rng, 1, 4) * sine(lowest * 2 ** (octaves * rise)))


def whistle(rng, seconds):
    """A person whistling a tune: pure, trembling notes that slide into pitch, with a little breath."""
    lowest, length = rng.uniform(79, 89), draw(rng, 0.2, 0.5)
    t = times(0.9 * length)
    slide = rng.uniform(-3, 3) * np.exp(-t / 0.04)
    tremble = rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * draw(rng, 4, 7) * t)
    starts = rhythm(rng, seconds, length, looseness=0.05)
    tune = lowest + rng.choice([0, 2, 4, 7, 9, 12], size=len(starts))
    notes = (sine(librosa.midi_to_hz(note + slide + tremble)) * swell(len(t), 0.03) for note in tune)
    breath = noise(rng, round(seconds * SAMPLE_RATE), 1500, 5000)
    return laid(seconds, starts, notes) + draw(rng, 0.01, 0.05) * breath / breath.std()


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


# The clips: first what each shall be, then how it sounds.


@dataclass(frozen=True)
class Clip:
    """A clip of the demo before it sounds.

    Args:
        name: Its file's name, eight hex digits and `.wav`.
        truth: The sounds it holds, sorted.
        given: The labels its table shows: the truth, or as many labels that are all wrong.
        seconds: Its length.
        key: What its dice are thrown for: seed, number of the subset, index.
    """

    name: str
    truth: tuple[str, ...]
    given: tuple[str, ...]
    seconds: float
    key: tuple[int, int, int]


def plan(subset, num_clips, *, seed):
    """The clips of a subset, sorted by name; nothing is synthesised yet.

    Classes take turns, every fifth clip holds a second sound, and exactly the
    subset's share of clips, rounded, is labelled wrongly.

    Example:
        >>> [clip.truth for clip in plan("test", 2, seed=1)]
        [('Bell',), ('Alarm_clock',)]
    """
    number, classes = SUBSETS.index(subset), sorted(SOUNDS)
    wrong = dice(seed, number).permutation(num_clips)[: round(WRONG_SHARE[subset] * num_clips)]
    clips = []
    for index in range(num_clips):
        rng = dice(seed, number, index, 0)
        first = classes[index % len(classes)]
        others = rng.permutation([label for label in classes if label != first]).tolist()
        truth = sorted([first, others.pop()] if index % 5 == 4 else [first])
        given = sorted(others[: len(truth)]) if index in wrong else truth
        # Most clips last 1 to 6 s and few are near the ends.
        seconds = SHORTEST_SECONDS * (LONGEST_SECONDS / SHORTEST_SECONDS) ** rng.beta(3, 5)
        # Steps of an odd size come past all 2**32 names before one returns: no two clips share a name.
        name = f"{(seed + (len(SUBSETS) * index + number) * 0x9E3779B1) % 2**32:08x}.wav"
        clips.append(Clip(name, tuple(truth), tuple(given), seconds, (seed, number, index)))
    return sorted(clips, key=lambda clip: clip.name)


def waveform_of(clip):
    """The sound of a clip: float64 [N] at 44.1 kHz, peak 0.1 to 0.9.

    A second sound is 6 dB softer to 6 dB louder than the first; behind both is
    a background of white to brown noise, 15 to 45 dB below them.
    """
    rng = dice(*clip.key, 1)
    sounds = [SOUNDS[label](rng, clip.seconds) for label in clip.truth]
    levels_db = [0.0, rng.uniform(-6, 6)]
    waveform = sum(10 ** (db / 20) * sound / sound.std() for db, sound in zip(levels_db, sounds))
    background = noise(rng, len(waveform), 40, 16000, slope=rng.uniform(-1, 0))
    waveform += 10 ** (rng.uniform(-45, -15) / 20) * background / background.std()
    return waveform / np.abs(waveform).max() * draw(rng, 0.1, 0.9)


# The files.


def make_demo(folder, *, seed=2019, curated=280, noisy=504, test=196):
    """Writes a dataset of synthesised clips in the layout that FSDKaggle2019 has on Kaggle.

    Fourteen sounds that nobody confuses make a dataset on which a run, whole,
    takes minutes. Labels of curated and test clips are right, 40 % of those of
    noisy clips are wrong. Beside the competition's files lie `test_labels.csv`
    and `noisy_truth.csv`, which tells right from wrong and is for measuring,
    never for training. The same seed gives the same bytes.

    Args:
        folder: Where to; must not exist or be empty. It appears when it is whole.
        seed: Another seed gives another dataset; 0 or more.
        curated: Number of clips.
        noisy: Number of clips.
        test: Number of clips.

    Returns:
        What was written: `curated`, `noisy` and `test` clips, `wrong` ones among the noisy, `seconds` in all.

    Raises:
        DataError: If `folder` is a file or holds files.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "demo"
        >>> summary = make_demo(folder, curated=2, noisy=5, test=1)
        >>> summary["noisy"], summary["wrong"], len(list(folder.glob("train_noisy/*.wav")))
        (5, 2, 5)
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not an empty folder. Name another one, or remove it first.")

    plans = {s: plan(s, num_clips, seed=seed) for s, num_clips in zip(SUBSETS, (curated, noisy, test))}
    with whole_folder(folder) as unfinished:
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


def write_clips(folder, clips):
    """Synthesises every clip into a 16-bit WAV file of its name."""

    def write(clip):
        pcm = np.round(32767 * waveform_of(clip)).astype("int16")  # [N]
        sf.write(folder / clip.name, pcm, SAMPLE_RATE, subtype="PCM_16")

    folder.mkdir(parents=True)
    # NumPy does most of the work without the interpreter's lock, so threads keep two cores busy.
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, clips))


def write_tables(folder, plans):
    """Writes the tables of labels, sorted by fname, and the empty submission."""
    curated, noisy, test = (plans[subset] for subset in SUBSETS)
    classes = sorted(SOUNDS)
    # As in FSDKaggle2019, the public part comes first in the order of names.
    num_public = round(PUBLIC_SHARE * len(test))
    usages = ["Public"] * num_public + ["Private"] * (len(test) - num_public)
    tables = {
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


def named_labels(clips):
    """A row of file name and labels for every clip."""
    return [(clip.name, ",".join(clip.given)) for clip in clips]
