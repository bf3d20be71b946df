"""A small real server with planted faults, in its own process: `python -m tests.load.stub` prints its port.

`/ok` answers at once, `/cycle` with 200, 200, 404, 503 in turn, `/degraded` with one degraded answer in four, `/drop`
closes instead of answering, `/half` closes in mid-answer, `/hang` never answers, `/slow` takes 20 ms.
`/pause/NAME` answers at once, but its 200th request of that NAME stops the whole server for 100 ms.
`GET /log` returns how many requests `/slow` held at once, and every body that `/ok` was sent.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import Counter

from aiohttp import web

PAUSED_REQUEST = 200
PAUSE_S = 0.1

bodies: list[object] = []
requests_of: Counter[str] = Counter()
turns = itertools.count()
TIMING = {"Server-Timing": 'read;dur=1.5;desc="a, b;dur=9", rank;dur=4, cached'}


async def ok(request: web.Request) -> web.Response:
    bodies.append(await request.json())
    return web.json_response({"items": [], "degraded": []}, headers=TIMING)


async def cycle(request: web.Request) -> web.Response:
    status = (200, 200, 404, 503)[next(turns) % 4]
    return web.json_response({"degraded": []}, status=status)


async def degraded(request: web.Request) -> web.Response:
    return web.json_response({"degraded": ["user_recent"] if next(turns) % 4 == 0 else []})


async def drop(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport is not None
    request.transport.close()
    return response


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    return web.Response()


async def slow(request: web.Request) -> web.Response:
    requests_of["slow now"] += 1
    requests_of["slow at once"] = max(requests_of["slow at once"], requests_of["slow now"])
    await asyncio.sleep(0.02)
    requests_of["slow now"] -= 1
    return web.json_response({"degraded": []})


async def pause(request: web.Request) -> web.Response:
    requests_of[request.path] += 1
    if requests_of[request.path] == PAUSED_REQUEST:
        time.sleep(PAUSE_S)  # all of the server, as a garbage collection would
    return web.json_response({"degraded": []})


async def log(request: web.Request) -> web.Response:
    return web.json_response({"bodies": bodies, "slow_at_once": requests_of["slow at once"]})


def main() -> None:
    app = web.Application()
    for handler in (ok, cycle, degraded, drop, half, hang, slow):
        app.router.add_post(f"/{handler.__name__}", handler)
    app.router.add_post("/pause/{name}", pause)
    app.router.add_get("/log", log)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    web.run_app(app, sock=listener, print=None, access_log=None, shutdown_timeout=0.1)


if __name__ == "__main__":
    main()
