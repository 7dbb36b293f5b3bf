"""Finds clips that have the same sound: at another level, in another format, cut.

Of each clip the nearest others by the summary of their fingerprints are candidates. Two clips have the same sound if
the details of their fingerprints correlate once they are aligned: differences of neighboring bands, and how these
change, which no gain alters and which two different recordings do not share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

from audiotag.data.audio.fingerprints import NONE, STEPS_PER_DB, Fingerprint, halved

SAME = (
    0.7  # correlation: between other parts of a recording (up to 0.61) and copies (from 0.73), on ESC-10's folds 1, 2
)
SURE = 0.9  # correlation from which levels may differ by any amount, as if another sound is mixed in
MOST_DIFFERENCE_DB = 3.0  # root mean square of levels, else
PROMISING = 0.35  # correlation before the fine alignment
NUM_CANDIDATES = 10  # per clip
MOST_APART_DB = 12.0  # root mean square, of the summaries of candidates
DEPTH_DB = 45.0  # below the loudest: softer sound is ignored, as formats change it
LEAST_OVERLAP = 0.6  # of the shorter clip
LEAST_ENERGY = 0.25  # of the details, in the overlap
LEAST_FRAMES = 10  # in the overlap
LEAST_DETAIL_DB = 0.3  # root mean square: a steady tone has no details to compare
STEP = 2  # frames over which changes are taken
FRACTIONS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of a frame, for the fine alignment


@dataclass(frozen=True)
class Pair:
    """Two clips with the same sound.

    Args:
        first: The position of a clip, from 0.
        second: That of a later one.
        similarity: The correlation of their details, up to 1.
        offset_seconds: Where in the first the second begins.
    """

    first: int
    second: int
    similarity: float
    offset_seconds: float


def find_near_duplicates(fingerprints: Sequence[Fingerprint | None], sha256: Sequence[str] | None = None) -> list[Pair]:
    """The pairs of clips with the same sound.

    Clips are found whose overlap has most of their sound, not short excerpts of long recordings. Silence and steady
    tones are compared by their samples only.

    Args:
        fingerprints: Of each clip; None or a silent one is left out.
        sha256: Of the samples of each clip: equal ones are the same. None compares the fingerprints only.

    Returns:
        The pairs in order. Of several clips with equal samples, each is paired with the first of them.
    """
    from sklearn.neighbors import NearestNeighbors

    pairs: list[Pair] = []
    first_of: dict[str, int] = {}  # of the clips with the same samples
    found: dict[int, Fingerprint] = {}  # that are compared, by their row
    for row, one in enumerate(fingerprints):
        if one is None or one.summary is None:
            continue
        first = first_of.setdefault(sha256[row], row) if sha256 is not None else row
        if first != row:
            pairs.append(Pair(first, row, 1.0, 0.0))
        else:
            found[row] = one
    rows = list(found)
    if len(rows) > 1:
        summaries = np.stack([np.asarray(one.summary) for one in found.values()])  # [n, S]
        count = min(NUM_CANDIDATES, len(rows) - 1)
        distance, neighbor = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(summaries).kneighbors()
        close = distance / np.sqrt(summaries.shape[1]) < MOST_APART_DB  # [n, candidates]
        candidates = {tuple(sorted((rows[i], rows[j]))) for i, j in zip(np.nonzero(close)[0], neighbor[close])}
        for first, second in sorted(candidates):
            similarity, offset, difference_db = compare(found[first], found[second])
            if similarity >= SURE or similarity >= SAME and difference_db <= MOST_DIFFERENCE_DB:
                pairs.append(Pair(first, second, similarity, offset))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def clusters(pairs: Sequence[Pair], num_clips: int) -> np.ndarray:
    """A number for each clip that those with the same sound share, int [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array([(pair.first, pair.second) for pair in pairs], int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(num_clips, num_clips))
    return connected_components(graph, directed=False)[1]


def compare(one: Fingerprint, other: Fingerprint) -> tuple[float, float, float]:
    """How alike two sounds are.

    Returns:
        (the correlation of their details at the best alignment; where in the first the second begins, in seconds; how
        much their levels differ in dB, root mean square, infinite if they have too little in common to be aligned).
    """
    doublings = max(one.doublings, other.doublings)
    present = (one.levels[0] != NONE) & (other.levels[0] != NONE)  # [B]
    first, second = (_decibels(each, doublings)[:, present] for each in (one, other))  # [T, b]
    if min(len(first), len(second)) < LEAST_FRAMES or present.sum() < 2:
        return 0.0, 0.0, np.inf
    shift, correlation = _alignment(*(_details(np.maximum(each, each.max() - DEPTH_DB)) for each in (first, second)))
    if correlation < PROMISING:
        return correlation, 0.0, np.inf
    tried = [(*_aligned(first, second, shift, fraction), shift + fraction) for fraction in FRACTIONS]
    similarity, difference_db, frames = max(tried)
    return similarity, frames * max(one.hop_seconds, other.hop_seconds), difference_db


def _decibels(fingerprint, doublings):
    """The levels in dB, [T, B], with the time between frames doubled so often."""
    decibels = fingerprint.levels.astype("float32") / STEPS_PER_DB
    if fingerprint.doublings == doublings:
        return decibels
    powers = 10 ** (decibels / 10)
    for _ in range(doublings - fingerprint.doublings):
        powers = halved(powers)
    return 10 * np.log10(np.maximum(powers, 1e-30))


def _details(decibels):
    """Differences of neighboring bands, and how they change: [T, B] → [T - STEP, B - 1]."""
    slopes = np.diff(decibels, axis=1)
    return slopes[STEP:] - slopes[:-STEP]


def _alignment(first, second):
    """(frames by which the second is shifted to match the first, the correlation there) of details."""
    sizes = len(first), len(second)
    length = scipy.fft.next_fast_len(sum(sizes), real=True)
    spectrum = scipy.fft.rfft(first, length, axis=0) * np.conj(scipy.fft.rfft(second, length, axis=0))
    shifts = np.arange(1 - sizes[1], sizes[0])
    products = scipy.fft.irfft(spectrum.sum(axis=1), length)[shifts % length]
    start, end = np.maximum(0, shifts), np.minimum(sizes[0], sizes[1] + shifts)
    energies = [np.concatenate([[0], np.cumsum(np.square(each).sum(axis=1))]) for each in (first, second)]
    overlap = [energies[0][end] - energies[0][start], energies[1][end - shifts] - energies[1][start - shifts]]
    possible = end - start >= max(LEAST_OVERLAP * min(sizes), LEAST_FRAMES - STEP)
    for size, energy, width, part in zip(sizes, energies, (first.shape[1],) * 2, overlap):
        if energy[-1] < LEAST_DETAIL_DB**2 * size * width:
            return 0, 0.0
        possible &= part > LEAST_ENERGY * energy[-1]
    if not possible.any():
        return 0, 0.0
    correlation = np.where(possible, products / np.sqrt(np.maximum(overlap[0] * overlap[1], 1e-9)), -1)
    best = int(correlation.argmax())
    return int(shifts[best]), float(correlation[best])


def _aligned(first, second, shift, fraction):
    """(correlation of details, difference in dB) once the second is shifted, by part of a frame, too, and as loud."""
    start, end = max(0, shift, int(fraction < 0)), min(len(first) - (fraction > 0), len(second) + shift)
    if end - start < LEAST_FRAMES:
        return 0.0, np.inf
    step = int(np.sign(fraction))
    first = (1 - abs(fraction)) * first[start:end] + abs(fraction) * first[start + step : end + step]
    second = second[start - shift : end - shift]
    loud = second > second.max() - DEPTH_DB / 2
    first = first - np.median((first - second)[loud])
    floor = max(first.max(), second.max()) - DEPTH_DB
    first, second = np.maximum(first, floor), np.maximum(second, floor)
    one, other = _details(first), _details(second)
    correlation = (one * other).sum() / np.sqrt(max(np.square(one).sum() * np.square(other).sum(), 1e-9))
    return float(correlation), float(np.sqrt(np.square(first - second).mean()))
