"""Search in an inverted file: the lists nearest to a query are scanned in int8, and what may be among the best is
scored again from the float32 vectors. The answer is exactly that of a float32 scan of the same lists.

A code is within half a step of its vector in every dimension, so its score lies within `slack = step / 2 * sum |q|` of
the true one. Whatever lies within twice that of the k-th best by the codes is scored again, and nothing else can be
among the k best. A scan reads a quarter of the bytes of a float32 one, and bytes are what it waits for. The nearest
lists come first, so that most of what the later ones hold is seen to be too far off at once.

Inverted file and its probes: Hervé Jégou et al., "Product Quantization for Nearest Neighbor Search", TPAMI 2011,
section IV. Codes by one step a vector: faiss' `SQ8` with `by_residual=False`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ranking.lists import F32, I8, I32, I64, Lists
from ranking.native import VNNI, dot_64, dots_16_by_64, loose, native, prefetch

Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

BINS = 512
ZERO, TWO, TINY, LOWEST, FINEST = (np.float32(one) for one in (0, 2, 1e-30, np.finfo(np.float32).min, 32767))
HALF = np.float32(0.5 * (1 + 1e-3))
"""Of a step; a little more, for what float32 itself rounds."""
AHEAD, LINE, WIDE = 8, 64, 64
GROUP, CHUNK = 16, 1024
ENOUGH = 4096
"""Rows that have come together, and four times as many as wanted, when it is looked which of them still may be best."""


class InvertedFile:
    """Search in `lists` of `vectors` f32[N, E], at most `nprobe` of them. Not for concurrent callers."""

    def __init__(self, lists: Lists, vectors: F32, nprobe: int) -> None:
        self.lists, self.vectors = lists, vectors
        self.nprobe = min(nprobe, len(lists.centres))
        sizes = np.sort(np.diff(lists.offsets))
        most = int(sizes[len(sizes) - self.nprobe :].sum()) + CHUNK
        self.scores, self.places = np.empty(most, np.float32), np.empty(most, np.int32)
        self.counts, self.coded = np.empty(BINS, np.int64), np.empty(2 * lists.codes.shape[1], np.uint8)
        self.widest = lists.steps.max(initial=ZERO)

    def best(self, query: F32, k: int, allowed: Mask | None, nprobe: int) -> tuple[F32, I64]:
        """The best k rows of the `nprobe` nearest lists, at most `self.nprobe`: scores f32[n], rows i64[n], best first.
        With `allowed` bool[N], of those rows alone.

        Fewer than k where the lists hold fewer.
        """
        lists = self.lists
        near = lists.centres @ query
        chosen = np.argpartition(near, len(near) - nprobe)[len(near) - nprobe :]
        chosen = chosen[np.argsort(-near[chosen])]
        unit = in_bytes(query, self.coded)
        half = HALF * (np.abs(query).sum(dtype=np.float32) + unit * np.float32(127 * len(query)))
        masked = allowed is not None
        mask = ANYTHING if allowed is None else allowed
        found = scan(
            query, self.coded, unit, chosen, lists.offsets, lists.rows, lists.codes, lists.steps, masked, mask, k,
            half * self.widest, self.scores, self.places, self.counts,
        )  # fmt: skip
        kept = keep(self.scores, self.places, found, k, self.counts, lists.steps, half)
        rows, scores = np.empty(kept, np.int64), np.empty(kept, np.float32)
        rescore(query, self.vectors, lists.rows, self.places, rows, scores)
        best = np.argsort(-scores)[:k]
        return scores[best], rows[best]


ANYTHING = np.ones(1, bool)


@native
def in_bytes(query: F32, coded: Bytes) -> np.float32:
    """Fills the query as `dot_64` takes it, 64 numbers after 64, in units of its largest number's 32,767th part;
    returns that unit. What is left of a length that 64 does not divide is not in it."""
    most = TINY
    for e in range(len(query)):
        most = max(most, abs(query[e]))
    unit = most / FINEST
    for e in range(len(query) // WIDE * WIDE):
        number = int(np.rint(query[e] / unit)) + 32768
        at = e // WIDE * 2 * WIDE + e % WIDE
        coded[at], coded[at + WIDE] = number >> 8, number & 255
    return unit


@loose
def score_by_bytes(
    query: F32, coded: Bytes, unit: np.float32, codes: I8, steps: F32, first: int, last: int, scores: F32, at: int
) -> None:
    """The approximate scores of places first to last, from scores[at] on."""
    width = len(query)
    if width % WIDE != 0:
        score_by_floats(query, coded, unit, codes, steps, first, last, scores, at)
        return
    there, weights = codes.ctypes.data, coded.ctypes.data
    for i in range(first, last):
        total = ZERO
        for block in range(0, width, WIDE):
            total += np.float32(dot_64(there + i * width + block, weights + 2 * block))
        scores[at + i - first] = total * (unit * steps[i])


@loose
def score_by_floats(
    query: F32, coded: Bytes, unit: np.float32, codes: I8, steps: F32, first: int, last: int, scores: F32, at: int
) -> None:
    """The same where the CPU has no instructions for it."""
    for i in range(first, last):
        total = ZERO
        for e in range(len(query)):
            total += query[e] * np.float32(codes[i, e])
        scores[at + i - first] = total * steps[i]


@loose
def sift_by_bytes(
    query: F32, coded: Bytes, unit: np.float32, codes: I8, steps: F32, first: int, last: int, edge: np.float32,
    scores: F32, places: I32, at: int,
) -> int:  # fmt: skip
    """Puts the approximate scores of places first to last that reach the edge, and the places, from `at` on; returns
    where they end."""
    if len(query) == WIDE:
        fresh = np.empty(GROUP, np.float32)
        there, weights, width = codes.ctypes.data, coded.ctypes.data, steps.ctypes.data
        whole = first + (last - first) // GROUP * GROUP
        for i in range(first, whole, GROUP):
            reach = dots_16_by_64(there + i * WIDE, weights, width + i * 4, unit, edge, fresh.ctypes.data)
            if reach != 0:  # seldom, once there is an edge
                for j in range(GROUP):
                    scores[at], places[at] = fresh[j], i + j
                    at += (reach >> j) & 1
        first = whole
    score_by_bytes(query, coded, unit, codes, steps, first, last, scores, at)
    return left(first, last, edge, scores, places, at)


@loose
def sift_by_floats(
    query: F32, coded: Bytes, unit: np.float32, codes: I8, steps: F32, first: int, last: int, edge: np.float32,
    scores: F32, places: I32, at: int,
) -> int:  # fmt: skip
    """The same where the CPU has no instructions for it."""
    score_by_floats(query, coded, unit, codes, steps, first, last, scores, at)
    return left(first, last, edge, scores, places, at)


@loose
def left(first: int, last: int, edge: np.float32, scores: F32, places: I32, at: int) -> int:
    """Of the scores of places first to last, which lie from `at` on, those that reach the edge."""
    start = at
    for i in range(first, last):
        said = scores[start + i - first]
        if said >= edge:
            scores[at], places[at] = said, i
            at += 1
    return at


sift = sift_by_bytes if VNNI else sift_by_floats


@loose
def scan(
    query: F32, coded: Bytes, unit: np.float32, lists: I64, offsets: I64, rows: I32, codes: I8, steps: F32,
    masked: bool, allowed: Mask, k: int, slack: np.float32, scores: F32, places: I32, counts: I64,
) -> int:  # fmt: skip
    """Fills the approximate scores and the places in the lists of all allowed rows that may be among the best k;
    returns how many. `slack` is the most that any score may be off by."""
    at, limit, edge = 0, max(ENOUGH, 4 * k), LOWEST
    for one in lists:
        for first in range(offsets[one], offsets[one + 1], CHUNK):
            last, start = min(first + CHUNK, offsets[one + 1]), at
            at = sift(query, coded, unit, codes, steps, first, last, edge, scores, places, at)
            if masked:
                end, at = at, start
                for j in range(start, end):
                    scores[at], places[at] = scores[j], places[j]
                    at += 1 if allowed[rows[places[j]]] else 0
            if at >= limit:
                edge = least(scores, at, k, counts) - TWO * slack
                end, at = at, 0
                for j in range(end):
                    scores[at], places[at] = scores[j], places[j]
                    at += 1 if scores[j] >= edge else 0
                limit = max(limit, 2 * at)
    return at


@loose
def least(scores: F32, found: int, k: int, counts: I64) -> np.float32:
    """A number that at least k of the first `found` scores reach, and few more; the least of all where that cannot be
    told. More than k are there."""
    low: np.float32 = scores[0]
    high = low
    for i in range(found):
        low, high = min(low, scores[i]), max(high, scores[i])
    width, edge = (high - low) / np.float32(BINS - 1), low
    if not width > 0:
        return edge
    a_width = np.float32(1) / width * np.float32(1 - 1e-6)
    for b in range(BINS):
        counts[b] = 0
    for i in range(found):
        place = int((scores[i] - low) * a_width)
        counts[place if 0 <= place < BINS else 0] += 1  # whatever a query is, nothing else is written to
    b, above = BINS - 1, counts[BINS - 1]
    while above < k:
        b -= 1
        above += counts[b]
    edge = low + np.float32(b) * width * np.float32(1 - 1e-3) - width * np.float32(1e-3)
    return edge


@loose
def keep(scores: F32, places: I32, found: int, k: int, counts: I64, steps: F32, half: np.float32) -> int:
    """Moves the places of what may be among the best k to the front; returns how many they are."""
    if found <= k:
        return found
    # At least k have a score from here on, so the k-th best true one is no less than this, less a slack.
    edge = least(scores, found, k, counts)
    worst = ZERO
    for i in range(found):
        if scores[i] >= edge:
            worst = max(worst, steps[places[i]])
    edge -= worst * half
    kept = 0
    for i in range(found):
        it = places[i]
        if scores[i] + steps[it] * half >= edge:
            places[kept] = it
            kept += 1
    return kept


@native
def rescore(query: F32, vectors: F32, rows: I32, places: I32, out_rows: I64, out: F32) -> None:
    """The true scores of the rows at the first places."""
    first, stride = vectors.ctypes.data, vectors.strides[0]
    for i in range(len(out)):
        if i + AHEAD < len(out):
            ahead = first + rows[places[i + AHEAD]] * stride
            for line in range(0, stride, LINE):
                prefetch(ahead + line)
        row = rows[places[i]]
        out_rows[i] = row
        out[i] = dot(query, vectors[row])


@loose
def dot(one: F32, other: F32) -> np.float32:
    total = ZERO
    for e in range(len(one)):
        total += one[e] * other[e]
    return total
