"""The `endcap` command: sends a command line to the load room or to the service, and imports only the one it needs.

Neither room may import the other, so what knows both stands beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

LOAD = {
    "traffic": "Make a traffic log, from what was recorded or from a rate.",
    "replay": "Play a traffic log against a running service, each request at its time, and judge the answers.",
    "report": "Lay the results of two replays side by side.",
    "diff": "Play a traffic log to two services, and say how their answers differ.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name; None: this process's own) and return its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in LOAD:
        from load.cli import main as load

        return load(given, prog="endcap")
    from service.cli import main as serve
    from service.cli import parser

    if given and given[0] in ("-h", "--help"):
        top = parser()
        top.formatter_class = argparse.RawDescriptionHelpFormatter
        top.epilog = "load, which speaks to an address only:\n" + "\n".join(
            f"    {name:<20}{text}" for name, text in LOAD.items()
        )
        top.print_help()
        return 0
    return serve(given)


if __name__ == "__main__":
    sys.exit(main())
