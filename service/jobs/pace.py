"""How a job keeps out of shoppers' way: it looks before it asks, and rests in proportion to what it took.

A batch that has begun cannot be stopped, so a shopper who comes then waits for it. How many do is the share of the time
that the job takes; so while there are shoppers that share is bounded, and where there are none it is all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

QUIET_S = 5.0
"""Without a shopper for so long, there are none."""
LOOK_S = 0.002
PATIENCE_S = 0.1
"""The longest wait for a moment in which nobody is being answered: a busy service must not stop a job."""
MOST_REST_S = 1.0


class Gate(Protocol):
    """What is being answered; `seen_at` is when the last shopper came, by `clock`."""

    clock: Callable[[], float]
    in_flight: int
    bulk_in_flight: int
    seen_at: float


class Pace:
    """`share`: of the time that a job may take while there are shoppers. `wait_s`: of the engine's queue."""

    def __init__(self, gate: Gate, wait_s: Callable[[], float], share: float) -> None:
        self.gate, self.wait_s, self.share = gate, wait_s, share

    def quiet(self) -> bool:
        return self.gate.clock() - self.gate.seen_at > QUIET_S

    async def turn(self) -> None:
        """Waits for a moment in which no shopper is being answered."""
        until = self.gate.clock() + PATIENCE_S
        while self.gate.in_flight > self.gate.bulk_in_flight or self.wait_s() > 0:
            if self.gate.clock() >= until:
                return
            await asyncio.sleep(LOOK_S)

    async def rest(self, spent_s: float) -> None:
        """After work of so many seconds."""
        await asyncio.sleep(0 if self.quiet() else min(spent_s * (1 / self.share - 1), MOST_REST_S))
