"""The Open Inference Protocol over gRPC: what is read, what is refused, with which status and in which words."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from ranking.desk import Desk
from service.rpc.inference import SERVICE
from service.rpc.stubs import grpc_service_pb2 as pb
from service.rpc.stubs.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.service.conftest import Client, counted
from tests.service.oip import OPEN, RANKER, TOWER, Asked, open_shop
from tests.service.rpc_client import refused, serving

Bad = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def shop(deployment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("oip") / "shop"
    shutil.copytree(deployment, copy)
    with (copy / "endcap.toml").open("a") as file:
        file.write(OPEN)
    return copy


@pytest.fixture
async def there(shop: Path) -> AsyncIterator[tuple[Client, grpc.aio.Channel, Asked]]:
    async with open_shop(shop) as (client, address), grpc.aio.insecure_channel(address) as channel:
        yield client, channel, Asked(client.app.loaded().bundles["default"]["2"], 2, 3)


def request_of(asked: Asked, *, raw: bool, **changes: Any) -> Any:
    """To the ranker."""
    found = pb.ModelInferRequest(model_name=RANKER, **changes)
    ids = [one.encode() for some in asked.item_ids for one in some]
    for name, kind, field, values, flat in (
        ("dense", "FP32", "fp32_contents", asked.dense, asked.dense.ravel().tolist()),
        ("categorical", "INT64", "int64_contents", asked.categorical, asked.categorical.ravel().tolist()),
        ("history", "INT64", "int64_contents", asked.history, asked.history.ravel().tolist()),
        ("item_id", "BYTES", "bytes_contents", asked.rows, ids),
    ):
        one = found.inputs.add(name=name, datatype=kind, shape=values.shape)
        if not raw:
            getattr(one.contents, field).extend(flat)
        elif name == "item_id":
            found.raw_input_contents.append(b"".join(len(one).to_bytes(4, "little") + one for one in ids))
        else:
            found.raw_input_contents.append(values.tobytes())
    return found


async def test_tensors_come_raw_or_typed_and_go_as_they_came(there: tuple[Client, Any, Asked]) -> None:
    _, channel, asked = there
    infer, expected = GRPCInferenceServiceStub(channel).ModelInfer, asked.by_torch(asked.bundle)[1]
    raw = await infer(request_of(asked, raw=True, id="a"))
    assert (raw.model_name, raw.model_version, raw.id) == (RANKER, "2", "a")
    assert (raw.outputs[0].name, raw.outputs[0].datatype, list(raw.outputs[0].shape)) == ("score", "FP32", [2, 3])
    assert not raw.outputs[0].HasField("contents")
    of_perf_analyzer = {"triton_enable_empty_final_response": {"bool_param": True}}
    assert await infer(request_of(asked, raw=True, id="a", parameters=of_perf_analyzer)) == raw
    np.testing.assert_allclose(np.frombuffer(raw.raw_output_contents[0], "<f4").reshape(2, 3), expected, atol=1e-4)
    typed = await infer(request_of(asked, raw=False, outputs=[{"name": "score"}], model_version="1"))
    assert not typed.raw_output_contents and typed.model_version == "1"
    first = there[0].app.loaded().bundles["default"]["1"]
    scores = np.array(typed.outputs[0].contents.fp32_contents).reshape(2, 3)
    np.testing.assert_allclose(scores, asked.by_torch(first)[1], atol=1e-4)


def mistakes(asked: Asked) -> list[tuple[str, Any]]:
    """What is said of each, and the request."""

    def raw(at: int, **changes: Any) -> Any:
        """With other fields of an input."""
        found = request_of(asked, raw=True)
        for name, value in changes.items():
            if name == "shape":
                found.inputs[at].shape[:] = value
            elif name == "tensor":
                found.raw_input_contents[at] = value
            elif name == "parameters":
                found.inputs[at].parameters[value].string_param = "a"
            else:
                setattr(found.inputs[at], name, value)
        return found

    def typed(at: int, more: dict[str, list[Any]], **changes: Any) -> Any:
        """With more contents of an input."""
        found = request_of(asked, raw=False)
        found.inputs[at].MergeFrom(pb.ModelInferRequest.InferInputTensor(contents=more, **changes))
        return found

    both = request_of(asked, raw=True)
    both.inputs[0].contents.fp32_contents.append(1)
    fewer, more, none = (request_of(asked, raw=one) for one in (True, True, False))
    fewer.raw_input_contents.pop()
    more.raw_input_contents.append(b"")
    none.inputs[0].ClearField("contents")
    width = asked.dense.shape[1]
    nan = np.full((2, width), np.nan, "<f4").tobytes()
    return [
        ("dense: has contents beside raw_input_contents", both),
        ("raw_input_contents: has 3 tensors, but there are 4 inputs", fewer),
        ("raw_input_contents: has 5 tensors, but there are 4 inputs", more),
        (f"dense: has 0 elements, but shape [2, {width}] is {2 * width}", none),
        ("dense: FP32 is in fp32_contents, got fp32_contents, fp64_contents", typed(0, {"fp64_contents": [1.0]})),
        (f"dense: has {2 * width + 1} elements, but shape [2, {width}]", typed(0, {"fp32_contents": [1.0]})),
        ("item_id: has 7 elements, but shape [2, 3] is 6", typed(3, {"bytes_contents": [b"i00001"]})),
        ("dense: INT64 is in int64_contents, got fp32_contents", typed(0, {}, datatype="INT64")),
        ("dense: datatype is 'FP16', expected FP32", raw(0, datatype="FP16")),
        ("dense: datatype is '', expected FP32", raw(0, datatype="")),
        (f"dense: shape is [2, {1 << 62}], expected [B, {width}]", raw(0, shape=[2, 1 << 62])),
        (f"dense: shape is [2, -1], expected [B, {width}]", raw(0, shape=[2, -1])),
        ("item_id: has 60 bytes, fewer than the lengths of its 8,192 elements take", raw(3, shape=[2, 4096])),
        ("item_id: shape is [2, 4097], expected [B, C], B 1 to 1,024, C 1 to 4,096", raw(3, shape=[2, 4097])),
        ("item_id: element 0 is longer than what is left", raw(3, tensor=b"\xff\xff\xff\xff" + bytes(40))),
        (f"dense: has 4 bytes, but FP32 of shape [2, {width}]", raw(0, tensor=bytes(4))),
        ("dense: [0, 0] is nan, expected a finite FP32", raw(0, tensor=nan)),
        ("inputs: there is no input 'price'", raw(0, name="price")),
        ("inputs: dense stands twice", raw(1, name="dense")),
        ("inputs: dense, categorical, history, item_id: missing", pb.ModelInferRequest(model_name=RANKER)),
        ("outputs: there is no output 'user'; there is score", request_of(asked, raw=True, outputs=[{"name": "user"}])),
        ("'dense': unknown parameter 'shared_memory_region'; known: none", raw(0, parameters="shared_memory_region")),
        ("unknown parameter 'sequence_id'; known: timeout, triton_enable",
         request_of(asked, raw=True, parameters={"sequence_id": {"int64_param": 1}})),
        ("parameter timeout is to be microseconds above 0",
         request_of(asked, raw=True, parameters={"timeout": {"string_param": "1"}})),
    ]  # fmt: skip


async def test_each_mistake_is_an_invalid_argument_told_with_what_was_expected(
    there: tuple[Client, Any, Asked],
) -> None:
    client, channel, asked = there
    infer = GRPCInferenceServiceStub(channel).ModelInfer
    wrong = mistakes(asked)
    for said, request in wrong:
        found = await refused(infer(request))
        assert found.code is Bad and said in found.message, f"{said!r}: {found}"
        assert found.info.reason == "invalid-request"
        assert [": ".join(one).removeprefix(": ") for one in found.fields.items()] == [found.message]
    scrape = (await client.get("/metrics"))[1]
    assert counted(scrape, "endcap_requests_total", endpoint=f"/{SERVICE}/ModelInfer", status="422") == len(wrong)


async def test_bytes_that_are_no_message_and_fields_that_the_protocol_does_not_have_are_refused(
    there: tuple[Client, Any, Asked],
) -> None:
    _, channel, asked = there
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    whole = request_of(asked, raw=True).SerializeToString()
    for data in (whole[:-1], b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x07abc"):
        found = await refused(call(data))
        assert found.code is Bad and "no inference.ModelInferRequest" in found.message
        assert found.info.reason == "malformed-body"
    found = await refused(call(whole + b"\xa2\x06\x01a"))
    assert (found.code, found.fields) == (Bad, {"100": "Unknown field number, sent as length-delimited"})


async def test_a_call_waits_no_longer_than_its_deadline_or_its_timeout(
    there: tuple[Client, Any, Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is kept from going on."""
    _, channel, asked = there
    monkeypatch.setattr(Desk, "do_spare", lambda desk: None)
    infer = GRPCInferenceServiceStub(channel).ModelInfer
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await refused(infer(request_of(asked, raw=True), timeout=0.2))).code is late
    of_protocol = infer(request_of(asked, raw=True, parameters={"timeout": {"int64_param": 200_000}}))
    for call, seconds in (
        (of_protocol, "0.2"),
        (infer(request_of(asked, raw=True), metadata=[("endcap-timeout-ms", "200")]), "0.2"),
        (infer(request_of(asked, raw=True), metadata=[("endcap-timeout-ms", "0")]), "0"),
    ):
        found = await refused(call)
        assert (found.code, found.message) == (late, f"0 of 2 users were done in {seconds} s")
        assert found.info.reason == "deadline-exceeded"
    monkeypatch.undo()
    assert (await infer(request_of(asked, raw=True))).model_version == "2"


async def test_what_there_is_not_is_not_found(there: tuple[Client, Any, Asked]) -> None:
    _, channel, asked = there
    stub = GRPCInferenceServiceStub(channel)
    request = request_of(asked, raw=True)
    request.model_version = "9"
    for call, said in (
        (stub.ModelInfer(request), "model default has no version 9 here; loaded: 1, 2"),
        (stub.ModelMetadata(pb.ModelMetadataRequest(name="default")), "there is no model 'default'; there are"),
        (stub.ModelReady(pb.ModelReadyRequest(name="x" * 5000)), "there is no model 'xxx"),
    ):
        found = await refused(call)
        assert found.code is grpc.StatusCode.NOT_FOUND and said in found.message and len(found.message) <= 500
        assert found.info.reason == "unknown-version"


async def test_metadata_say_what_the_models_want(there: tuple[Client, Any, Asked]) -> None:
    _, channel, asked = there
    stub = GRPCInferenceServiceStub(channel)
    found = await stub.ModelMetadata(pb.ModelMetadataRequest(name=TOWER))
    width, codes, length = (one.shape[1] for one in (asked.dense, asked.categorical, asked.history))
    assert [(one.name, one.datatype, list(one.shape)) for one in (*found.inputs, *found.outputs)] == [
        ("dense", "FP32", [-1, width]), ("categorical", "INT64", [-1, codes]), ("history", "INT64", [-1, length]),
        ("user", "FP32", [-1, 16]),
    ]  # fmt: skip
    assert (found.name, list(found.versions), found.platform) == (TOWER, ["1", "2"], "endcap_pytorch")
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name=TOWER))).config
    assert (config.name, config.max_batch_size, len(config.input)) == (TOWER, 0, 3)
    assert (config.input[1].data_type, list(config.input[1].dims)) == (pb.TYPE_INT64, [-1, codes])
    assert (config.output[0].name, config.output[0].data_type) == ("user", pb.TYPE_FP32)


async def test_nothing_is_ready_until_the_models_are_loaded(shop: Path) -> None:
    async with serving(shop, load=False) as rpc:
        stub = GRPCInferenceServiceStub(rpc.channel)

        async def ready() -> list[bool]:
            return [
                (await stub.ServerLive(pb.ServerLiveRequest())).live,
                (await stub.ServerReady(pb.ServerReadyRequest())).ready,
                (await stub.ModelReady(pb.ModelReadyRequest(name=RANKER))).ready,
            ]

        assert await ready() == [True, False, False]
        found = await refused(stub.ModelInfer(pb.ModelInferRequest(model_name=RANKER)))
        assert found.code is grpc.StatusCode.UNAVAILABLE and found.info.reason == "not-ready"
        assert found.retry.retry_delay.seconds == 1
        await rpc.app.load()
        assert await ready() == [True, True, True]
