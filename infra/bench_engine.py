"""`python -m infra.bench_engine`: W1 through the batch path of a GPU, alone and through the queue; one JSON.

Every request is a shopper as the service hands it over (raw features by name, ids of recent items) and every answer is
what the service gets back. Nothing is mocked but the network. On torch's CPU (`--device cpu --items 10000`) it shows
that the benchmark runs, and no more.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra import w1
from infra.bandwidth import limits
from ranking.batch import Query
from ranking.batcher import LocalEngine, hold_to_one_core
from ranking.batching import Curve, Policy, measure
from ranking.desk import Desk, StageTimer
from ranking.device import choose
from ranking.errors import RankingError
from ranking.resident.agreement import agreement
from ranking.resident.path import ResidentPath
from ranking.sources.personal import Personal

W1_ITEMS, MANY_ITEMS = 100_000, 10_000_000
SHOPPERS = 4096
LEAST_RUNS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--items", default="100000,1000000,10000000", help="sizes of the catalogue, by comma")
    parser.add_argument("--batches", default="1,2,4,8,16,32,64,128,256,512,1024", help="by comma")
    parser.add_argument("--precision", choices=["float16", "bfloat16", "float32"], default="float16")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each batch size")
    parser.add_argument("--json", type=Path, help="where the result goes (default: printed)")
    arguments = parser.parse_args()
    try:
        device = choose(arguments.device)
    except RankingError as error:
        parser.error(str(error))
    sizes, batches = ([int(one) for one in given.split(",")] for given in (arguments.items, arguments.batches))
    hold_to_one_core()
    result = about(device, arguments.precision)
    result["limits"] = limits(device, 1 << (28 if device.type == "cuda" else 24))
    result["catalogues"] = []
    for size in sizes:
        print(f"{size} items …", file=sys.stderr)
        result["catalogues"].append(catalogue(size, batches, device, arguments, result["limits"]))
        gc.collect()
    result["goals"] = goals(result)
    text = json.dumps(result, indent=1)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")
    else:
        print(text)
    for goal in result["goals"]:
        met = {True: "met", False: "missed", None: "not measured"}[goal["met"]]
        print(
            f"{goal['goal']}: {met}" + (f" ({goal['figure']:.6g})" if goal["met"] is not None else ""), file=sys.stderr
        )
    return 0


def about(device: torch.device, precision: str) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "made_by": " ".join(["python -m infra.bench_engine", *sys.argv[1:]]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(),
        "machine": platform.machine(), "precision": precision,
    }  # fmt: skip


def catalogue(
    size: int, batches: list[int], device: torch.device, arguments: argparse.Namespace, limit: dict[str, float]
) -> dict[str, Any]:
    """All figures of one catalogue."""
    bundle, queries = w1.bundle(size), w1.shoppers(size, SHOPPERS)
    path = ResidentPath(bundle, [Personal()], device, arguments.precision)
    found: dict[str, Any] = {"items": size, "batches": []}
    for batch in batches:
        found["batches"].append(batch_of(path, queries, batch, arguments.seconds, limit))
    found["searched_again_in_float32"] = path.index.again  # type: ignore[attr-defined]
    found["cuda_graphs"] = device.type == "cuda" and path.graphs.capture is not None
    found["half_precision_alone"] = agreement(path.nearest, users(path, queries[:64]), w1.CANDIDATES)
    found["through_the_queue"] = [
        asyncio.run(queued(path, queries, outstanding, arguments.seconds)) for outstanding in (1, 64, max(batches))
    ]
    return found


def users(path: ResidentPath, queries: list[Query]) -> torch.Tensor:
    return path.on_device.users(*path.read(queries)).on_device[0].float()


def batch_of(
    path: ResidentPath, queries: list[Query], batch: int, seconds: float, limit: dict[str, float]
) -> dict[str, Any]:
    """Batches of one size, one after the other, for so many seconds: milliseconds from raw features to answers."""
    lots = [queries[at : at + batch] for at in range(0, len(queries) - batch + 1, batch)]
    for lot in lots[:3] or lots:
        path.recommend(lot, lambda stage: nullcontext())
    taken, stages, until = [], defaultdict[str, float](float), time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < LEAST_RUNS:
        began = time.perf_counter()
        path.recommend(lots[len(taken) % len(lots)], lambda stage: StageTimer(stages, stage, time.perf_counter))
        taken.append(time.perf_counter() - began)
    (program, _) = path.program(path.shape(lots[0], [np.zeros(0, np.int64)] * batch))
    retrieve = stages["retrieve"] / len(taken)
    copied = program.inputs.host.nbytes / limit["to_device_bytes_per_s"]
    copied += program.outputs.host.nbytes / limit["to_host_bytes_per_s"]
    return {
        "batch": batch, "runs": len(taken), "requests_per_s": batch * len(taken) / sum(taken),
        **quantiles(taken), "stages_ms": {name: 1e3 * total / len(taken) for name, total in stages.items()},
        "bytes_to_device": program.inputs.host.nbytes, "bytes_to_host": program.outputs.host.nbytes,
        "share_of_copy_limit": copied / retrieve,
        "share_of_memory_limit": least_bytes(path, batch) / limit["device_bytes_per_s"] / retrieve,
    }  # fmt: skip


def least_bytes(path: ResidentPath, batch: int) -> int:
    """What a batch must read on the device at the least: the search's table once, and each candidate's row."""
    nearest = path.nearest
    table = nearest.vectors if nearest.dtype is torch.float32 else nearest.coarse
    row = 4 * (nearest.vectors.shape[1] + path.on_device.items.dense.shape[1])
    return table.nbytes + batch * w1.CANDIDATES * row


async def queued(path: ResidentPath, queries: list[Query], outstanding: int, seconds: float) -> dict[str, Any]:
    """The same through the queue that the service uses, with so many callers who each ask again when answered."""
    run = path.recommend
    samples = measure(lambda some: run(some, lambda stage: nullcontext()), queries[0], outstanding, time.perf_counter)
    desk = Desk({"w1": path}, Policy(Curve(samples), most=outstanding, slo_s=1.0))
    engine, taken = LocalEngine(desk), list[float]()
    engine.start()

    async def caller(first: int) -> None:
        at = first
        while time.perf_counter() < until:
            began = time.perf_counter()
            await engine.submit("w1", queries[at % len(queries)])
            taken.append(time.perf_counter() - began)
            at += outstanding

    await engine.submit("w1", queries[0])  # graphs are captured on the engine's own thread
    began = time.perf_counter()
    until = began + seconds
    await asyncio.gather(*(caller(first) for first in range(outstanding)))
    elapsed = time.perf_counter() - began
    await engine.stop()
    return {"outstanding": outstanding, "requests_per_s": len(taken) / elapsed, **quantiles(taken)}


def quantiles(taken: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(np.array(taken) * 1e3, [0.5, 0.99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Issue C's goals for an H100, as this run has them; null where it did not measure."""
    by_size = {one["items"]: {batch["batch"]: batch for batch in one["batches"]} for one in result["catalogues"]}
    w1_batches, many = by_size.get(W1_ITEMS, {}), by_size.get(MANY_ITEMS, {})
    fastest = max((one["requests_per_s"] for one in w1_batches.values()), default=None)
    lone, exact = w1_batches.get(1, {}).get("p99_ms"), many.get(1, {}).get("p99_ms")
    return [
        {"goal": "W1 requests/s >= 50000", "figure": fastest, "met": None if fastest is None else fastest >= 50_000},
        {"goal": "W1 batch of 1, p99 <= 1 ms", "figure": lone, "met": None if lone is None else lone <= 1},
        {"goal": "10M items exact, batch of 1, p99 <= 3 ms", "figure": exact,
         "met": None if exact is None else exact <= 3},
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
