"""The Open Inference Protocol, version 2, as its doors and what is behind them see it.

The doors (`service.http.oip`, `service.rpc.inference`) make `Given` tensors of what came, and answers of `Inferred`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Struct, UnsetType, field

SERVER = "endcap"


class TensorSpec(Struct, frozen=True):
    """An input or output as a model's metadata say it. -1 in `shape` is of any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, frozen=True):
    """`versions` are those that may be asked for."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


TRITON_TYPES = {"FP32": "TYPE_FP32", "INT64": "TYPE_INT64", "BYTES": "TYPE_STRING"}


class ConfiguredTensor(Struct, frozen=True):
    """A TensorSpec in the words of Triton's model configuration."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfiguration(Struct, frozen=True):
    """The metadata as Triton's model configuration, for clients that ask for that (its `perf_analyzer`).
    `max_batch_size` 0: shapes are whole, the batch is their first dimension."""

    name: str
    platform: str
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]
    max_batch_size: int = 0


class ServerMetadata(Struct, frozen=True):
    name: str
    version: str
    extensions: list[str]


class InferInput(Struct, frozen=True, forbid_unknown_fields=True):
    """One input of a JSON request. `data`: row-major, flat or nested as `shape` says; absent where it is binary."""

    name: str
    shape: list[Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | UnsetType = UNSET


class WantedOutput(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}


class InferRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of a request to infer."""

    inputs: list[InferInput]
    outputs: list[WantedOutput] = field(default_factory=list)
    parameters: dict[str, Any] = {}
    id: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor as it came, unchecked: `data` are bytes (little-endian, row-major; of BYTES each element's length as
    uint32 before it) or values."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | memoryview | Sequence[Any]


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a model said: its only output, FP32."""

    model: str
    version: str
    name: str
    values: npt.NDArray[np.float32]


class InferenceModels(Protocol):
    """The models that may be asked. `version` is a number or an alias; "" is what `production` stands for."""

    def metadata(self, model: str, version: str) -> ModelMetadata:
        """Raises UnknownVersion."""
        ...

    def admitted(self) -> AbstractContextManager[None]:
        """Room for one request, until the end of the block. Raises Overloaded."""
        ...

    async def infer(
        self, model: str, version: str, inputs: Sequence[Given], outputs: Sequence[str], timeout_s: float | None
    ) -> Inferred:
        """Raises InvalidRequest, UnknownVersion, DeadlineExceeded or EngineError."""
        ...


def configuration(metadata: ModelMetadata) -> ModelConfiguration:
    inputs, outputs = (
        [ConfiguredTensor(one.name, TRITON_TYPES[one.datatype], one.shape) for one in some]
        for some in (metadata.inputs, metadata.outputs)
    )
    return ModelConfiguration(metadata.name, metadata.platform, inputs, outputs)


def server_metadata(*extensions: str) -> ServerMetadata:
    return ServerMetadata(SERVER, version("endcap"), list(extensions))
