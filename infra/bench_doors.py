"""`make bench-doors`: what each door costs, in one run on one machine.

A copy of the demo shop of `make bench-open`, served by one worker, every door open. A client in a process of its own
asks for the same shoppers through one door after the other, `--rounds` times. CPU is that of the service and of the
store that it has started. Of the rounds the one with the least CPU counts, since whatever else the machine does only
adds to it; p50 and p99 are of all rounds, with one request at a time, so that a door's time is its own and nobody's
queue. In the copy `home` has 500 candidates by the model, so that 500 items can be answered, and the serving log is
off: it writes every 5 s, which would fall on one door or another, and costs each the same.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from random import Random

import uvloop

from infra import doors
from infra.bench_open import user_ids
from infra.bench_swap import Shop as Copied
from infra.bench_swap import others
from infra.doors import Cell, Round, Shop
from infra.doors_batch import batches, streams
from infra.doors_table import BEGIN, END, Figures, figures, replaced, report
from load.errors import LoadError
from load.processes import machine, stolen
from service.deployment import Deployment
from service.http.answers import RANK, RECOMMENDATIONS
from service.valkey import free_port

ITEMS, USERS = (1, 20, 500), (1, 100, 10_000)
WIDE, PATIENT = "sources = { personal = 500", "timeout_ms = 10000"
"""So that 500 items can be answered, and nothing is left out because other programs are in the way."""


def cells(most_users: int) -> list[Cell]:
    """What is measured, in the order of a round."""
    floors = [
        Cell(doors.ALIVE, "/healthz", 0), Cell(doors.READY, "/readyz", 0), Cell(doors.CHECK, doors.CHECK, 0),
    ]  # fmt: skip
    alone = [
        Cell(door, path, items)
        for path in (RECOMMENDATIONS, RANK)
        for items in ITEMS
        for door in (doors.HTTP_JSON, doors.HTTP_PROTOBUF, doors.GRPC)
    ]
    sizes = [(users, 20) for users in USERS if users <= most_users] + [(100, items) for items in ITEMS if items != 20]
    many = [
        Cell(door, RECOMMENDATIONS, items, users)
        for users, items in sorted(sizes)
        for door in (doors.HTTP_NDJSON, doors.HTTP_ARROW, doors.STREAM)
    ]
    return floors + alone + many


def measure(shop: Shop, cell: Cell, seconds: float) -> Round:
    """One turn of a cell, `seconds` long or one batch. Raises LoadError for an answer that is none, or not whole."""
    if cell.users and cell.door != doors.STREAM:
        return batches(shop, cell, seconds)
    found: Round = uvloop.run(streams(shop, cell, seconds) if cell.users else doors.single(shop, cell, seconds))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement of a round")
    parser.add_argument("--quick", action="store_true", help="one round, without batches of 10,000")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--markdown", type=Path, help=f"replace what stands between {BEGIN} and {END} on this page")
    arguments = parser.parse_args()
    page: Path | None = arguments.markdown
    try:
        if page is not None:
            replaced(page.read_text(), "")  # what is wrong with it is said now, and not after minutes
        found, state = run(arguments)
    except (OSError, ValueError, LoadError) as error:
        sys.exit(str(error))
    told = report(found, state)
    print(told)
    if arguments.json is not None:
        every = [{**cell._asdict(), **one._asdict()} for cell, one in found.items()]
        arguments.json.write_text(json.dumps({"state": state, "cells": every}, indent=1) + "\n")
    if page is not None:
        page.write_text(replaced(page.read_text(), told))
    return 0


def run(arguments: argparse.Namespace) -> tuple[dict[Cell, Figures], str]:
    """The figures of every cell, and what they were measured on and beside. Raises LoadError."""
    if not Deployment.exists(arguments.dir):
        command = [sys.executable, "-m", "infra.bench_open", "--dir", str(arguments.dir), "--duration", "1"]
        subprocess.check_call(command)  # noqa: S603
    rounds, most_users = (1, 100) if arguments.quick else (arguments.rounds, USERS[-1])
    with tempfile.TemporaryDirectory() as folder:
        copied, rpc_port = Copied.copy(arguments.dir, Path(folder) / "shop"), free_port()
        open_doors(copied.home / "endcap.toml", rpc_port)
        with copied.served(1) as (port, pid):
            shop = Shop(port, rpc_port, pid, *asked_about(arguments.dir))
            began, stolen_s, others_s = time.monotonic(), stolen() or 0.0, others()
            turns = measured(shop, cells(most_users), rounds, arguments.seconds)
            took_s = time.monotonic() - began
            beside, theft = (others() - others_s) / took_s, ((stolen() or 0.0) - stolen_s) / took_s
    state = (
        f"`make bench-doors`, {datetime.now(UTC):%Y-%m-%d}, {rounds} rounds of {arguments.seconds:g} s a measurement, "
        f"on {machine().partition(',')[0]}. Other jobs had {max(beside, 0.0):.1f} of its cores meanwhile, "
        f"the hypervisor {theft:.2f}."
    )
    return {cell: figures(cell, each) for cell, each in turns.items()}, state


def measured(shop: Shop, wanted: Sequence[Cell], rounds: int, seconds: float) -> dict[Cell, list[Round]]:
    """Every cell's rounds. In turn, so that what changes on this machine falls on all of them."""
    turns: dict[Cell, list[Round]] = {cell: [] for cell in wanted}
    with ProcessPoolExecutor(1, get_context("spawn")) as client:
        for number in range(rounds):
            for cell in wanted:
                found = client.submit(measure, shop, cell, seconds).result()
                turns[cell].append(found)
                said = f"{cell.door}, {cell.path}, {cell.items} items, {cell.users or 'no'} users in a batch"
                cost = found.cpu_s / found.asked * 1e3
                print(f"round {number + 1}: {said}: {cost:.2f} CPU s per 1,000, {found.asked} asked", file=sys.stderr)
    return turns


def open_doors(settings: Path, rpc_port: int) -> None:
    """In the copy's endcap.toml. Raises ValueError where its `home` is not that of a demo."""
    text, changed = re.subn(r"^sources = \{ personal = \d+", WIDE, settings.read_text(), count=1, flags=re.MULTILINE)
    if not changed:
        raise ValueError(f"{settings.name}: expected a placement with `sources = {{ personal = …`, as a demo has it")
    text = re.sub(r"^timeout_ms = \d+", PATIENT, text, flags=re.MULTILINE)
    settings.write_text(f"{text}\n[grpc]\nport = {rpc_port}\n\n[log]\nenabled = false\n")


def asked_about(directory: Path) -> tuple[list[str], list[str]]:
    """Users and items of the shop, in an order that says nothing."""
    import pyarrow.parquet as pq

    users = user_ids(directory)
    items: list[str] = pq.read_table(directory / "data" / "items.parquet")["item_id"].to_pylist()
    chance = Random(7)
    chance.shuffle(users)
    chance.shuffle(items)
    return users, items


if __name__ == "__main__":
    sys.exit(main())
