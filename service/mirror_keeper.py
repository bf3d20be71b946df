"""Keeps this machine's copy of an object store's models as the store is: one process of a machine has a child do it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
from pathlib import Path
from typing import TextIO

import msgspec

from features.child import child
from service.mirror import Wanted

log = logging.getLogger(__name__)

LOCK = ".mirror.lock"
AGAIN_S = 1.0


class MirrorKeeper:
    """Has `url` followed into `cache` for as long as this process runs, unless another one of the machine does."""

    def __init__(self, url: str, cache: Path, models: list[str], keep: int) -> None:
        self.wanted = Wanted(url, str(cache), models, keep, os.getpid())
        self.cache = cache
        self.process: subprocess.Popen[bytes] | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        with (self.cache / LOCK).open("a") as lock:
            while True:
                if mine(lock):
                    await self.follow()
                await asyncio.sleep(AGAIN_S)

    async def follow(self) -> None:
        """Until the child ends, which it does not by itself."""
        self.process = child("service.mirror", msgspec.json.encode(self.wanted).decode(), stderr=None)
        said = self.process.stdout
        assert said is not None
        try:
            while line := await asyncio.to_thread(said.readline):
                log.error("models are not followed: %s", line.decode(errors="replace").strip())
        finally:
            self.end()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    async def stop(self) -> None:
        self.end()
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


def mine(lock: TextIO) -> bool:
    """Whether this process holds the lock, now if not before."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
