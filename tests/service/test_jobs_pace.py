"""How a job keeps out of shoppers' way, and what it asks that nobody else may."""

from __future__ import annotations

import pytest

from service.admission import GradientLimit, Limiter
from service.call import Call
from service.jobs import pace
from service.jobs.pace import MOST_REST_S, QUIET_S, Pace
from service.trace import Trace
from service.wire import RecommendRequest
from tests.service.conftest import Client


class Clock:
    """Sleeping moves it, and says for how long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 100.0, 0.0
        monkeypatch.setattr(pace.asyncio, "sleep", self.sleep)
        self.gate = Limiter(GradientLimit(10), lambda: self.now)
        self.queue_s = 0.0
        self.pace = Pace(self.gate, lambda: self.queue_s, 0.2)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_job_takes_its_share_of_the_time_while_there_are_shoppers(clock: Clock) -> None:
    with clock.gate.admit(1.0):
        pass
    await clock.pace.rest(0.003)
    assert clock.slept == pytest.approx(0.012)  # 3 of 15 ms
    await clock.pace.rest(60.0)
    assert clock.slept == pytest.approx(0.012 + MOST_REST_S)


async def test_without_shoppers_it_does_not_rest(clock: Clock) -> None:
    """Its own rows, which are bulk, are none."""
    with clock.gate.admit(1.0):
        pass
    assert not clock.pace.quiet()
    clock.now += QUIET_S + 0.1
    with clock.gate.admit(1.0, bulk=True):
        pass
    await clock.pace.rest(0.003)
    assert clock.pace.quiet() and clock.slept == 0


async def test_it_waits_while_somebody_is_being_answered_but_not_for_ever(clock: Clock) -> None:
    await clock.pace.turn()
    assert clock.slept == 0
    with clock.gate.admit(1.0, bulk=True):
        await clock.pace.turn()
    assert clock.slept == 0
    with clock.gate.admit(1.0):
        await clock.pace.turn()
    assert clock.slept == pytest.approx(pace.PATIENCE_S, abs=2 * pace.LOOK_S)
    clock.slept, clock.queue_s = 0.0, 0.01
    await clock.pace.turn()
    assert clock.slept > 0


async def test_a_patient_call_has_the_time_that_it_says_whatever_the_placement_allows(client: Client) -> None:
    recommender = client.app.api.answers.recommender
    assert recommender is not None
    request = RecommendRequest(user_id="u1", placement="popular")
    for patient, most in ((False, 20.0), (True, 3600.0)):
        turn = recommender.begin(request, "popular", Call(timeout_s=3600.0, bulk=True, patient=patient), Trace())
        assert turn.budget.total_s == most
