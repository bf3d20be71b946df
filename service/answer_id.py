"""The id of an answer says when it was made, so that the serving log is looked into in one place.

48 bits of milliseconds since the epoch and 80 random ones, in hexadecimal: ids sort by time, as those of UUID version 7
do (RFC 9562, section 5.7), whose layout this is but for the bits that name version and variant.
"""

from __future__ import annotations

import re
import secrets

from service.errors import FieldError, InvalidRequest

FORM = re.compile(r"[0-9a-f]{32}")
TIME_DIGITS = 12


def answer_id(at: float) -> str:
    """An id of an answer that is made at `at`, in seconds since the epoch: 32 hexadecimal digits."""
    return f"{int(at * 1e3):0{TIME_DIGITS}x}{secrets.token_hex(10)}"


def time_of(recommendation_id: str) -> float:
    """Of when an id says that it is: seconds since the epoch, to the millisecond. Raises InvalidRequest for what is no
    id."""
    if not FORM.fullmatch(recommendation_id):
        said = f"{recommendation_id[:100]!r} is no id of an answer: 32 digits of 0-9a-f are"
        raise InvalidRequest(FieldError("recommendation_id", said))
    return int(recommendation_id[:TIME_DIGITS], 16) / 1e3
