"""The command line of `endcap models`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
        "promote": lambda: registry.promote(a.dir, a.name, a.version, a.alias, **options),
        "rollback": lambda: registry.rollback(a.dir, a.name, a.alias, **options),
        "retire": lambda: registry.retire(a.dir, a.name, a.version, delete=a.delete, **options),
        "restore": lambda: registry.restore(a.dir, a.name, a.version, **options),
    }
    made[a.action]()
