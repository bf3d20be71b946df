"""`open URL …`: one kind of request at an address, open loop, judged by what comes back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from load.bench import Options, play
from load.commands.arguments import number, whole
from load.errors import LoadError
from load.http1 import parse_url
from load.report import render
from load.result import write_json
from load.slo import parse_slo
from load.traffic import read_users, template_users


def add_to(subparsers: Any) -> None:
    """Add the command to the command line."""
    command = subparsers.add_parser("open", help="open loop: each request at its time, whatever the server does")
    add = command.add_argument
    add("url", metavar="URL", help="where to POST, such as http://127.0.0.1:8080/v1/recommendations")
    add("--rate", type=number(above=0), required=True, help="requests/s, on average")
    add("--duration", type=number(above=0), required=True, help="seconds measured")
    add("--warmup", type=number(least=0), default=3.0, help="seconds of the same before that, not measured [3]")
    add("--schedule", choices=("poisson", "constant"), default="poisson", help="how arrivals are spaced [poisson]")
    users = command.add_mutually_exclusive_group(required=True)
    users.add_argument("--users", type=Path, metavar="FILE", help="user ids, one a line")
    users.add_argument("--users-count", type=whole(1), metavar="N", help="made-up user ids, from --user-template")
    add("--user-template", metavar="T", help="printf template of a made-up id, counted from 0 [u%%05d]")
    add("--zipf", type=number(least=0), default=1.0, help="exponent of how unevenly users come back; 0: evenly [1]")
    add("--placement", default="home", help="[home]")
    add("--count", type=whole(1), default=20, help="items to ask for [20]")
    add("--seed", type=whole(0), default=1, help="of the schedule and the draw of users [1]")
    add("--connections", type=whole(1), default=128, help="at most; what waits for one counts as latency [128]")
    add("--grace", type=number(above=0), default=5.0, help="seconds to wait for the last answers, or to connect [5]")
    add("--slo", type=_slo, default=(), help="upper bounds: p99=20ms,errors=0.1%%; also max, p99.9 ..., degraded")
    add("--pid", type=whole(1), action="append", default=[], help="server process to account for; repeatable")
    add("--json", type=Path, metavar="OUT", help="write the result here too")


def run(arguments: argparse.Namespace) -> int:
    """Play it and show the result. Returns the exit status; raises LoadError when it cannot take place."""
    result = play(_options(arguments))
    if arguments.json is not None:
        write_json(result, arguments.json)
    render(result, Console())
    return 0 if all(bound.met for bound in result.slo) else 1


def _options(arguments: argparse.Namespace) -> Options:
    values: dict[str, Any] = vars(arguments).copy()
    path = values.pop("json")
    if path is not None and not path.parent.is_dir():
        raise LoadError(f"--json {path}: no such directory")
    for name in ("command", "users", "users_count", "user_template"):
        del values[name]
    target = parse_url(values["url"])
    if arguments.users is None:
        users = template_users(arguments.user_template or "u%05d", arguments.users_count)
    elif arguments.user_template is None:
        users = read_users(arguments.users)
    else:
        raise LoadError("--user-template belongs to --users-count, not to --users")
    return Options(target=target, users=users, **values)


def _slo(text: str) -> Any:
    try:
        return parse_slo(text)
    except LoadError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
