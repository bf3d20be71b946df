"""What is recorded of a connection's requests, as llhttp reads them: the one place that both ways to an answer share.

It is told of a request's bytes before anybody decides what becomes of it, so what is refused is recorded like the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

HEADERS = ("Content-Type", "Endcap-Timeout-Ms", "Endcap-Priority", "Endcap-After")
"""No other header of a request is ever recorded."""
NAMES = {name.lower().encode("ascii"): name for name in HEADERS}


class Seen(Struct, gc=False):
    """One request. `at_ns`: when its first byte came, by `time.perf_counter_ns`. `body` is None where there is none;
    as it was sent, `coding` and all. `cut`: it was longer than a body may be, and is not here."""

    at_ns: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    coding: str
    cut: bool


class Recorder(Protocol):
    """Takes requests in; `put` never waits. `paths`: of which endpoints. `most_body`: bytes of one body."""

    paths: Mapping[bytes, str]
    most_body: int

    def put(self, seen: Seen) -> None: ...


class Tape:
    """One connection's. The query of a request is left out: no endpoint here reads one, and people put keys there."""

    __slots__ = ("at_ns", "body", "coding", "headers", "now_ns", "path", "recorder", "size", "told", "url")

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.now_ns = time.perf_counter_ns()
        self.begin()

    def arrived(self) -> None:
        """Bytes have come just now; they may be read later."""
        self.now_ns = time.perf_counter_ns()

    def begin(self) -> None:
        self.at_ns, self.url = self.now_ns, b""
        self.path: str | None = None
        self.headers: dict[str, str] = {}
        self.coding, self.size, self.told = "identity", 0, False
        self.body: list[bytes] = []

    def target(self, part: bytes) -> None:
        self.url += part
        self.path = self.recorder.paths.get(self.url.partition(b"?")[0])

    def header(self, name: bytes, value: bytes) -> None:
        """`name` is in lower case."""
        if (known := NAMES.get(name)) is not None:
            self.headers[known] = value.decode("utf-8", "replace")
        elif name == b"content-encoding":
            self.coding = value.decode("latin-1").lower()

    def content(self, part: bytes, method: bytes) -> None:
        if self.path is None or self.told:
            return
        self.size += len(part)
        if self.size > self.recorder.most_body:  # its end may never come: the connection is closed on it
            self.body.clear()
            self.tell(method, None, cut=True)
        else:
            self.body.append(part)

    def complete(self, method: bytes) -> None:
        if self.path is not None and not self.told:
            self.tell(method, b"".join(self.body) if self.body else None)

    def tell(self, method: bytes, body: bytes | None, *, cut: bool = False) -> None:
        assert self.path is not None
        self.told = True
        self.recorder.put(Seen(self.at_ns, method.decode("latin-1"), self.path, self.headers, body, self.coding, cut))
