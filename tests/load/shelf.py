"""Two services that answer differently, in one process: `python -m tests.load.shelf` prints its port.

`/a` answers i1 to i5 (or as many as `count` says). `/b` answers by the user: `swap…` has the first two the other way
round, `other…` other items, `busy…` is degraded, `down…` a 503, `full…` a 503 once, `broken…` no JSON, `huge…` an
infinite score, `silent…` nothing for a minute, any other the same as `/a`. `model_version` 2 swaps too, on either
side. With `explain`, the country is DE for users that end in an even digit. `GET /log` returns what came: side, body
and headers.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

from aiohttp import web

asked: list[dict[str, Any]] = []
tries: Counter[str] = Counter()


async def answer(request: web.Request) -> web.Response:
    side, body = request.match_info["side"], await request.json()
    asked.append({"side": side, "body": body, "headers": dict(request.headers)})
    user, version = body.get("user_id", ""), body.get("model_version", "1")
    kind = user.rstrip("0123456789") if side == "b" else ""
    items = [{"item_id": f"i{place}", "score": 1 - place / 10, "source": "personal"} for place in range(1, 6)]
    items = items[: body.get("count", 5)]
    tries[side + user] += 1
    if kind == "down" or (kind == "full" and tries[side + user] == 1):
        return web.Response(status=503)
    if kind == "broken":
        return web.Response(text="<html>")
    if kind == "huge":
        return web.Response(text='{"items": [{"item_id": "i1", "score": 1e999}]}')
    if kind == "silent":
        await asyncio.sleep(60)
    if kind == "swap" or version == "2":
        items[:2] = items[1::-1]
    if kind.startswith(("other", "<")):
        items = [one | {"item_id": f"{kind}{place}"} for place, one in enumerate(items)]
    reply: dict[str, Any] = {"items": items, "degraded": ["candidates"] if kind == "busy" else []}
    reply["model"] = {"name": "default", "version": version}
    if body.get("explain"):
        reply["inputs"] = {"user_profile:country": "DE" if user[-1:] in "02468" else "FR", "age": None}
    return web.json_response(reply)


async def log(request: web.Request) -> web.Response:
    return web.json_response(asked)


def main() -> None:
    app = web.Application()
    app.router.add_post("/{side}/v1/recommendations", answer)
    app.router.add_post("/{side}/v1/rank", answer)
    app.router.add_get("/log", log)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    web.run_app(app, sock=listener, print=None, access_log=None, shutdown_timeout=0.1)


if __name__ == "__main__":
    main()
