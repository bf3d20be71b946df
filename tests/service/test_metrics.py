"""What a scrape can tell of stages."""

from __future__ import annotations

from service.metrics import SECONDS, Histogram


def test_stages_of_microseconds_are_told_apart() -> None:
    """Most stages of the demo take 10 to 300 us: each decade has buckets of its own."""
    stages = Histogram("endcap_stage_seconds", "x", ["stage"], SECONDS)
    for seconds in (0.00001, 0.00007, 0.0002, 0.0004):
        stages.tallies["rules",].add(seconds)
    found = dict(stages.tallies["rules",].cumulative())
    assert [found[le] for le in ("5e-05", "0.0001", "0.00025", "0.0005")] == [1, 2, 3, 4]
