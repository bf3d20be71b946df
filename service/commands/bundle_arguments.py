"""`endcap bundle`: its actions and their options. What an action needs is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

BUNDLE = "a directory, or name[@version] of the deployment"


def add_bundle(commands: Any) -> None:
    """`commands`: what `add_subparsers` has returned."""
    text = "Bundles: your own models, and what is in one."
    bundle = commands.add_parser("bundle", help=text, description=text)
    actions = bundle.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        one.add_argument("--dir", type=Path, default=Path(), help="the deployment's directory (default: here)")
        return one

    pack = action("pack", "Make a bundle of your own torch modules, item table and index.")
    pack.add_argument("spec", type=Path, metavar="PACK.toml", help="what to pack: docs/bring-your-own-model.md")
    check = action("check", "Load a bundle whole, and hold it against the deployment's Feast registry.")
    show = action("show", "What a bundle is, by its manifest.")
    diff = action("diff", "Two bundles side by side. Exit code 0: the same, 1: they differ, 2: trouble.")
    for one, names in ((check, ("bundle",)), (show, ("bundle",)), (diff, ("a", "b"))):
        for name in names:
            one.add_argument(name, metavar=name.upper(), help=BUNDLE)
        one.add_argument("--json", action="store_true", help="print JSON")


def run_bundle(arguments: argparse.Namespace) -> int:
    """The exit code."""
    a = arguments
    match a.action:
        case "pack":
            from service.commands.bundles import pack

            pack(a.dir, a.spec)
        case "check":
            from service.commands.bundle_check import check

            check(a.dir, a.bundle, a.json)
        case "show":
            from service.commands.bundle_show import show

            show(a.dir, a.bundle, a.json)
        case _:
            from service.commands.bundle_diff import diff

            return diff(a.dir, a.a, a.b, a.json)
    return 0
