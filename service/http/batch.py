"""Many users in one request: `POST /v1/recommendations:batch` and `/v1/rank:batch`, answered as they are done.

What knows Protobuf is imported with the first batch that has it, as in `service.http.protobuf`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from aiohttp import web

from service.accept import ARROW, JSON, NDJSON, PROTOBUF, chosen
from service.call import Call, read_call
from service.errors import DeadlineExceeded, MalformedBody, Overloaded, TooLarge, look
from service.events import split
from service.http.answers import RANK, RECOMMENDATIONS, Answers
from service.http.intake import chunks
from service.http.protobuf import accept_of
from service.http.respond import Observer as AnswerObserver
from service.http.respond import body, body_type
from service.http.strict import StrictDecoder
from service.many import BatchConfig, Done, Many, Rows
from service.many_arrow import Stream, read
from service.many_json import JsonRows, Lines, one_body, refuse_many
from service.problems import FAILED

BATCH = ":batch"
WRITTEN = (NDJSON, ARROW, PROTOBUF)
"""What an answer may be, the first one where nobody says otherwise."""
BODY_S = 30.0
"""In which a whole body has come."""


class Observer(AnswerObserver, Protocol):
    """Told of what becomes of each user of a batch, and of formats."""

    def formatted(self, endpoint: str, body: str, answer: str) -> None: ...

    def of_batch(self, endpoint: str, status: int) -> None: ...


class Encoder(Protocol):
    """Writes an answer, a few outcomes at a time."""

    def begin(self) -> bytes: ...

    def some(self, done: Sequence[Done]) -> bytes: ...

    def end(self) -> bytes: ...


class BatchApi:
    """Reads the requests of a batch, has them answered, and writes what is done as long as somebody reads it."""

    def __init__(self, answers: Answers, observer: Observer, config: BatchConfig) -> None:
        self.answers, self.observer, self.config = answers, observer, config
        self.under_way = 0

    def add_to(self, app: web.Application) -> None:
        for path in (RECOMMENDATIONS, RANK):
            app.router.add_post(path + BATCH, self.take)

    async def take(self, request: web.Request) -> web.StreamResponse:
        kind = body_type(request, JSON, NDJSON, ARROW, PROTOBUF)
        wanted = chosen(accept_of(request), sorted(WRITTEN, key=lambda one: one != kind))
        call, recommender = read_call(request.headers), self.answers.answering()
        path = request.path.removesuffix(BATCH)
        ask: Any = recommender.recommend if path == RECOMMENDATIONS else recommender.rank
        with self.place():
            rows = await self.read(request, kind, self.answers.decoders[path])
            self.observer.formatted(request.path, kind, wanted)
            many = Many(
                ask, recommender.limiter.room_for_bulk, self.observer.recommended, self.config,
                each_s=recommender.most_s,
            )  # fmt: skip
            return await self.stream(request, many, rows, replace(call, bulk=True), wanted)

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the batches that are under way. Raises Overloaded where there are enough."""
        if self.under_way >= self.config.at_once:
            raise Overloaded(
                f"{self.under_way} of at most {self.config.at_once} batches are being answered (batch.at_once)"
            )
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def read(self, request: web.Request, kind: str, decoder: StrictDecoder) -> Rows:
        """The requests. Raises MalformedBody, InvalidRequest, TooLarge or DeadlineExceeded."""
        most = self.config.max_users
        if kind == JSON:
            data = await body(request)
            return await asyncio.to_thread(one_body, data, decoder, most)
        try:
            async with asyncio.timeout(BODY_S):
                if kind == NDJSON:
                    lines: list[bytes | None] = []
                    async for line in split(self.bounded(request), self.answers.most_body):
                        lines.append(None if isinstance(line, MalformedBody) else line)
                        refuse_many(len(lines), most)
                    return JsonRows(lines, decoder, {})
                whole = bytearray()
                async for chunk in self.bounded(request):
                    whole += chunk
        except TimeoutError as error:
            raise DeadlineExceeded(f"the body did not arrive in {BODY_S:g} s") from error
        if kind == ARROW:
            return await asyncio.to_thread(read, whole, decoder, most)
        from service import many_protobuf

        return await asyncio.to_thread(many_protobuf.read, whole, decoder, most, self.answers.most_body)

    async def bounded(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body as it comes. Raises TooLarge."""
        most, size = self.config.max_body_bytes, 0
        async for chunk in chunks(request):
            size += len(chunk)
            if size > most:
                raise TooLarge(f"a body may have {most:,} bytes, decompressed (batch.max_body_bytes)")
            yield chunk

    async def stream(self, request: web.Request, many: Many, rows: Rows, call: Call, wanted: str) -> web.StreamResponse:
        """Writes what is done. The connection of a client that does not read is closed: there is no other way left to
        tell it."""
        response = web.StreamResponse(headers={"Content-Type": wanted})
        encoder = encoder_of(wanted)

        async def send(data: bytes) -> None:
            if data:
                async with asyncio.timeout(self.config.write_timeout_s):
                    await response.write(data)

        async def write(done: list[Done]) -> None:
            for one in done:
                self.observer.of_batch(request.path, status_of(one))
            await send(encoder.some(done))

        try:
            async with asyncio.timeout(self.config.timeout_s + self.config.write_timeout_s):
                await response.prepare(request)
                await send(encoder.begin())
                await many.answer(rows, call, write)
                await send(encoder.end())
                await response.write_eof()
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        return response


def encoder_of(wanted: str) -> Encoder:
    if wanted != PROTOBUF:
        return Stream() if wanted == ARROW else Lines()
    from service.many_protobuf import Delimited

    return Delimited()


def status_of(one: Done) -> int:
    if not isinstance(one.outcome, Exception):
        return 200
    return (look(one.outcome) or FAILED).status
