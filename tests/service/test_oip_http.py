"""The Open Inference Protocol over HTTP: what is read, what is refused and in which words."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tracemalloc
from collections.abc import AsyncIterator
from copy import copy
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from msgspec.structs import replace

from ranking.desk import Desk
from service import inference
from service.app import App
from service.config import read_config
from service.http import oip
from service.http.oip import HEADER_LENGTH
from service.oip_wire import Given
from tests.service.conftest import Client, counted, running
from tests.service.oip import OPEN, RANKER, TOWER, Asked

HUGE = 1 << 62


@pytest.fixture(scope="module")
def shop(deployment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the deployment with the door open."""
    open_one = tmp_path_factory.mktemp("oip") / "shop"
    shutil.copytree(deployment, open_one)
    with (open_one / "endcap.toml").open("a") as file:
        file.write(OPEN)
    return open_one


@pytest.fixture
async def here(shop: Path) -> AsyncIterator[Client]:
    async with running(shop) as one:
        yield one


def asked_of(here: Client, users: int = 2, candidates: int = 3) -> Asked:
    return Asked(here.app.loaded().bundles["default"]["2"], users, candidates)


def inputs_of(asked: Asked, ranker: bool = True) -> list[dict[str, Any]]:
    """JSON inputs."""
    found = [
        {"name": name, "shape": list(values.shape), "datatype": kind, "data": values.ravel().tolist()}
        for name, kind, values in (
            ("dense", "FP32", asked.dense), ("categorical", "INT64", asked.categorical),
            ("history", "INT64", asked.history),
        )
    ]  # fmt: skip
    if ranker:
        shape, flat = list(asked.rows.shape), [one for some in asked.item_ids for one in some]
        found.append({"name": "item_id", "shape": shape, "datatype": "BYTES", "data": flat})
    return found


def in_bytes(asked: Asked) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Binary inputs of the ranker, and their tensors."""
    ids = [one.encode() for some in asked.item_ids for one in some]
    tensors = [
        asked.dense.tobytes(), asked.categorical.tobytes(), asked.history.tobytes(),
        b"".join(len(one).to_bytes(4, "little") + one for one in ids),
    ]  # fmt: skip
    inputs = inputs_of(asked)
    for one, tensor in zip(inputs, tensors, strict=True):
        del one["data"]
        one["parameters"] = {"binary_data_size": len(tensor)}
    return inputs, tensors


async def post(here: Client, body: bytes | dict[str, Any], model: str = RANKER, **headers: str) -> tuple[int, Any]:
    """The status, and the JSON of what came; an error is the protocol's."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{here.url}/v2/models/{model}/infer"
    async with here.session.post(url, data=io.BytesIO(data), headers=headers) as response:
        found = await response.read()
        here.headers = response.headers
        if response.status != 200:
            refused = json.loads(found)
            assert list(refused) == ["error"] and response.content_type == "application/json"
            return response.status, refused["error"]
        return 200, found if HEADER_LENGTH in response.headers else json.loads(found)


async def test_json_may_be_flat_or_nested_and_items_named_by_id_or_row(here: Client) -> None:
    asked = asked_of(here)
    _, flat = await post(here, {"inputs": inputs_of(asked), "id": "a"})
    assert (flat["model_name"], flat["model_version"], flat["id"]) == (RANKER, "2", "a")
    np.testing.assert_allclose(
        np.array(flat["outputs"][0].pop("data")).reshape(2, 3), asked.by_torch(asked.bundle)[1], atol=1e-4
    )
    assert flat["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [2, 3]}]
    ids = asked.bundle.items.ids
    nested = inputs_of(asked)
    nested[0]["data"] = asked.dense.tolist()
    nested[2] |= {"datatype": "BYTES", "data": [[ids[row] if row >= 0 else "" for row in one] for one in asked.history]}
    nested[3] |= {"datatype": "INT64", "data": asked.rows.tolist()}
    _, again = await post(here, {"inputs": nested, "outputs": [{"name": "score"}]})
    _, whole = await post(here, {"inputs": inputs_of(asked)})
    assert again["outputs"] == whole["outputs"] and "id" not in again


async def test_binary_tensors_come_and_go_as_they_are_asked_for(here: Client) -> None:
    asked = asked_of(here)
    inputs, tensors = in_bytes(asked)
    for wanted, binary in (
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "score", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "score", "parameters": {"binary_data": False}}],
          "parameters": {"binary_data_output": True}}, False),
        ({}, False),
    ):  # fmt: skip
        head = json.dumps({"inputs": inputs, **wanted}).encode()
        status, found = await post(here, b"".join([head, *tensors]), **{HEADER_LENGTH: str(len(head))})
        assert status == 200
        if binary:
            size = int(here.headers[HEADER_LENGTH])
            output = json.loads(found[:size])["outputs"][0]
            assert output["parameters"] == {"binary_data_size": 24} and "data" not in output
            scores = np.frombuffer(found[size:], "<f4").reshape(2, 3)
        else:
            scores = np.array(found["outputs"][0]["data"]).reshape(2, 3)
        np.testing.assert_allclose(scores, asked.by_torch(asked.bundle)[1], atol=1e-4)


def json_mistakes(asked: Asked) -> list[tuple[str, dict[str, Any]]]:
    """What is said of each, and the request."""
    dense, categorical, history, items = inputs_of(asked)
    width, length = asked.dense.shape[1], asked.history.shape[1]
    numbers, codes, ids = dense["data"], categorical["data"], items["data"]
    one = numbers[:width]

    def instead(at: int, **changes: Any) -> dict[str, Any]:
        changed = inputs_of(asked)
        changed[at] |= changes
        return {"inputs": changed}

    return [
        ("dense: datatype is 'FP64', expected FP32", instead(0, datatype="FP64")),
        ("dense: datatype is 'float', expected FP32", instead(0, datatype="float")),
        ("history: datatype is 'INT32', expected INT64 or BYTES", instead(2, datatype="INT32")),
        (f"dense: shape is [2, {width + 1}], expected [B, {width}], B 1 to 1,024", instead(0, shape=[2, width + 1])),
        (f"dense: shape is [{2 * width}], but history's is [2, {length}]", instead(0, shape=[2 * width])),
        (f"dense: shape is [], but history's is [2, {length}]", instead(0, shape=[])),
        (f"dense: shape is [2, {HUGE}], expected [B, {width}]", instead(0, shape=[2, HUGE])),
        (f"dense: shape is [2, {HUGE}, {HUGE}", instead(0, shape=[2] + [HUGE] * 30_000)),
        ("inputs[0].shape[1]: Expected", instead(0, shape=[2, 10**4000])),
        ("dense: shape is [2, 1, 1, 1, 1, 1, 1, 1] and 92 more, expected", instead(0, shape=[2] + [1] * 99)),
        (f"item_id: shape is [2, {HUGE}], expected [B, C], B 1 to 1,024, C 1 to 4,096", instead(3, shape=[2, HUGE])),
        ("item_id: shape is [2, 0], expected [B, C]", instead(3, shape=[2, 0], data=[])),
        (f"dense: has {2 * width - 1} elements, but shape [2, {width}] is {2 * width}", instead(0, data=numbers[1:])),
        (f"dense: data is nested in another way than shape [2, {width}]", instead(0, data=[one, one[1:]])),
        (f"dense: data is nested in another way than shape [2, {width}]", instead(0, data=[one, *one])),
        (f"dense: data is nested in another way than shape [2, {width}]", instead(0, data=[one, one, one])),
        ("dense: element 1 is str, expected a number", instead(0, data=[1.0, "2", *numbers[2:]])),
        ("dense: element 1 is list, expected a number", instead(0, data=[1.0, [2], *numbers[2:]])),
        ("dense: element 0 is bool, expected a number", instead(0, data=[True, *numbers[1:]])),
        ("dense: element 0 is NoneType, expected a number", instead(0, data=[None, *numbers[1:]])),
        ("dense: [0, 0] is inf, expected a finite FP32", instead(0, data=[1e300, *numbers[1:]])),
        ("dense: has a number that is no FP32", instead(0, data=[10**400, *numbers[1:]])),
        ("categorical: element 0 is float, expected an integer", instead(1, data=[1.0, *codes[1:]])),
        ("categorical: has a number that is no INT64", instead(1, data=[1 << 63, *codes[1:]])),
        ("categorical: [0, 0] is 4, expected 0 to 3 (user_profile:country)", instead(1, data=[4, *codes[1:]])),
        ("categorical: [0, 0] is -1, expected 0 to 3", instead(1, data=[-1, *codes[1:]])),
        ("history: [0, 0] is '200', expected a row, -1 to 199", instead(2, data=[200, *history["data"][1:]])),
        ("history: [0, 0] is '-2', expected a row", instead(2, data=[-2, *history["data"][1:]])),
        ("item_id: [1, 2] is 'nothing', expected the id of an item", instead(3, data=[*ids[:-1], "nothing"])),
        ("item_id: [0, 0] is '', expected the id of an item", instead(3, data=["", *ids[1:]])),
        ("item_id: element 0 is int, expected a string", instead(3, data=[7, *ids[1:]])),
        ("item_id: [0, 0] is '-1', expected a row, 0 to", instead(3, datatype="INT64", data=[-1] * 6)),
        ("dense: expected either data or binary_data_size", instead(0, parameters={"binary_data_size": 8})),
        ("dense: binary_data_size is 8, but 0 bytes are left",
         {"inputs": [{**{k: v for k, v in dense.items() if k != "data"}, "parameters": {"binary_data_size": 8}}]}),
        ("inputs 'dense': unknown parameter 'shared_memory_region'; known: binary_data_size",
         instead(0, parameters={"shared_memory_region": "a"})),
        ("inputs: there is no input 'price'; there are dense, categorical, history, item_id", instead(0, name="price")),
        ("inputs: item_id stands twice", {"inputs": [dense, categorical, history, items, items]}),
        ("inputs: categorical, item_id: missing", {"inputs": [dense, history]}),
        ("inputs: dense, categorical, history, item_id: missing", {"inputs": []}),
        ("item_id: shape is [1, 6], but history's is", instead(3, shape=[1, 6])),
        ("outputs: there is no output 'user'; there is score", {**instead(0), "outputs": [{"name": "user"}]}),
        ("outputs: score is asked for twice", {**instead(0), "outputs": [{"name": "score"}] * 2}),
        ("outputs 'score': unknown parameter 'classification'",
         {**instead(0), "outputs": [{"name": "score", "parameters": {"classification": 2}}]}),
        ("unknown parameter 'sequence_id'; known: binary_data_output, timeout",
         {**instead(0), "parameters": {"sequence_id": 1}}),
        ("parameter binary_data_output is no true or false",
         {**instead(0), "parameters": {"binary_data_output": 1}}),
        ("parameter timeout is 0, expected microseconds above 0", {**instead(0), "parameters": {"timeout": 0}}),
        ("inputs: Missing", {"id": "a"}),
        ("nothing: Unknown field", {**instead(0), "nothing": 1}),
        ("inputs[0].shape[0]: Expected", instead(0, shape=[-2, width])),
        ("inputs[0].shape[0]: Expected", instead(0, shape=[1.5, width])),
    ]  # fmt: skip


async def test_each_mistake_in_json_is_told_with_its_tensor_and_what_was_expected(here: Client) -> None:
    for said, body in json_mistakes(asked_of(here)):
        status, error = await post(here, body)
        assert status == 400 and said in error, f"{said!r}: {status} {error}"
        assert len(error) < 1000


async def test_a_large_request_is_answered_in_pieces_as_a_small_one_is(here: Client) -> None:
    """Of more users than a piece has, JSON and tensors beyond what the event loop reads itself."""
    asked = asked_of(here, 300, 100)
    body = json.dumps({"inputs": inputs_of(asked)}).encode()
    assert len(body) > oip.LARGE and asked.rows.size > inference.MANY
    _, found = await post(here, body)
    np.testing.assert_allclose(
        np.array(found["outputs"][0]["data"]).reshape(300, 100), asked.by_torch(asked.bundle)[1], atol=1e-4
    )
    status, error = await post(here, {"inputs": inputs_of(asked_of(here, 9, 4000))})
    assert status == 400 and "item_id: shape is [9, 4000], expected at most 32,768 elements" in error


async def test_a_lie_about_bytes_is_told(here: Client) -> None:
    asked = asked_of(here)
    length = asked.history.nbytes

    async def said(change: Any, header: str | None = None, more: bytes = b"") -> str:
        inputs, tensors = in_bytes(asked)
        change(inputs, tensors)
        head = json.dumps({"inputs": inputs}).encode()
        headers = {HEADER_LENGTH: str(len(head)) if header is None else header}
        status, error = await post(here, b"".join([head, *tensors, more]), **headers)
        assert status == 400
        return str(error)

    def sized(at: int, by: int) -> Any:
        return lambda inputs, tensors: inputs[at]["parameters"].update(
            binary_data_size=inputs[at]["parameters"]["binary_data_size"] + by
        )

    def tensor(at: int, data: bytes) -> Any:
        def change(inputs: Any, tensors: Any) -> None:
            tensors[at] = data
            inputs[at]["parameters"]["binary_data_size"] = len(data)

        return change

    def nothing(inputs: Any, tensors: Any) -> None:
        pass

    width = asked.dense.shape[1]
    assert f"item_id: binary_data_size is {60 + HUGE}, but 60 bytes are left" in await said(sized(3, HUGE))
    assert "item_id: binary_data_size is -1, but 60 bytes" in await said(sized(3, -61))
    assert "1 bytes behind the JSON belong to no input" in await said(nothing, more=b"x")
    assert "4 bytes behind the JSON belong to no input" in await said(sized(3, -4))
    short = bytes(8 * width - 4)
    assert f"dense: has {len(short)} bytes, but FP32 of shape [2, {width}] is {8 * width}" in await said(
        tensor(0, short)
    )
    assert f"history: has {length - 8} bytes, but INT64" in await said(tensor(2, bytes(length - 8)))
    longest = b"\xff\xff\xff\xff" + b"a" * 56
    assert "item_id: element 0 is longer than what is left of its 60 bytes" in await said(tensor(3, longest))
    assert "item_id: has 23 bytes, fewer than the lengths" in await said(tensor(3, bytes(23)))
    six = b"\x02\x00\x00\x00i0" * 6
    assert "item_id: element 5 is longer" in await said(tensor(3, six[:-1]))
    assert "item_id: element 5 is longer" in await said(tensor(3, six[:-4]))
    assert "item_id: has 6 bytes behind its 6 elements" in await said(tensor(3, six + six[:6]))
    assert "item_id: element 0 is not UTF-8" in await said(tensor(3, b"\x02\x00\x00\x00\xff\xff" + six[6:]))
    assert "dense: [0, 0] is nan" in await said(tensor(0, np.full((2, width), np.nan, "<f4").tobytes()))
    for header in ("-1", "x", "1e3", "9" * 30, "99999999", "\u0663".encode().decode("latin-1")):
        assert "Inference-Header-Content-Length is" in await said(nothing, header)
    assert await said(nothing, "7")  # half of the JSON


async def test_what_is_no_request_is_refused_in_the_protocols_form(here: Client) -> None:
    for body, expected in (
        (b"", "empty"),
        (b"{", "truncated"),
        (b"[]", "Expected"),
        (b'{"inputs": [], "inputs": []}', "twice"),
    ):
        status, error = await post(here, body)
        assert status == 400 and expected in error
    status, error = await post(here, b"x" * (1 << 20) + b"x")
    assert status == 413
    status, error = await post(here, b"{}", **{"Content-Encoding": "compress"})
    assert status == 415 and "Content-Encoding" in error
    for method, path, expected in (
        ("GET", "/v2/models/none.ranker", 404), ("GET", f"/v2/models/{RANKER}/versions/9", 404),
        ("GET", "/v2/models/default.tower/ready", 404), ("GET", f"/v2/models/{RANKER}/stats", 404),
        ("GET", "/v2/repository/index", 404), ("DELETE", "/v2", 405), ("GET", f"/v2/models/{RANKER}/infer", 404),
    ):  # fmt: skip
        async with here.session.request(method, here.url + path) as response:
            if path.startswith("/v2/"):
                assert response.status == expected and list(await response.json()) == ["error"], path
            else:
                assert response.status == expected


async def test_versions_are_told_and_may_be_asked_for_by_number_or_alias(here: Client, shop: Path) -> None:
    asked = asked_of(here)
    here.app.loaded().current["default@candidate"] = "1"
    for asked_for, answered in (("", "2"), ("/versions/1", "1"), ("/versions/2", "2"), ("/versions/candidate", "1")):
        _, text = await here.get(f"/v2/models/{TOWER}{asked_for}")
        assert json.loads(text)["versions"] == ["1", "2"]
        assert json.loads(text)["outputs"] == [{"name": "user", "datatype": "FP32", "shape": [-1, 16]}]
        _, found = await post(here, {"inputs": inputs_of(asked, False)}, f"{TOWER}{asked_for}")
        assert found["model_version"] == answered
        bundle = here.app.loaded().bundles["default"][answered]
        vectors = np.array(found["outputs"][0]["data"]).reshape(2, 16)
        np.testing.assert_allclose(vectors, asked.by_torch(bundle)[0], atol=1e-4)
    here.app.loaded().current["default@production"] = "1"
    _, found = await post(here, {"inputs": inputs_of(asked, False)}, TOWER)
    assert found["model_version"] == "1"


async def test_nothing_is_ready_until_the_models_are_loaded(shop: Path) -> None:
    app = App(shop, read_config(shop))
    url = f"http://127.0.0.1:{await app.listen('127.0.0.1', 0)}/v2"

    async def statuses(session: aiohttp.ClientSession) -> list[int]:
        found = []
        for path in ("", "/health/live", "/health/ready", f"/models/{RANKER}/ready", f"/models/{RANKER}"):
            async with session.get(url + path) as response:
                found.append(response.status)
        return found

    async with aiohttp.ClientSession() as session:
        assert await statuses(session) == [200, 200, 503, 503, 503]
        await app.load()
        assert await statuses(session) == [200] * 5
    await app.stop()


async def test_triton_s_configuration_says_what_the_metadata_say(here: Client) -> None:
    """`perf_analyzer` asks for it first."""
    status, text = await here.get(f"/v2/models/{RANKER}/versions/1/config")
    found = json.loads(text)
    asked = asked_of(here)
    assert status == 200 and (found["name"], found["max_batch_size"]) == (RANKER, 0)
    assert found["input"][0] == {"name": "dense", "data_type": "TYPE_FP32", "dims": [-1, asked.dense.shape[1]]}
    assert found["input"][3] == {"name": "item_id", "data_type": "TYPE_STRING", "dims": [-1, -1]}
    assert found["output"] == [{"name": "score", "data_type": "TYPE_FP32", "dims": [-1, -1]}]


async def test_a_closed_door_is_none(client: Client) -> None:
    assert (await client.get("/v2"))[0] == (await client.get(f"/v2/models/{RANKER}"))[0] == 404
    assert client.app.inference is None


async def test_requests_are_counted_by_their_endpoint(here: Client) -> None:
    await post(here, {"inputs": inputs_of(asked_of(here))})
    await post(here, {"inputs": []})
    scrape, endpoint = (await here.get("/metrics"))[1], "/v2/models/{model}/infer"
    assert counted(scrape, "endcap_requests_total", endpoint=endpoint, status="200") == 1
    assert counted(scrape, "endcap_requests_total", endpoint=endpoint, status="400") == 1


async def test_too_many_at_once_and_too_long_a_wait_are_told(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is kept from going on meanwhile; afterwards it answers."""
    monkeypatch.setattr(inference, "IN_FLIGHT", 2)
    monkeypatch.setattr(Desk, "do_spare", lambda desk: None)
    body = {"inputs": inputs_of(asked_of(here)), "parameters": {"timeout": 400_000}}
    found = await asyncio.gather(*(post(here, body) for _ in range(3)))
    assert sorted(status for status, _ in found) == [503, 504, 504]
    assert any("2 requests to infer are in flight" in str(error) for _, error in found)
    assert any("0 of 2 users were done in 0.4 s" in str(error) for _, error in found)
    monkeypatch.undo()
    assert (await post(here, body))[0] == 200


async def test_refused_requests_leave_no_memory_behind(here: Client) -> None:
    """A size that is a lie costs nothing: nothing is made of it."""
    asked = asked_of(here)
    bodies = [body for _, body in json_mistakes(asked) if len(json.dumps(body)) < 10_000]
    tracemalloc.start()
    try:
        for body in bodies:
            await post(here, body)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for body in bodies:
            await post(here, body)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000 and peak - before < 2_000_000


async def test_an_input_of_no_columns_is_left_out(here: Client) -> None:
    """A shape with a 0 in it is what clients trip over."""
    models = here.app.inference
    assert isinstance(models, inference.Models)
    bundle = copy(here.app.loaded().bundles["default"]["2"])
    bundle.schema = replace(bundle.schema, dense=(), categorical=())
    expected = models.expected(bundle, "user_tower")
    assert list(expected) == ["history"]
    found = inference.read(expected, [Given("history", "INT64", [3, 20], [-1] * 60)])
    assert (found.dense.shape, found.categorical.shape, found.items) == ((3, 0), (3, 0), None)
