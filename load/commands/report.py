"""`endcap report A.json [B.json]`: the result of a replay to read, or two of them beside each other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from load import report_html, report_text
from load.errors import LoadError
from load.files import write_whole
from load.replay_file import read
from load.report_pair import as_json


def add_to(subparsers: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = subparsers.add_parser("report", help="a replay's result to read, or two beside each other")
    parser.add_argument("a", type=Path, metavar="A.json", help="the result of `endcap replay --json`")
    parser.add_argument("b", type=Path, metavar="B.json", nargs="?", help="another, to lay beside it")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a page of its own here")
    parser.add_argument("--json", type=Path, metavar="OUT", help="of two runs: write what changed here")


def run(arguments: argparse.Namespace) -> int:
    """Show the runs and write what was asked for. Raises LoadError for what cannot be read or written."""
    if arguments.json is not None and arguments.b is None:
        raise LoadError("--json: of one run there is the result itself; expected B.json too")
    runs = [read(path) for path in (arguments.a, arguments.b) if path is not None]
    if arguments.html is not None:
        write_whole(arguments.html, report_html.render(runs).encode())
    if arguments.json is not None:
        figures = as_json(runs[0], runs[1])
        write_whole(arguments.json, orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    report_text.render(runs, Console())
    return 0
