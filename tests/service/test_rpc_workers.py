"""Several workers of `endcap serve` on one gRPC port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import grpc

from service.rpc.stubs.recommendations_pb2_grpc import RecommendationsStub
from tests.service.rpc_client import asked
from tests.service.test_supervisor import Served, until


def test_workers_share_the_port(deployment: Path, tmp_path: Path) -> None:
    """Each listens, and one that dies costs nobody but its own callers."""
    for path in deployment.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "endcap.toml").unlink()
    (tmp_path / "endcap.toml").write_text((deployment / "endcap.toml").read_text() + "\n[grpc]\nport = 0\n")
    command = [sys.executable, "-m", "service.cli", "serve", "--dir", str(tmp_path), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = "".join(takewhile(lambda line: "answers at" not in line, process.stdout))
        port = int(re.findall(r"gRPC at 127.0.0.1:(\d+)", said)[0])
        served = Served(process, "")
        try:
            until(lambda: len(served.workers()) == 2 and all(listens(pid, port) for pid in served.workers()))
            until(lambda: all(answers(port) for _ in range(30)))
            os.kill(served.workers()[0], signal.SIGKILL)
            until(lambda: all(answers(port) for _ in range(30)))
            until(lambda: len(served.workers()) == 2)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def answers(port: int) -> bool:
    """Whether a connection of its own gets an answer."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            return len(RecommendationsStub(channel).Recommend(asked(count=3), timeout=10).items) == 3
        except grpc.RpcError:
            return False


def listens(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens on the port (`0A` is LISTEN in /proc/net/tcp)."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    inodes = {row[9] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    held = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            held.add(str(fd.readlink()))
    return bool({f"socket:[{inode}]" for inode in inodes} & held)
