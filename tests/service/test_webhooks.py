"""Webhooks: whom they reach, whom they never reach, and what becomes of those that nobody takes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from service.config import WebhooksConfig, webhook_key
from service.errors import ConfigError
from service.webhooks import sender
from service.webhooks.outbox import Outbox
from service.webhooks.sender import Sender
from service.webhooks.signature import headers, secret_of
from tests.service.conftest import Client, running
from tests.service.receiver import SECRET, Names, Receiver, Sending, message, outbox_of
from tests.service.test_jobs import ended

KEY = "a key of more than 16"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listening() as one:
        yield one


def test_a_signature_is_that_of_the_specification() -> None:
    """The test vector of standardwebhooks.com's reference libraries."""
    found = headers(secret_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    ("secret", "says"),
    [("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"), ("whsec_?", "is not base64"),
     ("whsec_c2hvcnQ=", "has 5 bytes; 24 to 64 are right")],
)  # fmt: skip
def test_a_secret_that_is_none_is_told_and_not_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str, says: str
) -> None:
    monkeypatch.setenv("ENDCAP_WEBHOOK_SECRET", secret)
    with pytest.raises(ConfigError) as told:
        webhook_key(tmp_path, WebhooksConfig())
    assert str(told.value) == f"{tmp_path}/endcap.toml: webhooks.secret_env: the secret {says}" + (
        " after whsec_" if "base64" in says else ""
    )
    with pytest.raises(ConfigError, match=r"webhooks\.secret_file: .*No such file"):
        webhook_key(tmp_path, WebhooksConfig(secret_file="none"))
    monkeypatch.setenv("ENDCAP_WEBHOOK_SECRET", SECRET)
    assert webhook_key(tmp_path, WebhooksConfig()) == base64.b64decode(SECRET[6:])


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"], ["10.0.0.7"], ["::ffff:10.0.0.7"]]
)
async def test_a_name_at_a_private_address_is_never_spoken_to(
    tmp_path: Path, receiver: Receiver, addresses: list[str]
) -> None:
    """One private address among several is enough."""
    outbox = outbox_of(tmp_path, message(f"https://shop.example:{receiver.port}/hook"))
    await Sending(outbox, resolver=Names(addresses)).look()
    (dead,) = outbox.all("dead")
    assert "not a public address" in str(dead.error) and receiver.got == []


async def test_what_was_looked_at_is_what_is_spoken_to(tmp_path: Path, receiver: Receiver) -> None:
    """A name that leads elsewhere the next time it is asked for: it is asked for once."""
    names = Names(["127.0.0.1"], ["127.0.0.99"])
    outbox = outbox_of(tmp_path, message(f"http://shop.example:{receiver.port}/hook"))
    await Sending(outbox, frozenset(["shop.example"]), names).look()
    assert names.asked == 1 and len(receiver.got) == 1


async def test_a_delivery_is_signed_and_gone_once_it_is_taken(tmp_path: Path, receiver: Receiver) -> None:
    outbox = outbox_of(tmp_path, message(receiver.url))
    sending = Sending(outbox)
    sending.now = 1_700_000_000.0
    await sending.look()
    ((got, body),) = receiver.got
    signed = hmac.new(secret_of(SECRET), b"msg_1.1700000000." + body, hashlib.sha256).digest()
    assert got["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert (got["webhook-id"], got["webhook-timestamp"]) == ("msg_1", "1700000000")
    assert outbox.all("pending") == [] and sending.counts == {("delivered",): 1}


async def test_what_nobody_takes_is_tried_for_a_day_with_growing_pauses_and_then_dead(
    tmp_path: Path, receiver: Receiver
) -> None:
    outbox = outbox_of(tmp_path, message(receiver.url))
    sending, pauses = Sending(outbox), []
    while pending := outbox.all("pending"):
        receiver.answers = [web.Response(status=503)]
        pauses.append(pending[0].due - sending.now)
        sending.now = pending[0].due
        await sending.look()
    assert pauses[:6] == [0, 5, 20, 80, 320, 1280] and max(pauses) == 4 * 3600
    assert 86400 - 4 * 3600 < sending.now <= 86400 and len(receiver.got) == len(pauses)
    assert len({got["webhook-id"] for got, _ in receiver.got}) == 1
    (dead,) = outbox.all("dead")
    assert dead.error == "the receiver answered 503" and dead.attempts == len(pauses)
    assert sending.counts == {("retried",): len(pauses) - 1, ("dead",): 1}


def test_jitter_moves_a_pause_by_at_most_three_tenths(tmp_path: Path) -> None:
    for chance, due in ((0.0, 3.5), (0.5, 5.0), (0.999999, 6.5)):
        one = Sender(Outbox(tmp_path), None, (), 86400.0, Counter(), chance=lambda chance=chance: chance)
        assert one.later(message("", attempts=1), 0.0).due == pytest.approx(due, abs=1e-4)


async def test_a_redirect_is_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [web.Response(status=302, headers={"Location": "/latest/meta-data"})]
    outbox = outbox_of(tmp_path, message(receiver.url))
    await Sending(outbox).look()
    assert len(receiver.got) == 1
    assert outbox.all("pending")[0].error == "the receiver answered 302, and redirects are refused"


async def test_whoever_is_gone_is_not_tried_again(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [web.Response(status=410)]
    outbox = outbox_of(tmp_path, message(receiver.url))
    await Sending(outbox).look()
    assert outbox.all("dead")[0].error == "the receiver answered 410"


async def test_a_receiver_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        outbox = outbox_of(tmp_path, message(f"http://127.0.0.1:{held.getsockname()[1]}/"))
        await Sending(outbox).look()
    assert outbox.all("pending")[0].due == 5.0


@pytest.fixture
async def here(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> AsyncIterator[Client]:
    shop = tmp_path / "shop"
    shutil.copytree(deployment, shop)
    with (shop / "endcap.toml").open("a") as file:
        file.write('\n[webhooks]\nallow_hosts = ["127.0.0.1"]\n')
    monkeypatch.setenv("ENDCAP_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("ENDCAP_ADMIN_KEY", KEY)
    monkeypatch.setattr(sender, "LOOK_S", 0.02)
    async with running(shop) as one:
        yield one


async def until(what: Any) -> None:
    while not what():
        await asyncio.sleep(0.02)


async def test_a_job_that_has_ended_is_told(here: Client, receiver: Receiver) -> None:
    made = await here.post("/v1/jobs", {"user_ids": ["u1", "u2"], "callback_url": receiver.url}, 202)
    await until(lambda: receiver.got)
    got, body = receiver.got[0]
    told = json.loads(body)
    assert (told["type"], told["data"]["id"], told["data"]["done"]) == ("job.succeeded", made["id"], 2)
    assert got["webhook-id"] == f"msg_{made['id']}_succeeded"
    assert (await ended(here, made["id"]))["state"] == told["data"]["state"]
    path = "/v1/jobs?callback_url=https://169.254.169.254/"
    refused = await here.post(path, None, 422, data=b"{}", headers={"Content-Type": "application/x-ndjson"})
    assert refused["errors"][0]["path"] == "callback_url"


async def test_a_dead_message_can_be_seen_and_sent_again(here: Client, receiver: Receiver) -> None:
    receiver.answers = [web.Response(status=410)]
    made = await here.post("/v1/jobs", {"segment": {}, "callback_url": receiver.url}, 202)
    found = await ended(here, made["id"])
    assert found["state"] == "succeeded"
    name = f"msg_{made['id']}_succeeded"
    resend, with_key = f"/v1/webhooks/dead/{name}/resend", {"Authorization": f"Bearer {KEY}"}
    await until(lambda: here.app.metrics.webhooks.values["dead",])
    assert (await here.get("/v1/webhooks/dead"))[0] == 401
    await here.post(resend, status=401)
    async with here.session.get(f"{here.url}/v1/webhooks/dead", headers=with_key) as answer:
        (dead,) = (await answer.json())["webhooks"]
    assert (dead["id"], dead["url"], dead["attempts"]) == (name, receiver.url, 1)
    assert dead["error"] == "the receiver answered 410" and dead["body"]["type"] == "job.succeeded"
    await here.post(resend, status=202, headers=with_key)
    await until(lambda: len(receiver.got) == 2)
    assert receiver.got[0][0]["webhook-id"] == receiver.got[1][0]["webhook-id"]
    await here.post(resend, status=404, headers=with_key)


async def test_a_job_whose_input_turns_out_bad_fails_and_is_told(here: Client, receiver: Receiver) -> None:
    """A row further down, which nobody could see at once."""
    users = here.app.directory / "data" / "users.parquet"
    rows = [{"user_id": "u" * (1 if n < 500 else 300), "country": "DE"} for n in range(501)]
    pq.write_table(pa.Table.from_pylist(rows), users)
    made = await here.post("/v1/jobs", {"segment": {}, "callback_url": receiver.url}, 202)
    found = await ended(here, made["id"])
    assert found["state"] == "failed" and found["error"].startswith("rows[500].user_id: ")
    await until(lambda: receiver.got)
    assert json.loads(receiver.got[0][1])["type"] == "job.failed"


async def test_parquet_is_fetched_from_an_allowed_url_and_from_nowhere_else(
    here: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect could lead anywhere, and is refused; so is a file that is larger than may be."""
    prepare = here.app.jobs.prepare if here.app.jobs else None
    assert prepare is not None
    base = receiver.url.removesuffix("/hook")
    monkeypatch.setattr(prepare, "allow", [f"{base}/day/"])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"user_id": ["u1", "u2"]}), sink)
    whole = web.Response(body=sink.getvalue().to_pybytes())
    elsewhere = web.Response(status=307, headers={"Location": f"{base}/day/b.parquet"})
    for answer, state, says in (
        (whole, "succeeded", ""),
        (elsewhere, "failed", "parquet: the server answered 307"),
        (web.Response(body=b"no Parquet"), "failed", "parquet: cannot be read: "),
        (web.Response(status=404), "failed", "parquet: the server answered 404"),
        (web.Response(body=b"x" * 2_000), "failed", "parquet: has more than 1,000 bytes"),
    ):
        receiver.answers = [answer]
        monkeypatch.setattr(prepare, "most_bytes", 1_000 if "1,000" in says else 1_000_000)
        made = await here.post("/v1/jobs", {"parquet": f"{base}/day/a.parquet"}, 202)
        found = await ended(here, made["id"])
        assert found["state"] == state and (found["error"] or "").startswith(says), found
        assert not (here.app.directory / "jobs" / made["id"] / "source.parquet").exists()
    assert len(receiver.got) == 5
    await here.post("/v1/jobs", {"parquet": f"{base}/night/a.parquet"}, 422)
