"""A split in a running service: who answered as what is in the answer, in the serving log and in the metrics."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ranking.errors import BundleError
from ranking.registry import Registry, point
from service.config import read_config
from service.prepared import prepare
from service.split import Split, position_of
from tests.service.conftest import Client, counted, running

SPLIT = 'split = { 1 = 0.5, candidate = 0.5 }\nexperiment = "ranker"\n'


def with_settings(deployment: Path, directory: Path, settings: str) -> Path:
    """The same deployment with more settings of the placement `home`."""
    shutil.copytree(deployment, directory, ignore=shutil.ignore_patterns("log", "valkey"))
    path = directory / "endcap.toml"
    path.write_text(re.sub(r"^\[placements\.home\].*$", rf"\g<0>\n{settings}", path.read_text(), flags=re.M))
    return directory


def name_candidate(directory: Path, version: str) -> None:
    registry = Registry(directory / "models")
    registry.change("default", lambda state: point(state, "candidate", version, registry.versions("default")))


@pytest.fixture
async def split(deployment: Path, tmp_path: Path) -> AsyncIterator[Client]:
    """`home` is split in two: version 1, and the candidate, which is version 2."""
    directory = with_settings(deployment, tmp_path / "split", SPLIT)
    name_candidate(directory, "2")
    async with running(directory) as client:
        yield client


def expected(user: str) -> dict[str, Any]:
    arm = Split({"1": 0.5, "candidate": 0.5}).arm(position_of("ranker", user))
    return {"name": "default", "version": {"1": "1", "candidate": "2"}[arm], "group": arm}


async def test_every_answer_and_every_row_of_the_log_says_who_answered_as_what(split: Client) -> None:
    users = [f"u{n}" for n in range(12)]
    answers = [await split.recommend(user_id=user, count=3) for user in users]
    assert [one["model"] for one in answers] == [expected(user) for user in users]
    assert {one["model"]["group"] for one in answers} == {"1", "candidate"}
    ranked = await split.post("/v1/rank", {"user_id": "u1", "item_ids": ["i00001", "i00002"]})
    assert ranked["model"] == expected("u1")
    _, text = await split.get("/metrics")
    for arm, version in (("1", "1"), ("candidate", "2")):
        theirs = {"model": "default", "version": version, "group": arm}
        count = sum(one["model"]["group"] == arm for one in (*answers, ranked))
        assert counted(text, "endcap_answers_total", **theirs) == count
        assert counted(text, "endcap_requests_total", **theirs, placement="home", status="200") == count
        assert counted(text, "endcap_stage_seconds_count", **theirs, stage="engine") == count
    pinned = await split.recommend(user_id="u1", count=3, model_version="2")
    assert pinned["model"] == {"name": "default", "version": "2", "group": "pinned"}
    await asyncio.to_thread(split.app.log.flush)
    rows = pq.ParquetDataset(split.app.log.directory).read().to_pylist()
    told = {row["recommendation_id"]: (row["model"], row["version"], row["model_group"]) for row in rows}
    for one in (*answers, ranked, pinned):
        assert told[one["recommendation_id"]] == tuple(one["model"].values())


async def test_other_placements_are_not_split(split: Client) -> None:
    answer = await split.recommend(user_id="u1", placement="popular")
    assert answer["model"] == {"name": "default", "version": "2", "group": "default"}


def test_an_arm_that_names_an_alias_that_is_not_set_is_refused_at_the_start(deployment: Path, tmp_path: Path) -> None:
    directory = with_settings(deployment, tmp_path / "split", SPLIT)
    with pytest.raises(BundleError, match="candidate names no version; there are 1, 2"):
        prepare(directory, read_config(directory), [])
