"""The load commands, as `endcap COMMAND …` or `python -m load.cli COMMAND …`: traffic logs, and playing them.

Exit status: 0, 1 when the SLO is missed, 2 when it could not take place (bad argument, file or server: one line says
why), 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn, Protocol

from load.commands import diff, replay, report, traffic
from load.commands import open as open_loop
from load.errors import LoadError


class Command(Protocol):
    """What each module of load/commands has. `run` returns the exit status, and raises LoadError."""

    def add_to(self, subparsers: Any) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


COMMANDS: dict[str, Command] = {
    "open": open_loop,
    "replay": replay,
    "report": report,
    "diff": diff,
    "traffic": traffic,
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as every other refusal here does."""

    def error(self, message: str) -> NoReturn:
        raise LoadError(message)


def main(argv: list[str] | None = None, *, prog: str = "python -m load.cli") -> int:
    """Run a command line (without the program's name; None: this process's own) and return its exit status."""
    try:
        arguments = _parser(prog).parse_args(argv)
        return COMMANDS[arguments.command].run(arguments)
    except LoadError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("load: interrupted, nothing reported", file=sys.stderr)
        return 130


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        command.add_to(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
