"""`make proto`: Python stubs of the files below proto/, where they are used. `--check` says whether they are so.

protoc has generated modules import each other by the path of their proto file, which is no package of ours: that one
line is rewritten.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO = Path("proto")
STUBS = {
    Path("service/rpc/stubs"): "*",
    # The load room may not import the service. It sends messages as bytes, so it needs them and no methods.
    Path("load/rpc/stubs"): "recommendations_pb2.py*",
}
"""Where stubs are, and which."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    generated = modules(sorted(PROTO.rglob("*.proto")))
    stale = False
    for folder, wanted in STUBS.items():
        made = {name: of_package(text, folder) for name, text in generated.items() if fnmatch(name, wanted)}
        there = {path.name: path.read_text() for path in folder.glob("*_pb2*")}
        if check:
            stale |= told(folder, made, there)
        else:
            write(folder, made, there)
    return int(stale)


def told(folder: Path, made: dict[str, str], there: dict[str, str]) -> bool:
    """Says which modules are not what they should be; whether there are any."""
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    if stale:
        print(f"{folder}: {', '.join(stale)}: not what proto/ says; `make proto` makes them", file=sys.stderr)
    return bool(stale)


def write(folder: Path, made: dict[str, str], there: dict[str, str]) -> None:
    for name in there.keys() - made.keys():
        (folder / name).unlink()
    for name, text in made.items():
        (folder / name).write_text(text)


def modules(files: list[Path]) -> dict[str, str]:
    """The modules by name, as protoc makes them. Raises SystemExit where it refuses, which has said why."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        known = resources.files("grpc_tools") / "_proto"
        if code := protoc.main(["protoc", f"-I{PROTO}", f"-I{known}", *kinds, *map(str, files)]):
            raise SystemExit(code)
        return {path.name: path.read_text() for path in Path(folder).rglob("*_pb2*")}


def of_package(text: str, folder: Path) -> str:
    """A module that imports others from the package in `folder`."""
    return re.sub(r"(?m)^from [\w.]+ (import \w+_pb2 as)", rf"from {'.'.join(folder.parts)} \1", text)


if __name__ == "__main__":
    sys.exit(main())
