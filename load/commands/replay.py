"""`replay LOG URL`: send a traffic log's requests at their times, whatever the server does, and judge the answers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from load import report_html
from load.commands.arguments import number, whole
from load.doors import Door, door_of
from load.errors import LoadError
from load.replay import Replay, play, processes_for, usable_cores
from load.replay_plan import Pace, Survey, step_pace, survey
from load.replay_report import Display, render
from load.replay_result import make_replay_result, write_json
from load.search import Found, Verdict, search
from load.search_report import render_search, search_result
from load.slo import Bound, judge, parse_slo

SEARCH_WARMUP_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line: its names and units are those of its help."""

    log: Path
    url: str
    door: Door[Any]
    speed: float
    rate: float | None
    loop: bool
    duration: float | None
    warmup: float
    processes: int | None
    connections: int
    grace: float
    strict: bool
    slo: tuple[Bound, ...]
    search: bool
    step_s: float
    low: float | None
    high: float | None
    json: Path | None
    html: Path | None


def add_to(subparsers: Any) -> None:
    """Add the command and its options."""
    command = subparsers.add_parser("replay", help="a traffic log, each request at its time", description=__doc__)
    add = command.add_argument
    add("log", metavar="LOG", type=Path, help="traffic log (docs/traffic-log.md)")
    add("url", metavar="URL", help="http://host:port, where a path goes before each request's; or grpc://host:port")
    pace = command.add_mutually_exclusive_group()
    pace.add_argument("--speed", type=number(above=0), default=1.0, help="2 plays a minute in half of one [1]")
    pace.add_argument("--rate", type=number(above=0), help="requests/s that the whole log shall have on average")
    add("--loop", action="store_true", help="begin again at the log's end; needs --duration")
    add("--duration", type=number(above=0), help="seconds measured [to the log's end]")
    add("--warmup", type=number(least=0), help="seconds played before that and not measured [0; --search: 2]")
    add("--processes", type=whole(1), metavar="N", help="that send [by the log's busiest second and the cores]")
    add("--connections", type=whole(1), help="at most, over HTTP; in all, over gRPC [256; 16]")
    add("--grace", type=number(above=0), default=5.0, help="seconds for the last answers, or to connect [5]")
    add("--strict", action="store_true", help="stop at the first bad row of the log instead of counting it")
    add("--slo", type=_slo, default=(), help="upper bounds: p99=50ms,errors=0.1%%; also max, p99.9 ..., degraded")
    add("--search", action="store_true", help="find the highest rate that meets the --slo")
    add("--step-s", type=number(above=0), default=10.0, metavar="S", help="seconds of each step of it [10]")
    add("--low", type=number(above=0), metavar="R", help="requests/s to begin at, and no lower [the log's own]")
    add("--high", type=number(above=0), metavar="R", help="requests/s to stop at [none]")
    add("--json", type=Path, metavar="OUT", help="write the result here too")
    add("--html", type=Path, metavar="OUT", help="write it as a page that needs nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Play, show, judge. Returns 0, or 1 where the SLO is missed; raises LoadError where nothing can be played."""
    options = _options(arguments)
    say = Console(stderr=True)
    seen = survey(options.log, options.door, strict=options.strict)
    if options.search:
        return _search(options, seen, say)
    result = _replay(options, seen, _pace(options, seen), say)
    render(result, Console())
    if options.json is not None:
        write_json(result, options.json)
    if options.html is not None:
        report_html.write(result, options.html)
    return 0 if all(bound["met"] for bound in result["slo"]) else 1


def _options(arguments: argparse.Namespace) -> Options:
    values = {name: value for name, value in vars(arguments).items() if name != "command"}
    door = door_of(arguments.url)
    for option, out in (("--json", arguments.json), ("--html", arguments.html)):
        if out is not None and not out.parent.is_dir():
            raise LoadError(f"{option} {out}: no such directory")
    if arguments.loop and arguments.duration is None:
        raise LoadError("--loop needs --duration, or it would never end")
    if arguments.search:
        given = {
            "--rate": arguments.rate, "--loop": arguments.loop or None, "--duration": arguments.duration,
            "--html": arguments.html,
        }  # fmt: skip
        for name, value in given.items():
            if value is not None:
                raise LoadError(f"{name} does not go with --search, which plays many steps of its own")
        if not arguments.slo:
            raise LoadError("--search needs --slo: what is to be met?")
        if arguments.low is not None and arguments.high is not None and arguments.low > arguments.high:
            raise LoadError(f"--low {arguments.low:g} is above --high {arguments.high:g}")
    elif arguments.low is not None or arguments.high is not None:
        raise LoadError("--low and --high belong to --search")
    values["warmup"] = arguments.warmup if arguments.warmup is not None else (SEARCH_WARMUP_S * arguments.search)
    if arguments.connections is None:
        values["connections"] = door.connections
    return Options(door=door, **values)


def _pace(options: Options, seen: Survey) -> Pace:
    speed = options.speed if options.rate is None else seen.speed_for(options.rate)
    if options.loop:
        seen.speed_for(1.0)  # refuses a log without a length
    seconds = None if options.duration is None else options.warmup + options.duration
    if not options.loop and options.warmup > 0 and options.warmup >= seen.span_us / 1e6 / speed:
        raise LoadError(f"--warmup {options.warmup:g}: nothing of the log is left after it")
    return Pace(speed, options.loop, seen.period_us, seconds)


def _replay(options: Options, seen: Survey, pace: Pace, say: Console) -> dict[str, Any]:
    replay = Replay(
        log=options.log,
        door=options.door,
        pace=pace,
        processes=options.processes or processes_for(seen, pace.speed, options.door),
        warmup=options.warmup,
        connections=options.connections,
        grace=options.grace,
    )
    length = seen.period_us / 1e6 / pace.speed
    if pace.seconds is not None:
        length = pace.seconds if pace.loop else min(pace.seconds, length)
    _announce(seen, replay, length, say)
    expected = seen.count if pace.seconds is None else length * seen.count / (seen.period_us / 1e6 / pace.speed or 1)
    with Display(say, expected) as display:
        played = play(replay, display.show)
    return make_replay_result(
        played,
        seen,
        judge(options.slo, played.tally.tally),
        log=options.log.name,
        url=options.url,
        speed=pace.speed,
        rate=options.rate,
        processes=replay.processes,
        warmup=options.warmup,
        duration=length - options.warmup,
    )


def _announce(seen: Survey, replay: Replay, length: float, say: Console) -> None:
    peak, processes = seen.peak_rate(replay.pace.speed), replay.processes
    line = f"{seen.count} requests in the log, {seen.bad} bad rows; {length:.1f} s at speed {replay.pace.speed:.4g}, "
    line += f"up to {peak:.0f} requests/s: {processes} process{'' if processes == 1 else 'es'}"
    if peak > replay.door.per_process * processes:
        line += (
            f", which may not keep that ({usable_cores()} cores usable); the result says whether the client was late"
        )
    say.print(line, highlight=False, soft_wrap=True)


def _search(options: Options, seen: Survey, say: Console) -> int:
    steps: list[dict[str, Any]] = []

    def step(rate: float) -> Verdict:
        pace = step_pace(options.log, seen, rate, options.warmup + options.step_s)
        result = _replay(options, seen, pace, say)
        met = all(bound["met"] for bound in result["slo"])
        verdict = Verdict.MET if met else Verdict.MISSED if result["client"]["kept"] else Verdict.LATE
        steps.append({"rate": rate, "verdict": str(verdict), "result": result})
        return verdict

    start = seen.count / (seen.period_us / 1e6) if seen.period_us else 1.0
    found: Found = search(step, start, options.low, options.high)
    render_search(steps, found, Console())
    if options.json is not None:
        write_json(search_result(steps, found), options.json)
    return 0 if found.rate is not None else 1


def _slo(text: str) -> Any:
    try:
        return parse_slo(text)
    except LoadError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
