from __future__ import annotations

import pytest

from load.server_timing import stages


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("read;dur=1.5", [("read", 0.0015)]),
        ("read;dur=1.5, rank;dur=4", [("read", 0.0015), ("rank", 0.004)]),
        ("read ; dur = 1 ,rank;dur=2", [("read", 0.001), ("rank", 0.002)]),
        ("cached, miss;desc=no", []),
        ('a;desc="x, y;dur=9";dur=2', [("a", 0.002)]),
        (r'a;desc="say \"hi\", b;dur=7";dur="3"', [("a", 0.003)]),
        ("a;DUR=2;dur=5", [("a", 0.002)]),
        ("a;dur=0", [("a", 0.0)]),
    ],
)
def test_each_metric_with_a_duration_gives_its_seconds(header: str, expected: list[tuple[str, float]]) -> None:
    assert list(stages(header)) == expected


@pytest.mark.parametrize("header", ["a;dur=soon", "a;dur=-1", "a;dur=nan", "a;dur=1e400", ";dur=1", "a b", 'a;desc="x'])
def test_what_is_not_the_grammar_or_not_a_duration_is_refused(header: str) -> None:
    with pytest.raises(ValueError):
        list(stages(header))
