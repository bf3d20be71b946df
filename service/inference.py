"""The models themselves, for the Open Inference Protocol: of each model that is loaded its user tower and its ranker.

`<model>.user_tower`   dense FP32 [B, D], categorical INT64 [B, K], history INT64 [B, L]  ->  user FP32 [B, E]
`<model>.ranker`       the same, and item_id BYTES [B, C]                                 ->  score FP32 [B, C]

`history` and `item_id` name items by their id (BYTES) or by their row of the item table (INT64). What of D and K is 0
is left out. The ranker's further inputs are what the engine makes of these: the user's vector, what the item table and
co-visitation say of the items. Requests go to the engine piece by piece, each of them when no shopper waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod

import numpy as np
import numpy.typing as npt

from ranking.aliases import PRODUCTION
from ranking.batcher import InlineEngine, LocalEngine
from ranking.bundle import Bundle
from ranking.desk import Desk
from ranking.errors import BadTensor, UnknownVersion
from ranking.inference import Inputs, check_values, infer
from ranking.versions import Versions
from service.errors import DeadlineExceeded, FieldError, InvalidRequest, Overloaded
from service.oip_wire import Given, Inferred, ModelMetadata, TensorSpec
from service.tensors import Array, Dimension, Expected, shown, wrong

USER_TOWER, RANKER = "user_tower", "ranker"
OUTPUTS = {USER_TOWER: "user", RANKER: "score"}
PLATFORM = "endcap_pytorch"

MOST_CANDIDATES, MOST_SCORES = 4096, 1 << 15
"""Candidates of one user, and of all users of a request together."""
PIECE_USERS, PIECE_SCORES = 32, 4096
"""What one turn of the engine computes at the most: a shopper who comes meanwhile waits so long."""
IN_FLIGHT = 16
"""Requests that may wait at the same time; each holds its tensors."""
MANY = 4096
"""Elements that take a millisecond to read: more are read by a thread, so that the shoppers have their turns."""


class Models:
    """Asks the engine for what the modules of a version say. `most` users a request, `timeout_s` at the most."""

    def __init__(self, versions: Versions, engine: InlineEngine | LocalEngine, *, most: int, timeout_s: float) -> None:
        self.versions, self.engine, self.most, self.timeout_s = versions, engine, most, timeout_s
        self.in_flight = 0

    def find(self, model: str, version: str) -> tuple[Bundle, str]:
        """The bundle, and which of its modules. Raises UnknownVersion."""
        versions = self.versions
        name, _, module = model.rpartition(".")
        loaded = versions.bundles.get(name, {})
        if module not in OUTPUTS or not loaded:
            known = ", ".join(f"{one}.{module}" for one in versions.bundles for module in OUTPUTS)
            raise UnknownVersion(f"there is no model {model[:100]!r}; there are {known}")
        stands = versions.current.get(f"{name}@{PRODUCTION}") or versions.current.get(name) or next(reversed(loaded))
        return versions.resolve(name, version or stands), module

    def metadata(self, model: str, version: str) -> ModelMetadata:
        bundle, module = self.find(model, version)
        width = bundle.manifest.dimension if module == USER_TOWER else -1
        return ModelMetadata(
            model,
            list(self.versions.bundles[bundle.name]),
            PLATFORM,
            [one.spec for one in self.expected(bundle, module).values()],
            [TensorSpec(OUTPUTS[module], "FP32", [-1, width])],
        )

    def expected(self, bundle: Bundle, module: str) -> dict[str, Expected]:
        """The inputs by name."""
        schema, users = bundle.schema, Dimension("B", -1, self.most)
        found = [
            Expected("dense", ("FP32",), (users, Dimension("D", len(schema.dense)))),
            Expected("categorical", ("INT64",), (users, Dimension("K", len(schema.categorical)))),
            Expected("history", ("INT64", "BYTES"), (users, Dimension("L", schema.history.length))),
        ]
        if module == RANKER:
            candidates = Dimension("C", -1, MOST_CANDIDATES)
            found.append(Expected("item_id", ("BYTES", "INT64"), (users, candidates), MOST_SCORES))
        return {one.name: one for one in found if one.shape[1].size}

    @contextmanager
    def admitted(self) -> Iterator[None]:
        if self.in_flight >= IN_FLIGHT:
            raise Overloaded(f"{IN_FLIGHT} requests to infer are in flight, which are the most")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def infer(
        self, model: str, version: str, inputs: Sequence[Given], outputs: Sequence[str], timeout_s: float | None
    ) -> Inferred:
        bundle, module = self.find(model, version)
        check_outputs(outputs, OUTPUTS[module])
        expected = self.expected(bundle, module)
        many = sum(prod(one.shape[:2]) for one in inputs) > MANY  # not of all sizes: a product may be as long as a body
        given = await asyncio.to_thread(read, expected, inputs) if many else read(expected, inputs)
        try:
            check_values(bundle, given)
            within_s = self.timeout_s if timeout_s is None else min(timeout_s, self.timeout_s)
            values = await self.compute(bundle, given, within_s)
        except BadTensor as error:
            raise wrong(error.tensor, error.message) from error
        return Inferred(model, bundle.version, OUTPUTS[module], values)

    async def compute(self, bundle: Bundle, given: Inputs, timeout_s: float) -> npt.NDArray[np.float32]:
        """Piece by piece. Raises BadTensor, UnknownVersion, EngineError or DeadlineExceeded."""
        users = len(given.history)
        width = 1 if given.items is None else given.items.shape[1]
        step = max(1, min(PIECE_USERS, PIECE_SCORES // width))
        found: list[npt.NDArray[np.float32]] = []

        def piece(begin: int, desk: Desk) -> None:
            if bundle.key not in desk.paths:
                raise UnknownVersion(f"{bundle.key} is not loaded any more")
            found.append(infer(desk.paths[bundle.key], given.part(begin, begin + step)))

        try:
            async with asyncio.timeout(timeout_s):
                for begin in range(0, users, step):
                    await self.engine.do(partial(piece, begin), bulk=True)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{len(found) * step} of {users} users were done in {timeout_s:g} s") from error
        return np.concatenate(found)


def check_outputs(wanted: Sequence[str], known: str) -> None:
    """Raises InvalidRequest."""
    for one in wanted:
        if one != known:
            raise InvalidRequest(FieldError("outputs", f"there is no output {one[:100]!r}; there is {known}"))
    if len(wanted) > 1:
        raise InvalidRequest(FieldError("outputs", f"{known} is asked for twice"))


def read(expected: Mapping[str, Expected], inputs: Sequence[Given]) -> Inputs:
    """Raises InvalidRequest where the inputs are others than are expected, or do not go together."""
    given = {one.name: one for one in inputs}
    check_names(expected, inputs)
    users = given["history"].shape[:1]
    for name, one in given.items():
        if one.shape[:1] != users:
            raise wrong(name, f"shape is {shown(one.shape)}, but history's is {shown(given['history'].shape)}")
    found: dict[str, Array] = {name: one.read(given[name]) for name, one in expected.items()}
    dense = found.get("dense", np.zeros((*users, 0), np.float32))
    categorical = found.get("categorical", np.zeros((*users, 0), np.int64))
    return Inputs(dense, categorical, found["history"], found.get("item_id"))


def check_names(expected: Mapping[str, Expected], inputs: Sequence[Given]) -> None:
    """Raises InvalidRequest."""
    names = [one.name for one in inputs]
    if unknown := [name for name in names if name not in expected]:
        message = f"there is no input {unknown[0][:100]!r}; there are {', '.join(expected)}"
        raise InvalidRequest(FieldError("inputs", message))
    if twice := [name for name in expected if names.count(name) > 1]:
        raise InvalidRequest(FieldError("inputs", f"{twice[0]} stands twice"))
    if missing := [name for name in expected if name not in names]:
        raise InvalidRequest(FieldError("inputs", f"{', '.join(missing)}: missing"))
