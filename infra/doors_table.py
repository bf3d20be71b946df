"""What `make bench-doors` found, as figures and as the tables of docs/transports.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from infra.doors import Cell, Round
from service.http.answers import RANK, RECOMMENDATIONS

BEGIN, END = "<!-- make bench-doors MARKDOWN=docs/transports.md -->", "<!-- what make bench-doors wrote ends here -->"
VERBS = {RECOMMENDATIONS: "recommend", RANK: "rank"}


class Figures(NamedTuple):
    """Of one cell: CPU s per 1,000 requests (or users), also where each was alone (0 for a batch, which always is); how
    many a second; bytes of body for each. Of `timed` requests that were alone (or batches) the quantiles in ms, and the
    median until the first answer of a batch."""

    cpu_s: float
    alone_cpu_s: float
    rate: float
    size: float
    timed: int
    p50_ms: float
    p99_ms: float
    first_ms: float


def figures(cell: Cell, rounds: Sequence[Round]) -> Figures:
    """CPU and rate of the round with the least CPU, times of all rounds."""
    least = min(rounds, key=lambda one: one.cpu_s / one.asked)
    alone_s = 0.0 if cell.users else min(one.alone_cpu_s / len(one.took_s) for one in rounds)
    took_ms = np.concatenate([one.took_s for one in rounds]) * 1e3
    first_ms = float(np.median(np.concatenate([one.first_s for one in rounds]))) * 1e3 if cell.users else 0.0
    p50, p99 = np.quantile(took_ms, (0.5, 0.99), method="higher").tolist()
    return Figures(
        cpu_s=least.cpu_s / least.asked * 1e3, alone_cpu_s=alone_s * 1e3, rate=least.asked / least.wall_s,
        size=least.size / least.asked, timed=len(took_ms), p50_ms=p50, p99_ms=p99, first_ms=first_ms,
    )  # fmt: skip


def report(found: Mapping[Cell, Figures], state: str) -> str:
    """The tables, in Markdown. The first cell is the floor."""
    floor = next(iter(found.values())).cpu_s
    one_each = {cell: one for cell, one in found.items() if not cell.users}
    many = {cell: one for cell, one in found.items() if cell.users}
    rows = [
        state, "",
        "| one user a request | items | CPU s per 1,000, four at a time | times the floor | one at a time "
        "| p50 / p99, ms | bytes |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {named(cell)} | {cell.items or ''} | {one.cpu_s:.2f} | {one.cpu_s / floor:.1f} | {one.alone_cpu_s:.2f} "
            f"| {one.p50_ms:.2f} / {one.p99_ms:.2f} | {one.size:,.0f} |"
            for cell, one in one_each.items()
        ), "",
        "| many users a request | users | items | CPU s per 1,000 users | users/s | first answer, ms "
        "| whole p50 / p99, ms | batches | bytes a user |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {cell.door} | {cell.users:,} | {cell.items} | {one.cpu_s:.2f} | {one.rate:,.0f} | {one.first_ms:.1f} "
            f"| {one.p50_ms:,.1f} / {one.p99_ms:,.1f} | {one.timed:,} | {one.size:,.0f} |"
            for cell, one in many.items()
        ),
    ]  # fmt: skip
    return "\n".join(rows)


def named(cell: Cell) -> str:
    return f"{cell.door}, {VERBS[cell.path]}" if cell.path in VERBS else cell.door


def replaced(page: str, told: str) -> str:
    """The page with this between its two marks. Raises ValueError where it has not both, once each and in order."""
    before, begin, rest = page.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in inside + after or END in before + after:
        raise ValueError(f"the page must have {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n{told}\n{end}{after}"
