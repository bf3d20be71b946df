"""The two endpoints that answer shoppers, from a request's bytes to the answer's: what both ways to them share."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from service.call import read_call
from service.errors import LOOKS, NotReady, Overloaded, look
from service.http.respond import Observer, Reply, problem_reply
from service.http.strict import StrictDecoder
from service.http.tape import Recorder
from service.problems import FAILED
from service.recommend import Recommender
from service.trace import Trace
from service.wire import RankRequest, RecommendRequest

RECOMMENDATIONS, RANK = "/v1/recommendations", "/v1/rank"
JSON = "application/json"

log = logging.getLogger(__name__)


class Answers:
    """Decodes, calls, encodes. `recommender` is None until the models are loaded; `most_body` is in bytes."""

    def __init__(self, observer: Observer, most_body: int) -> None:
        self.observer, self.most_body = observer, most_body
        self.recommender: Recommender | None = None
        self.capture: Recorder | None = None
        self.decoders = {RECOMMENDATIONS: StrictDecoder(RecommendRequest), RANK: StrictDecoder(RankRequest)}
        self.paths: Mapping[bytes, str] = {path.encode("ascii"): path for path in self.decoders}

    def answering(self) -> Recommender:
        if self.recommender is None:
            raise NotReady("the model is being loaded")
        return self.recommender

    async def answer(self, path: str, body: bytes, headers: Mapping[str, str], trace: Trace) -> Reply:
        """`headers` are looked up by lower-case names. Raises what decoding and `Recommender` raise."""
        with trace("decode"):
            wanted = self.decoders[path].decode(body)
        call, recommender = read_call(headers), self.answering()
        ask = recommender.recommend if path == RECOMMENDATIONS else recommender.rank
        answer = await ask(wanted, trace, call)
        with trace("encode_json"):
            encoded = msgspec.json.encode(answer)
        self.observer.recommended(answer, trace)
        return Reply(200, JSON, encoded, {"Server-Timing": trace.server_timing()})

    async def reply(self, path: str, body: bytes, headers: Mapping[str, str], trace: Trace) -> Reply:
        """The answer, or problem details where there is none; the observer is told of either."""
        status = 499  # the client went away
        try:
            reply = await self.answer(path, body, headers, trace)
            status = reply.status
        except Exception as error:
            found = look(error)
            if found is None:
                log.exception("%s failed", path)
                reply = problem_reply(FAILED, "", trace)
            else:
                reply = problem_reply(found, str(error), trace, getattr(error, "errors", ()))
            status = reply.status
        finally:
            self.observer.answered(path, status, trace)
        return reply

    def refuse(self, path: str, trace: Trace) -> Reply | None:
        """The answer to a request that nobody would be let in for; None where somebody would."""
        if self.recommender is None or path not in self.decoders or not self.recommender.limiter.full():
            return None
        error = self.recommender.limiter.refuse()
        self.observer.answered(path, LOOKS[Overloaded].status, trace)
        return problem_reply(LOOKS[Overloaded], str(error), trace)
