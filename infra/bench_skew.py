"""`python -m infra.bench_skew`: what skew costs the request path, and what counting it costs once a second.

An answer's record as the service keeps it (the tallies of freshness) without skew and with it, in turn, in one process;
the least of the rounds. Then the counting of a second's answers, what a worker leaves for the others, and a report, of
an hour with answers in every minute. Shoppers have 17 features, 16 numbers and a word.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.user import ViewState
from ranking.schema import Categorical, Dense, History, UserSchema
from ranking.statistics import Statistics, statistics_of
from service.answered import Answered
from service.skew import LATEST, Skew
from service.tallies import Tallies
from service.wire import RecommendRequest

NUMBERS, COUNTRIES = 16, [f"country {n}" for n in range(60)]
SCHEMA = UserSchema(
    "bench",
    tuple(Dense(f"view:number_{n}", "Float64") for n in range(NUMBERS)),
    (Categorical("view:country", "String", tuple(COUNTRIES)),),
    History("view:items", "Array(String)", 20),
)
VIEWS = {name: ViewState("present", 12.5) for name in ("view", "recent", "activity", "items")}


@dataclass
class Loaded:
    statistics: dict[str, Statistics]
    version: str = "1"
    name: str = "bench"
    schema: UserSchema = field(default=SCHEMA)


def shoppers(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    numbers, words = rng.lognormal(2, 1, (count, NUMBERS)).tolist(), rng.choice(COUNTRIES, count).tolist()
    return [
        {f"view:number_{n}": one for n, one in enumerate(row)} | {"view:country": word, "view:items": ["i1"] * 20}
        for row, word in zip(numbers, words, strict=True)
    ]


def microseconds(what: Callable[[Answered], None], answers: Sequence[Answered]) -> float:
    """Of each call."""
    began = time.perf_counter()
    for one in answers:
        what(one)
    return (time.perf_counter() - began) / len(answers) * 1e6


def milliseconds(what: Callable[[], object], rounds: int) -> float:
    """The least of the rounds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        what()
        took.append(time.perf_counter() - began)
    return min(took) * 1e3


def measure(answers: int, rounds: int) -> dict[str, float]:
    rows = shoppers(answers)
    request = RecommendRequest(user_id="u1")
    told = [
        Answered("r", 1e6, "recommend", request, "bench", "1", "default", row, VIEWS, [], {}, [], {}, 1.0, 1)
        for row in rows
    ]
    loaded = Loaded(statistics_of(SCHEMA, {one: [row[one] for row in rows] for one in rows[0] if one != "view:items"}))
    now = [1e6]
    skew, tallies = Skew(lambda: [loaded], lambda: now[0]), Tallies({})

    def without(one: Answered) -> None:
        tallies.add(one.at, one.request.placement, one.version, one.views)

    def with_skew(one: Answered) -> None:
        tallies.add(one.at, one.request.placement, one.version, one.views)
        skew.add(one)

    before, after, add = [], [], []
    for _ in range(rounds):
        before.append(microseconds(without, told))
        after.append(microseconds(with_skew, told))
        add.append(microseconds(skew.add, told))
    for minute in range(60):
        now[0] = 1e6 + 60 * minute
        for one in told[:LATEST]:
            skew.add(one)
        skew.count()

    def second() -> None:
        for one in told[:LATEST]:
            skew.add(one)
        skew.count()

    return {
        "record without skew, us": min(before),
        "record with skew, us": min(after),
        "Skew.add alone, us": min(add),
        f"counting {LATEST} answers, ms a second": milliseconds(second, rounds),
        "summing an hour for the other workers, ms a second": milliseconds(skew.mine, rounds),
        "a report, ms": milliseconds(skew.report, rounds),
        "gauges for a scrape, ms": milliseconds(skew.families, rounds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=2_000, help="of each round")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    for name, value in measure(arguments.answers, arguments.rounds).items():
        print(f"{name:<52} {value:8.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
