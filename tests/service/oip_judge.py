"""Asks a service for its models with tritonclient, in each of the ways that it has, and writes down what came.

Run by tests/service/test_oip_judge.py with a Python of its own (oip_judge.txt); imports nothing of ours.

usage: oip_judge.py HTTP_ADDRESS GRPC_ADDRESS INPUTS.npz RESULTS.npz
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

TOWER, RANKER = "default.user_tower", "default.ranker"
TYPES = {"dense": "FP32", "categorical": "INT64", "history": "INT64", "item_id": "BYTES"}
Given = dict[str, np.ndarray]


def tensors(kind: Any, given: Given, **how: bool) -> list[Any]:
    found = []
    for name, values in given.items():
        one = kind(name, list(values.shape), "BYTES" if values.dtype == object else TYPES[name])
        one.set_data_from_numpy(values, **how)
        found.append(one)
    return found


def over_http(given: Given, output: str, binary: bool) -> dict[str, Any]:
    wanted = [http_client.InferRequestedOutput(output, binary_data=binary)]
    return {"inputs": tensors(http_client.InferInput, given, binary_data=binary), "outputs": wanted}


def over_grpc(given: Given, output: str) -> dict[str, Any]:
    return {"inputs": tensors(grpc_client.InferInput, given), "outputs": [grpc_client.InferRequestedOutput(output)]}


def complaint(ask: Callable[[], Any]) -> str:
    try:
        ask()
    except InferenceServerException as error:
        return str(error)
    return "no error"


def sync(http: str, grpc: str, models: dict[str, tuple[Given, str]], found: dict[str, Any]) -> None:
    with http_client.InferenceServerClient(http) as one, grpc_client.InferenceServerClient(grpc) as other:
        for client, kind in ((one, "http"), (other, "grpc")):
            found[f"{kind}-live"], found[f"{kind}-ready"] = client.is_server_live(), client.is_server_ready()
            found[f"{kind}-version-ready"] = client.is_model_ready(TOWER, "1")
        said = [one.get_server_metadata(), one.get_model_metadata(RANKER), one.get_model_config(RANKER)]
        found["http-metadata"] = json.dumps(said)
        said = [other.get_server_metadata(as_json=True), other.get_model_metadata(RANKER, as_json=True)]
        found["grpc-metadata"] = json.dumps([*said, other.get_model_config(RANKER, as_json=True)["config"]])
        found["http-unknown"] = complaint(lambda: one.get_model_metadata("nothing.ranker"))
        found["grpc-unknown"] = complaint(lambda: other.get_model_metadata("nothing.ranker"))
        for model, (given, output) in models.items():
            for binary in (True, False):
                how = over_http(given, output, binary)
                found[f"http-{binary}-{model}"] = one.infer(model, **how).as_numpy(output)
            squeezed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
            how = over_http(given, output, True)
            found[f"http-gzip-{model}"] = one.infer(model, **how, **squeezed).as_numpy(output)
            found[f"http-pinned-{model}"] = one.infer(model, model_version="1", **how).as_numpy(output)
            found[f"http-later-{model}"] = one.async_infer(model, **how).get_result().as_numpy(output)
            bare = one.infer(model, how["inputs"], request_id="7")
            found[f"http-bare-{model}"], found[f"http-id-{model}"] = bare.as_numpy(output), bare.get_response()["id"]
            how = over_grpc(given, output)
            found[f"grpc-{model}"] = other.infer(model, **how, request_id="7", client_timeout=30).as_numpy(output)
            found[f"grpc-gzip-{model}"] = other.infer(model, **how, compression_algorithm="gzip").as_numpy(output)
            found[f"grpc-pinned-{model}"] = other.infer(model, model_version="1", **how).as_numpy(output)


async def asynchronous(http: str, grpc: str, models: dict[str, tuple[Given, str]], found: dict[str, Any]) -> None:
    async with http_aio.InferenceServerClient(http) as one, grpc_aio.InferenceServerClient(grpc) as other:
        for client, kind in ((one, "http"), (other, "grpc")):
            found[f"{kind}-aio-ready"] = await client.is_server_ready() and await client.is_model_ready(RANKER)
        for model, (given, output) in models.items():
            for binary in (True, False):
                answer = await one.infer(model, **over_http(given, output, binary))
                found[f"http-aio-{binary}-{model}"] = answer.as_numpy(output)
            answer = await other.infer(model, **over_grpc(given, output))
            found[f"grpc-aio-{model}"] = answer.as_numpy(output)


def main() -> None:
    http, grpc, inputs, results = sys.argv[1:]
    with np.load(inputs) as read:
        given = dict(read)
    given["item_id"] = given["item_id"].astype(object)
    user = {name: given[name] for name in ("dense", "categorical", "history")}
    models = {TOWER: (user, "user"), RANKER: (given, "score")}
    found: dict[str, Any] = {}
    sync(http, grpc, models, found)
    asyncio.run(asynchronous(http, grpc, models, found))
    np.savez(results, **found)


if __name__ == "__main__":
    main()
