"""Two runs beside each other: what changed, in words, and why they may not be comparable."""

from __future__ import annotations

from typing import Any, NamedTuple

from load.replay_file import Replay

# Below this, a change is within what one machine does from run to run even when idle.
SAME = 0.005
RATES_ALIKE = 0.02
LATE_MS = 1.0


class Delta(NamedTuple):
    """One figure of both runs. `ratio` is b / a, None where that has no meaning; `words` says it."""

    name: str
    unit: str
    a: float | None
    b: float | None
    ratio: float | None
    words: str


def deltas(a: Replay, b: Replay) -> list[Delta]:
    """What both runs have figures of: latencies, rates, shares, stages."""
    found = [
        _lasting(name, getattr(a.latency_ms, field), getattr(b.latency_ms, field))
        for name, field in (
            ("p50", "p50"),
            ("p90", "p90"),
            ("p99", "p99"),
            ("p99.9", "p999"),
            ("max", "max"),
            ("mean", "mean"),
        )
    ]
    found.append(_amount("answers", "requests/s", _per_second(a, a.answered), _per_second(b, b.answered)))
    found.append(_share("errors", a.error_share(), b.error_share()))
    found.append(_share("degraded", a.degraded_share(), b.degraded_share()))
    for stage in sorted(a.stages_ms.keys() | b.stages_ms.keys()):
        for figure in ("p50", "p99"):
            values = (getattr(one.stages_ms[stage], figure) if stage in one.stages_ms else None for one in (a, b))
            found.append(_lasting(f"stage {stage}, {figure}", *values))
    return found


def warnings(a: Replay, b: Replay) -> list[str]:
    """Reasons to doubt that the servers alone made the difference."""
    said = []
    if a.log != b.log:
        said.append(f"Not the same traffic: A played {a.log}, B {b.log}.")
    rates = (a.rate_intended(), b.rate_intended())
    if max(rates) and abs(rates[0] - rates[1]) > RATES_ALIKE * max(rates):
        said.append(f"Not the same rate: A intended {rates[0]:.1f} requests/s, B {rates[1]:.1f}.")
    if (a.speed, a.rate) != (b.speed, b.rate):
        said.append(f"Not played alike: A at {_pace(a)}, B at {_pace(b)}.")
    if hardware(a) != hardware(b):
        said.append(f"Not the same machine: A on {hardware(a)}, B on {hardware(b)}.")
    if a.processes != b.processes:
        said.append(f"Not as many client processes: A {a.processes}, B {b.processes}.")
    for name, run in (("A", a), ("B", b)):
        if client_was_late(run):
            said.append(
                f"The client was late in {name}, {run.client.lateness_p99_ms:.2f} ms at p99: "
                "its latencies hold that time too."
            )
    return said


def client_was_late(run: Replay) -> bool:
    """Whether the client was later than LATE_MS at p99: then its latencies are not the server's alone."""
    late = run.client.lateness_p99_ms
    return late is not None and late > LATE_MS


def hardware(run: Replay) -> str:
    """The machine in a line."""
    line = run.machine if isinstance(run.machine, str) else run.machine.get("line", run.machine)
    return str(line)


def as_json(a: Replay, b: Replay) -> dict[str, Any]:
    """What `endcap report A B --json` writes."""
    runs = {
        name: {"log": run.log, "url": run.url, "started": run.started, "versions": run.versions}
        for name, run in (("a", a), ("b", b))
    }
    found = [delta._asdict() for delta in deltas(a, b)]
    return {"kind": "endcap report", "version": 1, **runs, "warnings": warnings(a, b), "deltas": found}


def _pace(run: Replay) -> str:
    return f"speed {run.speed:g}" if run.rate is None else f"{run.rate:g} requests/s"


def _per_second(run: Replay, count: int) -> float | None:
    return count / run.seconds if run.seconds else None


def _lasting(name: str, a: float | None, b: float | None) -> Delta:
    return _worded(name, "ms", a, b, ("slower", "faster"), "as slow")


def _amount(name: str, unit: str, a: float | None, b: float | None) -> Delta:
    return _worded(name, unit, a, b, ("more", "fewer"), "as many")


def _worded(name: str, unit: str, a: float | None, b: float | None, signs: tuple[str, str], times: str) -> Delta:
    if a is None or b is None or not a:
        missing = "nothing measured" if a is None and b is None else "not to be compared"
        return Delta(name, unit, a, b, None, missing)
    ratio = b / a
    if abs(ratio - 1) < SAME:
        words = "the same"
    elif ratio >= 2:
        words = f"{ratio:.2g} times {times}" if ratio < 10 else f"{ratio:.0f} times {times}"
    else:
        words = f"{abs(ratio - 1):.{0 if abs(ratio - 1) >= 0.1 else 1}%} {signs[0 if ratio > 1 else 1]}".replace(
            "%", " %"
        )
    return Delta(name, unit, a, b, ratio, words)


def _share(name: str, a: float | None, b: float | None) -> Delta:
    """Shares differ by percentage points: a ratio of two small shares says little."""
    if a is None or b is None:
        return Delta(name, "share", a, b, None, "not to be compared")
    points = 100 * (b - a)
    words = "the same" if abs(points) < 0.005 else f"{abs(points):.2f} points {'more' if points > 0 else 'fewer'}"
    return Delta(name, "share", a, b, None, words)
