"""Raw feature values -> the arrays that models read, in training and in serving alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ranking.native import native
from ranking.schema import Categorical, Dense, Value
from ranking.values import number, word

Floats = npt.NDArray[np.float64]


class Encoder:
    """Turns raw values into model inputs. Holds no state beyond what it precomputes from the schema."""

    def __init__(self, dense: Sequence[Dense], categorical: Sequence[Categorical]) -> None:
        self.dense_default = np.array([one.default for one in dense], np.float64)
        self.mean = np.array([one.mean for one in dense], np.float64)
        self.scale = np.array([one.scale for one in dense], np.float64)
        self.log = np.array([one.transform == "log1p" for one in dense], bool)
        self.codes = [{word: i + 1 for i, word in enumerate(one.vocabulary)} for one in categorical]
        self.places = [
            None if one.vocabulary is None else {word: float(i) for i, word in enumerate(one.vocabulary)}
            for one in dense
        ]

    def numbers(self, columns: Sequence[Sequence[Value]]) -> npt.NDArray[np.float64]:
        """D columns of B raw values -> float64[B, D], NaN where missing."""
        out = np.empty((len(columns[0]) if columns else 0, len(self.places)), np.float64)
        for d, (places, column) in enumerate(zip(self.places, columns, strict=True)):
            if places is None:
                out[:, d] = [number(value) for value in column]
            else:
                out[:, d] = [places.get(word(value), math.nan) for value in column]
        return out

    def dense(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """float64[B, D] raw values, NaN where missing -> float32[B, D]. Infinite values count as missing."""
        out = np.empty(raw.shape, np.float32)
        standardize(np.ascontiguousarray(raw), self.dense_default, self.log, self.mean, self.scale, out)
        return out

    def categorical(self, columns: Sequence[Sequence[Value]]) -> npt.NDArray[np.int64]:
        """K columns of B raw values -> int64[B, K]."""
        size = len(columns[0]) if columns else 0
        out = np.zeros((size, len(self.codes)), np.int64)
        for k, (codes, column) in enumerate(zip(self.codes, columns, strict=True)):
            out[:, k] = [codes.get(word(value), 0) for value in column]
        return out


@native
def standardize(
    raw: Floats, default: Floats, log: npt.NDArray[np.bool_], mean: Floats, scale: Floats, out: npt.NDArray[np.float32]
) -> None:
    for b in range(raw.shape[0]):
        for d in range(raw.shape[1]):
            x = raw[b, d] if np.isfinite(raw[b, d]) else default[d]
            if log[d]:
                x = np.log1p(max(x, 0.0))
            out[b, d] = (x - mean[d]) * scale[d]


@native
def newest_learned(
    rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], learned: int, out: npt.NDArray[np.int64]
) -> None:
    """Histories i64[B, L] of the rows of all queries, one query after the other, so many of each: the newest that the
    models have learned, for they know no others, at the end of each line of `out`. -1 stands for an unknown row."""
    end = 0
    for i in range(len(counts)):
        start = end
        end += counts[i]
        at, place = end, out.shape[1]
        while at > start and place > 0:
            at -= 1
            if 0 <= rows[at] < learned:
                place -= 1
                out[i, place] = rows[at]
