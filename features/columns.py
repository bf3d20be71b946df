"""Questions about a whole column at once: each takes an Arrow column of N values and answers bool[N]."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

TIMESTAMP = pa.timestamp("us", tz="UTC")
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)  # pandas' nanoseconds end in 2262


def first_true(flags: pa.Array | pa.ChunkedArray) -> int | None:
    """The place of the first true value of bool[N]; None where there is none. Null counts as false."""
    place: int = pc.index(pc.fill_null(flags, False), True).as_py()
    return None if place < 0 else place


def blank(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """string[N] -> bool[N]: null, empty, or nothing but white space."""
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)


def not_finite(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """float64[N] -> bool[N]: NaN or infinite; null where null."""
    return pc.invert(pc.is_finite(values))


def not_a_price(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """float64[N] -> bool[N]: NaN, infinite or negative; null where null."""
    return pc.or_(not_finite(values), pc.less(values, 0.0))


def outside_time(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """TIMESTAMP[N] -> bool[N]: null, before EARLIEST, or not before LATEST."""
    early, late = pa.scalar(EARLIEST, TIMESTAMP), pa.scalar(LATEST, TIMESTAMP)
    return pc.fill_null(pc.or_(pc.less(values, early), pc.greater_equal(values, late)), True)


def repeated(values: pa.ChunkedArray) -> pa.Array:
    """string[N] -> bool[N]: true where an earlier row has the same value."""
    codes = values.combine_chunks().dictionary_encode().indices
    # Codes are given in order of first appearance, so a first appearance is a code above all before it.
    highest = pc.cumulative_max(codes)
    first = pc.greater(highest.slice(1), highest.slice(0, max(len(highest) - 1, 0)))
    return pa.concat_arrays([pa.array([False] * min(len(codes), 1), pa.bool_()), pc.invert(first)])
