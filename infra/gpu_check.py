"""`make gpu-check`: the GPU tests and the engine benchmark on whatever NVIDIA GPU is here; one JSON.

Needed is a Python whose torch (2.8 or newer) reaches the GPU, and a few packages (`NEEDED`). What of them is missing is
installed beside, in `var/gpu/site`, where an index can be reached; of msgspec there is a stand-in where none can be.
Without a GPU it says so, and that is no failure.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE, BARE = ROOT / "var" / "gpu" / "site", ROOT / "infra" / "bare"
NEEDED = ("numpy", "pyarrow", "safetensors", "numba", "msgspec", "pytest")
OLDEST = (2, 8)
TESTS = ("tests/gpu", "tests/ranking/test_index.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=ROOT / "var" / "gpu" / "engine.json")
    parser.add_argument("--bench", default="", help="options for infra.bench_engine, e.g. '--items 100000'")
    arguments = parser.parse_args()
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not torch_reaches_one():
        print("gpu-check: there is no NVIDIA GPU here; nothing to check")
        return 0
    if complaint := unfit():
        print(f"gpu-check: {complaint}", file=sys.stderr)
        return 1
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SITE)])}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # whichever are here, the tests need none
    missing = install([name for name in NEEDED if importlib.util.find_spec(name) is None])
    if missing == ["msgspec"]:
        print("gpu-check: msgspec is not here and cannot be installed; its stand-in in infra/bare is used")
        environment["PYTHONPATH"] += os.pathsep + str(BARE)
    elif missing:
        print(f"gpu-check: {', '.join(missing)} missing, and cannot be installed: pip install them", file=sys.stderr)
        return 1
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.unlink(missing_ok=True)
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        "infra/gpu_pytest.ini",
        "--rootdir",
        ".",
        "--noconftest",
        "-rs",
        *TESTS,
    ]
    tested = subprocess.call(tests, cwd=ROOT, env=environment)  # noqa: S603
    bench = [sys.executable, "-m", "infra.bench_engine", "--device", "cuda", "--json", str(arguments.json.resolve())]
    benched = subprocess.call([*bench, *arguments.bench.split()], cwd=ROOT, env=environment)  # noqa: S603
    if benched == 0:
        result = json.loads(arguments.json.read_text())
        arguments.json.write_text(json.dumps({"gpu_tests_passed": tested == 0, **result}, indent=1) + "\n")
        print(f"gpu-check: {arguments.json}")
    return int(tested or benched)


def torch_reaches_one() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def unfit() -> str | None:
    """What keeps this Python from the GPU."""
    if importlib.util.find_spec("torch") is None:
        return f"there is a GPU, but {sys.executable} has no torch: make gpu-check PYTHON=one that has"
    import torch

    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < OLDEST:
        return f"torch is {torch.__version__}; 2.8 or newer is needed"
    if not torch.cuda.is_available():
        return f"there is a GPU, but torch {torch.__version__} does not reach it (a CPU build, or no driver)"
    return None


def install(missing: list[str]) -> list[str]:
    """Puts the packages into SITE, of the versions in constraints.txt; returns what is missing after that."""
    sys.path.append(str(SITE))
    missing = [name for name in missing if importlib.util.find_spec(name) is None]
    if missing:
        quick = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
        pip = [sys.executable, "-m", "pip", "install", *quick, "--no-deps", "--target", str(SITE)]
        for name in missing:
            subprocess.call([*pip, "-c", "constraints.txt", name], cwd=ROOT)  # noqa: S603
        importlib.invalidate_caches()
    return [name for name in missing if importlib.util.find_spec(name) is None]


if __name__ == "__main__":
    sys.exit(main())
