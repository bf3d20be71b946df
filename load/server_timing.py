"""The `Server-Timing` response header (W3C Server Timing): what the server says that each of its stages took."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - the grammar's token, no secret
_VALUE = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_METRIC = re.compile(rf"\s*({_TOKEN})((?:\s*;\s*{_TOKEN}\s*=\s*{_VALUE})*)\s*(?:,|$)")
_PARAMETER = re.compile(rf";\s*({_TOKEN})\s*=\s*({_VALUE})")


def stages(header: str) -> Iterator[tuple[str, float]]:
    """Yield (stage, seconds) of every metric in the header that has a duration; the header counts in milliseconds.

    A metric without `dur` says that something happened, not how long it took. Raises ValueError for what is not this
    header's grammar and for durations that are not finite numbers from 0.
    """
    position = 0
    while position < len(header):
        metric = _METRIC.match(header, position)
        if metric is None:
            raise ValueError(f"not Server-Timing at {header[position : position + 20]!r}")
        position = metric.end()
        for parameter, value in _PARAMETER.findall(metric[2]):
            if parameter.lower() == "dur":
                seconds = float(value.strip('"')) / 1e3
                if not (math.isfinite(seconds) and seconds >= 0):
                    raise ValueError(f"stage {metric[1]}: {value} is not a duration")
                yield metric[1], seconds
                break
