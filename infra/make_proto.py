"""`make proto`: Python stubs of every file below proto/, into service/rpc/stubs. `--check` says whether they are so.

protoc has generated modules import each other by the path of their proto file, which is no package of ours: that one
line is rewritten.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO, STUBS = Path("proto"), Path("service/rpc/stubs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    made = generated(sorted(PROTO.rglob("*.proto")))
    there = {path.name: path.read_text() for path in STUBS.glob("*_pb2*")}
    if check:
        stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        if stale:
            print(f"{STUBS}: {', '.join(stale)}: not what proto/ says; `make proto` makes them", file=sys.stderr)
        return 1 if stale else 0
    for name in there.keys() - made.keys():
        (STUBS / name).unlink()
    for name, text in made.items():
        (STUBS / name).write_text(text)
    return 0


def generated(files: list[Path]) -> dict[str, str]:
    """The modules by name. Raises SystemExit where protoc refuses, which has said why."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        known = resources.files("grpc_tools") / "_proto"
        if code := protoc.main(["protoc", f"-I{PROTO}", f"-I{known}", *kinds, *map(str, files)]):
            raise SystemExit(code)
        found = {path.name: path.read_text() for path in Path(folder).rglob("*_pb2*")}
    return {name: re.sub(r"(?m)^from [\w.]+ (import \w+_pb2 as)", r"from service.rpc.stubs \1", text)
            for name, text in found.items()}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
