"""The Open Inference Protocol, version 2, over gRPC: `inference.GRPCInferenceService` (proto/inference)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc.aio
import msgspec

from service.errors import FieldError, InvalidRequest, NotReady
from service.oip_wire import Given, InferenceModels, Inferred, TensorSpec, configuration, server_metadata
from service.rpc import codec
from service.rpc.calls import Caller, Observer, observed
from service.rpc.patience import Patience
from service.rpc.stubs import grpc_service_pb2 as pb
from service.trace import Trace

Answer = Callable[[Any, Caller], Awaitable[Any]]
"""From a request, and what its call says of itself, to a response."""

SERVICE = "inference.GRPCInferenceService"
CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}
FINAL_RESPONSE = "triton_enable_empty_final_response"
"""Of streams; `perf_analyzer` says it of every call. Here each has one answer, which is the final one."""
MICROSECONDS = 1e-6


def add_to(
    server: grpc.aio.Server,
    patience: Patience,
    models: Callable[[], InferenceModels | None],
    ready: Callable[[], Awaitable[str | None]],
    observer: Observer,
) -> None:
    """Registers the service, before the server starts. `models` says what is loaded, None until something is; `ready`
    why the service is not ready, or None."""
    server.add_generic_rpc_handlers((Servicer(patience, models, ready, observer).handler(),))


class Servicer:
    """Decodes, calls, encodes."""

    def __init__(
        self,
        patience: Patience,
        models: Callable[[], InferenceModels | None],
        ready: Callable[[], Awaitable[str | None]],
        observer: Observer,
    ) -> None:
        self.patience, self.models, self.ready, self.observer = patience, models, ready, observer

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
        handlers = {name: self.method(name, *one) for name, one in methods.items()}
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def method(self, name: str, kind: Any, answer: Answer) -> Any:
        async def serve(context: Any, trace: Trace) -> Any:
            request = codec.parsed(kind, await self.patience.only(context))
            return await answer(request, Caller(context))

        return grpc.stream_unary_rpc_method_handler(observed(f"/{SERVICE}/{name}", serve, self.observer))

    async def live(self, request: Any, caller: Caller) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: Any, caller: Caller) -> Any:
        return pb.ServerReadyResponse(ready=await self.ready() is None)

    async def model_ready(self, request: Any, caller: Caller) -> Any:
        models = self.models()
        if models is not None:
            models.metadata(request.name, request.version)
        return pb.ModelReadyResponse(ready=models is not None)

    async def server(self, request: Any, caller: Caller) -> Any:
        found = server_metadata()
        return pb.ServerMetadataResponse(name=found.name, version=found.version, extensions=found.extensions)

    async def metadata(self, request: Any, caller: Caller) -> Any:
        found = self.loaded().metadata(request.name, request.version)
        inputs, outputs = ([tensor(one) for one in some] for some in (found.inputs, found.outputs))
        return pb.ModelMetadataResponse(
            name=found.name, versions=found.versions, platform=found.platform, inputs=inputs, outputs=outputs
        )

    async def config(self, request: Any, caller: Caller) -> Any:
        found = configuration(self.loaded().metadata(request.name, request.version))
        return pb.ModelConfigResponse(config=msgspec.to_builtins(found))

    async def infer(self, request: Any, caller: Caller) -> Any:
        models = self.loaded()
        with models.admitted():
            for one in (*request.inputs, *request.outputs):
                only(one.parameters, where=f"{one.name[:100]!r}: ")
            waits = [one for one in (timeout_of(request), caller.call().timeout_s) if one is not None]
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
    response = pb.ModelInferResponse()  # field by field: by keyword it takes twice the time
    response.model_name, response.model_version, response.id = found.model, found.version, name
    output = response.outputs.add()
    output.name, output.datatype = found.name, "FP32"
    output.shape.extend(found.values.shape)
    if raw:
        response.raw_output_contents.append(found.values.astype("<f4", copy=False).tobytes())
    else:
        output.contents.fp32_contents.extend(found.values.ravel().tolist())
    return response
