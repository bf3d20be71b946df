"""`make bench-peers PEERS=…`: Endcap beside the rivals of the reference work W1, in one run of W1's own harness.

PEERS is the folder with that harness (`run_all.sh`, `run_all.py`, `check.py`, …). It is copied to `var/peers/harness`,
since it writes its results beside itself, and Endcap joins its list of peers there (`load/peers/beside.py`); nothing
else of it is changed. Virtual environments, artifacts and logs lie in `var/peers`, or where W1 and PEER_VENVS say.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path)
    parser.add_argument("--only", default="", help="peers by comma, e.g. endcap,floor,mosec_server (default: all)")
    parser.add_argument("--quick", action="store_true", help="one short repeat, to try it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=int, default=50, help="how many of 20,000 users to check against the reference")
    arguments = parser.parse_args()
    if not (arguments.peers / "run_all.py").is_file():
        parser.error(f"{arguments.peers} holds no run_all.py")
    if shutil.which("wrk") is None:
        parser.error("wrk is missing: apt-get install wrk")
    home = Path("var/peers").resolve()
    harness = home / "harness"
    shutil.copytree(arguments.peers, harness, dirs_exist_ok=True, copy_function=shutil.copyfile)
    environment = {
        "W1": str(home / "w1"), "PEER_VENVS": str(home / "venvs"), "PEER_LOGS": str(home / "logs"),
        "REDIS_PORT": "6399", **os.environ,
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "ENDCAP_PYTHON": sys.executable, "ENDCAP_ROOT": str(HERE.parents[1]), "ENDCAP_DIR": str(home / "deployment"),
        "ENDCAP_WORKERS": str(arguments.workers), "ENDCAP_USERS": str(arguments.users),
    }  # fmt: skip
    only = [name for name in arguments.only.split(",") if name]
    venvs = {name.replace("floor_fp32", "floor").replace("bentoml_nobatch", "bentoml_service") for name in only}
    setup = ["bash", "setup.sh", *(sorted({"bench", "floor", *venvs} - {"endcap"}) if only else [])]
    subprocess.run(setup, cwd=harness, env=environment, check=True)  # noqa: S603
    options = [*(["--only", ",".join(only)] if only else []), *(["--quick"] if arguments.quick else [])]
    command = [f"{environment['PEER_VENVS']}/bench/bin/python", str(HERE / "beside.py"), *options]
    return subprocess.call(command, cwd=harness, env=environment)  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
