"""`python -m load.cli open URL …`: play open-loop traffic against an address and judge what comes back.

Exit status: 0, 1 when the SLO is missed, 2 when the run could not take place (bad argument, no server: one line says
why), 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from load.bench import Options, play
from load.commands import diff, report
from load.errors import LoadError
from load.http1 import parse_url
from load.report import render
from load.result import write_json
from load.slo import parse_slo
from load.traffic import read_users, template_users

COMMANDS = {"diff": diff, "report": report}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as every other refusal here does."""

    def error(self, message: str) -> NoReturn:
        raise LoadError(message)


def main(argv: list[str] | None = None) -> int:
    """Run a command line (without the program's name; None: this process's own) and return its exit status."""
    try:
        arguments = _parser().parse_args(argv)
        if arguments.command in COMMANDS:
            code: int = COMMANDS[arguments.command].run(arguments)
            return code
        options = _options(arguments)
        result = play(options)
        if arguments.json is not None:
            write_json(result, arguments.json)
    except LoadError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("load: interrupted, nothing reported", file=sys.stderr)
        return 130
    render(result, Console())
    return 0 if all(bound.met for bound in result.slo) else 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m load.cli", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS.values():
        module.add_to(subparsers)
    command = subparsers.add_parser("open", help="open loop: each request at its time, whatever the server does")
    add = command.add_argument
    add("url", metavar="URL", help="where to POST, such as http://127.0.0.1:8080/v1/recommendations")
    add("--rate", type=_number(above=0), required=True, help="requests/s, on average")
    add("--duration", type=_number(above=0), required=True, help="seconds measured")
    add("--warmup", type=_number(least=0), default=3.0, help="seconds of the same before that, not measured [3]")
    add("--schedule", choices=("poisson", "constant"), default="poisson", help="how arrivals are spaced [poisson]")
    users = command.add_mutually_exclusive_group(required=True)
    users.add_argument("--users", type=Path, metavar="FILE", help="user ids, one a line")
    users.add_argument("--users-count", type=_whole(1), metavar="N", help="made-up user ids, from --user-template")
    add("--user-template", metavar="T", help="printf template of a made-up id, counted from 0 [u%%05d]")
    add("--zipf", type=_number(least=0), default=1.0, help="exponent of how unevenly users come back; 0: evenly [1]")
    add("--placement", default="home", help="[home]")
    add("--count", type=_whole(1), default=20, help="items to ask for [20]")
    add("--seed", type=_whole(0), default=1, help="of the schedule and the draw of users [1]")
    add("--connections", type=_whole(1), default=128, help="at most; what waits for one counts as latency [128]")
    add("--grace", type=_number(above=0), default=5.0, help="seconds to wait for the last answers, or to connect [5]")
    add("--slo", type=_slo, default=(), help="upper bounds: p99=20ms,errors=0.1%%; also max, p99.9 ..., degraded")
    add("--pid", type=_whole(1), action="append", default=[], help="server process to account for; repeatable")
    add("--json", type=Path, metavar="OUT", help="write the result here too")
    return parser


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


def _number(*, above: float = -math.inf, least: float = -math.inf) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
        if not (math.isfinite(value) and value > above and value >= least):
            raise argparse.ArgumentTypeError(f"{text} is not {'above' if above > least else 'at least'} 0")
        return value

    return number


def _whole(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return whole


def _slo(text: str) -> Any:
    try:
        return parse_slo(text)
    except LoadError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
