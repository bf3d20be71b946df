"""Models over HTTP: what is told, who may change what, and what shoppers notice of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import pytest

from features.child import child
from ranking.registry import FILE, Registry, point
from service import models_desk, registry_change
from service.config import AdminConfig, admin_key
from service.errors import ConfigError
from service.models_wire import Changed
from tests.service.conftest import Client, running, save_untrained

KEY = "a key of more than 16"
WITH_KEY = {"Authorization": f"Bearer {KEY}"}
PROMOTE = "/v1/models/default/versions/{}/promote"
ROLLBACK = "/v1/models/default/rollback"


@pytest.fixture
def shop(deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the deployment, with versions 1, 2 and 3, and an admin key."""
    copy = tmp_path / "shop"
    shutil.copytree(deployment, copy)
    save_untrained(copy / "models", 2)
    monkeypatch.setenv("ENDCAP_ADMIN_KEY", KEY)
    return copy


@pytest.fixture
async def here(shop: Path) -> AsyncIterator[Client]:
    async with running(shop) as one:
        yield one


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are made here: a child spends seconds on importing what this process has."""

    async def in_thread(wanted: registry_change.Wanted) -> Changed:
        return await asyncio.to_thread(registry_change.make, wanted)

    monkeypatch.setattr(models_desk, "apart", in_thread)


def state_of(shop: Path) -> bytes | None:
    path = shop / "models" / "default" / FILE
    return path.read_bytes() if path.exists() else None


async def test_models_are_told_with_what_answers_here(here: Client, shop: Path) -> None:
    Registry(shop / "models").change("default", lambda state: point(state, "production", "1", ["1"], by="ann"))
    status, text = await here.get("/v1/models")
    found = json.loads(text)
    assert status == 200
    (model,) = found["models"]
    assert [(one["version"], one["loaded"], one["aliases"]) for one in model["versions"]] == [
        ("1", False, ["production"]), ("2", True, []), ("3", True, []),
    ]  # fmt: skip
    assert found["placements"]["home"] == {"model": "default", "version": "3"}
    assert (model["generation"], found["generations"]) == (1, {"default": 0})
    assert model["history"][0]["by"] == "ann"


async def test_openapi_describes_the_models(here: Client, quick: None) -> None:
    document = json.loads((await here.get("/openapi.json"))[1])
    told = document["paths"]["/v1/models"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**document, **told}).validate(json.loads((await here.get("/v1/models"))[1]))
    changes = document["paths"]["/v1/models/{name}/versions/{version}/promote"]["post"]
    assert changes["security"] == [{"admin": []}] and not changes["requestBody"]["required"]
    made = changes["responses"]["200"]["content"]["application/json"]["schema"]
    answer = await here.post(PROMOTE.format("2"), headers=WITH_KEY)
    jsonschema.Draft202012Validator({**document, **made}).validate(answer)


async def test_a_promotion_and_a_rollback_answer_with_what_stands_now(here: Client, shop: Path, quick: None) -> None:
    first = await here.post(PROMOTE.format("2"), {"why": "longer histories"}, headers=WITH_KEY)
    assert first == {
        "name": "default", "alias": "production", "version": "2", "before": None, "generation": 1, "changed": True,
        "share": None,
    }  # fmt: skip
    assert not (await here.post(PROMOTE.format("2"), headers=WITH_KEY))["changed"]
    await here.post(PROMOTE.format("3"), headers=WITH_KEY)
    back = await here.post(ROLLBACK, {"why": "fewer carts"}, headers=WITH_KEY)
    assert (back["version"], back["before"], back["generation"]) == ("2", "3", 3)
    last = Registry(shop / "models").read("default").history[-1]
    assert (last.action, last.why, last.by) == ("rollback", "fewer carts", "http 127.0.0.1")
    assert "the history has none before it" in (await here.post(ROLLBACK, status=409, headers=WITH_KEY))["detail"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {KEY}"}, {"Authorization": f"Bearer {KEY[:-1]}"},
     {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}],
)  # fmt: skip
async def test_without_the_key_nothing_is_changed(here: Client, shop: Path, headers: dict[str, str]) -> None:
    for path in (PROMOTE.format("2"), ROLLBACK):
        found = await here.post(path, status=401, headers=headers)
        assert found["type"] == "urn:endcap:problem:unauthorized" and KEY not in json.dumps(found)
        assert here.headers["WWW-Authenticate"] == 'Bearer realm="endcap"'
    assert state_of(shop) is None


async def test_where_no_key_is_set_nobody_may_change_anything(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENDCAP_ADMIN_KEY")
    async with running(shop) as one:
        found = await one.post(PROMOTE.format("2"), status=403, headers={"Authorization": "Bearer "})
        assert found["type"] == "urn:endcap:problem:admin-disabled" and "admin.key_env" in found["detail"]
        assert (await one.get("/v1/models"))[0] == 200
    assert state_of(shop) is None


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (PROMOTE.format("7"), {}, 404, "version 7 does not exist; there are 1, 2, 3"),
        (PROMOTE.format("x"), {}, 404, "version x does not exist"),
        ("/v1/models/nope/versions/1/promote", {}, 404, "no model 'nope'; there are default"),
        ("/v1/models/%2e%2e/rollback", {}, 404, ""),
        (PROMOTE.format("2"), {"alias": "Prod!"}, 422, "alias"),
        (PROMOTE.format("2"), {"alais": "x"}, 422, "alais"),
        (ROLLBACK, {"alias": "candidate"}, 409, "no version is candidate"),
    ],
)
async def test_what_cannot_be_done_is_said_and_not_done(
    here: Client, shop: Path, path: str, body: dict[str, str], status: int, said: str
) -> None:
    assert said in (await here.post(path, body, status, headers=WITH_KEY))["detail"]
    assert state_of(shop) is None


async def test_a_damaged_version_is_refused_and_the_old_one_goes_on(here: Client, shop: Path) -> None:
    path = shop / "models" / "default" / "1" / "ranker.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = await here.post(PROMOTE.format("1"), status=422, headers=WITH_KEY)
    assert found["type"] == "urn:endcap:problem:version-refused" and "default/1: ranker.safetensors" in found["detail"]
    assert state_of(shop) is None
    assert (await here.recommend(user_id="u1"))["model"]["version"] == "3"


async def test_of_two_promotions_at_once_one_is_made(here: Client, shop: Path) -> None:
    asked = [here.session.post(here.url + PROMOTE.format(one), headers=WITH_KEY) for one in ("1", "2")]
    answers = await asyncio.gather(*asked)
    assert sorted(one.status for one in answers) == [200, 409]
    (refused,) = [await one.json() for one in answers if one.status == 409]
    assert "another change is being checked; nothing was done" in refused["detail"]
    assert Registry(shop / "models").read("default").generation == 1


@pytest.mark.slow
async def test_shoppers_are_answered_while_a_version_is_checked(here: Client) -> None:
    promoting = asyncio.create_task(here.post(PROMOTE.format("2"), headers=WITH_KEY))
    answered = 0
    while not promoting.done():
        await here.recommend(user_id="u1")
        answered += 1
    assert (await promoting)["changed"] and answered > 20


async def test_a_check_that_fails_for_no_known_reason_says_so(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_change, "child", lambda _, argument: child("service.nothing", argument))
    found = await here.post(PROMOTE.format("2"), status=503, headers=WITH_KEY)
    assert "the version could not be checked: " in found["detail"] and "service.nothing" in found["detail"]


async def test_a_check_that_takes_too_long_is_given_up(
    here: Client, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_change, "MOST_S", 0.05)
    assert (await here.post(PROMOTE.format("2"), status=504, headers=WITH_KEY))["detail"].startswith("the check took")
    assert state_of(shop) is None


def test_a_key_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENDCAP_ADMIN_KEY", raising=False)
    assert admin_key(tmp_path, AdminConfig()) is None
    monkeypatch.setenv("ENDCAP_ADMIN_KEY", KEY)
    monkeypatch.setenv("MINE", "0123456789abcdef")
    assert admin_key(tmp_path, AdminConfig()) == KEY.encode()
    assert admin_key(tmp_path, AdminConfig(key_env="MINE")) == b"0123456789abcdef"
    (tmp_path / "key").write_text("fedcba9876543210\n")
    assert admin_key(tmp_path, AdminConfig(key_file="key")) == b"fedcba9876543210"


def test_a_key_that_cannot_be_used_is_one_line_that_does_not_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_ADMIN_KEY", "0123456789abcde")
    with pytest.raises(ConfigError, match=r"admin\.key_env: the key has 15 bytes; 16 are the least$"):
        admin_key(tmp_path, AdminConfig())
    with pytest.raises(ConfigError, match=r"admin\.key_file: .*none: No such file"):
        admin_key(tmp_path, AdminConfig(key_file="none"))
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match=r"admin\.key_file: the key has 0 bytes"):
        admin_key(tmp_path, AdminConfig(key_file="empty"))


async def test_a_promotion_in_steps_is_begun_over_http(here: Client, shop: Path, quick: None) -> None:
    await here.post(PROMOTE.format("2"), headers=WITH_KEY)
    plan = {"steps": [0.1, 1], "hold_s": 600, "rules": {"errors": 0.01}}
    made = await here.post(PROMOTE.format("3"), {"plan": plan}, headers=WITH_KEY)
    assert (made["version"], made["share"]) == ("2", 0.1)
    rollout = json.loads((await here.get("/v1/models"))[1])["models"][0]["rollout"]
    assert (rollout["version"], rollout["plan"]["steps"], rollout["plan"]["rules"]["errors"]) == ("3", [0.1, 1], 0.01)
    for path, body, said in (
        (PROMOTE.format("3"), {"plan": {"steps": [0.5, 0.1, 1]}}, "must grow"),
        (PROMOTE.format("3"), {"plan": plan, "alias": "candidate"}, "a plan is for production only"),
        (ROLLBACK, {"plan": plan}, "going back has no steps"),
    ):
        assert said in str(await here.post(path, body, status=422, headers=WITH_KEY))
