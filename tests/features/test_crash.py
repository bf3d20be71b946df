"""A consumer that is killed again and again leaves the same features as one that nobody disturbed."""

from __future__ import annotations

import asyncio
import random
import secrets
import subprocess
import sys
import time

import pytest

from tests.conftest import Server
from tests.features.streams import Store, distinct_shop, live, once
from tests.features.test_consumer import comparable


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
async def test_kills_lose_nothing_and_count_nothing_twice(valkey: Server, kills: int) -> None:
    """Killed at random moments while events come in out of order; every field of every entity is compared."""
    rng, events = random.Random(5), live(distinct_shop(6_000, users=40))
    clean = Store(valkey.host, valkey.port, "clean" + secrets.token_hex(4))
    wanted = comparable(await once(clean, events), clean.project)
    store = Store(valkey.host, valkey.port, "killed" + secrets.token_hex(4))
    rng.shuffle(events)
    command = [sys.executable, "-m", "tests.features.consumer_process", valkey.host, str(valkey.port), store.project]
    killed = under_way = 0
    process = subprocess.Popen(command)
    try:
        while killed < kills:
            batch, events = events[:280], events[280:]
            await store.send(batch)
            before = store.waiting()
            end = time.monotonic() + 20
            while store.waiting() >= before - rng.randrange(40, 200):  # it is up and in the midst of it
                assert time.monotonic() < end and process.poll() is None
                await asyncio.sleep(rng.random() * 0.01)
            under_way += store.waiting() > 0
            process.kill()
            process.wait()
            killed += 1
            process = subprocess.Popen(command)
        await store.send(events)
        end = time.monotonic() + 30
        while store.waiting():
            assert time.monotonic() < end and process.poll() is None
            await asyncio.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert under_way >= (kills - 1) // 2, "most kills must hit a consumer that had work in hand"
    assert comparable(store.hashes(), store.project) == wanted
