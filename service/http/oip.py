"""The Open Inference Protocol, version 2, over HTTP: JSON, and tensors as bytes behind it (its binary extension).

Errors are the protocol's, `{"error": "…"}`, with the statuses that `service.errors` has; what is wrong with a request
is 400.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson
from aiohttp import web

from service.errors import FieldError, InvalidRequest, MalformedBody, NotReady, look
from service.http.respond import check_coding, detail_of, read_body
from service.http.strict import StrictDecoder
from service.oip_wire import Given, InferenceModels, InferInput, Inferred, InferRequest, configuration, server_metadata

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The bytes of a body's JSON, where tensors follow it."""
EXTENSION = "binary_tensor_data"
MICROSECONDS = 1e-6
LARGE = 1 << 16
"""Bytes of JSON that take a millisecond to read: more are read by a thread, so that the shoppers have their turns."""


class OipApi:
    """`models` is set once they are loaded. `ready` says why the service is not ready, or None."""

    def __init__(self, ready: Callable[[], Awaitable[str | None]]) -> None:
        self.ready = ready
        self.models: InferenceModels | None = None
        self.decoder = StrictDecoder(InferRequest)

    def add_to(self, app: web.Application) -> None:
        """Its paths; whatever else is below /v2 is refused in the protocol's own way, as are other methods."""
        router = app.router
        router.add_get("/v2", told(self.server))
        router.add_get("/v2/health/live", told(self.live))
        router.add_get("/v2/health/ready", told(self.server_ready))
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            router.add_get(model, told(self.metadata))
            router.add_get(f"{model}/config", told(self.config))
            router.add_get(f"{model}/ready", told(self.model_ready))
            router.add_post(f"{model}/infer", told(self.infer))
        router.add_route("*", "/v2/{rest:.*}", told(nothing))

    async def server(self, request: web.Request) -> web.Response:
        return answer(msgspec.json.encode(server_metadata(EXTENSION)))

    async def live(self, request: web.Request) -> web.Response:
        return answer(b'{"live":true}')

    async def server_ready(self, request: web.Request) -> web.Response:
        if why := await self.ready():
            raise NotReady(why)
        return answer(b'{"ready":true}')

    async def metadata(self, request: web.Request) -> web.Response:
        return answer(msgspec.json.encode(self.loaded().metadata(*asked(request))))

    async def config(self, request: web.Request) -> web.Response:
        return answer(msgspec.json.encode(configuration(self.loaded().metadata(*asked(request)))))

    async def model_ready(self, request: web.Request) -> web.Response:
        found = self.loaded().metadata(*asked(request))
        return answer(orjson.dumps({"name": found.name, "ready": True}))

    async def infer(self, request: web.Request) -> web.Response:
        models = self.loaded()
        check_coding(request)
        head, tensors = split(await read_body(request), request.headers.get(HEADER_LENGTH))
        with models.admitted():
            wanted = await self.decoded(bytes(head))
            only(wanted.parameters, {"binary_data_output": bool, "timeout": int})
            for output in wanted.outputs:
                only(output.parameters, {"binary_data": bool}, f"outputs {output.name[:100]!r}: ")
            inputs = given(wanted.inputs, tensors)
            timeout = timeout_of(wanted.parameters)
            names = [one.name for one in wanted.outputs]
            found = await models.infer(*asked(request), inputs, names, timeout)
        binary = wanted.parameters.get("binary_data_output", False)
        for output in wanted.outputs:
            binary = output.parameters.get("binary_data", binary)
        return inferred(found, wanted.id, binary)

    async def decoded(self, head: bytes) -> InferRequest:
        """Raises MalformedBody or InvalidRequest."""
        large = len(head) > LARGE
        found: InferRequest = await asyncio.to_thread(self.decoder.decode, head) if large else self.decoder.decode(head)
        return found

    def loaded(self) -> InferenceModels:
        if self.models is None:
            raise NotReady("the model is being loaded")
        return self.models


def told(handler: Handler) -> Handler:
    """The handler, its errors in the protocol's form."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return refusal(error.status, detail_of(error, request))
        except Exception as error:
            found = look(error)
            if found is None:
                log.exception("%s failed", request.path)
                return refusal(500, "the service failed on this request")
            status = 400 if isinstance(error, InvalidRequest) else found.status
            return refusal(status, str(error) or found.title, found.retry_after_s)

    return handle


async def nothing(request: web.Request) -> web.Response:
    raise web.HTTPNotFound


def refusal(status: int, message: str, retry_after_s: int | None = None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response({"error": message}, status=status, headers=headers)


def answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def asked(request: web.Request) -> tuple[str, str]:
    """The model and the version, "" where none is named."""
    return request.match_info["model"], request.match_info.get("version", "")


def split(body: bytes, length: str | None) -> tuple[memoryview, memoryview]:
    """A body's JSON, and the tensors behind it. Raises MalformedBody."""
    whole = memoryview(body)
    if length is None:
        return whole, whole[:0]
    if not (length.isascii() and length.isdecimal() and len(length) < 20) or int(length) > len(body):
        raise MalformedBody(f"{HEADER_LENGTH} is {length[:100]!r}, expected 0 to {len(body)}, the size of the body")
    return whole[: int(length)], whole[int(length) :]


def given(inputs: Sequence[InferInput], tensors: memoryview) -> list[Given]:
    """Each input with its values, or its part of the bytes. Raises InvalidRequest where these are not all used up."""
    found, at = [], 0
    for one in inputs:
        only(one.parameters, {"binary_data_size": int}, f"inputs {one.name[:100]!r}: ")
        size = one.parameters.get("binary_data_size")
        if (size is None) == (one.data is msgspec.UNSET):
            raise InvalidRequest(FieldError(one.name[:100], "expected either data or binary_data_size"))
        if size is None:
            assert one.data is not msgspec.UNSET
            found.append(Given(one.name, one.datatype, one.shape, one.data))
            continue
        if not 0 <= size <= len(tensors) - at:
            left = len(tensors) - at
            raise InvalidRequest(FieldError(one.name[:100], f"binary_data_size is {size}, but {left:,} bytes are left"))
        found.append(Given(one.name, one.datatype, one.shape, tensors[at : at + size]))
        at += size
    if at != len(tensors):
        raise InvalidRequest(FieldError("", f"{len(tensors) - at:,} bytes behind the JSON belong to no input"))
    return found


def only(parameters: Mapping[str, Any], known: Mapping[str, type], where: str = "") -> None:
    """Raises InvalidRequest for a parameter that is not known, or of another type."""
    for name, value in parameters.items():
        if name not in known:
            message = f"unknown parameter {name[:100]!r}; known: {', '.join(known)}"
            raise InvalidRequest(FieldError("", where + message))
        if type(value) is not known[name]:
            expected = {bool: "true or false", int: "an integer"}[known[name]]
            raise InvalidRequest(FieldError("", f"{where}parameter {name} is no {expected}"))


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds; the protocol's `timeout` is in microseconds. Raises InvalidRequest."""
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if not 0 < timeout < 1 << 63:
        raise InvalidRequest(FieldError("", f"parameter timeout is {timeout}, expected microseconds above 0"))
    return float(timeout) * MICROSECONDS


def inferred(found: Inferred, name: str, binary: bool) -> web.Response:
    output: dict[str, Any] = {"name": found.name, "datatype": "FP32", "shape": list(found.values.shape)}
    tensor = found.values.astype("<f4", copy=False).tobytes() if binary else b""
    if binary:
        output["parameters"] = {"binary_data_size": len(tensor)}
    else:
        output["data"] = found.values.ravel()
    content = {"model_name": found.model, "model_version": found.version, "outputs": [output]}
    head = orjson.dumps({**content, "id": name} if name else content, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return answer(head)
    headers = {HEADER_LENGTH: str(len(head))}
    return web.Response(body=head + tensor, headers=headers, content_type="application/octet-stream")
