"""Finds clips with the same sound, also at another level, shorter or converted.

Of each clip the nearest others by the summary of their fingerprints are candidates. Two clips have the same sound if
the details of their fingerprints correlate once they are aligned and their levels agree. Details are differences of
neighboring bands, and how these change: no gain alters them, and two different recordings do not share them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

from audiotag.data.audio import worker_pool
from audiotag.data.audio.fingerprints import NONE, STEPS_PER_DB, Fingerprint, halved

# Chosen on 2.5 s parts of ESC-10's folds 1 and 2, their copies, and the demo's sounds of seed 1.
SAME = 0.6  # correlation
MOST_DIFFERENCE_DB = 2.0  # root mean square of levels
SURE, MOST_IF_SURE_DB = 0.88, 2.5  # a correlation from which levels may differ more
MOST_DETAIL_DB = 3.0  # larger details count as this, so that one onset does not decide
PROMISING = 0.35  # correlation before the fine alignment
NUM_CANDIDATES = 10  # per clip
MOST_APART_DB = 12.0  # root mean square, of the summaries of candidates
DEPTH_DB = 45.0  # below the loudest: softer sound is ignored, as formats change it
LEAST_OVERLAP = 0.6  # of the shorter clip
LEAST_ENERGY = 0.25  # of the details, in the overlap
LEAST_FRAMES = 10  # in the overlap
LEAST_FOR_WORKERS = 500  # clips with candidates: starting processes takes a second
LEAST_DETAIL_DB = 0.3  # root mean square: a steady tone has no details to compare
ROWS_AT_A_TIME = 512  # of the search for candidates
NUM_ALIGNMENTS = 3  # tried, as strokes repeat
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


def find_near_duplicates(
    fingerprints: Sequence[Fingerprint | None], sha256: Sequence[str] | None = None, *, num_workers: int = 0
) -> list[Pair]:
    """The pairs of clips with the same sound.

    Clips are found whose overlap has most of their sound, not short excerpts of long recordings. Silence and steady
    tones are compared by their samples only.

    Args:
        fingerprints: Of each clip; None or a silent one is left out.
        sha256: Of the samples of each clip: equal ones are the same. None compares the fingerprints only.
        num_workers: Processes that compare; with 0 this process does.

    Returns:
        The pairs in order. Of several clips with equal samples, each is paired with the first of them.
    """
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
        distance, neighbor = nearest(summaries, count)
        close = distance / np.sqrt(summaries.shape[1]) < MOST_APART_DB  # [n, candidates]
        candidates: dict[int, set[int]] = {}
        for i, j in zip(np.nonzero(close)[0], neighbor[close]):
            first, second = sorted((rows[i], rows[j]))
            candidates.setdefault(first, set()).add(second)
        ordered = [(first, sorted(others)) for first, others in sorted(candidates.items())]
        entries = ((found[first], [found[other] for other in others]) for first, others in ordered)
        results: Iterable[list] = map(_compare_all, entries)
        if num_workers and len(ordered) >= LEAST_FOR_WORKERS:
            results = (result or [] for result, _ in worker_pool.in_order(_compare_all, entries, workers=num_workers))
        for (first, others), result in zip(ordered, results):
            for other, (similarity, offset, difference_db) in zip(others, result):
                if is_same(similarity, difference_db):
                    pairs.append(Pair(first, other, similarity, offset))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def nearest(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other rows of each row.

    scikit-learn's search counts threads by /proc, which not every system has.

    Args:
        vectors: [n, D].
        count: How many, fewer than n.

    Returns:
        (Euclidean distances [n, count], rows int [n, count]), the nearest first.

    Example:
        >>> nearest(np.array([[0.0], [1.0], [3.0]]), 1)[1].tolist()
        [[1], [0], [1]]
    """
    squares = np.square(vectors).sum(axis=1)  # [n]
    distances, rows = [], []
    for start in range(0, len(vectors), ROWS_AT_A_TIME):
        block = vectors[start : start + ROWS_AT_A_TIME]
        apart = squares[start : start + len(block), None] + squares - 2 * block @ vectors.T  # [rows, n]
        apart[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        chosen = np.argpartition(apart, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(apart, chosen, axis=1).argsort(axis=1, kind="stable")
        rows.append(np.take_along_axis(chosen, order, axis=1))
        distances.append(np.take_along_axis(apart, rows[-1], axis=1))
    return np.sqrt(np.maximum(np.concatenate(distances), 0)), np.concatenate(rows)


def clusters(pairs: Sequence[Pair], num_clips: int) -> np.ndarray:
    """A number for each clip that those with the same sound share, int [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array([(pair.first, pair.second) for pair in pairs], int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(num_clips, num_clips))
    return connected_components(graph, directed=False)[1]


def is_same(similarity: float, difference_db: float) -> bool:
    """Whether sounds that are so much alike, as `compare` says, are the same."""
    return similarity >= SAME and difference_db <= (MOST_IF_SURE_DB if similarity >= SURE else MOST_DIFFERENCE_DB)


def _compare_all(entry):
    """What `compare` returns for a fingerprint and each of others."""
    one, others = entry
    return [compare(one, other) for other in others]


def compare(one: Fingerprint, other: Fingerprint) -> tuple[float, float, float]:
    """How alike two sounds are.

    Returns:
        (the correlation of their details at the best alignment; where in the first the second begins, in seconds; how
        much their audible levels differ in dB, root mean square, infinite if no alignment is promising).
    """
    doublings = max(one.doublings, other.doublings)
    present = (one.levels[0] != NONE) & (other.levels[0] != NONE)  # [B]
    first, second = (_decibels(each, doublings)[:, present] for each in (one, other))  # [T, b]
    if min(len(first), len(second)) < LEAST_FRAMES or present.sum() < 2:
        return 0.0, 0.0, np.inf
    shifts, correlation = _alignments(*(_details(np.maximum(each, each.max() - DEPTH_DB)) for each in (first, second)))
    if correlation < PROMISING:
        return correlation, 0.0, np.inf
    tried = [
        (*_aligned(first, second, shift, fraction), shift + fraction) for shift in shifts for fraction in FRACTIONS
    ]
    similarity, difference_db, frames = max(tried, key=lambda each: (is_same(*each[:2]), each[0]))
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


def _alignments(first, second):
    """(up to 3 shifts of the second in frames, which match the first best, the highest correlation) of details."""
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
            return [], 0.0
        possible &= part > LEAST_ENERGY * energy[-1]
    if not possible.any():
        return [], 0.0
    correlation = np.where(possible, products / np.sqrt(np.maximum(overlap[0] * overlap[1], 1e-9)), -1)
    highest, found = float(correlation.max()), []
    while len(found) < NUM_ALIGNMENTS and correlation.max() >= PROMISING:
        best = int(correlation.argmax())
        found.append(int(shifts[best]))
        correlation[max(0, best - STEP) : best + STEP + 1] = -1
    return found, highest


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
    audible = np.maximum(first, second) > floor  # [T, b]
    first, second = np.maximum(first, floor), np.maximum(second, floor)
    one, other = (np.clip(_details(each), -MOST_DETAIL_DB, MOST_DETAIL_DB) for each in (first, second))
    correlation = (one * other).sum() / np.sqrt(max(np.square(one).sum() * np.square(other).sum(), 1e-9))
    return float(correlation), float(np.sqrt(np.square(first - second)[audible].mean()))
