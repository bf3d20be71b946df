"""`traffic OUT --from KIND INPUT …`: make a traffic log from what was recorded, or from a rate."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from load.commands.arguments import number, whole
from load.errors import LoadError
from load.sources.account import Account
from load.traffic_log import Entry, Writer, fault, suffix_of

KINDS = ("answers", "events", "access", "rates")
SHOW_EVERY = 1_000
NO_REQUEST = "no request that can be sent"
COMMON = ("command", "out", "kind", "inputs", "strict")


class Source(Protocol):
    """What each module of load/sources that is a kind has. The fields of `Settings` are the options that it takes."""

    Settings: Any

    def entries(self, inputs: Sequence[Path], settings: Any, account: Account) -> Iterator[Entry]: ...


def add_to(subparsers: Any) -> None:
    """Add the command to the command line."""
    command = subparsers.add_parser("traffic", help="make a traffic log, from what was recorded or from a rate")
    add = command.add_argument
    add("out", type=Path, metavar="OUT", help="the log to write: .ndjson, .ndjson.gz or .parquet")
    add("--from", dest="kind", choices=KINDS, required=True, help="what INPUT is (docs/traffic-log.md)")
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="answers: a deployment's directory; else files")
    add("--strict", action="store_true", help="stop at the first bad row of INPUT instead of counting it")
    add("--seed", type=whole(0), help="of all that is drawn; the same seed gives the same log [1]")
    add("--placement", help="of the requests made [home]")
    add("--count", type=whole(1), help="items to ask for [20]")
    add("--users", type=Path, metavar="FILE", help="rates, access: user ids, one a line")
    add("--users-count", type=whole(1), metavar="N", help="rates, access: made-up user ids, from --user-template")
    add("--user-template", metavar="T", help="printf template of a made-up id, counted from 0 [u%%05d]")
    add("--spread", type=number(least=0), metavar="S", help="events, access: move each later by 0 to S seconds")
    _add_to_groups(command)


def _add_to_groups(command: argparse.ArgumentParser) -> None:
    """Options of one source each. None has a default here: what was given tells whether it belongs to the source."""
    add = command.add_argument_group("answers").add_argument
    add("--since", metavar="TIME", help="from then on, such as 2026-11-25T07:00:00Z")
    add("--until", metavar="TIME", help="before then")
    add = command.add_argument_group("events").add_argument
    add(
        "--format",
        choices=("generic", "online-retail"),
        help="online-retail: the UCI file; visits, and what they bought [generic]",
    )
    add("--day", metavar="DAY", help="one day only, such as 2011-12-05, or `busiest`")
    for name, default in (("user", "user_id"), ("item", "item_id"), ("kind", "event"), ("time", "timestamp")):
        add(f"--{name}-column", metavar="NAME", help=f"[{default}]")
    add("--request-kinds", metavar="A,B", help="kinds that become a recommendation request [view]")
    add("--event-kinds", metavar="A,B", help="kinds that become POST /v1/events [purchase]")
    add("--item-in-view", action="store_true", default=None, help="the request names the item of the event")
    add = command.add_argument_group("access").add_argument
    add("--mapping", type=Path, metavar="TOML", help="lines to requests [the combined format and a shop's usual paths]")
    add = command.add_argument_group("rates").add_argument
    add("--zipf", type=number(least=0), help="exponent of how unevenly users come back; 0: evenly [1]")
    add("--start", type=whole(0), metavar="SECOND", help="from that second of the file on [0]")
    add("--seconds", type=whole(1), metavar="N", help="so many of them [all]")


def run(arguments: argparse.Namespace) -> int:
    """Write the log and say what became of the input. Raises LoadError, and leaves no log, where it cannot be."""
    source = _source(arguments.kind)
    settings = source.Settings(**_given(arguments, source))
    if any(path.resolve() == arguments.out.resolve() for path in arguments.inputs):
        raise LoadError(f"{arguments.out}: is the input as well")
    suffix_of(arguments.out)
    account, endpoints, span = Account(strict=arguments.strict), Counter[str](), [0, 0]
    with _terminated_as_interrupted(), Writer(arguments.out) as log, _progress(arguments.out) as show:
        for entry in source.entries(arguments.inputs, settings, account):
            if (wrong := fault(entry)) is not None:
                account.drop_bad(NO_REQUEST, wrong)
                continue
            if log.rows == 0:
                span[0] = entry.at_us
            log.write(entry)
            span[1] = entry.at_us
            endpoints[f"{entry.method} {entry.path.partition('?')[0]}"] += 1
            if log.rows % SHOW_EVERY == 0:
                show(log.rows)
        for line in account.shown:
            print(f"load: {line}", file=sys.stderr)
        if log.rows == 0:
            raise LoadError(f"{arguments.out}: no request is left to write; {account.summary()}")
    for note in account.notes:
        print(note)
    most = ", ".join(f"{name} {count:,}" for name, count in endpoints.most_common(5))
    print(
        f"{arguments.out}: {log.rows:,} requests over {(span[1] - span[0]) / 1e6:,.1f} s ({most}); {account.summary()}"
    )
    return 0


def _source(kind: str) -> Source:
    """Imported when it is asked for: DuckDB and NumPy take their time."""
    if kind == "answers":
        from load.sources import answers

        return answers
    if kind == "events":
        from load.sources import events

        return events
    if kind == "access":
        from load.sources import access

        return access
    from load.sources import rates

    return rates


def _given(arguments: argparse.Namespace, source: Source) -> dict[str, Any]:
    given = {name: value for name, value in vars(arguments).items() if value is not None and name not in COMMON}
    for name in given:
        if name not in source.Settings.__struct_fields__ and name != "seed":
            raise LoadError(f"--{name.replace('_', '-')} is no option of --from {arguments.kind}")
    return {name: value for name, value in given.items() if name in source.Settings.__struct_fields__}


@contextmanager
def _progress(out: Path) -> Iterator[Any]:
    """Yields a function to tell how many rows are written, which a terminal shows and nothing else does."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{out}: reading")
        yield lambda rows: bar.update(task, description=f"{out}: {rows:,} requests")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that nothing half made stays."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
