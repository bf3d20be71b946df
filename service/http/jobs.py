"""`/v1/jobs`: work that outlives a request; and `/v1/webhooks/dead`, for who has the admin key."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from service.accept import NDJSON
from service.errors import FieldError, InvalidRequest, Look, NotAcceptable, NotReady
from service.http.intake import chunks
from service.http.respond import body, body_type, problem
from service.http.strict import StrictDecoder
from service.jobs.result import Result, as_arrow, part
from service.jobs.wire import JobList, JobRequest, JobStatus, Kind
from service.trace import Trace
from service.webhooks.wire import DeadList, DeadWebhook

ARROW = "application/vnd.apache.arrow.stream"
KEY, REPLAYED, STATE = "Idempotency-Key", "Idempotency-Replayed", "Endcap-Job-State"
MOST_KEY = 255
QUERY = ("kind", "placement", "count", "model_version", "callback_url")
"""What the query of an upload may say."""
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
BEYOND = Look(416, "range-not-satisfiable", "The result does not have that range (yet)")


class Jobs(Protocol):
    async def create(self, asked: JobRequest, body: bytes, key: str | None) -> tuple[JobStatus, bool]: ...

    async def upload(
        self, kind: Kind, fields: dict[str, Any], callback_url: str | None, chunks: AsyncIterator[bytes],
        key: str | None, *, arrow: bool,
    ) -> tuple[JobStatus, bool]: ...  # fmt: skip

    async def status(self, job: str) -> JobStatus: ...

    async def all(self) -> JobList: ...

    async def cancel(self, job: str) -> JobStatus: ...

    async def result(self, job: str) -> Result: ...


class Webhooks(Protocol):
    async def dead(self) -> DeadList: ...

    async def resend(self, name: str) -> DeadWebhook: ...


class JobsApi:
    """`jobs` and `webhooks` are set once the models are loaded. `admit` raises for who lacks the admin key."""

    def __init__(self, admit: Callable[[web.Request], None]) -> None:
        self.admit = admit
        self.jobs: Jobs | None = None
        self.webhooks: Webhooks | None = None
        self.decoder = StrictDecoder(JobRequest)

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/jobs", self.create)
        app.router.add_get("/v1/jobs", self.all_jobs)
        app.router.add_get("/v1/jobs/{job_id}", self.status)
        app.router.add_delete("/v1/jobs/{job_id}", self.cancel)
        app.router.add_get("/v1/jobs/{job_id}/result", self.result)
        app.router.add_get("/v1/webhooks/dead", self.dead)
        app.router.add_post("/v1/webhooks/dead/{webhook_id}/resend", self.resend)

    async def create(self, request: web.Request) -> web.Response:
        jobs, key = self.ready(), key_of(request)
        media = body_type(request, "application/json", NDJSON, ARROW)
        if media == "application/json":
            data = await body(request)
            status, new = await jobs.create(self.decoder.decode(data), data, key)
        else:
            kind, fields, callback_url = said(request)
            status, new = await jobs.upload(kind, fields, callback_url, chunks(request), key, arrow=media == ARROW)
        answer = encoded(status, 202 if new else 200)
        answer.headers["Location"] = f"/v1/jobs/{status.id}"
        if not new:
            answer.headers[REPLAYED] = "true"
        return answer

    async def all_jobs(self, request: web.Request) -> web.Response:
        return encoded(await self.ready().all())

    async def status(self, request: web.Request) -> web.Response:
        return encoded(await self.ready().status(request.match_info["job_id"]))

    async def cancel(self, request: web.Request) -> web.Response:
        status = await self.ready().cancel(request.match_info["job_id"])
        return encoded(status, 202 if status.ended_at is None else 200)

    async def result(self, request: web.Request) -> web.StreamResponse:
        result = await self.ready().result(request.match_info["job_id"])
        wanted = kind_of(request)
        headers = {STATE: result.state, "Vary": "Accept"}
        if wanted == ARROW:
            answer = web.StreamResponse(headers={**headers, "Content-Type": ARROW})
            return await streamed(request, answer, as_arrow(result))
        # What there is of it will never be other bytes, so one tag stands for all of its lengths.
        headers |= {"Content-Type": NDJSON, "ETag": f'"{result.job}"', "Accept-Ranges": "bytes"}
        start, end = 0, result.size
        if (found := range_of(request, headers["ETag"])) is not None:
            start, end = bounds(*found, result.size)
            if start >= end:
                refusal = problem(
                    BEYOND, f"the result has {result.size:,} bytes, and the job is {result.state}", Trace()
                )
                refusal.headers.update({STATE: result.state, "Content-Range": f"bytes */{result.size}"})
                return refusal
            whole = result.size if result.whole else "*"
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{whole}"
        answer = web.StreamResponse(status=200 if found is None else 206, headers=headers)
        answer.content_length = end - start
        return await streamed(request, answer, part(result, start, end))

    async def dead(self, request: web.Request) -> web.Response:
        self.admit(request)
        return encoded(await self.sent().dead())

    async def resend(self, request: web.Request) -> web.Response:
        self.admit(request)
        return encoded(await self.sent().resend(request.match_info["webhook_id"]), 202)

    def ready(self) -> Jobs:
        if self.jobs is None:
            raise NotReady("the model is being loaded")
        return self.jobs

    def sent(self) -> Webhooks:
        if self.webhooks is None:
            raise NotReady("the model is being loaded")
        return self.webhooks


def key_of(request: web.Request) -> str | None:
    """Raises InvalidRequest."""
    key = request.headers.get(KEY)
    if key is not None and not (0 < len(key) <= MOST_KEY and key.isprintable() and key.isascii()):
        raise InvalidRequest(FieldError(KEY, f"Expected 1 to {MOST_KEY} printable ASCII characters"))
    return key


def said(request: web.Request) -> tuple[Kind, dict[str, Any], str | None]:
    """What the query of an upload says: the kind, what each row leaves out, whom to tell. Raises InvalidRequest."""
    found = dict(request.query)
    if unknown := [one for one in found if one not in QUERY]:
        raise InvalidRequest(
            *(FieldError(one[:100], f"Unknown parameter; known: {', '.join(QUERY)}") for one in unknown)
        )
    if twice := next((one for one in found if len(request.query.getall(one)) > 1), None):
        raise InvalidRequest(FieldError(twice, "stands twice in the query"))
    fields: dict[str, Any] = {name: found[name] for name in ("placement", "model_version") if name in found}
    if "count" in found:
        if not re.fullmatch(r"[0-9]{1,6}", found["count"]):
            raise InvalidRequest(FieldError("count", f"is {found['count'][:100]!r}, expected a number"))
        fields["count"] = int(found["count"])
    try:
        kind: Kind = msgspec.convert(found.get("kind", "recommendations"), Kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(FieldError("kind", "Expected recommendations or rank")) from error
    return kind, fields, found.get("callback_url")


def kind_of(request: web.Request) -> str:
    """The first media type of `Accept` that a result has. Raises NotAcceptable."""
    accepted = [one.partition(";")[0].strip().lower() for one in request.headers.get("Accept", "*/*").split(",")]
    for one in accepted:
        if one == ARROW:
            return ARROW
        if one in (NDJSON, "*/*", "application/*"):
            return NDJSON
    raise NotAcceptable(f"there are {NDJSON} and {ARROW}")


def range_of(request: web.Request, tag: str) -> tuple[str, str] | None:
    """The range that is asked for; None where there is none, or one of which the whole may be sent instead."""
    if request.headers.get("If-Range", tag) != tag:
        return None
    found = RANGE.fullmatch(request.headers.get("Range", "").strip())
    return None if found is None or found[1] + found[2] == "" else (found[1], found[2])


def bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """From the first byte up to the last one, of so many; nothing where they are not there."""
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


async def streamed(request: web.Request, answer: web.StreamResponse, parts: AsyncIterator[bytes]) -> web.StreamResponse:
    await answer.prepare(request)
    if request.method != "HEAD":
        async for one in parts:
            await answer.write(one)
    await answer.write_eof()
    return answer


def encoded(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")
