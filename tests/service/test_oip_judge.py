"""A client that we did not write asks for the models: tritonclient, over HTTP and gRPC, sync and aio."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from ranking.registry import Registry, point
from tests.service.oip import OPEN, RANKER, TOWER, Asked, open_shop

SCRIPT = Path(__file__).with_name("oip_judge.py")
JUDGE = Path(os.environ.get("ENDCAP_JUDGE", Path(sys.prefix) / "judge" / "bin" / "python"))
"""`make judge` makes it: tritonclient cannot live beside protobuf 7, which the service has."""


@pytest.mark.skipif(not JUDGE.exists(), reason=f"no tritonclient: `make judge` puts one into {JUDGE.parents[1]}")
async def test_tritonclient_gets_what_torch_says_by_every_way_that_it_has(deployment: Path, tmp_path: Path) -> None:
    """Binary and JSON tensors, BYTES, pinned versions, compression, ids, readiness and metadata."""
    shop = tmp_path / "shop"
    shutil.copytree(deployment, shop)
    with (shop / "endcap.toml").open("a") as file:
        file.write(OPEN)
    Registry(shop / "models").change("default", lambda state: point(state, "production", "2", ["1", "2"], by="ann"))
    async with open_shop(shop) as (client, grpc):
        versions = client.app.loaded().bundles["default"]
        asked = Asked(versions["2"], 40, 150)
        given = {"dense": asked.dense, "categorical": asked.categorical, "history": asked.history}
        np.savez(tmp_path / "inputs.npz", **given, item_id=np.array(asked.item_ids))
        where = [client.url.removeprefix("http://"), grpc, str(tmp_path / "inputs.npz"), str(tmp_path / "results.npz")]
        process = await asyncio.create_subprocess_exec(JUDGE, SCRIPT, *where, stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        expected = {
            (name, version): values
            for version, bundle in versions.items()
            for name, values in zip((TOWER, RANKER), asked.by_torch(bundle), strict=True)
        }
    with np.load(tmp_path / "results.npz") as read:
        found = dict(read)
    answers = {name: one for name, one in found.items() if one.dtype == np.float32}
    assert len(answers) == 2 * (2 + 3 + 1 + 3 + 3)
    for name, values in answers.items():
        model = name.rpartition("-")[2]
        np.testing.assert_allclose(
            values, expected[model, "1" if "pinned" in name else "2"], rtol=1e-4, atol=1e-4, err_msg=name
        )
    assert not np.allclose(expected[TOWER, "1"], expected[TOWER, "2"], atol=1e-2)
    assert all(one.all() for name, one in found.items() if name.endswith(("-ready", "-live")))
    assert {str(found[f"http-id-{model}"]) for model in (TOWER, RANKER)} == {"7"}
    over_http, over_grpc = (json.loads(str(found[f"{kind}-metadata"])) for kind in ("http", "grpc"))
    assert over_http[0]["name"] == over_grpc[0]["name"] == "endcap"
    assert over_http[1]["versions"] == over_grpc[1]["versions"] == ["1", "2"]
    assert [one["name"] for one in over_http[1]["inputs"]] == ["dense", "categorical", "history", "item_id"]
    assert over_http[2]["input"][3]["data_type"] == over_grpc[2]["input"][3]["data_type"] == "TYPE_STRING"
    for kind in ("http", "grpc"):
        assert "there is no model 'nothing.ranker'; there are default.user_tower" in str(found[f"{kind}-unknown"])
