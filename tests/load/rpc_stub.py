"""A small real gRPC server with planted faults, in its own process: `python -m tests.load.rpc_stub` prints its port.

The placement of a request says what becomes of it: `ok` is answered at once, `cycle` with OK, OK, NOT_FOUND and
UNAVAILABLE in turn, `degraded` with one degraded answer in four, `hang` never, `slow` after 20 ms, `bytes` with what is
no message. `pause/NAME` is answered at once, but the 200th of that NAME stops the whole server for 100 ms. `log` is
answered with what came: how many of `slow` were held at once, and each call with its connection.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from load.rpc.stubs import recommendations_pb2 as pb
from tests.load.stub import PAUSE_S, PAUSED_REQUEST, TIMING

calls: list[dict[str, Any]] = []
requests_of: Counter[str] = Counter()
turns = itertools.count()
METADATA = (("server-timing", TIMING["Server-Timing"]),)


async def recommend(request: Any, context: Any) -> Any:
    place, reply = request.placement, pb.Recommendation()
    if place == "log":
        return pb.Recommendation(inputs_json=json.dumps({"calls": calls, "slow_at_once": requests_of["slow at once"]}))
    note(context, type(request).__name__, user=request.user_id, placement=place)
    context.set_trailing_metadata(METADATA)
    if place == "cycle":
        code = (None, None, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)[next(turns) % 4]
        if code is not None:
            await context.abort(code, "as planted", METADATA)
    elif place == "degraded" and next(turns) % 4 == 0:
        reply.degraded.append("user_recent")
    elif place == "bytes":
        return b"\xff"
    elif place == "hang":
        await asyncio.sleep(3600)
    elif place == "slow":
        requests_of["slow now"] += 1
        requests_of["slow at once"] = max(requests_of["slow at once"], requests_of["slow now"])
        await asyncio.sleep(0.02)
        requests_of["slow now"] -= 1
    elif place.startswith("pause/"):
        requests_of[place] += 1
        if requests_of[place] == PAUSED_REQUEST:
            time.sleep(PAUSE_S)
    return reply


def note(context: Any, method: str, **more: Any) -> None:
    said = {name: value for name, value in context.invocation_metadata() if name.startswith(("endcap", "x-"))}
    calls.append({"method": method, "peer": context.peer(), "metadata": said, **more})


async def record_events(requests: AsyncIterator[Any], context: Any) -> Any:
    taken = [one.event_id async for one in requests]
    note(context, "Events", events=taken)
    context.set_trailing_metadata(METADATA)
    return pb.EventsAccepted(accepted=len(taken))


def encoded(reply: Any) -> bytes:
    whole: bytes = reply if isinstance(reply, bytes) else reply.SerializeToString()
    return whole


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 10_000)])
    methods = {
        "Recommend": grpc.unary_unary_rpc_method_handler(recommend, pb.RecommendRequest.FromString, encoded),
        "Rank": grpc.unary_unary_rpc_method_handler(recommend, pb.RankRequest.FromString, encoded),
        "RecordEvents": grpc.stream_unary_rpc_method_handler(record_events, pb.Event.FromString, encoded),
    }
    service = pb.DESCRIPTOR.services_by_name["Recommendations"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
