"""A source's columns turned into the types of a shop, each as a whole; only a failure looks for its row.

Every function takes a Source and a column's name, gives an Arrow column of the source's N rows, and raises InputError
naming file, row and column for the first value that is not what it should be.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from features.columns import EARLIEST, LATEST, TIMESTAMP, blank, first_true, not_a_price, not_finite, outside_time
from features.importers.sources import Source

_ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"
_ZONE = r"(Z|:\d\d.*[+-]\d\d(:?\d\d)?)$"
_EPOCH = r"^\d{1,17}(\.\d{1,9})?$"
_MILLISECONDS_FROM, _NEITHER_FROM = 1e11, 1e14  # as seconds: the year 5138; as milliseconds: the same
_NO_TIME = f"this is no time from {EARLIEST:%Y} to {LATEST:%Y}"
_TRUE, _FALSE = ["true", "t", "yes", "y", "1"], ["false", "f", "no", "n", "0"]


def ids(source: Source, column: str) -> pa.ChunkedArray:
    """string[N]: text as it stands, whole numbers in decimal. Neither null nor blank."""
    values = _decoded(source.table[column])
    if not (pa.types.is_integer(values.type) or _is_text(values.type)):
        raise source.error(f"this is {values.type}; an id is text or a whole number", column=column)
    values = values.cast(pa.string())
    _refuse(source, column, values, blank, "an id may not be empty")
    return values


def words(source: Source, column: str, *, required: bool = False) -> pa.ChunkedArray:
    """string[N]: the values as text, '' where there is none; with `required`, none may be blank."""
    values = _decoded(source.table[column])
    if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
        raise source.error(f"this is {values.type}, which is no text", column=column)
    values = pc.fill_null(values.cast(pa.string()), "")
    if required:
        _refuse(source, column, values, blank, "this may not be empty")
    return values


def numbers(source: Source, column: str) -> pa.ChunkedArray:
    """float64[N]: finite numbers, null where there is none."""
    values = _numbers(source, column)
    _refuse(source, column, values, not_finite, "{value!r} is not finite")
    return values


def prices(source: Source, column: str) -> pa.ChunkedArray:
    """float64[N]: finite numbers of at least 0, null where there is none."""
    values = _numbers(source, column)
    _refuse(source, column, values, not_a_price, "{value!r} is no price")
    return values


def flags(source: Source, column: str, *, default: bool) -> pa.ChunkedArray:
    """bool[N]: true, t, yes, y, 1 and their opposites in any case; `default` where there is none."""
    values = _decoded(source.table[column])
    if not pa.types.is_boolean(values.type):
        text = pc.utf8_lower(pc.utf8_trim_whitespace(words(source, column)))
        known = pa.array([*_TRUE, *_FALSE, ""])
        _refuse(
            source, column, text, lambda words: pc.invert(pc.is_in(words, value_set=known)), "{value!r} is no yes or no"
        )
        unknown = pa.scalar(None, pa.bool_())
        values = pc.if_else(pc.equal(text, ""), unknown, pc.is_in(text, value_set=pa.array(_TRUE)))
    return pc.fill_null(values, default)


def times(source: Source, column: str) -> pa.ChunkedArray:
    """TIMESTAMP[N] from typed times, or from text or numbers, value by value.

    Text is ISO 8601 in its extended form (`2024-05-01`, `2024-05-01T12:30`, `2024-05-01 12:30:05.25+02:00`); without
    an offset it is UTC. A bare number counts from 1970: seconds below 1e11 (the year 5138), milliseconds from there
    (3 March 1973) to 1e14; above that it is refused. Digits finer than a microsecond are cut off.
    """
    values = _decoded(source.table[column])
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        stamps = _convert(source, column, values, _from_typed, _NO_TIME)
    elif _is_number(values.type):
        stamps = _convert(source, column, values, _from_epoch, "{value} is not a time")
    else:
        stamps = _parsed_times(source, column, pc.utf8_trim_whitespace(words(source, column)))
    _refuse(source, column, stamps, outside_time, _NO_TIME)
    return stamps


def is_numeric(source: Source, column: str) -> bool:
    """Whether a column of the shop's own is numeric: a numeric type, or text that is all numbers and not all empty."""
    values = _decoded(source.table[column])
    if not _is_text(values.type):
        return _is_number(values.type)
    try:
        return bool(_to_float(values).null_count < len(values))
    except pa.ArrowInvalid:
        return False


def _parsed_times(source: Source, column: str, text: pa.ChunkedArray) -> pa.ChunkedArray:
    is_iso, is_epoch = pc.match_substring_regex(text, _ISO), pc.match_substring_regex(text, _EPOCH)
    no_time = "{value!r} is not a time"
    _refuse(source, column, text, lambda _: pc.invert(pc.or_(is_iso, is_epoch)), no_time)
    nothing = pa.scalar(None, pa.string())
    iso = _convert(source, column, pc.if_else(is_iso, text, nothing), _from_iso, no_time)
    epoch = _convert(source, column, pc.if_else(is_epoch, text, nothing), _from_epoch, no_time)
    return pc.coalesce(iso, epoch)


def _from_typed(stamps: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = pa.timestamp("us", tz=getattr(stamps.type, "tz", None))
    # Digits finer than a microsecond may go; a time that does not fit in its microseconds may not become another one.
    options = pc.CastOptions(target_type=kind, allow_time_truncate=True, allow_time_overflow=False)
    # An Arrow time with a zone is held in UTC already; one without is taken as UTC.
    return stamps.cast(options=options).cast(pa.int64()).cast(TIMESTAMP)


def _from_iso(text: pa.ChunkedArray) -> pa.ChunkedArray:
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    text = pc.if_else(pc.equal(pc.utf8_length(text), 10), pc.binary_join_element_wise(text, "T00:00", ""), text)
    zoned = pc.match_substring_regex(text, _ZONE)
    return pc.if_else(zoned, text, pc.binary_join_element_wise(text, "Z", "")).cast(TIMESTAMP)


def _from_epoch(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    number = numbers.cast(pa.float64())
    if first_true(pc.or_(not_finite(number), pc.greater_equal(pc.abs(number), _NEITHER_FROM))) is not None:
        raise pa.ArrowInvalid("neither seconds nor milliseconds")
    scale = pc.if_else(pc.less(number, _MILLISECONDS_FROM), 1e6, 1e3)
    return pc.round(pc.multiply(number, scale)).cast(pa.int64()).cast(TIMESTAMP)


def _numbers(source: Source, column: str) -> pa.ChunkedArray:
    values = _decoded(source.table[column])
    if _is_text(values.type):
        return _convert(source, column, values, _to_float, "{value!r} is not a number")
    if pa.types.is_nested(values.type) or pa.types.is_temporal(values.type):
        raise source.error(f"this is {values.type}, which is no number", column=column)
    return values.cast(pa.float64(), safe=False)


def _to_float(text: pa.ChunkedArray) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text).cast(pa.float64())


def _refuse(
    source: Source, column: str, values: pa.ChunkedArray, is_bad: Callable[[pa.ChunkedArray], pa.ChunkedArray], why: str
) -> None:
    if (index := first_true(is_bad(values))) is not None:
        raise source.error(_say(why, source, column, index), index=index, column=column)


def _convert(
    source: Source,
    column: str,
    values: pa.ChunkedArray,
    convert: Callable[[pa.ChunkedArray], pa.ChunkedArray],
    why: str,
) -> pa.ChunkedArray:
    """`convert(values)`; when it raises ArrowInvalid, halves the column until the first value that does is found."""
    try:
        return convert(values)
    except pa.ArrowInvalid as error:
        low, high = 0, len(values)  # the first bad value is in [low, high)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                convert(values.slice(low, middle - low))
            except pa.ArrowInvalid:
                high = middle
            else:
                low = middle
        raise source.error(_say(why, source, column, low), index=low, column=column) from error


def _say(why: str, source: Source, column: str, index: int) -> str:
    scalar = source.table[column][index]
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError):  # an Arrow time that Python's cannot be
        value = scalar.value
    # A field may be megabytes long; the message stays one line.
    return why.format(value=value[:60] if isinstance(value, str) else value)


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
