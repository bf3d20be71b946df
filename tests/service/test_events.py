"""Events over real HTTP: what is accepted gets into the features; bad rows are told one by one and harm nothing."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from features.consumer import Consumer
from service.events import LONGEST_LINE, microseconds, spell
from tests.service.conftest import Client

count = iter(range(10**6))


def event(**changes: Any) -> dict[str, Any]:
    one = {"event_id": f"e{next(count)}-{time.time_ns()}", "user_id": "u1", "item_id": "i00003", "type": "view"}
    return {**one, **changes}


async def send(client: Client, *events: Any, status: int = 202) -> dict[str, Any]:
    return await client.post("/v1/events", {"events": list(events)}, status)


async def recent(client: Client, user: str, token: str | None) -> tuple[list[str], list[str]]:
    headers = {"Endcap-After": token} if token else {}
    body = {"user_id": user, "explain": True, "count": 3}
    answer = await client.post("/v1/recommendations", body, headers=headers)
    return answer["inputs"].get("user_recent:item_ids", []), answer["degraded"]


async def test_what_a_shopper_did_is_in_the_features_of_the_next_answer(client: Client) -> None:
    """Read your writes: with the token the answer waits; the batch's history is still there."""
    before, _ = await recent(client, "u1", None)
    for item in ("i00011", "i00012", "i00013"):
        token = (await send(client, event(item_id=item)))["token"]
        items, degraded = await recent(client, "u1", token)
        assert items[-1] == item and degraded == []
    assert [one for one in items[:-3] if one in before]


async def test_a_new_shopper_is_known_after_their_first_event(client: Client) -> None:
    user = f"new-{time.time_ns()}"
    taken = await send(client, event(user_id=user))
    assert {**taken, "token": 0} == {
        "accepted": 1, "duplicates": 0, "rejected": [], "rejected_count": 0, "token": 0,
    }  # fmt: skip
    assert await recent(client, user, taken["token"]) == (["i00003"], [])


async def test_an_event_counts_once_however_often_it_is_sent(client: Client) -> None:
    user, one = f"twice-{time.time_ns()}", event()
    one["user_id"] = user
    first = await send(client, one, one)
    again = await send(client, one)
    assert (first["accepted"], first["duplicates"], again["accepted"], again["duplicates"]) == (1, 1, 0, 1)
    answer = await client.post(
        "/v1/recommendations", {"user_id": user, "explain": True}, headers={"Endcap-After": again["token"]}
    )
    assert answer["inputs"]["user_activity:views_1h"] == 1


async def test_bad_rows_are_told_one_by_one_and_lose_nothing_of_the_rest(client: Client) -> None:
    now = time.time()
    rows: list[Any] = [
        event(),
        {"event_id": "x"},
        event(type="sneeze"),
        event(user_id=7),
        event(timestamp=now + 3600),
        event(timestamp=now - 40 * 86400),
        event(timestamp="yesterday"),
        event(timestamp="2026-01-01T00:00:00"),
        event(colour="red"),
        event(value=-1),
        "no object",
        event(timestamp=now * 1000),
        event(),
    ]
    taken = await send(client, *rows)
    assert taken["accepted"] == 2 and taken["rejected_count"] == 11
    said = {one["index"]: one["message"] for one in taken["rejected"]}
    assert set(said) == set(range(1, 12))
    assert "user_id: Missing" in said[1] and "no kind 'sneeze'; there are cart, purchase, view" in said[2]
    assert said[3].startswith("user_id: ") and "ahead of our clock; at most 5 min is taken" in said[4]
    assert "40 days late; at most 30 days" in said[5]
    assert "RFC 3339" in said[6] and "offset" in said[7] and "colour: Unknown field" in said[8]
    assert said[9].startswith("value: ") and "object" in said[10] and "seconds since the epoch" in said[11]


async def test_a_key_that_stands_twice_spoils_its_row_only(client: Client) -> None:
    row = json.dumps(event())
    body = f'{{"events": [{row[:-1]}, "type": "cart"}}, {json.dumps(event())}]}}'
    taken = await client.post("/v1/events", None, 202, data=body, headers={"Content-Type": "application/json"})
    assert taken["accepted"] == 1 and "twice" in taken["rejected"][0]["message"]


@pytest.mark.parametrize(
    "bad",
    [b'"\\ud800"', b'"\\udc00\\ud800"', b"NaN", b"-Infinity", b"1e999", b'"a\tb"', b'"\xff"', b"1" * 5000],
    ids=["high", "swapped", "nan", "infinity", "huge", "tab", "bytes", "long"],
)
async def test_a_row_that_is_no_strict_json_loses_nothing_of_the_rest(client: Client, bad: bytes) -> None:
    """As in NDJSON: half a surrogate pair, a number that is none, a control character, bytes that are no UTF-8."""
    good = [json.dumps(event(session_id="[\u00fc, ]}")).encode() for _ in range(3)]
    row = good[1][:-1] + b', "value": ' + bad + b"}"
    body = b' { "events" : [ ' + b" , ".join([good[0], row, good[1], b"NaN", good[2]]) + b" ] } "
    taken = await client.post("/v1/events", None, 202, data=body, headers={"Content-Type": "application/json"})
    assert taken["accepted"] == 3 and [one["index"] for one in taken["rejected"]] == [1, 3]
    lines = b"\n".join([good[0], row, good[1], b"NaN", good[2]])
    again = await client.post("/v1/events", None, 202, data=lines, headers={"Content-Type": "application/x-ndjson"})
    assert again["duplicates"] == 3 and again["rejected"] == taken["rejected"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "malformed"),
        (b'{"events": NaN}', 400, "malformed"),
        (b'{"events": [{"event_id": "\\ud800"}, ]}', 400, "malformed"),
        (b'{"events": [{"event_id": "\\ud800"}], "more": 1}', 400, "malformed"),
        (b'{"events": [], "events": []}', 400, "twice"),
        (b'{"events": "events"}', 422, "array"),
        (b'{"evnets": []}', 422, "Unknown field; known: events"),
        (b"[]", 422, "object"),
        (b"{}", 422, "Missing"),
        (b'{"events": [' + b",".join([b"{}"] * 1001) + b"]}", 422, "at most 1,000 rows"),
        (b'{"events": ["' + b"x" * 10_000_000 + b'"]}', 413, ""),
    ],
)
async def test_a_body_that_is_none_is_refused_as_a_whole(client: Client, body: bytes, status: int, said: str) -> None:
    headers = {"Content-Type": "application/json"}
    problem = await client.post("/v1/events", None, status, data=io.BytesIO(body), headers=headers)
    assert said in json.dumps(problem)
    assert (await send(client, event()))["accepted"] == 1


async def test_ndjson_streams_without_limit_and_lists_bad_lines(client: Client) -> None:
    """20,000 lines, 2 MB, in chunks that cut lines anywhere; a line too long to be an event is one bad row."""

    async def lines() -> AsyncIterator[bytes]:
        rest = b""
        for n in range(20_000):
            bad = n % 10 == 3
            rest += b"oops\n" if bad else json.dumps(event(user_id=f"stream{n % 7}")).encode() + b"\n\n"
            if len(rest) > 5000:
                yield rest[:4097]
                rest = rest[4097:]
        yield rest + b"x" * (3 * LONGEST_LINE) + b"\n" + json.dumps(event()).encode()

    taken = await client.post("/v1/events", None, 202, data=lines(), headers={"Content-Type": "application/x-ndjson"})
    assert (taken["accepted"], taken["rejected_count"], len(taken["rejected"])) == (18_001, 2_001, 1_000)
    assert taken["rejected"][0]["index"] == 3


async def test_an_unknown_body_type_is_415_and_names_what_is_read(client: Client) -> None:
    problem = await client.post("/v1/events", None, 415, data=b"a,b", headers={"Content-Type": "text/csv"})
    assert "application/json or application/x-ndjson" in problem["detail"]


@pytest.mark.parametrize("who", [{"user_id": "u1"}, {}, {"session": {"item_ids": ["i00001"]}}])
async def test_a_token_that_is_none_is_refused_whoever_asks(client: Client, who: dict[str, Any]) -> None:
    """An anonymous shopper has no features to wait for, and a token that is one changes nothing of their answer."""
    for path, body in (("recommendations", who), ("rank", {**who, "item_ids": ["i00001"]})):
        problem = await client.post(f"/v1/{path}", body, 422, headers={"Endcap-After": "tomorrow"})
        assert problem["errors"] == [{"path": "Endcap-After", "message": "'tomorrow' is no token"}]
        answer = await client.post(f"/v1/{path}", body, headers={"Endcap-After": "1-0"})
        assert "context" not in answer["degraded"]


async def test_events_that_are_not_in_the_features_in_time_are_said_to_be_missing(client: Client) -> None:
    """The consumer is stopped: the answer goes out within its budget, from what there is."""
    assert client.app.metrics.consumer is not None
    await client.app.metrics.consumer.stop()  # type: ignore[attr-defined]
    token = (await send(client, event(user_id="u2", item_id="i00019")))["token"]
    items, degraded = await recent(client, "u2", token)
    assert degraded == ["context"] and items and items[-1] != "i00019"
    assert client.app.api.answers.recommender is not None
    other = Consumer(client.app.pipeline(), "deployment")  # nothing is left for the tests after this one
    other.start()
    assert await client.app.api.answers.recommender.shoppers.applied.wait(token, 60.0)
    await other.stop()


def test_times_are_read_to_the_microsecond() -> None:
    assert microseconds("2026-11-23T19:00:00.123456Z") == microseconds("2026-11-23T20:00:00.123456+01:00")
    assert microseconds("1970-01-01T00:00:01.000001Z") == 1_000_001 == microseconds(1.000001)
    assert [spell(us) for us in (90_000_000, 5_400_000_000, 300_000_000)] == ["1.5 min", "1.5 h", "5 min"]


async def test_a_process_of_its_own_turns_events_into_features(client: Client, deployment: Path) -> None:
    """`endcap ingest` beside a service that does not consume; SIGTERM ends it, and it says what it did."""
    assert client.app.metrics.consumer is not None and client.app.api.answers.recommender is not None
    await client.app.metrics.consumer.stop()  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "service.cli", "ingest", "--dir", str(deployment)]
    ingest = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    token = (await send(client, event(user_id="apart", item_id="i00019")))["token"]
    assert await client.app.api.answers.recommender.shoppers.applied.wait(token, 30.0)
    assert (await recent(client, "apart", token))[0] == ["i00019"]
    ingest.terminate()
    output, _ = await ingest.communicate()
    assert ingest.returncode == 0 and b"1 events are in the features, 0 could not be used" in output
