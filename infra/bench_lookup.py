"""`make bench-lookup`: what it takes to find one answer in a large hour of the serving log, as a service finds it.

The hour is made first: as its writers leave it, a file every 5 s, and as it is once it is compacted. Then answers at
random places of it are looked up, one after the other, while a task of the same event loop says how late its timer of
1 ms is; after that, for as long, with nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from service.lean import allocate_plainly, keep_pandas_out

allocate_plainly()
keep_pandas_out()

from features.user import ViewState  # noqa: E402 - after what pyarrow must be told first
from service.answer_id import answer_id  # noqa: E402
from service.answer_log import HOUR_S, AnswerLog  # noqa: E402
from service.answer_lookup import Lookup  # noqa: E402
from service.answered import Answered  # noqa: E402
from service.errors import UnknownAnswer  # noqa: E402
from service.placements import Placement  # noqa: E402
from service.wire import Item, RecommendRequest, Session  # noqa: E402

FLUSH_S = 5
CHANCE = random.Random(6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--lookups", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hour = time.time() // HOUR_S * HOUR_S - HOUR_S
        log = AnswerLog(Path(folder), clock=lambda: hour + 2 * HOUR_S)
        ids = fill(log, hour, arguments.rows)
        asyncio.run(measure(log, ids, arguments.lookups, "as written"))
        log.tidy()
        asyncio.run(measure(log, ids, arguments.lookups, "compacted"))
    return 0


def fill(log: AnswerLog, hour: float, rows: int) -> list[str]:
    ids = []
    for row in range(rows):
        one = answered(hour + row * HOUR_S / rows)
        ids.append(one.recommendation_id)
        log.put(one)
        if len(log.queue) >= rows * FLUSH_S / HOUR_S or row == rows - 1:
            log.flush()
            newest = max(log.folder(int(hour // HOUR_S)).iterdir(), key=lambda path: path.stat().st_mtime_ns)
            newest.rename(newest.with_name(f"{int(one.at * 1e9)}-{newest.name.partition('-')[2]}"))
    return ids


def answered(at: float) -> Answered:
    """One answer of `home` as a demo shop's are."""
    names = [f"i{CHANCE.randrange(100_000):05d}" for _ in range(60)]
    values = {f"user_activity:feature_{n}": CHANCE.random() for n in range(16)}
    values |= {"user_recent:item_ids": names[:20], "user_recent:purchased_item_ids": names[20:40]}
    views = {
        name: ViewState("present", CHANCE.random() * 1e5) for name in ("user_profile", "user_activity", "user_recent")
    }
    items = [Item(name, CHANCE.random(), "personal") for name in names[40:]]
    request = RecommendRequest(user_id=f"u{CHANCE.randrange(100_000):05d}", session=Session(names[:2]))
    stages = {name: CHANCE.random() / 1e3 for name in ("decode", "features", "engine", "queue", "score", "rules")}
    sources = {"personal": 150, "covisit": 100, "popular": 50, "new": 20}
    return Answered(
        answer_id(at), at, "recommend", request, "default", "1", "default", values, views, items, sources,
        [], stages, 2.5, 1, Placement(sources),
    )  # fmt: skip


async def measure(log: AnswerLog, ids: list[str], lookups: int, what: str) -> None:
    lookup, took, late = Lookup(log, clock=log.clock), list[float](), [0.0]
    idle, watching = [0.0], asyncio.create_task(watch(late))
    before = peak_mib(afresh=True)
    for its_id in CHANCE.sample(ids, lookups):
        began = time.perf_counter()
        await lookup.find(its_id)
        took.append(time.perf_counter() - began)
    more = peak_mib() - before
    began = time.perf_counter()
    try:
        await lookup.find(f"{ids[len(ids) // 2][:12]}{'0' * 20}")
    except UnknownAnswer:
        none_s = time.perf_counter() - began
    watching.cancel()
    with suppress(TimeoutError):
        await asyncio.wait_for(watch(idle), sum(took))
    folder = next(log.directory.glob("date=*/hour=*"))
    files = list(folder.glob("*.parquet"))
    size = sum(one.stat().st_size for one in files) / 1e6
    print(f"{len(ids):,} answers {what}: {len(files):,} files, {size:.0f} MB; {more:.1f} MiB more at the peak")
    print(f"  one is found in {ms(statistics.median(took))} (median), {ms(max(took))} at most; none in {ms(none_s)}")
    for name, seconds in (("meanwhile", late), ("with nothing to do", idle)):
        p99 = sorted(seconds)[int(len(seconds) * 0.99)]
        print(f"  the loop is late by {ms(p99)} (p99), {ms(max(seconds))} at most, {name}")


def peak_mib(*, afresh: bool = False) -> float:
    """The most that has been resident (Linux); `afresh`: from now on."""
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


async def watch(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - began - 0.001)


if __name__ == "__main__":
    sys.exit(main())
