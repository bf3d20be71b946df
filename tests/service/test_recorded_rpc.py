"""From the service's own record, which is of HTTP, to `endcap replay` of its gRPC door, as their users run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.config import CaptureConfig, read_config
from tests.service.conftest import counted
from tests.service.rpc_client import SERVICE, serving
from tests.service.test_capture_served import exchange
from tests.service.test_lane import post
from tests.service.test_recorded import ASKED, EVENT, endcap, written

MORE = [
    post(
        "u9",
        "Endcap-Priority: bulk",
        "Endcap-After: 0-0",
        "Endcap-Timeout-Ms: 30000",
        body=b'{"user_id": "u9", "count": 7, "exclude_item_ids": ["i00003"], "context": {"country": "FR"}, '
        b'"filter": {"price": {"min": 1, "max": 1e6}, "in_stock": true}, "model_version": "1", "explain": true}',
    ),
    post(
        path="/v1/events",
        body=b'{"events": [%s]}' % EVENT.replace(b"}", b', "timestamp": "2026-11-25T13:00:00Z"}') % b"e3",
    ),
]
WRONG = [post(body=b'{"user_id": "u1", "count": 0}'), post(body=b'{"usr_id": "u1"}')]
"""One that a message can say, and one that it cannot."""


async def test_what_was_recorded_over_http_is_asked_again_over_grpc_the_very_same(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pipeline is asked, and with which timeout, priority and token, is noted behind both doors."""
    log, traffic = tmp_path / "recorded.ndjson", tmp_path / "traffic"
    capture = CaptureConfig(enabled=True, directory=str(traffic))
    config = msgspec.structs.replace(read_config(deployment), capture=capture)
    async with serving(deployment, config) as rpc:
        recommender = rpc.app.api.answers.answering()
        begin, asked = recommender.begin, list[Any]()

        def noting(request: Any, place: str, call: Any, trace: Any) -> Any:
            asked.append((request, place, call))
            return begin(request, place, call, trace)

        monkeypatch.setattr(recommender, "begin", noting)
        for one in (*ASKED, *MORE):
            assert await exchange(rpc.http, one) in (200, 202)
        assert [await exchange(rpc.http, one) for one in WRONG] == [422, 422]
        log.write_bytes(b"".join(await written(rpc.http, traffic)))
        over_http, asked[:] = list(asked), []
        # One connection keeps the order also where two requests are due within a millisecond.
        url, out = f"grpc://127.0.0.1:{rpc.port}", tmp_path / "replay.json"
        played = await endcap("replay", log, url, "--connections", 1, "--slo", "p99=60s", out=out)
        _, scrape = await rpc.http.get("/metrics")

    assert len(over_http) == 11
    assert asked == over_http
    assert (played["planned"], played["answered"], played["errors"], played["bad_rows"]) == (15, 15, 1, 1)
    assert played["statuses"] == {"INVALID_ARGUMENT": 1, "OK": 14}
    assert "unknown field `usr_id`" in played["complaints"][0]
    assert {(one["endpoint"], one["placement"], one["status"]): one["count"] for one in played["groups"]} == {
        ("POST /v1/events", None, "OK"): 3, ("POST /v1/rank", "home", "OK"): 2,
        ("POST /v1/recommendations", "home", "OK"): 8, ("POST /v1/recommendations", "similar", "OK"): 1,
        ("POST /v1/recommendations", "home", "INVALID_ARGUMENT"): 1,
    }  # fmt: skip
    assert played["stages_ms"]["features"]["count"] == 9  # the others are about nobody
    assert played["unreadable"] == {"answers": 0, "server_timings": 0}
    for method, status, count in (("Recommend", "200", 9), ("Rank", "200", 2), ("Recommend", "422", 1)):
        labels = {"endpoint": f"/{SERVICE}/{method}", "status": status}
        assert counted(scrape, "endcap_requests_total", **labels) == count
    assert counted(scrape, "endcap_requests_total", endpoint=f"/{SERVICE}/RecordEvents", status="200") == 3
