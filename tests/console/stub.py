"""A service for the console to look at, in its own process: `python -m tests.console.stub` prints its port.

Its answers have the shapes of the real endpoints, and their figures change between polls. `PUT /stub/redis` with `down`
or `up` switches its Redis; `PUT /stub/answers` with `no` makes it hang up on everything but that switch; `PUT
/stub/sample` with `broken` makes sampling the store fail for a reason of its own; `PUT /stub/engine` with `idle`,
`new`, `full` or `shared` makes the engine one that nobody asks, that cannot foretell yet, near its limit, of a worker.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import web

PAGE = Path(__file__).parents[2] / "service" / "http" / "console"
POLICY = {"Content-Security-Policy": "default-src 'self'; img-src data:"}
HOSTILE = '<img src=x onerror="console.error(1)"> & Sons Mug'
BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1,
          0.25, 1.0)  # fmt: skip
STAGES = {"decode": 0.0002, "features": 0.0021, "engine": 0.0052, "queue": 0.0011, "encode": 0.0004, "filter": 0.0001,
          "retrieve": 0.0015, "score": 0.0018, "select": 0.0002, "rules": 0.0003, "encode_json": 0.0002}  # fmt: skip
VIEWS: dict[str, tuple[str, float | None, float | None, float]] = {
    "user_profile": ("user", 26 * 3600.0, 365 * 86400.0, 30_000.0),
    "user_activity": ("user", 300.0, 30 * 86400.0, 45.0),
    "user_recent": ("user", 300.0, 365 * 86400.0, 220.0),
    "item_stats": ("item", None, 7 * 86400.0, 40_000.0),
}
VALUES: dict[str, dict[str, Any]] = {
    "user_profile": {"country": "DE", "tenure_days": 412.25, "orders": 7, "top_category": "Mugs"},
    "user_activity": {"views_1h": 3, "carts_1h": 1, "spend_30d": 84.5},
    "user_recent": {"item_ids": [f"i{n:05}" for n in range(100, 150)]},
}
ARMS = {"12": "12", "candidate": "13"}
COUNT = "Expected `int` >= 1"

state = {"redis": "up", "answers": "yes", "sample": "well", "engine": "well"}
random = Random(7)
began = time.time()
buckets: dict[str, Counter[float]] = {stage: Counter() for stage in (*STAGES, "request")}
sums: defaultdict[str, float] = defaultdict(float)
requests = 0


def play() -> None:
    """The requests of the time since the last look: some forty a second, as a service under traffic would count."""
    global requests
    due = int((time.time() - began + 30) * 40) - requests
    requests += due
    for _ in range(min(due, 400)):
        took = {stage: typical * random.lognormvariate(0, 0.5) for stage, typical in STAGES.items()}
        took["request"] = took["decode"] + took["features"] + took["engine"] + took["rules"]
        for name, seconds in took.items():
            sums[name] += seconds
            buckets[name][next((bound for bound in BOUNDS if seconds <= bound), math.inf)] += 1


def histogram(name: str, labels: str, tally: Counter[float], total: float) -> list[str]:
    lines, count = [], 0.0
    for bound in (*BOUNDS, math.inf):
        count += tally[bound]
        lines.append(f'{name}_bucket{{{labels},le="{"+Inf" if bound == math.inf else bound}"}} {float(count)}')
    return [*lines, f"{name}_sum{{{labels}}} {total}", f"{name}_count{{{labels}}} {float(count)}"]


async def metrics(request: web.Request) -> web.Response:
    play()
    endpoint = 'endpoint="/v1/recommendations",group="12",model="default",placement="home",version="12"'
    arms = {arm: f'group="{arm}",model="default",version="{version}"' for arm, version in ARMS.items()}
    lines = ["# TYPE endcap_requests counter", f'endcap_requests_total{{{endpoint},status="200"}} {float(requests)}',
             'endcap_requests_total{endpoint="/metrics",placement="",status="200"} 9.0',
             *(f'endcap_degraded_total{{{one},reason="features"}} {requests // 80}.0' for one in arms.values()),
             f'endcap_degraded_total{{{arms["12"]},reason="user"}} {requests // 300}.0',
             f'endcap_answers_total{{{arms["12"]}}} {requests * 0.75}',
             f'endcap_answers_total{{{arms["candidate"]}}} {requests * 0.25}']  # fmt: skip
    for stage in STAGES:
        lines += histogram("endcap_stage_seconds", f'{arms["12"]},stage="{stage}"', buckets[stage], sums[stage])
    lines += histogram("endcap_request_seconds", endpoint, buckets["request"], sums["request"])
    return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")


def ages(typical: float, at: float) -> dict[str, float]:
    swing = 1 + 0.3 * math.sin(at / 400)
    return {"p50": typical * 0.6 * swing, "p95": typical * 1.3 * swing, "p99": typical * 2.4 * swing}


def group(view: str, at: float, requests: int) -> dict[str, Any]:
    _, slo, _, typical = VIEWS[view]
    if not requests:
        return {"requests": 0, "missing": 0, "outside_max_age": 0, "unreadable": 0, "not_read": 0,
                "within_slo": None, "age_s": None}  # fmt: skip
    within = None if slo is None else 0.914 if view == "user_recent" else 0.9987
    return {"requests": requests, "missing": 0.021, "outside_max_age": 0.004, "unreadable": 0.0, "not_read": 0.001,
            "within_slo": within, "age_s": ages(typical, at)}  # fmt: skip


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


async def freshness(request: web.Request) -> web.Response:
    now, views = time.time(), []
    for view, (entity, slo, max_age, typical) in VIEWS.items():
        sample = {"at": iso(now - 20), "entities": 2000, **group(view, now, 1)}
        windows = {"5m": 300, "1h": 3600, "24h": 86400}
        views.append({
            "view": view, "entity": entity, "slo_s": slo, "max_age_s": max_age,
            "last_materialized": iso(now - 7300), "newest_event": iso(now - typical / 9),
            "sample": sample if state["redis"] == "up" else None,
            "served": {w: group(view, now, 40 * s if entity == "user" else 0) for w, s in windows.items()},
        })  # fmt: skip
    error = None if state["sample"] == "well" else "OverflowError: a time that no clock shows"
    if state["redis"] == "down":
        error = "Redis: connection refused"
    return web.json_response({"project": "stub", "at": iso(now), "sample_error": error, "views": views})


async def one_view(request: web.Request) -> web.Response:
    view, by = request.match_info["view"], request.query["by"]
    window = {"5m": 300, "1h": 3600, "24h": 86400}[request.query["window"]]
    step = 60 if by == "minute" else 3600
    last = time.time() // step * step
    starts = [last - step * back for back in reversed(range(window // step))]
    served = [one for one in starts if VIEWS[view][0] == "user" and one // step % 17]
    groups = [{"group": iso(one), **group(view, one, 40 * step)} for one in served]
    return web.json_response({"view": view, "window_s": window, "by": by, "groups": groups})


def problem(status: int, title: str, detail: str, *errors: tuple[str, str]) -> web.Response:
    content = {"type": "urn:endcap:problem:stub", "title": title, "status": status, "detail": detail}
    bad = [{"path": path, "message": message} for path, message in errors]
    return web.json_response(
        {**content, "errors": bad} if bad else content, status=status, content_type="application/problem+json"
    )


async def recommend(request: web.Request) -> web.Response:
    wanted = await request.json()
    count = wanted.get("count", 20)
    if not isinstance(count, int) or count < 1:
        return problem(422, "The request has invalid fields", f"count: {COUNT}", ("count", COUNT))
    if (placement := wanted.get("placement", "home")) not in ("home", "similar"):
        return problem(404, "There is no such placement", f"{placement!r} is none of home, similar")
    down = state["redis"] == "down"
    found = {name: {"status": "not_read" if down else "present", "age_s": None if down else ages(view[3], 0)["p50"]}
             for name, view in VIEWS.items() if view[0] == "user"}  # fmt: skip
    titles = [HOSTILE, *(f"Regency Teacup and Saucer No. {n}" for n in range(1, 500))]
    items = [{"item_id": f"i{n:05}", "score": 4.2 - n / 7, "source": ("personal", "covisit", "popular")[n % 3],
              "explain": {"title": titles[n], "category": "Mugs", "price": None if n == 3 else 4.95 + n,
                          "retrieval_score": 0.9 - n / 50}} for n in range(count)]  # fmt: skip
    inputs = {f"{view}:{name}": None if down else value
              for view, values in VALUES.items() for name, value in values.items()}  # fmt: skip
    return web.json_response({
        "recommendation_id": "r1", "model": {"name": "default", "version": "3"}, "items": items,
        "degraded": ["features"] if down else [], "features": found, "took_ms": 6.42, "inputs": inputs,
    })  # fmt: skip


async def features(request: web.Request) -> web.Response:
    if state["redis"] == "down":
        return problem(503, "The service is not ready", "Redis: connection refused")
    now, views = time.time(), []
    for view, values in VALUES.items():
        age = ages(VIEWS[view][3], 0)["p50"]
        at = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        views.append({"view": view, "status": "present", "age_s": age, "event_time": at,
                      "max_age_s": VIEWS[view][2], "features": values})  # fmt: skip
    return web.json_response({"user_id": request.match_info["id"], "at": iso(now), "views": views})


async def engine(request: web.Request) -> web.Response:
    """A device of 2 ms a batch and 0.1 ms a query, which some forty queries a second find."""
    mode, rate = state["engine"], 40 + random.random()
    curve = [{"size": size, "seconds": 2e-3 + 1e-4 * size, "seconds_a_query": 1e-4 + 2e-3 / size}
             for size in (1, 2, 4, 8, 16, 32)]  # fmt: skip
    full = mode == "full"
    forecast = {"at": iso(time.time()), "loop_s": 0.0011, "capacity": None if full else 640.4,
                "now": None if mode == "idle" else {"rate": rate, "p50_s": 0.0023, "p99_s": 0.0051},
                "twice": None if mode == "idle" else {"rate": 2 * rate, "p50_s": None if full else 0.0026,
                                                      "p99_s": None if full else 0.00984}}  # fmt: skip
    return web.json_response({
        "at": iso(time.time()), "pid": 7, "workers": 4 if mode == "shared" else 1, "window_s": 60.0, "busy": 0.1,
        "rate": 0.0 if mode == "idle" else rate, "slo_s": 0.02,
        "measured": None if mode == "idle" else {"p50_s": 0.0024, "p99_s": 0.00412},
        "forecast": None if mode == "new" else forecast,
        "batches": {"worth_having": 16, "fastest": 32, "knee": 20.0, "typical_rows": 320.0, "fixed_s": 2e-3,
                    "query_s": 1e-4, "row_s": 0.0, "curve": curve},
    })  # fmt: skip


WORDS = {"same": 0.031, "look": 0.17, "shifted": 0.64}


def skewed(feature: str, verdict: str | None, missing: float, *bins: tuple[str, float, float]) -> dict[str, Any]:
    extent = {"live_least": 0.0, "live_most": 212.5, "trained_least": 0.0, "trained_p1": 1.5, "trained_p99": 99.75,
              "trained_most": 140.0, "below_p1": 0.0, "above_p99": 0.084}  # fmt: skip
    shares = [{"bin": name, "live": live, "trained": trained} for name, live, trained in bins]
    return {"feature": feature, "psi": verdict and WORDS[verdict], "verdict": verdict, "needed": 200, "by_chance": 0.02,
            "missing": {"live": missing, "trained": 0.02}, "bins": shares,
            "extent": None if feature.endswith("country") else extent}  # fmt: skip


async def skew(request: web.Request) -> web.Response:
    """Two versions: one with statistics, of which some features have shifted, and an old one without."""
    tenths = [(f"{n} to {n + 1}", 0.02 * n, 0.098) for n in range(10)]
    countries = [(f"Country {n}", 0.04, 0.036) for n in range(24)]
    features = [
        skewed("user_profile:avg_price", "shifted", 0.08, ("missing", 0.08, 0.02), *tenths),
        skewed("user_profile:country", "same", 0.0, ("missing", 0.0, 0.02), (HOSTILE, 0.04, 0.03), *countries),
        skewed(
            "user_activity:views_1h", "look", 0.021, ("missing", 0.021, 0.02), ("0", 0.6, 0.7), ("> 0", 0.379, 0.28)
        ),
        skewed("user_activity:carts_1h", None, 0.021, ("missing", 0.021, 0.02), ("0", 0.979, 0.98)),
    ]
    old = [{**one, "psi": None, "verdict": None, "needed": None, "by_chance": None, "bins": [], "extent": None,
            "missing": {"live": 0.02, "trained": None}} for one in features]  # fmt: skip
    both = {"live": 0.0305, "trained": 0.02}
    return web.json_response({"at": iso(time.time()), "window_s": 3600.0, "workers": 1, "versions": [
        {"model": "default", "version": "1", "note": "no training statistics: train it anew", "answers": 12,
         "anonymous": 0, "examples": None, "defaulted": {"live": 0.02, "trained": None}, "features": old},
        {"model": "default", "version": "2", "note": None, "answers": 1300 + requests % 40, "anonymous": 41,
         "examples": 20000, "defaulted": both, "features": features},
    ]})  # fmt: skip


async def healthz(request: web.Request) -> web.Response:
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    if state["redis"] == "down":
        return problem(503, "The service is not ready", "Redis: connection refused")
    return web.json_response({"status": "ready"})


async def switch(request: web.Request) -> web.Response:
    state[request.match_info["name"]] = await request.text()
    return web.json_response(state)


async def page(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(PAGE / request.match_info.get("file", "index.html"), headers=POLICY)


@web.middleware
async def silence(request: web.Request, handler: Any) -> web.StreamResponse:
    if state["answers"] == "no" and request.path != "/stub/answers":
        assert request.transport is not None
        request.transport.close()
    answer: web.StreamResponse = await handler(request)
    return answer


def application() -> web.Application:
    app = web.Application(middlewares=[silence])
    app.router.add_routes([
        web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz),
        web.get("/v1/engine", engine), web.get("/v1/skew", skew),
        web.get("/v1/freshness", freshness), web.get("/v1/freshness/{view}", one_view),
        web.post("/v1/recommendations", recommend), web.get("/v1/features/user/{id}", features),
        web.put("/stub/{name}", switch), web.get("/console", page), web.get("/console/{file:.+}", page),
    ])  # fmt: skip
    return app


async def main() -> None:
    runner = web.AppRunner(application())
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    print(listening.getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
