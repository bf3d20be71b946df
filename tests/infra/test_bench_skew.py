"""`python -m infra.bench_skew` on few answers: every figure is there."""

from __future__ import annotations

from infra.bench_skew import measure


def test_every_part_is_measured() -> None:
    found = measure(answers=300, rounds=2)
    assert len(found) == 7 and all(value > 0 for value in found.values())
