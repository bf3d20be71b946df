"""What the service says of its engine: the curve, the last minute, and what to expect."""

from __future__ import annotations

import json

import jsonschema
import pytest

from ranking.batching import Curve, Policy
from service.engine_watch import ENOUGH, FRESH_S, EngineWatch
from service.figures import FINE, Tally, quantile
from tests.ranking.test_batching import query
from tests.service.conftest import Client

TOOK_S = 0.002


class Played:
    """An engine of one query at a time, each of which takes 2 ms, and a clock in the test's hands."""

    def __init__(self, own_core: bool = True) -> None:
        self.now = self.loop_s = self.cpu_s = 0.0
        self.policy = Policy(Curve([(1, 500, TOOK_S)]), most=1, slo_s=0.02, typical=500.0, cpu=lambda: self.cpu_s)
        self.stage = Tally(FINE)
        self.watch = EngineWatch(
            self.policy, self.stage, own_core=own_core, clock=lambda: self.now, loop_time=lambda: self.loop_s
        )

    def second(self, rate: int, stage_s: float = TOOK_S, loop_s: float = 0.0) -> None:
        """One second, in which so many queries came."""
        self.watch.note()
        for _ in range(rate):
            self.policy.take([query()])
            self.cpu_s += TOOK_S / 2
            self.policy.saw([query()], TOOK_S)
            self.stage.add(stage_s)
        self.now += 1.0
        self.loop_s += loop_s


async def test_the_last_minute_is_measured_and_no_more() -> None:
    played = Played()
    for _ in range(70):
        played.second(300, 0.2)
    for _ in range(60):
        played.second(100, 0.004)
    report = await played.watch.report()
    assert (report.window_s, report.rate, report.busy) == (60.0, 100.0, pytest.approx(0.2))
    assert report.measured is not None
    assert report.measured.p50_s == pytest.approx(0.004, rel=0.05)
    assert report.measured.p99_s == pytest.approx(0.004, rel=0.05)


async def test_forecast_stands_beside_measured_and_is_told_again_for_a_while() -> None:
    played = Played()
    for _ in range(10):
        played.second(200)
    first = (await played.watch.report()).forecast
    assert first is not None and first.now is not None and first.twice is not None
    assert (first.now.rate, first.twice.rate, first.loop_s) == (200.0, 400.0, 0.0)
    assert first.now.p50_s == pytest.approx(TOOK_S, rel=0.5) and first.now.p99_s is not None
    assert first.twice.p99_s is not None and first.twice.p99_s > first.now.p99_s
    assert first.twice.p99_s > 0.02 and first.capacity is not None and 200.0 < first.capacity < 400.0
    played.second(10)
    assert (await played.watch.report()).forecast is first
    played.now += FRESH_S
    assert (await played.watch.report()).forecast is not first


async def test_where_nobody_asks_the_capacity_is_told_all_the_same() -> None:
    played = Played()
    report = await played.watch.report()
    assert report.measured is None and report.rate == 0.0 and report.forecast is not None
    assert report.forecast.now is None and report.forecast.twice is None and report.forecast.capacity is not None


async def test_on_the_event_loop_what_the_loop_does_besides_counts_and_until_it_is_known_nothing_is_foretold() -> None:
    played = Played(own_core=False)
    played.second(int(ENOUGH) - 1, loop_s=0.004 * (ENOUGH - 1))
    played.watch.note()
    assert (await played.watch.report()).forecast is None
    for _ in range(5):
        played.second(100, loop_s=0.4)  # 0.1 s of it in batches: 3 ms besides for each
    played.watch.note()
    found = (await played.watch.report()).forecast
    assert found is not None and found.loop_s == pytest.approx(0.003)
    assert found.capacity is not None and found.capacity < 1 / (TOOK_S + 0.003)


async def test_a_busy_event_loop_bounds_the_capacity_of_an_engine_with_a_core_of_its_own() -> None:
    played = Played()
    for _ in range(5):
        played.second(100, loop_s=0.6)
    played.watch.note()
    found = (await played.watch.report()).forecast
    assert found is not None and found.loop_s == pytest.approx(0.006)
    assert found.twice is not None and found.twice.p99_s is None, "200/s take 1.2 s of a second"
    assert found.capacity is not None and found.capacity < 1 / 0.006


def test_a_quantile_is_interpolated_in_its_bucket_and_never_past_the_last_bound() -> None:
    assert quantile((1.0, 2.0, 4.0), [1, 2, 1, 0], 0.5) == pytest.approx(1.5)
    assert quantile((1.0, 2.0, 4.0), [0, 0, 0, 5], 0.99) == 4.0


async def test_the_endpoint_answers_as_the_document_says(client: Client) -> None:
    for n in range(12):
        await client.recommend(user_id=f"u{n}")
    status, text = await client.get("/v1/engine")
    report = json.loads(text)
    assert status == 200
    document = json.loads((await client.get("/openapi.json"))[1])
    schema = document["paths"]["/v1/engine"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**document, **schema}).validate(report)
    batches = report["batches"]
    assert [point["size"] for point in batches["curve"]] == [1, 2, 4, 8, 16, 32]
    assert batches["worth_having"] >= 1 and batches["typical_rows"] > 0 and report["workers"] == 1
    assert report["measured"]["p50_s"] > 0 and report["forecast"]["now"]["p99_s"] > 0
    assert report["slo_s"] == 0.02 and report["rate"] * report["window_s"] == pytest.approx(12)
    _, scraped = await client.get("/metrics")
    assert 'endcap_engine_curve_seconds{size="32"}' in scraped


async def test_until_the_model_is_loaded_the_engine_is_not_ready(client: Client) -> None:
    client.app.api.insight.engine = None
    status, text = await client.get("/v1/engine")
    assert status == 503 and json.loads(text)["type"] == "urn:endcap:problem:not-ready"
