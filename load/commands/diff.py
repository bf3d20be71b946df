"""`endcap diff LOG URL_A URL_B`: how differently two services, or two versions of a model, answer the same requests."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from load import diff_html, diff_text
from load.comparison import Comparison
from load.errors import LoadError
from load.files import write_whole
from load.http1 import parse_url
from load.segments import Segments, read_segments
from load.sides import Ask, Side, compare, read_asks
from load.traffic_log import TrafficLog


def add_to(subparsers: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = subparsers.add_parser("diff", help="how two services, or two model versions, answer the same requests")
    add = parser.add_argument
    add(
        "log", type=Path, metavar="LOG", help="a traffic log; recommendations and ranks are played, the rest is counted"
    )
    add("url_a", metavar="URL_A", help="such as http://127.0.0.1:8080")
    add("url_b", metavar="URL_B", nargs="?", help="left out: URL_A too, with two versions")
    add("--version-a", metavar="V", help="the model_version that side A is asked for")
    add("--version-b", metavar="V", help="the model_version that side B is asked for")
    segments = parser.add_mutually_exclusive_group()
    segments.add_argument("--segment", type=Path, metavar="FILE", help="CSV: user_id,segment")
    segments.add_argument("--segment-by", metavar="INPUT", help="an input of the model, such as country")
    add("--limit", type=_whole, metavar="N", help="the first N of these requests only")
    add("--concurrency", type=_whole, default=2, help="requests at once to each side [2]")
    add("--timeout", type=_seconds, default=10.0, help="seconds to wait for an answer [10]")
    add("--timeout-ms", type=_whole, metavar="MS", help="Endcap-Timeout-Ms of every request, in the log's stead")
    add("--min-overlap", type=_share, metavar="SHARE", help="exit 1 where recommendations overlap less, such as 0.9")
    add("--max-errors", type=_share, metavar="SHARE", default=0.01, help="with --min-overlap: pairs failed [0.01]")
    add("--strict", action="store_true", help="stop at the first bad row of the log")
    add("--json", type=Path, metavar="OUT", help="write the figures here")
    add("--html", type=Path, metavar="OUT", help="write a report to read here")


def run(arguments: argparse.Namespace) -> int:
    """Play the log to both sides, show what came back; 1 where `--min-overlap` is missed. Raises LoadError."""
    sides = _sides(arguments)
    for path in (arguments.json, arguments.html):
        if path is not None and not path.parent.is_dir():
            raise LoadError(f"{path}: no such directory")
    table = None if arguments.segment is None else read_segments(arguments.segment)
    log, skipped = TrafficLog(arguments.log, strict=arguments.strict), Counter[str]()
    started, begun = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    playing = compare(
        islice(_asks(arguments, log, skipped), arguments.limit),
        sides,
        Segments(table, arguments.segment_by),
        concurrency=arguments.concurrency,
        timeout_s=arguments.timeout,
        told=_progress if sys.stderr.isatty() else lambda comparison: None,
    )
    comparison = asyncio.run(playing)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    result = {
        "kind": "endcap diff", "version": 1, "log": arguments.log.name, "started": started,
        "seconds": round(time.monotonic() - begun, 3),
        "url_a": sides[0].base, "url_b": sides[1].base, "version_a": sides[0].version, "version_b": sides[1].version,
        "skipped": dict(skipped), "bad_rows": log.bad, "complaints": log.complaints, **comparison.figures(),
    }  # fmt: skip
    result["verdict"] = _verdict(result, arguments.min_overlap, arguments.max_errors)
    if arguments.json is not None:
        write_whole(arguments.json, orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    if arguments.html is not None:
        write_whole(arguments.html, diff_html.render(result).encode())
    diff_text.render(result, Console())
    return 0 if result["verdict"] is None or result["verdict"]["met"] else 1


def _sides(arguments: argparse.Namespace) -> tuple[Side, Side]:
    if arguments.url_b is None and (arguments.version_a is None or arguments.version_b is None):
        raise LoadError("diff: expected URL_B, or --version-a and --version-b of one URL")
    bases = []
    for url in (arguments.url_a, arguments.url_b or arguments.url_a):
        if "?" in parse_url(url).path:
            raise LoadError(f"URL {url!r}: the log has the paths; expected http://host:port")
        bases.append(url.rstrip("/"))
    return Side(bases[0], arguments.version_a), Side(bases[1], arguments.version_b)


def _asks(arguments: argparse.Namespace, log: TrafficLog, skipped: Counter[str]) -> Iterator[Ask]:
    for ask in read_asks(log, skipped):
        if arguments.timeout_ms is not None:
            ask.headers["Endcap-Timeout-Ms"] = str(arguments.timeout_ms)
        yield ask


def _verdict(result: dict[str, Any], least: float | None, most_errors: float) -> dict[str, Any] | None:
    """Nothing compared meets no bound, and neither does a side that fails too often to be judged by the rest."""
    if least is None:
        return None
    overlap = result["all"]["overlap"]["count"]
    failed = result["failed_pairs"] / result["requests"] if result["requests"] else None
    met = overlap is not None and failed is not None and overlap >= least and failed <= most_errors
    bounds = {"min_overlap": least, "max_errors": most_errors}
    return bounds | {"overlap": overlap, "failed": failed, "met": met}


def _progress(comparison: Comparison) -> None:
    if comparison.requests % 50 == 0:
        sys.stderr.write(f"\r{comparison.requests} requests played to both, {comparison.failed} failed ")
        sys.stderr.flush()


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _seconds(text: str) -> float:
    return _float(text, 86_400, "seconds above 0 and up to a day")


def _share(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else _float(text, 1, "a share from 0 to 1")


def _float(text: str, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from error
    if not 0 < value <= most:  # neither is NaN
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
