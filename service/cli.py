"""The `endcap` command. Exit codes: 0 done, 1 failed, 2 bad input or configuration, 130 and 143 ended by a signal."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from features.errors import FeaturesError, InputError
from features.generate_words import KINDS
from ranking.errors import RankingError, RegistryError
from service import registry_cli
from service.commands.bundle_arguments import add_bundle, run_bundle
from service.console import errors
from service.errors import ConfigError, ServiceError

FORMATS = ("generic", "online-retail")


def parser() -> argparse.ArgumentParser:
    """The command line. Commands import what they need when they run: Feast alone takes seconds."""
    top = argparse.ArgumentParser(prog="endcap", description="Real-time recommendations on a Feast feature store.")
    top.add_argument("--version", action=Version, nargs=0, help="print the version and end")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        if name != "init":
            one.add_argument("--dir", type=Path, default=Path(), help="the deployment's directory (default: here)")
        return one

    init = command("init", "Make a deployment: endcap.toml and a Feast repo.")
    init.add_argument("dir", type=Path, metavar="DIR")
    init.add_argument("--project", default="shop", help="the Feast project's name (default: shop)")
    init.add_argument(
        "--redis", metavar="HOST:PORT", help="the Redis of the online store (default: an embedded Valkey)"
    )

    generate = command("generate", "Make up a shop: items, shoppers and their events.")
    generate.add_argument("--seed", type=int, default=7)
    least = {"items": len(KINDS), "users": 1, "events": 1, "days": 1}
    for name, default in (("items", 10_000), ("users", 5_000), ("events", 300_000), ("days", 60)):
        text = f"(default: {default:,}; at least {least[name]})"
        generate.add_argument(f"--{name}", type=int, default=default, help=text)

    imports = command("import", "Bring in a shop's events and items.")
    imports.add_argument("--format", choices=FORMATS, default="generic")
    imports.add_argument("files", type=Path, nargs="+", metavar="FILE")
    imports.add_argument(
        "--shift-to-now", action="store_true", help="move all times so that the newest event is recent"
    )

    command("materialize", "Compute features, register them with Feast and load them into the online store.")
    train = command("train", "Train a model and write the next version of its bundle.")
    train.add_argument("--no-evaluate", action="store_true", help="leave out the evaluation on held-out events")
    evaluate = command("evaluate", "Measure the model on held-out events beside simple baselines.")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    add_bundle(commands)
    registry_cli.add_to(commands)
    text = "The index of the nearest items."
    index = commands.add_parser("index", help=text, description=text)
    actions = index.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "The cheapest index recipe that finds enough, measured on this catalogue and this machine."
    tune = actions.add_parser("tune", help=text, description=text)
    tune.add_argument(
        "spec", type=Path, nargs="?", metavar="PACK.toml", help="tune for this pack file, not for a model"
    )
    tune.add_argument("--dir", type=Path, default=Path(), help="the deployment's directory (default: here)")
    tune.add_argument("--model", metavar="NAME[@VERSION]", help="(default: that of the first placement)")
    tune.add_argument("--recall", type=share, default=0.95, help="the least share of the best to find (default: 0.95)")
    tune.add_argument("--k", type=positive, default=500, help="of how many best (default: 500)")
    tune.add_argument("--queries", type=positive, default=300, help="about how many to search for (default: 300)")
    tune.add_argument("--lists", type=positive, nargs="+", default=[], metavar="N", help="numbers of lists to try")
    tune.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    tune.add_argument("--index", type=Path, metavar="FILE", help="write the index there, to be packed as it is")
    text = "Measure this deployment's own parts."
    bench = commands.add_parser("bench", help=text, description=text)
    actions = bench.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Where the microseconds of an answer go, stage by stage."
    stages = actions.add_parser("stages", help=text, description=text)
    stages.add_argument("--dir", type=Path, default=Path(), help="the deployment's directory (default: here)")
    stages.add_argument("--placement", default="home")
    stages.add_argument("--count", type=positive, default=20)
    stages.add_argument("--requests", type=positive, default=2_000)
    stages.add_argument("--at-once", type=positive, nargs="+", default=[1, 16], metavar="N")
    text = "What batches cost on this device, and how large ones are worth having."
    batch = actions.add_parser("batch", help=text, description=text)
    batch.add_argument("--dir", type=Path, default=Path(), help="the deployment's directory (default: here)")
    batch.add_argument("--tries", type=positive, default=15, help="the least of so many counts (default: 15)")
    batch.add_argument("--svg", type=Path, metavar="FILE", help="write the plot there")
    batch.add_argument("--html", type=Path, metavar="FILE", help="write a page with plot and figures there")
    query = command("query", "Ask the serving log with SQL (DuckDB): what was answered, from which features, how old.")
    query.add_argument("sql", metavar="SQL", help="one statement that reads; the log is the table `answers`")
    query.add_argument("--format", choices=("table", "csv", "json"), default="table")
    fresh = command("freshness", "How fresh every feature view is, as the running service sees it.")
    fresh.add_argument("--url", help="the service's address (default: host and port of endcap.toml)")
    fresh.add_argument("--watch", action="store_true", help="again every two seconds, until Ctrl-C")
    command("ingest", "Turn events into features in a process of its own (`events.consume = false` for `serve`).")
    serve = command("serve", "Answer requests over HTTP.")
    serve.add_argument("--workers", type=positive, help="processes on the same port (default: from endcap.toml)")
    demo = command("demo", "All of it: a shop, its features, a model, and the running service.")
    demo.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="import these instead of making a shop up")
    demo.add_argument("--format", choices=FORMATS, help="how to read them (default: generic)")
    for one in (serve, demo):
        one.add_argument("--host", help="(default: from endcap.toml)")
        one.add_argument("--port", type=port, help="(default: from endcap.toml; 0: any free one)")
    return top


class Version(argparse.Action):
    """Looks the version up when it is asked for: no other command needs it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('endcap')}")
        parser.exit()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1")
    return value


def port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Errors that users can cause are one line on stderr."""
    arguments = parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminated)
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - what is not a user's is raised again
        return told(error)


def told(error: Exception) -> int:
    """Prints an error that a user can cause, in one line. Returns the exit code; raises any other error again."""
    if (code := signal_behind(error)) is not None:
        return code
    if isinstance(error, InputError | ConfigError | RegistryError):
        return complain(error, 2)
    if isinstance(error, FeaturesError | RankingError | ServiceError):
        return complain(error, 1)
    if isinstance(error, OSError):
        return complain(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    raise error


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    if arguments.command in ("init", "generate", "import", "materialize"):
        make_data(arguments)
    elif arguments.command in ("train", "evaluate"):
        make_model(arguments)
    elif arguments.command == "bundle":
        return run_bundle(arguments)
    elif arguments.command == "models":
        registry_cli.run(arguments)
    elif arguments.command == "index":
        from service.commands.index import Asked, tune_command

        a = arguments
        asked = Asked(a.k, a.recall, a.queries, tuple(a.lists))
        tune_command(a.dir, a.spec, a.model, asked, a.json, a.index)
    elif arguments.command == "bench":
        bench(arguments)
    elif arguments.command == "query":
        from service.commands.query import query

        query(arguments.dir, arguments.sql, arguments.format)
    elif arguments.command == "freshness":
        from service.commands.freshness import freshness

        freshness(arguments.dir, arguments.url, watch=arguments.watch)
    else:
        return answer(arguments)
    return 0


def bench(arguments: argparse.Namespace) -> None:
    a = arguments
    if a.action == "batch":
        from service.commands.bench_batch import batches

        batches(a.dir, a.tries, a.svg, a.html)
    else:
        from service.commands.bench import stages

        stages(a.dir, a.placement, a.count, a.requests, a.at_once)


def make_data(arguments: argparse.Namespace) -> None:
    from service.commands import data

    match arguments.command:
        case "init":
            data.init(arguments.dir, arguments.project, arguments.redis)
        case "generate":
            a = arguments
            data.generate(a.dir, seed=a.seed, items=a.items, users=a.users, events=a.events, days=a.days)
        case "import":
            data.import_shop(arguments.dir, arguments.format, arguments.files, arguments.shift_to_now)
        case "materialize":
            data.materialize(arguments.dir)


def make_model(arguments: argparse.Namespace) -> None:
    from service.commands import models

    if arguments.command == "train":
        models.train(arguments.dir, evaluate=not arguments.no_evaluate)
    else:
        models.evaluate(arguments.dir, arguments.json)


def answer(arguments: argparse.Namespace) -> int:
    a = arguments
    if a.command == "ingest":
        from service.commands.ingest import ingest

        ingest(a.dir)
    elif a.command == "serve":
        from service.commands.running import serve

        return serve(a.dir, a.host, a.port, a.workers, told)
    else:
        from service.commands.demo import demo

        demo(a.dir, a.host, a.port, a.data, a.format)
    return 0


def terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM or a closed terminal ends a step as Ctrl-C does, so that what it started is ended too."""
    raise SystemExit(128 + number)


def signal_behind(error: BaseException) -> int | None:
    """The exit code of the signal that this error came of; None where there was none. DuckDB, for one, turns Ctrl-C and
    SIGTERM into an error of its own."""
    before: BaseException | None = error
    while before is not None:
        if isinstance(before, KeyboardInterrupt):
            return 130
        if isinstance(before, SystemExit):
            return int(before.code or 0)
        before = before.__cause__ or before.__context__
    return None


def complain(error: Exception | str, code: int) -> int:
    errors.print(f"endcap: {error}", style="red", markup=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
