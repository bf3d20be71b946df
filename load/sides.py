"""Asks two sides the same thing at the same moment, a few requests at a time, and hands each pair of answers on.

This is no load test: the next request waits for the last, so that what differs is the model's doing, not the load's.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import aiohttp
import msgspec
import orjson

from load.comparison import Asked, Comparison, Reply
from load.errors import LoadError
from load.segments import Segments
from load.traffic_log import Entry

RECOMMENDATIONS, RANK = "/v1/recommendations", "/v1/rank"
# A token of the recorded deployment's stream means nothing to another one: it would wait, and degrade for it.
NOT_SENT = {"endcap-after", "host", "content-length", "connection", "transfer-encoding"}
# A service that refuses for a moment (503) is asked again after these seconds: this is about answers, not about load.
PAUSES_S = (0.1, 0.3, 1.0)
_REPLY = msgspec.json.Decoder(Reply)


class Side(NamedTuple):
    """Where one side is asked: `base` an address without a path of its own; `version` pins `model_version`."""

    base: str
    version: str | None


class Ask(NamedTuple):
    """A request of the log for a recommendation or a rank, decoded."""

    asked: Asked
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def read_asks(entries: Iterable[Entry], skipped: Counter[str]) -> Iterator[Ask]:
    """The recommendation and rank requests among `entries`; the others are counted in `skipped`, by why."""
    for number, entry in enumerate(entries, start=1):
        endpoint = entry.path.partition("?")[0]
        if entry.method != "POST" or endpoint not in (RECOMMENDATIONS, RANK):
            skipped["other endpoints"] += 1
            continue
        try:
            body = orjson.loads(entry.body or "")
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            skipped["bodies that are no JSON object"] += 1
        else:
            user, placement = body.get("user_id"), body.get("placement", "home")
            chosen = endpoint == RECOMMENDATIONS
            name = str(placement) if chosen else f"{placement}, rank"
            asked = Asked(number, user if isinstance(user, str) else None, name, chosen)
            headers = {name.title(): value for name, value in entry.headers.items() if name.lower() not in NOT_SENT}
            yield Ask(asked, entry.path, {"Content-Type": "application/json"} | headers, body)


async def compare(
    asks: Iterable[Ask],
    sides: tuple[Side, Side],
    segments: Segments,
    *,
    concurrency: int,
    timeout_s: float,
    told: Callable[[Comparison], None] = lambda comparison: None,
) -> Comparison:
    """Play every request to both sides, `concurrency` pairs at a time; which side is asked first alternates.

    `timeout_s` bounds an answer, in seconds. `told` is called after each pair. Raises LoadError where a side cannot be
    reached at first, and what `asks` raises.
    """
    comparison, turns = Comparison(), enumerate(asks)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        for side in sides:
            await _reach(session, side.base)

        async def work() -> None:
            for turn, ask in turns:
                order = (0, 1) if turn % 2 == 0 else (1, 0)
                answers = await asyncio.gather(*(_answer(session, sides[one], ask, segments.by) for one in order))
                a, b = answers if order == (0, 1) else reversed(answers)
                comparison.add(ask.asked, a, b, segments.of(ask.asked, a))
                told(comparison)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
    return comparison


async def _reach(session: aiohttp.ClientSession, base: str) -> None:
    """Any answer of HTTP will do."""
    try:
        async with session.get(f"{base}/", allow_redirects=False):
            pass
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LoadError(f"cannot reach {base}: {str(error) or 'no answer'}") from error


async def _answer(session: aiohttp.ClientSession, side: Side, ask: Ask, explain: str | None) -> Reply | str:
    """The answer, or why there is none: its status (503 only when it stays), `timeout`, `no answer`, `unreadable`."""
    body: Mapping[str, Any] = ask.body
    if side.version is not None:
        body = {**body, "model_version": side.version}
    if explain is not None:
        body = {**body, "explain": True}
    url, data = f"{side.base}{ask.path}", orjson.dumps(body)
    for pause in (*PAUSES_S, None):
        try:
            async with session.post(url, data=data, headers=ask.headers, allow_redirects=False) as response:
                answer = await response.read()
        except TimeoutError:
            return "timeout"
        except aiohttp.ClientError:
            return "no answer"
        if response.status != 503 or pause is None:
            break
        await asyncio.sleep(pause)
    if response.status != 200:
        return str(response.status)
    try:
        reply = _REPLY.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "unreadable"
    return reply if all(math.isfinite(item.score) for item in reply.items) else "unreadable"
