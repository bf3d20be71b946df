"""`RecommendStream`: many requests on one call, each answered as soon as it is done, each failing alone."""

from __future__ import annotations

import asyncio
from typing import Any

from service.errors import FieldError, InvalidRequest, NotReady
from service.ladder import PRESSURE
from service.rpc import codec
from service.rpc.answers import Answers
from service.rpc.calls import GONE, Caller, detail, ended, ending, looked
from service.rpc.patience import Patience
from service.rpc.stubs import recommendations_pb2 as pb
from service.trace import Trace
from service.turns import Turns

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
        caller, places = Caller(context), asyncio.Semaphore(MOST_IN_FLIGHT)
        writer, turns, under_way = self.patience.writer(context), Turns(self.room_for_bulk), 0

        async def one(data: bytes, trace: Trace) -> None:
            nonlocal under_way
            try:
                reply = await self.reply(data, caller, turns, trace)
                turns.look()
                await writer.write(reply.SerializeToString())
            finally:
                under_way -= 1
                places.release()
                turns.look()

        last: Exception | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                await places.acquire()
                while under_way and not (caller.said.bulk or self.room()):
                    await turns.pause()
                try:
                    data = await self.patience.read(context, self.patience.idle_s)
                except Exception as error:  # noqa: BLE001 - raised once what is in flight has been answered
                    last = error
                    break
                if data is None:
                    break
                under_way += 1
                group.create_task(one(data, Trace()))
                await asyncio.sleep(0)  # it is in by now, so that the gate knows of it when the next one is thought of
        if last is not None:
            raise last

    def room(self) -> bool:
        """Whether one more would be answered whole, as far as the gate can say. True where there is none yet: who asks
        then is told so."""
        try:
            return self.answers.answering().limiter.room(PRESSURE[0])
        except NotReady:
            return True

    def room_for_bulk(self) -> bool:
        return self.answers.answering().limiter.room_for_bulk()

    async def reply(self, data: bytes, caller: Caller, turns: Turns, trace: Trace) -> Any:
        """A pb.StreamReply: an answer, or the problem with this request."""
        reply, status = pb.StreamReply(), GONE
        try:
            with trace("decode"):
                message = codec.parsed(pb.StreamRequest, data)
            reply.id = message.id[:LONGEST_ID]
            reply.recommendation.CopyFrom(await self.ask(message, caller, turns, trace))
            status = 200
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends nothing but this request
            found = looked(error, self.endpoint)
            status = found.status
            reply.problem.CopyFrom(codec.problem(found, detail(found, error), getattr(error, "errors", ())))
        finally:
            self.answers.observer.answered(self.endpoint, ended(status, caller.context), trace)
        return reply

    async def ask(self, message: Any, caller: Caller, turns: Turns, trace: Trace) -> Any:
        """A pb.Recommendation. A bulk request waits until there is room for it, others are let in or refused."""
        if len(message.id) > LONGEST_ID:
            raise InvalidRequest(FieldError("id", f"Expected at most {LONGEST_ID} characters, got {len(message.id)}"))
        which = message.WhichOneof("request")
        if which is None:
            raise InvalidRequest(FieldError("request", "Expected recommend or rank, got neither"))
        ask, wanted = self.answers.read(which, getattr(message, which), trace)
        recommender, call = self.answers.answering(), caller.call()
        if recommender.bulk(wanted, call):
            within_s = self.patience.idle_s if call.timeout_s is None else min(call.timeout_s, self.patience.idle_s)
            until = trace.began + within_s
            answer = await turns.answer(ask, wanted, call, until, recommender.most_s, trace)
        else:
            self.answers.let_in()
            answer = await ask(wanted, trace, call)
        return self.answers.encoded(answer, trace)
