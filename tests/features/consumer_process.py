"""`python -m tests.features.consumer_process HOST PORT PROJECT`: a consumer of live events until it is killed."""

from __future__ import annotations

import asyncio
import sys

from features.consumer import Consumer
from features.pipeline import Pipeline


async def main(host: str, port: str, project: str) -> None:
    consumer = Consumer(Pipeline(host, int(port)), project, claim_after_s=0.2, block_s=0.05)
    consumer.start()
    assert consumer.task is not None
    await consumer.task


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
