"""The Open Inference Protocol, version 2, over gRPC: `inference.GRPCInferenceService` (proto/inference)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import grpc
import msgspec
from google.protobuf.message import DecodeError

from service.errors import FieldError, InvalidRequest, MalformedBody, NotReady, look
from service.oip_wire import Given, InferenceModels, Inferred, TensorSpec, configuration, server_metadata
from service.rpc.stubs import grpc_service_pb2 as pb
from service.trace import Trace

log = logging.getLogger(__name__)

Answer = Callable[[Any, float | None], Awaitable[Any]]
"""From a request, and the seconds that its caller waits, to a response."""

SERVICE = "inference.GRPCInferenceService"
CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By the status that an error has over HTTP."""
FINAL_RESPONSE = "triton_enable_empty_final_response"
"""Of streams; `perf_analyzer` says it of every call. Here each has one answer, which is the final one."""
CLIENT_LEFT = 499
MICROSECONDS = 1e-6
MOST_MESSAGE = 1000
"""Characters of a status' message: a client takes 8 KiB of metadata."""


class Observer(Protocol):
    """Told of every request when it ends, however it ends; `status` in the numbers of HTTP."""

    def answered(self, endpoint: str, status: int, trace: Trace) -> None: ...


def add_to(
    server: grpc.aio.Server,
    models: Callable[[], InferenceModels | None],
    ready: Callable[[], Awaitable[str | None]],
    observer: Observer,
) -> None:
    """Registers the service, before the server starts. `models` says what is loaded, None until something is; `ready`
    why the service is not ready, or None."""
    server.add_generic_rpc_handlers((Servicer(models, ready, observer).handler(),))


class Servicer:
    """Decodes, calls, encodes. Messages come as bytes, so that what is no message is refused in our own words."""

    def __init__(
        self,
        models: Callable[[], InferenceModels | None],
        ready: Callable[[], Awaitable[str | None]],
        observer: Observer,
    ) -> None:
        self.models, self.ready, self.observer = models, ready, observer

    def handler(self) -> Any:
        methods: dict[str, tuple[Any, Answer]] = {
            "ServerLive": (pb.ServerLiveRequest, self.live),
            "ServerReady": (pb.ServerReadyRequest, self.server_ready),
            "ModelReady": (pb.ModelReadyRequest, self.model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self.server),
            "ModelMetadata": (pb.ModelMetadataRequest, self.metadata),
            "ModelConfig": (pb.ModelConfigRequest, self.config),
            "ModelInfer": (pb.ModelInferRequest, self.infer),
        }
        handlers = {name: grpc.unary_unary_rpc_method_handler(self.told(name, *one)) for name, one in methods.items()}
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def told(self, name: str, kind: Any, answer: Answer) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """A method whose errors are gRPC statuses, and whose end the observer is told of."""

        async def handle(data: bytes, context: Any) -> bytes:
            trace, status = Trace(), CLIENT_LEFT
            try:
                encoded: bytes = (await answer(decoded(kind, data), context.time_remaining())).SerializeToString()
                status = 200
            except Exception as error:  # noqa: BLE001 - each becomes a status, and one of ours is logged
                status, message = described(error, name)
                await context.abort(CODES[status], message)
            finally:
                self.observer.answered(f"/{SERVICE}/{name}", status, trace)
            return encoded

        return handle

    async def live(self, request: Any, left_s: float | None) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: Any, left_s: float | None) -> Any:
        return pb.ServerReadyResponse(ready=await self.ready() is None)

    async def model_ready(self, request: Any, left_s: float | None) -> Any:
        models = self.models()
        if models is not None:
            models.metadata(request.name, request.version)
        return pb.ModelReadyResponse(ready=models is not None)

    async def server(self, request: Any, left_s: float | None) -> Any:
        found = server_metadata()
        return pb.ServerMetadataResponse(name=found.name, version=found.version, extensions=found.extensions)

    async def metadata(self, request: Any, left_s: float | None) -> Any:
        found = self.loaded().metadata(request.name, request.version)
        inputs, outputs = ([tensor(one) for one in some] for some in (found.inputs, found.outputs))
        return pb.ModelMetadataResponse(
            name=found.name, versions=found.versions, platform=found.platform, inputs=inputs, outputs=outputs
        )

    async def config(self, request: Any, left_s: float | None) -> Any:
        found = configuration(self.loaded().metadata(request.name, request.version))
        return pb.ModelConfigResponse(config=msgspec.to_builtins(found))

    async def infer(self, request: Any, left_s: float | None) -> Any:
        models = self.loaded()
        with models.admitted():
            for one in (*request.inputs, *request.outputs):
                only(one.parameters, where=f"{one.name[:100]!r}: ")
            waits = [one for one in (timeout_of(request), left_s) if one is not None]
            found = await models.infer(
                request.model_name, request.model_version, given(request), [one.name for one in request.outputs],
                min(waits, default=None),
            )  # fmt: skip
        return inferred(found, request.id, raw=bool(request.raw_input_contents))

    def loaded(self) -> InferenceModels:
        """Raises NotReady."""
        models = self.models()
        if models is None:
            raise NotReady("the model is being loaded")
        return models


def decoded(kind: Any, data: bytes) -> Any:
    """A message of this kind. Raises MalformedBody for bytes that are none, InvalidRequest for fields unknown to it."""
    try:
        message = kind.FromString(data)
    except DecodeError as error:
        said = " ".join(str(error).split())[:200]
        raise MalformedBody(f"no {kind.DESCRIPTOR.full_name}: {said}") from error
    whole = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != whole:
        raise InvalidRequest(FieldError("", f"has fields that {kind.DESCRIPTOR.full_name} does not know"))
    return message


def described(error: Exception, method: str) -> tuple[int, str]:
    found = look(error)
    if found is None:
        log.error("%s failed", method, exc_info=error)
        return 500, "the service failed on this request"
    return found.status, (str(error) or found.title)[:MOST_MESSAGE]


def tensor(one: TensorSpec) -> Any:
    return pb.ModelMetadataResponse.TensorMetadata(name=one.name, datatype=one.datatype, shape=one.shape)


def given(request: Any) -> list[Given]:
    """Each input with its bytes, or its values. Raises InvalidRequest where it has both, or those of another type."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            FieldError("raw_input_contents", f"has {len(raw)} tensors, but there are {len(request.inputs)} inputs")
        )
    found = []
    for at, one in enumerate(request.inputs):
        if raw and one.HasField("contents"):
            raise InvalidRequest(FieldError(one.name[:100], "has contents beside raw_input_contents"))
        data = raw[at] if raw else values(one)
        found.append(Given(one.name, one.datatype, one.shape, data))
    return found


def values(one: Any) -> list[Any]:
    """The typed contents of an input. Raises InvalidRequest where they are of another type than it says."""
    wanted = CONTENTS.get(one.datatype)
    filled = [field.name for field, _ in one.contents.ListFields()]
    if wanted is not None and any(name != wanted for name in filled):
        raise InvalidRequest(FieldError(one.name[:100], f"{one.datatype} is in {wanted}, got {', '.join(filled)}"))
    return [] if wanted is None else list(getattr(one.contents, wanted))


def only(parameters: Mapping[str, Any], *known: str, where: str = "") -> None:
    """Raises InvalidRequest for a parameter that is not known."""
    for name in parameters:
        if name not in known:
            message = f"{where}unknown parameter {name[:100]!r}; known: {', '.join(known) or 'none'}"
            raise InvalidRequest(FieldError("", message))


def timeout_of(request: Any) -> float | None:
    """Seconds; the protocol's `timeout` is in microseconds. Raises InvalidRequest."""
    only(request.parameters, "timeout", FINAL_RESPONSE)
    if "timeout" not in request.parameters:
        return None
    found = request.parameters["timeout"]
    kind = found.WhichOneof("parameter_choice")
    microseconds = getattr(found, kind) if kind in ("int64_param", "uint64_param") else 0
    if microseconds <= 0:
        raise InvalidRequest(FieldError("", "parameter timeout is to be microseconds above 0, as an integer"))
    return float(microseconds) * MICROSECONDS


def inferred(found: Inferred, name: str, *, raw: bool) -> Any:
    """In the form in which the inputs came."""
    shape, contents = list(found.values.shape), None
    if not raw:
        contents = pb.InferTensorContents(fp32_contents=found.values.ravel().tolist())
    output = pb.ModelInferResponse.InferOutputTensor(name=found.name, datatype="FP32", shape=shape, contents=contents)
    return pb.ModelInferResponse(
        model_name=found.model, model_version=found.version, id=name, outputs=[output],
        raw_output_contents=[found.values.astype("<f4", copy=False).tobytes()] if raw else [],
    )  # fmt: skip
