"""The command line of `endcap models`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranking.registry import Plan


def add_to(commands: Any) -> None:
    """Adds the command to the parser of `endcap`."""
    text = "Versions of models: which there are, and which one stands for what."
    models = commands.add_parser("models", help=text, description=text)
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        one.add_argument("--dir", type=Path, default=Path(), help="the deployment's directory (default: here)")
        return one

    lists = action("list", "The versions of each model, what stands on them, and the last changes.")
    lists.add_argument("name", nargs="?", metavar="NAME", help="(default: all models)")
    lists.add_argument("--json", action="store_true", help="all of it, as JSON")
    changes = {
        "promote": "Check a version, then have an alias stand for it; running services follow.",
        "rollback": "Back to what an alias stood on before its last promotion; once more goes back one further.",
        "retire": "A version that never answers again.",
        "restore": "A retired version may answer again, once it is checked.",
    }
    for name, text in changes.items():
        one = action(name, text)
        one.add_argument("name", metavar="NAME")
        if name != "rollback":
            one.add_argument("version", metavar="VERSION")
        if name in ("promote", "rollback"):
            one.add_argument("--alias", default="production", help="(default: production)")
        if name == "promote":
            one.add_argument("--steps", metavar="1,10,50,100", help="percent of the shoppers, one step after the other")
            one.add_argument("--hold", default="5m", metavar="TIME", help="how long each step is held (default: 5m)")
            one.add_argument("--least", type=int, default=200, metavar="N", help="answers a step needs (default: 200)")
            text = "what every step must keep to, or it is rolled back (default: errors=1%%); p99=50ms, errors=, "
            one.add_argument("--rules", default="errors=1%", help=text + "degraded=, defaulted=, overlap=50%%")
        if name == "retire":
            one.add_argument("--delete", action="store_true", help="delete its files as well, but for its manifest")
        one.add_argument("--why", default="", metavar="TEXT", help="is kept in the history")
        one.add_argument("--by", metavar="WHO", help="who does it, for the history (default: this user)")


def run(a: argparse.Namespace) -> None:
    from service.commands import registry

    if a.action == "list":
        registry.list_models(a.dir, a.name, as_json=a.json)
        return
    options = {"by": a.by, "why": a.why}
    made: dict[str, Callable[[], None]] = {
        "promote": lambda: (
            registry.promote(a.dir, a.name, a.version, a.alias, **options)
            if a.steps is None
            else registry.roll_out(a.dir, a.name, a.version, a.alias, plan_of(a), **options)
        ),
        "rollback": lambda: registry.rollback(a.dir, a.name, a.alias, **options),
        "retire": lambda: registry.retire(a.dir, a.name, a.version, delete=a.delete, **options),
        "restore": lambda: registry.restore(a.dir, a.name, a.version, **options),
    }
    made[a.action]()


def plan_of(a: argparse.Namespace) -> Plan:
    from service.rollout_text import read_plan

    return read_plan(a.steps, a.hold, a.least, a.rules)
