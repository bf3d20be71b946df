"""`make bench-doors` on a small shop: every door is asked and answers; its figures become the tables of the page."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra import doors
from infra.bench_doors import cells, measured, open_doors
from infra.doors import Cell, Round, Shop
from infra.doors_table import BEGIN, END, figures, replaced, report
from load.errors import LoadError
from service.config import read_config
from service.http.answers import RECOMMENDATIONS
from tests.conftest import Server
from tests.service.conftest import make_deployment
from tests.service.rpc_client import serving

JSON, ARROW = Cell(doors.HTTP_JSON, RECOMMENDATIONS, 20), Cell(doors.HTTP_ARROW, RECOMMENDATIONS, 20, 10_000)


@pytest.fixture(scope="module")
def home(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_deployment(tmp_path_factory.mktemp("doors"), valkey.address, "doors")


@pytest.fixture
async def shop(home: Path) -> AsyncIterator[Shop]:
    async with serving(home) as rpc:
        port = int(rpc.http.url.rpartition(":")[2])
        yield Shop(port, rpc.port, os.getpid(), ["u1", "u2", "u3"], [f"i{n:05d}" for n in range(20)])


async def test_each_door_answers_whole(shop: Shop) -> None:
    few = [one._replace(items=min(one.items, 3), users=min(one.users, 5)) for one in cells(10_000)]
    turns = await asyncio.to_thread(measured, shop, list(dict.fromkeys(few)), 1, 0.01)
    assert {cell.door for cell in turns} == {
        doors.ALIVE, doors.READY, doors.CHECK, doors.HTTP_JSON, doors.HTTP_PROTOBUF, doors.GRPC, doors.HTTP_NDJSON,
        doors.HTTP_ARROW, doors.STREAM,
    }  # fmt: skip
    for cell, [one] in turns.items():
        assert one.asked >= max(1, cell.users) and one.size > 0 and one.wall_s > 0 and one.took_s, cell
        assert len(one.first_s) == (len(one.took_s) if cell.users else 0), cell
        assert all(first < took for first, took in zip(one.first_s, one.took_s, strict=False)), cell


@pytest.mark.parametrize("cell", [JSON._replace(items=500), ARROW._replace(items=500)], ids=lambda cell: cell.door)
async def test_an_answer_that_is_not_whole_ends_it(shop: Shop, cell: Cell) -> None:
    """The shop has 200 items."""
    with pytest.raises(LoadError, match=r"items, expected 500; degraded: \['count'\]"):
        await asyncio.to_thread(measured, shop, [cell], 1, 0.01)


def test_of_the_copy_every_door_is_open_and_nothing_is_left_out_for_want_of_time(home: Path, tmp_path: Path) -> None:
    (tmp_path / "endcap.toml").write_text((home / "endcap.toml").read_text())
    open_doors(tmp_path / "endcap.toml", 4711)
    config = read_config(tmp_path)
    assert config.grpc.port == 4711 and not config.log.enabled
    assert config.placements["home"].sources["personal"] == 500
    patience = {config.service.timeout_ms, config.features.timeout_ms, config.placements["home"].timeout_ms}
    assert patience == {10_000}


def test_another_shop_than_a_demo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "endcap.toml").write_text("[placements.home]\nsources = { popular = 5 }\n")
    with pytest.raises(ValueError, match=r"^endcap.toml: expected a placement with"):
        open_doors(tmp_path / "endcap.toml", 4711)


def test_cpu_is_of_the_round_with_the_least_and_times_are_of_all_rounds() -> None:
    rounds = [
        Round(asked=100, wall_s=1.0, cpu_s=0.3, size=5000, took_s=[0.001] * 99, alone_cpu_s=0.099),
        Round(asked=200, wall_s=1.0, cpu_s=0.4, size=9000, took_s=[0.003], alone_cpu_s=0.004),
    ]
    found = figures(JSON, rounds)
    assert (found.cpu_s, found.rate, found.size, found.timed) == pytest.approx((2.0, 200, 45, 100))
    assert (found.alone_cpu_s, found.p50_ms, found.p99_ms) == pytest.approx((1.0, 1.0, 3.0))


def test_the_tables_have_a_row_for_each_cell_and_say_how_many_floors_it_costs() -> None:
    floor = Cell(doors.ALIVE, "/healthz", 0)
    one = Round(asked=1000, wall_s=1.0, cpu_s=0.1, size=1000, took_s=[0.001], first_s=[0.05], alone_cpu_s=0.001)
    dear = Round(asked=1000, wall_s=1.0, cpu_s=1.2, size=1_700_000, took_s=[0.002], alone_cpu_s=0.003)
    told = report({floor: figures(floor, [one]), JSON: figures(JSON, [dear]), ARROW: figures(ARROW, [one])}, "Now.")
    assert told.startswith("Now.\n")
    assert "| GET /healthz |  | 0.10 | 1.0 | 1.00 | 1.00 / 1.00 | 1 |" in told
    assert "| JSON, recommend | 20 | 1.20 | 12.0 | 3.00 | 2.00 / 2.00 | 1,700 |" in told
    assert "| Arrow | 10,000 | 20 | 0.10 | 1,000 | 50.0 | 1.0 / 1.0 | 1 | 1 |" in told


def test_what_stands_between_the_marks_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_page_without_both_marks_once_and_in_order_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        replaced(page, "new")


def test_the_page_of_the_transports_has_the_marks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "transports.md").read_text()
    assert "| JSON, recommend | 500 |" in page.partition(BEGIN)[2].partition(END)[0]
