"""W1's harness with Endcap in its list of peers. `load/peers/run.py` starts it, in the harness' own environment."""

# mypy: ignore-errors
from __future__ import annotations

import os
import subprocess
import sys

sys.path.insert(0, os.getcwd())
import check
import run_all

PYTHON, ROOT, DEPLOYMENT = os.environ["ENDCAP_PYTHON"], os.environ["ENDCAP_ROOT"], os.environ["ENDCAP_DIR"]
OURS = "endcap"


def command(peer, theirs=run_all.command):
    if peer != OURS:
        return theirs(peer)
    endcap = os.path.join(os.path.dirname(PYTHON), "endcap")
    where = ["--host", "127.0.0.1", "--port", str(run_all.PORT), "--workers", os.environ["ENDCAP_WORKERS"]]
    return [endcap, "serve", "--dir", DEPLOYMENT, *where]


def start(peer, config, theirs=run_all.start):
    if peer == OURS:  # as a user would: W1's own models, items and index, packed
        packing = [PYTHON, "-m", "load.peers.w1_deployment", os.environ["W1"], DEPLOYMENT]
        subprocess.run(packing, cwd=ROOT, check=True)
    return theirs(peer, config)


def compare(url, style="plain", users=50, overlap_only=False, theirs=check.compare):
    return theirs(url, style, int(os.environ["ENDCAP_USERS"]) if style == OURS else users, overlap_only)


def main():
    run_all.PEERS = {OURS: ([{"WORKERS": os.environ["ENDCAP_WORKERS"]}], "orjson"), **run_all.PEERS}
    check.BODIES[OURS] = '{"user_id": "%s", "count": 20}'
    parse, style, url = check.parse, run_all.style, run_all.url
    check.parse = lambda how, answer: parse("plain" if how == OURS else how, answer)
    run_all.style = lambda peer, config: OURS if peer == OURS else style(peer, config)
    run_all.url = lambda peer: f"http://127.0.0.1:{run_all.PORT}/v1/recommendations" if peer == OURS else url(peer)
    run_all.command, run_all.start, check.compare = command, start, compare
    run_all.main()


if __name__ == "__main__":
    main()
