"""`RecommendStream`: many requests on one call, each answered as soon as it is done, each failing alone."""

from __future__ import annotations

import asyncio
from typing import Any

from service.errors import FieldError, InvalidRequest
from service.rpc import codec
from service.rpc.answers import Answers
from service.rpc.calls import GONE, Caller, detail, ended, ending, looked
from service.rpc.patience import Patience
from service.rpc.stubs import recommendations_pb2 as pb
from service.trace import Trace

MOST_IN_FLIGHT = 64
"""Requests of one stream that are being answered, or whose answers wait to be taken; beyond it nothing more is read."""
LONGEST_ID = 64
"""Characters of a caller's id."""


class Streams:
    """Serves streams. `endpoint` is what their requests are counted under, each as one."""

    def __init__(self, endpoint: str, answers: Answers, patience: Patience) -> None:
        self.endpoint, self.answers, self.patience = endpoint, answers, patience

    async def handle(self, _: Any, context: Any) -> None:
        """A handler of grpc.aio's. Ends with a status that says why, unless the client has sent all."""
        async with ending(context, self.endpoint):
            await self.serve(context)

    async def serve(self, context: Any) -> None:
        """Raises what ends the stream; a group where it came of several at once."""
        caller, room = Caller(context), asyncio.Semaphore(MOST_IN_FLIGHT)
        writer = self.patience.writer(context)

        async def one(data: bytes, trace: Trace) -> None:
            try:
                reply = await self.reply(data, caller, trace)
                await writer.write(reply.SerializeToString())
            finally:
                room.release()

        last: Exception | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                try:
                    data = await self.patience.read(context, self.patience.idle_s)
                except Exception as error:  # noqa: BLE001 - raised once what is in flight has been answered
                    last = error
                    break
                if data is None:
                    break
                group.create_task(one(data, Trace()))
        if last is not None:
            raise last

    async def reply(self, data: bytes, caller: Caller, trace: Trace) -> Any:
        """A pb.StreamReply: an answer, or the problem with this request."""
        reply, status = pb.StreamReply(), GONE
        try:
            self.answers.let_in()
            message = codec.parsed(pb.StreamRequest, data)
            reply.id = message.id[:LONGEST_ID]
            reply.recommendation.CopyFrom(await self.ask(message, caller, trace))
            status = 200
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends nothing but this request
            found = looked(error, self.endpoint)
            status = found.status
            reply.problem.CopyFrom(codec.problem(found, detail(found, error), getattr(error, "errors", ())))
        finally:
            self.answers.observer.answered(self.endpoint, ended(status, caller.context), trace)
        return reply

    async def ask(self, message: Any, caller: Caller, trace: Trace) -> Any:
        if len(message.id) > LONGEST_ID:
            raise InvalidRequest(FieldError("id", f"Expected at most {LONGEST_ID} characters, got {len(message.id)}"))
        which = message.WhichOneof("request")
        if which is None:
            raise InvalidRequest(FieldError("request", "Expected recommend or rank, got neither"))
        ask = self.answers.recommend if which == "recommend" else self.answers.rank
        return await ask(getattr(message, which), caller, trace)
