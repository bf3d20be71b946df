"""From the service's own record to `endcap replay` and `endcap diff` against it, as their users run them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.service.conftest import Client
from tests.service.test_capture import Row, partials
from tests.service.test_capture_served import exchange, recording
from tests.service.test_lane import post

# About an item and a shopper whom no other request is about: answers are to be the same before and after.
EVENT = b'{"event_id": "%s", "user_id": "recorded", "item_id": "nowhere", "type": "view"}'
ASKED = [
    *(post(f"u{number}", "Endcap-Timeout-Ms: 20000") for number in range(6)),
    post(body=b'{"user_id": "u1", "placement": "similar", "item_id": "i00001", "count": 5}'),
    post(path="/v1/events", body=b'{"events": [%s]}' % EVENT % b"recorded-1"),
    post(path="/v1/rank", body=b'{"user_id": "u2", "item_ids": ["i00001", "i00002", "i00003"]}'),
    post(body=b'{"session": {"item_ids": ["i00004"]}, "count": 5}'),
    post(path="/v1/events", body=EVENT % b"recorded-2").replace(b"application/json", b"application/x-ndjson"),
    post(path="/v1/rank", body=b'{"item_ids": ["i00007", "i00005"]}'),
]


async def endcap(*arguments: object, out: Path) -> dict[str, Any]:
    """Runs a load command to its end, which must be without an error; returns its JSON."""
    given = [*map(str, arguments), "--json", str(out)]
    command = (sys.executable, "-m", "endcap_command", *given)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    found: dict[str, Any] = msgspec.json.decode(out.read_bytes())
    return found


async def written(client: Client, directory: Path) -> list[bytes]:
    """The lines that the running service has recorded so far."""
    assert client.app.capture is not None
    await asyncio.to_thread(client.app.capture.flush)
    return [line for path in partials(directory) for line in path.read_bytes().splitlines(keepends=True)]


async def test_what_was_recorded_is_played_again_whole_and_in_order_and_answered_alike(
    deployment: Path, tmp_path: Path
) -> None:
    """The service records the replay too, so its own log says what was sent: method, path, headers and body."""
    log, traffic = tmp_path / "recorded.ndjson", tmp_path / "traffic"
    async with recording(deployment, traffic) as client:
        await client.app.load()
        for one in ASKED:
            assert await exchange(client, one) in (200, 202)
        recorded = await written(client, traffic)
        log.write_bytes(b"".join(recorded))
        # One connection keeps the order also where two requests are due within a millisecond.
        played = await endcap(
            "replay",
            log,
            client.url,
            "--strict",
            "--connections",
            1,
            "--slo",
            "errors=0%",
            out=tmp_path / "replay.json",
        )
        again = (await written(client, traffic))[len(recorded) :]
        versions = ("--version-a", 1, "--version-b", 2)
        same, other = await asyncio.gather(
            endcap("diff", log, client.url, client.url, out=tmp_path / "same.json"),
            endcap("diff", log, client.url, *versions, out=tmp_path / "versions.json"),
        )

    first, second = ([msgspec.json.decode(line, type=Row) for line in lines] for lines in (recorded, again))
    assert len(first) == len(ASKED)
    assert [msgspec.structs.replace(row, at_us=0) for row in second] == [
        msgspec.structs.replace(row, at_us=0) for row in first
    ]
    assert [one.body for one in first] == [one.partition(b"\r\n\r\n")[2].decode() for one in ASKED]
    assert (played["planned"], played["answered"], played["errors"], played["bad_rows"]) == (len(ASKED),) * 2 + (0, 0)
    assert played["statuses"] == {"200": 10, "202": 2}
    assert {(one["endpoint"], one["placement"]): one["count"] for one in played["groups"]} == {
        ("POST /v1/events", None): 2, ("POST /v1/rank", "home"): 2,
        ("POST /v1/recommendations", "home"): 7, ("POST /v1/recommendations", "similar"): 1,
    }  # fmt: skip
    assert "features" in played["stages_ms"]

    assert (same["requests"], same["failed_pairs"], same["skipped"]) == (10, 0, {"other endpoints": 2})
    assert (same["all"]["pairs"], same["all"]["identical"], same["all"]["overlap"]["count"]) == (10, 1, 1)
    assert same["all"]["score_shift"]["mean"] == 0
    assert [one["placement"] for one in same["placements"]] == ["home", "home, rank", "similar"]
    assert (other["models"]["a"], other["models"]["b"]) == ({"default 1": 10}, {"default 2": 10})
    assert other["all"]["identical"] < 1 and other["most_changed"]
