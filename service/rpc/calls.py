"""What every call of ours shares: an error becomes a status with details, and the observer is told of each call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc.aio

from service.call import HEADERS, Call, read_call
from service.errors import LOOKS, DeadlineExceeded, Look, look
from service.problems import FAILED
from service.rpc.status import CODES, DETAILS, details, message_of
from service.trace import Trace
from service.wire import Accepted, Recommendation

GONE = 499
"""The status of a call whose client went away, as over HTTP."""
TIMING = "server-timing"

Serve = Callable[[Any, Trace], Awaitable[Any]]

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Told of every request when it ends, however it ends."""

    def answered(self, endpoint: str, status: int, trace: Trace) -> None: ...


class AnswerObserver(Observer, Protocol):
    """Told of what was answered, too."""

    def recommended(self, answer: Recommendation, trace: Trace) -> None: ...

    def events_taken(self, taken: Accepted) -> None: ...


def observed(endpoint: str, serve: Serve, observer: Observer) -> Callable[[Any, Any], Awaitable[bytes]]:
    """A handler of grpc.aio's that answers with what `serve` returns, or with the status of what it raises."""

    async def handle(_: Any, context: Any) -> bytes:
        trace = Trace()
        status, failed, encoded = GONE, None, b""
        try:
            encoded = (await serve(context, trace)).SerializeToString()
            status = 200
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told a status
            failed, found = error, looked(error, endpoint)
            status = found.status
        finally:  # before the client hears of it, who may look
            observer.answered(endpoint, ended(status, context), trace)
        if failed is not None:
            await abort(context, found, failed, trace)
        if trace.stages:
            context.set_trailing_metadata(((TIMING, trace.server_timing()),))
        return encoded

    return handle


@asynccontextmanager
async def ending(context: Any, endpoint: str) -> AsyncIterator[None]:
    """Ends a stream with the status of what its block raises; of a group, of what came first."""
    trace = Trace()
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        await abort(context, looked(error, endpoint), error, trace)


async def abort(context: Any, found: Look, error: Exception, trace: Trace) -> None:
    """Ends a call with the status and the details of an error. Raises grpc.aio.AbortError, or CancelledError where the
    client has gone meanwhile."""
    message = message_of(found, detail(found, error))
    told = details(found, message, getattr(error, "errors", ()))
    try:
        await context.abort(CODES[found.status], message, ((DETAILS, told), (TIMING, trace.server_timing())))
    except grpc.aio.InternalError as gone:
        raise asyncio.CancelledError from gone


def looked(error: Exception, endpoint: str) -> Look:
    """How an error looks; the log is told of one that nobody foresaw."""
    found = look(error)
    if found is None:
        log.error("%s failed", endpoint, exc_info=error)
        return FAILED
    return found


def detail(found: Look, error: Exception) -> str:
    """What a client is told; of what nobody foresaw nothing."""
    return "" if found is FAILED else str(error)


def ended(status: int, context: Any) -> int:
    """gRPC cancels a call at its deadline as it does one whose client has gone: they are told apart here."""
    left = context.time_remaining() if status == GONE else None
    return LOOKS[DeadlineExceeded].status if left is not None and left <= 0 else status


class Caller:
    """What a call says of itself: its metadata, read once, and its deadline, which the requests of a stream share."""

    def __init__(self, context: Any) -> None:
        """Raises InvalidRequest for metadata that says nothing that we know."""
        said = {name: value for name, value in context.invocation_metadata() or () if name in HEADERS}
        self.context, self.said = context, read_call(said)

    def call(self) -> Call:
        """With what is left of the deadline, or the shortest timeout that was said."""
        left, said = self.context.time_remaining(), self.said
        if left is None:
            return said
        return Call(left if said.timeout_s is None else min(said.timeout_s, left), said.bulk, said.after)
