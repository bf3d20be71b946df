"""A promotion in steps: goes on while rules are kept, back where one is not, and says which, when and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ranking.errors import RegistryError
from ranking.registry import Plan, Registry, Rules, begin, point
from service.guard import Guard
from service.workers_metrics import Family

STEPS = [0.01, 0.1, 1.0]


class World:
    """Two versions, a clock, and what the workers have counted."""

    def __init__(self, models: Path, **rules: float) -> None:
        for number in ("1", "2"):
            (models / "default" / number).mkdir(parents=True)
        self.registry, self.now = Registry(models), 0.0
        self.counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.registry.change("default", lambda state: point(state, "production", "1", ["1", "2"]))
        plan = Plan(STEPS, hold_s=60, least=200, rules=Rules(**rules))
        self.registry.change("default", lambda state: begin(state, "2", plan, ["1", "2"], by="me"))
        self.guards: list[Guard] = []
        self.reason: str | None = None
        self.guard = self.another()

    def another(self) -> Guard:
        self.guards.append(Guard(self.registry, ["default"], self.counted, self.refused, lambda: self.now))
        return self.guards[-1]

    def refused(self, name: str, version: str) -> str | None:
        return self.reason

    def counted(self) -> list[Family]:
        return [Family("all", "", "counter", [(name, labels, value) for (name, labels), value in self.counts.items()])]

    def add(self, name: str, value: float, **labels: str) -> None:
        key = name, tuple(labels.items())
        self.counts[key] = self.counts.get(key, 0) + value

    def answer(self, count: int, seconds: float = 0.004, *, group: str = "rollout", degraded: int = 0) -> None:
        who = {"model": "default", "version": "2" if group == "rollout" else "1", "group": group}
        self.add("endcap_requests_total", count, endpoint="/v1/rank", status="200", **who)
        self.add("endcap_answers_total", count, **who)
        self.add("endcap_degraded_answers_total", degraded, **who)
        for bound in ("0.005", "0.05", "0.1", "+Inf"):
            self.add("endcap_request_seconds_bucket", count * (seconds <= float(bound)), le=bound, **who)

    def fail(self, count: int) -> None:
        who = {"model": "default", "version": "2", "group": "rollout"}
        self.add("endcap_requests_total", count, endpoint="/v1/rank", status="500", **who)

    def after(self, seconds: float) -> tuple[str, float]:
        """Production's version and the rollout's share (0: none), so many seconds later."""
        self.now += seconds
        asyncio.run(self.guard.look())
        state = self.registry.read("default")
        return state.aliases["production"], state.rollout.share if state.rollout else 0.0

    def last(self) -> str:
        return self.registry.read("default").history[-1].why


Made = Callable[..., World]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    worlds: list[World] = []

    def make(**rules: float) -> World:
        worlds.append(World(tmp_path / str(len(worlds)), **rules))
        return worlds[-1]

    yield make
    for guard in (one for world in worlds for one in world.guards):
        guard.let_go("default")


def test_each_step_is_held_and_the_last_one_is_production(made: Made) -> None:
    world = made(p99_s=0.05, errors=0.01)
    assert world.after(0) == ("1", 0.01)
    for share, now in ((0.01, 0.1), (0.1, 1.0)):
        world.answer(500)
        assert world.after(59) == ("1", share), "held for a minute"
        assert world.after(2) == ("1", now)
        assert world.after(0) == ("1", now), "the next step begins"
    world.answer(500)
    assert world.after(61) == ("2", 0.0)
    actions = [one.action for one in world.registry.read("default").history]
    assert actions == ["promote", "rollout", "step", "step", "promote"]
    assert world.last().startswith("kept every rule at 100 %, after 500 answers: p99 ")


def test_too_few_answers_are_waited_for(made: Made) -> None:
    world = made(errors=0.01)
    world.after(0)
    world.answer(199)
    assert world.after(3600) == ("1", 0.01)
    world.answer(1)
    assert world.after(0) == ("1", 0.1)


def test_a_rule_of_which_too_little_was_seen_holds_a_step_but_the_last(made: Made) -> None:
    """At the last step nobody gets production's answers any more: there is nothing to agree with."""
    world, who = made(overlap=0.5), {"model": "default", "version": "2", "placement": "home"}
    world.after(0)
    for share, further in ((0.01, 0.1), (0.1, 1.0)):
        world.answer(500)
        world.add("endcap_shadow_overlap_count", 199, **who)
        world.add("endcap_shadow_overlap_sum", 199, **who)
        assert world.after(3600) == ("1", share)
        world.add("endcap_shadow_overlap_count", 1, **who)
        assert world.after(0) == ("1", further)
        world.after(0)
    world.answer(500)
    assert world.after(61) == ("2", 0.0)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({"p99_s": 0.05}, "p99 99.5 ms, above 50 ms, at 1 %, after 400 answers; production meanwhile: p99 "),
        ({"degraded": 0.05}, "degraded 10 %, above 5 %, at 1 %, after 400 answers; production meanwhile: "),
        ({"errors": 0.01}, "errors 20 %, above 1 %, at 1 %, after 400 answers; production meanwhile: "),
        ({"overlap": 0.5}, "overlap 40 %, below 50 %, at 1 %, after 400 answers; production meanwhile: "),
        ({"defaulted": 0.1}, "defaulted 30 %, above 10 %, at 1 %, after 400 answers; production meanwhile: "),
    ],
)
def test_a_broken_rule_goes_back_at_once_and_is_named_with_its_figures(
    made: Made, rules: dict[str, float], why: str
) -> None:
    world = made(**rules)
    world.after(0)
    world.answer(100, group="control")
    world.answer(400, 0.09, degraded=40)
    world.fail(100)
    who = {"model": "default", "version": "2"}
    world.add("endcap_shadow_overlap_sum", 160, placement="home", **who)
    world.add("endcap_shadow_overlap_count", 400, placement="home", **who)
    world.add("endcap_skew_answers", 1000, **who)
    world.add("endcap_defaulted_share", 0.3, **who)
    assert world.after(1) == ("1", 0.0)
    assert world.last().startswith(why)
    assert world.registry.read("default").history[-1].action == "abandon"
    assert world.after(1000) == ("1", 0.0), "and stays there"


def test_a_version_that_cannot_be_loaded_is_not_waited_for(made: Made) -> None:
    world = made(errors=0.01)
    world.reason = "models/default/2: ranker.safetensors: is missing"
    assert world.after(0) == ("1", 0.0)
    assert world.last() == f"it cannot be loaded: {world.reason}"


def test_what_was_counted_before_the_step_says_nothing_of_it(made: Made) -> None:
    world = made(p99_s=0.05)
    world.answer(1000, 0.09)
    world.after(0)
    world.answer(1000, 0.004)
    assert world.after(61) == ("1", 0.1)


def test_one_guard_watches_at_a_time_and_another_takes_over(made: Made) -> None:
    world = made(errors=0.01)
    world.after(0)
    first, world.guard = world.guard, world.another()
    world.answer(500)
    assert world.after(61) == ("1", 0.01), "the first one guards"
    first.let_go("default")
    assert world.after(0) == ("1", 0.01), "the second one begins to watch"
    world.answer(500)
    assert world.after(61) == ("1", 0.1)


def test_who_ends_the_rollout_by_hand_is_not_undone(made: Made) -> None:
    world = made(errors=0.01)
    world.after(0)
    world.registry.change("default", lambda state: point(state, "production", "2", ["1", "2"]))
    world.answer(500)
    assert world.after(61) == ("2", 0.0)


def test_what_cannot_be_rolled_out_is_one_clear_line(made: Made) -> None:
    world, plan = made(), Plan(STEPS)
    there = ["1", "2"]
    with pytest.raises(RegistryError, match=r"^version 2 is being rolled out, at 1 %; roll it back first, or wait$"):
        world.registry.change("default", lambda state: begin(state, "2", plan, there))
    other = made().registry.read("default")
    idle = replace(other, rollout=None)
    for version, said in (("1", "is production already"), ("7", "version 7 does not exist; there are 1, 2")):
        with pytest.raises(RegistryError, match=said):
            begin(idle, version, plan, there)
    with pytest.raises(RegistryError, match="promote one that can be gone back to first"):
        begin(replace(idle, aliases={}), "2", plan, there)


@pytest.mark.parametrize("steps", [[], [0.5], [0.5, 0.1, 1.0], [0.0, 1.0], [0.5, 0.5, 1.0]])
def test_steps_grow_and_end_at_all(steps: list[float]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"steps": steps}, Plan)
