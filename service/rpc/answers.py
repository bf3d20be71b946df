"""`endcap.v1.Recommendations`: decode, call, encode, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from service.errors import MalformedBody, NotReady, ServiceError
from service.events import LONGEST_LINE, Row
from service.http.intake import EventDoor
from service.recommend import Recommender
from service.rpc import codec
from service.rpc.calls import AnswerObserver, Caller
from service.rpc.patience import Patience
from service.rpc.stubs import recommendations_pb2 as pb
from service.trace import Trace
from service.turns import Ask, Request
from service.wire import Recommendation


class Answers:
    """The calls that have one reply. What they share with a stream of requests is `read` and `encoded`."""

    def __init__(
        self, answering: Callable[[], Recommender], events: Callable[[], EventDoor | None], observer: AnswerObserver,
        patience: Patience,
    ) -> None:  # fmt: skip
        """`answering` raises NotReady until the models are loaded; `events` is None until the store is known."""
        self.answering, self.events, self.observer, self.patience = answering, events, observer, patience

    async def recommend_call(self, context: Any, trace: Trace) -> Any:
        caller, message = await self.asked(context, pb.RecommendRequest, trace)
        return await self.answer("recommend", message, caller, trace)

    async def rank_call(self, context: Any, trace: Trace) -> Any:
        caller, message = await self.asked(context, pb.RankRequest, trace)
        return await self.answer("rank", message, caller, trace)

    async def asked(self, context: Any, kind: Any, trace: Trace) -> tuple[Caller, Any]:
        """Who calls, and the only message. A call that nobody would be let in for is refused before that is read."""
        self.let_in()
        data = await self.patience.only(context)
        with trace("decode"):
            return Caller(context), codec.parsed(kind, data)

    def let_in(self) -> Recommender:
        """Raises NotReady, or Overloaded where nobody would be let in."""
        recommender = self.answering()
        if recommender.limiter.full():
            raise recommender.limiter.refuse()
        return recommender

    async def answer(self, which: str, message: Any, caller: Caller, trace: Trace) -> Any:
        ask, wanted = self.read(which, message, trace)
        return self.encoded(await ask(wanted, trace, caller.call()), trace)

    def read(self, which: str, message: Any, trace: Trace) -> tuple[Ask, Request]:
        """Whom to ask, to `recommend` or to `rank`, and what. Raises NotReady or InvalidRequest."""
        recommender = self.answering()
        with trace("decode"):
            if which == "recommend":
                return recommender.recommend, codec.recommend_request(message)
            return recommender.rank, codec.rank_request(message)

    def encoded(self, answer: Recommendation, trace: Trace) -> Any:
        with trace("encode_protobuf"):
            message = codec.recommendation(answer)
        self.observer.recommended(answer, trace)
        return message

    async def record_events(self, context: Any, trace: Trace) -> Any:
        events = self.events()
        if events is None:
            raise NotReady("the feature store is not known yet")
        taken = await events.rows(self.event_rows(context))
        self.observer.events_taken(taken)
        return codec.events_accepted(taken)

    async def event_rows(self, context: Any) -> AsyncIterator[Row]:
        """Each message as a row, or what is wrong with it. Raises DeadlineExceeded where none comes."""
        while (data := await self.patience.read(context, self.patience.stall_s)) is not None:
            yield event_row(data)


def event_row(data: bytes) -> Row:
    if len(data) > LONGEST_LINE:
        return MalformedBody(f"the event is longer than {LONGEST_LINE:,} bytes")
    try:
        return codec.plain(codec.parsed(pb.Event, data))
    except ServiceError as error:
        return error
