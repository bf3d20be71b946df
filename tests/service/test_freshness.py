"""Ages as served: request-weighted, over the right window, in groups, and as JSON, CSV and Arrow."""

from __future__ import annotations

import asyncio
import csv
import io
import socket
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from features.user import ViewState
from service.accept import ARROW, JSON, chosen
from service.commands import freshness as command
from service.errors import NotAcceptable, ServiceError
from service.freshness import Freshness
from service.freshness_wire import CSV, TYPES, FreshnessReport, ViewReport
from service.tallies import Tallies
from tests.service.conftest import Client

NOW = 1_795_000_020.0
SLOS: dict[str, float | None] = {"v": 60.0, "w": None}


def present(age: float) -> dict[str, ViewState]:
    return {"v": ViewState("present", age)}


def test_quantiles_and_the_share_within_the_slo_are_those_of_the_answers() -> None:
    """Each answer counts once: a shopper who asks a thousand times weighs a thousand."""
    rng, tallies = np.random.default_rng(1), Tallies(SLOS)
    ages = np.concatenate([rng.lognormal(4, 2, 5_000), np.full(1_000, 7.0)])
    for age in ages.tolist():
        tallies.add(NOW, "home", "1", present(age))
    for status in ("missing", "missing", "not_read"):
        tallies.add(NOW, "home", "1", {"v": ViewState(status, None)})
    found = tallies.served("v", 300, NOW)
    assert found.requests == 6_003 and found.missing == pytest.approx(2 / 6_003)
    assert found.not_read == pytest.approx(1 / 6_003) and found.within_slo == pytest.approx((ages <= 60).mean())
    assert found.age_s is not None
    for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        assert getattr(found.age_s, name) == pytest.approx(np.quantile(ages, q), rel=0.05)


def test_a_view_without_slo_and_one_never_served() -> None:
    tallies = Tallies(SLOS)
    tallies.add(NOW, "home", "1", {"w": ViewState("outside_max_age", 9.0)})
    found = tallies.served("w", 300, NOW)
    assert (found.within_slo, found.outside_max_age) == (None, 1.0) and found.age_s is not None
    assert msgspec.to_builtins(tallies.served("v", 300, NOW)) == {
        "requests": 0, "missing": 0, "outside_max_age": 0, "unreadable": 0, "not_read": 0, "within_slo": None,
        "age_s": None,
    }  # fmt: skip


def test_a_window_ends_now_and_a_day_is_all_that_is_kept() -> None:
    tallies = Tallies(SLOS)
    for ago in (10, 6 * 60, 2 * 3600, 23 * 3600):
        tallies.add(NOW - ago, "home", "1", present(1.0))
    assert [tallies.served("v", window, NOW).requests for window in (300, 3600, 86400)] == [1, 2, 4]
    for minute in range(3000):
        tallies.add(NOW + 60 * minute, "home", "1", present(1.0))
    assert len(tallies.minutes) <= 1441


def test_a_quantile_is_within_4_5_percent_even_where_all_ages_are_the_same() -> None:
    for age in np.geomspace(0.002, 1e8, 999).tolist():
        tallies = Tallies(SLOS)
        tallies.add(NOW, "home", "1", present(age))
        found = tallies.served("v", 300, NOW).age_s
        assert found is not None and [found.p50, found.p99] == pytest.approx([age, age], rel=0.045)


def test_what_was_just_answered_is_in_the_shortest_window_at_every_second_of_a_minute() -> None:
    """And never what is six minutes old in the window of five."""
    for second in range(60):
        tallies = Tallies(SLOS)
        tallies.add(NOW + second - 1, "home", "1", present(1.0))
        tallies.add(NOW + second - 360, "home", "1", present(1.0))
        assert [tallies.served("v", window, NOW + second).requests for window in (1, 299, 300)] == [1, 1, 1]


def test_hours_summed_once_say_what_their_minutes_say() -> None:
    """At every place of a window in the hour, with answers told late, and after the hours have gone."""
    rng, tallies = np.random.default_rng(5), Tallies(SLOS)

    def agree(now: float) -> None:
        for window in (300, 3600, 7200, 10_000, 86_400):
            minutes = tallies.grouped("v", window, "minute", now)
            total = tallies.served("v", window, now)
            assert total.requests == sum(one.requests for one in minutes)
            placements = tallies.grouped("v", window, "placement", now)
            assert total.requests == sum(one.requests for one in placements)

    for n in range(3000):
        at = NOW + 37 * n
        tallies.add(at, "home" if n % 3 else "cart", "1", present(float(rng.lognormal(3, 2))))
        if n % 50 == 0:
            agree(at)
            tallies.add(at - 61, "late", "1", present(1.0))
            agree(at)
    assert 20 < len(tallies.hours) <= 25
    agree(at + 43_200)
    assert tallies.served("v", 86_400, at + 90_000).requests == 0


async def test_sampling_outlives_whatever_feast_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        project, specs, newest, looks = "p", (), dict[str, float | None](), 0
        pipeline: Any = None

        async def look(self) -> dict[str, Any]:
            self.looks += 1
            return {}

        def take_up(self, specs: Any) -> None:
            raise AssertionError("there are no new views")

    async def respec() -> Any:
        raise ValueError("half a registry")

    broken: Any = Broken()
    freshness = Freshness(broken, Tallies(SLOS), respec, interval_s=0.001)
    freshness.start()
    assert freshness.task is not None
    for _ in range(500):
        if broken.looks > 25:
            break
        await asyncio.sleep(0.01)
    assert broken.looks > 25 and not freshness.task.done()
    freshness.task.cancel()
    assert "stay as they were: ValueError: half a registry" in caplog.text


async def test_sampling_outlives_whatever_a_look_at_the_store_raises(caplog: pytest.LogCaptureFixture) -> None:
    """It says so meanwhile, in the report too, and goes on when it can."""

    class Broken:
        project, specs, newest, looks = "p", (), dict[str, float | None](), 0
        pipeline: Any = None

        async def look(self) -> dict[str, Any]:
            self.looks += 1
            if self.looks < 4:
                raise OverflowError("a time that no clock shows")
            if self.looks == 4:
                assert freshness.report().sample_error == "OverflowError: a time that no clock shows"
            return {}

    broken: Any = Broken()
    freshness = Freshness(broken, Tallies(SLOS), None, interval_s=0.001)  # type: ignore[arg-type]
    freshness.start()
    assert freshness.task is not None
    async with asyncio.timeout(5):
        while broken.looks < 6:
            await asyncio.sleep(0.005)
    assert not freshness.task.done() and freshness.sample_error is None
    freshness.task.cancel()
    assert caplog.text.count("the store could not be sampled") == 1


@pytest.mark.parametrize("said", [b"hello\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"])
def test_what_is_no_service_is_one_line_and_a_watch_goes_on(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else on the port, or an answer cut short by a restart; then nobody at all."""
    monkeypatch.setattr(command, "EVERY_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def hang_up() -> None:
            incoming, _ = listening.accept()
            with incoming:
                incoming.recv(65_536)
                incoming.sendall(said)

        answering = Thread(target=hang_up)
        answering.start()
        watching = command.again(url)
        line = str(next(watching))
        assert "still trying" in line and "\n" not in line
        answering.join()
    assert f"no service answers at {url}" in str(next(watching))
    with pytest.raises(ServiceError, match="is no http address"):
        command.ask("http://127.0.0.1:abc")


def test_groups_by_placement_version_hour_and_minute() -> None:
    tallies = Tallies(SLOS)
    for n in range(10):
        tallies.add(NOW - 1800 * n, "home" if n % 3 else "cart", str(n % 2), present(float(n)))
    by = {one: tallies.grouped("v", 86400, one, NOW) for one in ("placement", "model_version", "hour", "minute")}
    assert [(one.group, one.requests) for one in by["placement"]] == [("home", 6), ("cart", 4)]
    assert [(one.group, one.requests) for one in by["model_version"]] == [("0", 5), ("1", 5)]
    hours = [one.group for one in by["hour"]]
    assert hours == sorted(hours) and all(one.endswith(":00:00Z") for one in hours)
    assert len(by["minute"]) == 10 and sum(one.requests for one in by["hour"]) == 10


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON), ("*/*", JSON), ("text/csv", CSV), (ARROW, ARROW), ("text/*", CSV), ("text/html, */*;q=0.1", JSON),
        ("application/json;q=0.5, text/csv;q=0.6", CSV), ("text/csv;q=0, */*", JSON),
        ("APPLICATION/VND.APACHE.ARROW.STREAM ; q=1", ARROW), ("text/csv;q=wild, application/json;q=0.1", JSON),
    ],
)  # fmt: skip
def test_accept_is_honoured(accept: str | None, kind: str) -> None:
    assert chosen(accept, TYPES) == kind


def test_what_nobody_writes_is_not_acceptable() -> None:
    for accept in ("text/html", "*/*;q=0", "application/xml, image/*"):
        with pytest.raises(NotAcceptable, match="there are application/json, text/csv"):
            chosen(accept, TYPES)


async def freshness(client: Client, path: str, accept: str = JSON) -> bytes:
    async with client.session.get(f"{client.url}{path}", headers={"Accept": accept}) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == accept
        return await response.read()


async def test_the_service_tells_how_fresh_its_views_are_and_were(client: Client) -> None:
    """In the store and as served, the same in three encodings."""
    for _ in range(7):
        await client.recommend(user_id="u5")
    await client.recommend(user_id="u5", placement="popular")
    for _ in range(100):
        report = msgspec.json.decode(await freshness(client, "/v1/freshness"), type=FreshnessReport)
        if report.views[0].sample is not None:
            break
        await asyncio.sleep(0.05)
    views = {one.view: one for one in report.views}
    assert set(views) == {"user_profile", "user_activity", "user_recent", "item_stats"}
    activity = views["user_activity"]
    assert (activity.entity, activity.slo_s, activity.max_age_s) == ("user", 300, 30 * 86400)
    assert activity.last_materialized is not None and activity.newest_event is not None
    assert activity.sample is not None and activity.sample.entities >= 12 and activity.sample.age_s is not None
    assert activity.served["5m"].requests >= 8 and activity.served["24h"].age_s is not None
    stats = views["item_stats"]  # every answer rests on it, the anonymous ones too
    assert stats.served["5m"].requests == activity.served["5m"].requests and stats.sample is not None
    assert stats.served["5m"].age_s is not None and stats.served["5m"].within_slo is not None
    rows = list(csv.DictReader(io.StringIO((await freshness(client, "/v1/freshness", CSV)).decode())))
    table = pa.ipc.open_stream(await freshness(client, "/v1/freshness", ARROW)).read_all()
    assert len(rows) == 16 == table.num_rows and rows[0].keys() == set(table.column_names)
    told: Any = next(row for row in table.to_pylist() if row["view"] == "user_activity" and row["scope"] == "1h")
    served = activity.served["1h"]
    assert served.age_s is not None and told["requests"] == served.requests
    assert told["age_p50_s"] == pytest.approx(served.age_s.p50)


async def test_one_view_in_groups_and_what_cannot_be_asked(client: Client) -> None:
    path = "/v1/freshness/user_recent?window=1h&by=placement"

    async def groups() -> dict[str, int]:
        report = msgspec.json.decode(await freshness(client, path), type=ViewReport)
        return {one.group: one.requests for one in report.groups}

    before = await groups()
    for placement in ("home", "home", "popular"):
        await client.recommend(user_id="u5", placement=placement)
    after = await groups()
    assert (after["home"] - before.get("home", 0), after["popular"] - before.get("popular", 0)) == (2, 1)
    week = msgspec.json.decode(await freshness(client, path.replace("1h", "7d")), type=ViewReport)
    assert week.window_s == 7 * 86400 and {one.group: one.requests for one in week.groups}["home"] >= 2
    rows = list(csv.DictReader(io.StringIO((await freshness(client, path, CSV)).decode())))
    assert {row["group"]: int(row["requests"]) for row in rows if row["by"] == "placement"} == after
    for bad, status, said in (
        ("user_recnt", 404, "no feature view 'user_recnt'; there are item_stats, user_activity"),
        ("user_recent?window=15d", 422, "at most 14d"),
        ("user_recent?by=user", 422, "none of placement, model_version, hour, minute"),
        ("user_recent?wndow=1h", 422, "Unknown parameter"),
    ):
        found_status, text = await client.get(f"/v1/freshness/{bad}")
        assert found_status == status and said in text, text
    async with client.session.get(f"{client.url}/v1/freshness", headers={"Accept": "text/html"}) as response:
        assert response.status == 406


async def test_the_metric_that_feast_users_chart_is_there(client: Client) -> None:
    await asyncio.sleep(0.3)
    _, text = await client.get("/metrics")
    lines = [line for line in text.splitlines() if line.startswith("feast_feature_freshness_seconds{")]
    assert len(lines) == 4 and all('project="deployment"' in line for line in lines)


async def test_the_terminal_shows_the_same(client: Client, deployment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(command, "console", Console(file=output))
    await client.recommend(user_id="u5")
    await asyncio.to_thread(command.freshness, deployment, client.url, watch=False)
    shown = output.getvalue()
    assert "user_activity" in shown and "item_stats" in shown and "5m" in shown
    with pytest.raises(ServiceError, match="no service answers at"):
        command.freshness(deployment, "http://127.0.0.1:1", watch=False)
    with pytest.raises(ServiceError, match="is no http address"):
        command.freshness(deployment, "file:///etc/passwd", watch=False)
    assert [command.span(one) for one in (0.25, 90, 7200, 200_000)] == ["250ms", "1.5m", "2h", "2.3d"]
