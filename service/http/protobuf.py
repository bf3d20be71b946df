"""Protobuf over HTTP: the messages of proto/endcap/v1 in place of JSON, for what answers shoppers and takes in events.

What knows Protobuf is imported with the first such request (decision 11: what serves loads little).
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from service.accept import JSON, PROTOBUF, chosen, quality
from service.call import read_call
from service.errors import InvalidRequest
from service.http.answers import RECOMMENDATIONS, Answers
from service.http.respond import PROBLEM, Reply
from service.trace import Trace
from service.wire import Accepted, Problem, Recommendation

Formats = tuple[str, str]
"""The media types of a body and of its answer."""


def accept_of(request: web.Request) -> str | None:
    """All of `Accept`, which may stand in several lines; None where it is not there."""
    return ", ".join(request.headers.getall("Accept", ())) or None


def answer_type(request: web.Request, body_type: str) -> str:
    """What to answer with: of equally welcome types that of the body. Raises NotAcceptable."""
    return chosen(accept_of(request), (PROTOBUF, JSON) if body_type == PROTOBUF else (JSON, PROTOBUF))


async def answer(answers: Answers, request: web.Request, trace: Trace, data: bytes, formats: Formats) -> Reply:
    """What `Answers.answer` does, where the body, the answer or both are Protobuf. Raises what that raises."""
    path = request.path
    with trace("decode"):
        wanted = answers.decoders[path].decode(data) if formats[0] == JSON else read_request(path, data)
    call, recommender = read_call(request.headers), answers.answering()
    ask = recommender.recommend if path == RECOMMENDATIONS else recommender.rank
    found = await ask(wanted, trace, call)
    if formats[1] == JSON:
        with trace("encode_json"):
            encoded = msgspec.json.encode(found)
    else:
        with trace("encode_protobuf"):
            encoded = write(found)
    answers.observer.recommended(found, trace)
    return Reply(200, formats[1], encoded, {"Server-Timing": trace.server_timing()})


def read_request(path: str, data: bytes) -> Any:
    """A RecommendRequest or a RankRequest. Raises MalformedBody or InvalidRequest."""
    from service.rpc import codec
    from service.rpc.stubs import recommendations_pb2 as pb

    if path == RECOMMENDATIONS:
        return codec.recommend_request(codec.parsed(pb.RecommendRequest, data))
    return codec.rank_request(codec.parsed(pb.RankRequest, data))


def read_events(data: bytes) -> list[dict[str, Any] | InvalidRequest]:
    """The rows of an EventsRequest: plain values, or what is wrong with one. Raises MalformedBody or InvalidRequest."""
    from service.rpc import codec
    from service.rpc.stubs import recommendations_pb2 as pb

    return [codec.event_row(one) for one in codec.parsed(pb.EventsRequest, data).events]


def write(content: Recommendation | Accepted) -> bytes:
    from service.rpc import codec

    if isinstance(content, Recommendation):
        return bytes(codec.recommendation(content).SerializeToString())
    return bytes(codec.events_accepted(content).SerializeToString())


def as_accepted(response: web.StreamResponse, request: web.Request) -> web.StreamResponse:
    """Problem details as the message Problem where the client takes no JSON; whatever else it is, the same."""
    accept = accept_of(request) or ""
    if PROTOBUF not in accept.lower() or not isinstance(response, web.Response) or response.content_type != PROBLEM:
        return response
    if max(quality(PROBLEM, accept), quality(JSON, accept)) > 0 or quality(PROTOBUF, accept) <= 0:
        return response
    from service.rpc import codec

    assert isinstance(response.body, bytes)
    found = codec.problem_of(msgspec.json.decode(response.body, type=Problem))
    response.body, response.content_type = found.SerializeToString(), PROTOBUF
    return response
