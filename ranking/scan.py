"""Search in an inverted file: the lists nearest to a query are scanned in int8, and what may be among the best is
scored again from the float32 vectors. The answer is exactly that of a float32 scan of the same lists.

A code is within half a step of its vector in every dimension, so its score lies within `slack = step / 2 * sum |q|` of
the true one. Whatever lies within twice that of the k-th best by the codes is scored again, and nothing else can be
among the k best. A scan reads a quarter of the bytes of a float32 one, and bytes are what it waits for.

Inverted file and its probes: Hervé Jégou et al., "Product Quantization for Nearest Neighbor Search", TPAMI 2011,
section IV. Codes by one step a vector: faiss' `SQ8` with `by_residual=False`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ranking.native import loose, native, prefetch

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]

BINS = 512
ZERO, MOST, LEAST = np.float32(0), np.float32(127), np.float32(1e-30)
HALF = np.float32(0.5 * (1 + 1e-3))
"""Of a step; a little more, for what float32 itself rounds."""
AHEAD, LINE = 8, 64


class InvertedFile:
    """Lists of rows of `vectors` f32[N, E]: list l holds `rows[offsets[l]:offsets[l + 1]]`, its centre is centres[l].

    Not for concurrent callers.
    """

    def __init__(self, centres: F32, offsets: I64, rows: I32, vectors: F32, nprobe: int) -> None:
        self.centres, self.offsets, self.rows, self.vectors = centres, offsets, rows, vectors
        self.nprobe = min(nprobe, len(centres))
        self.codes, self.steps = np.empty((len(rows), vectors.shape[1]), np.int8), np.empty(len(rows), np.float32)
        encode(vectors, rows, self.codes, self.steps)
        sizes = np.sort(np.diff(offsets))
        most = int(sizes[len(sizes) - self.nprobe :].sum())
        self.scores, self.slacks = np.empty(most, np.float32), np.empty(most, np.float32)
        self.places = np.empty(most, np.int32)
        self.counts = np.empty(BINS, np.int64)

    def best(self, query: F32, k: int, allowed: Mask, nprobe: int) -> tuple[F32, I64]:
        """The best k rows that are allowed (bool[N]) of the `nprobe` nearest lists, at most `self.nprobe`: scores
        f32[n], rows i64[n], best first.

        Fewer than k where the lists hold fewer.
        """
        near = self.centres @ query
        lists = np.argpartition(near, len(near) - nprobe)[len(near) - nprobe :]
        found = scan(
            query, lists, self.offsets, self.rows, self.codes, self.steps, allowed,
            self.scores, self.slacks, self.places,
        )  # fmt: skip
        kept = keep(self.scores, self.slacks, self.places, found, k, self.counts)
        rows, scores = np.empty(kept, np.int64), np.empty(kept, np.float32)
        rescore(query, self.vectors, self.rows, self.places, rows, scores)
        best = np.argsort(-scores)[:k]
        return scores[best], rows[best]


@native
def encode(vectors: F32, rows: I32, codes: I8, steps: F32) -> None:
    """Each vector in steps of its largest number's 127th part."""
    for i in range(len(rows)):
        most = LEAST
        for e in range(vectors.shape[1]):
            most = max(most, abs(vectors[rows[i], e]))
        steps[i] = most / MOST
        for e in range(vectors.shape[1]):
            codes[i, e] = np.int8(np.rint(vectors[rows[i], e] / steps[i]))


@loose
def scan(
    query: F32, lists: I64, offsets: I64, rows: I32, codes: I8, steps: F32, allowed: Mask,
    scores: F32, slacks: F32, places: I32,
) -> int:  # fmt: skip
    """Fills, for every allowed row of the lists, its approximate score, how far off that may be, and its place in the
    lists; returns how many."""
    size, total = len(query), ZERO
    for e in range(size):
        total += abs(query[e])
    total *= HALF
    at = 0
    for one in lists:
        for i in range(offsets[one], offsets[one + 1]):
            score = ZERO
            for e in range(size):
                score += query[e] * np.float32(codes[i, e])
            scores[at] = score * steps[i]
            slacks[at] = total * steps[i]
            places[at] = i
            at += 1 if allowed[rows[i]] else 0
    return at


@loose
def keep(scores: F32, slacks: F32, places: I32, found: int, k: int, counts: I64) -> int:
    """Moves the places of what may be among the best k to the front; returns how many they are."""
    if found <= k:
        return found
    low = high = scores[0]
    for i in range(found):
        low, high = min(low, scores[i]), max(high, scores[i])
    width = (high - low) / np.float32(BINS - 1)
    if not width > 0:
        return found
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
    # At least k have a score from here on, so the k-th best true one is no less than this, less a slack.
    edge = low + np.float32(b) * width * np.float32(1 - 1e-3)
    worst = ZERO
    for i in range(found):
        if scores[i] >= edge:
            worst = max(worst, slacks[i])
    edge -= worst + width * np.float32(1e-3)
    kept = 0
    for i in range(found):
        it = places[i]
        if scores[i] + slacks[i] >= edge:
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
