"""The reference implementation of Standard Webhooks, which we did not write, judges what a receiver gets."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.webhooks import sender
from tests.service.conftest import running
from tests.service.receiver import SECRET, Receiver, Sending, message, outbox_of
from tests.service.test_jobs import ended
from tests.service.test_webhooks import until

JUDGE = Webhook(SECRET)


@pytest.fixture
def shop(deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(deployment, tmp_path / "shop")
    with (tmp_path / "shop" / "endcap.toml").open("a") as file:
        file.write('\n[webhooks]\nallow_hosts = ["127.0.0.1"]\n')
    monkeypatch.setenv("ENDCAP_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr(sender, "LOOK_S", 0.02)
    return tmp_path / "shop"


async def test_what_a_job_s_end_sends_is_verified_by_the_reference_implementation(shop: Path) -> None:
    """And not with another byte, id, time, signature or secret."""
    async with Receiver().listening() as receiver, running(shop) as here:
        asked = {"user_ids": ["u1", "ü"], "callback_url": receiver.url}
        job = (await here.post("/v1/jobs", asked, 202))["id"]
        await ended(here, job)
        await until(lambda: receiver.got)
    ((headers, body),) = receiver.got
    told: dict[str, Any] = JUDGE.verify(body, headers)
    assert (told["type"], told["data"]["id"], told["data"]["done"]) == ("job.succeeded", job, 2)
    refuses = pytest.raises(WebhookVerificationError, match="No matching signature found")
    for place in range(len(body)):
        with refuses:
            JUDGE.verify(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :], headers, json_parse=False)
    with refuses:
        JUDGE.verify(body[:-1], headers)
    for name, other in (
        ("webhook-id", headers["webhook-id"] + "2"),
        ("webhook-timestamp", str(int(headers["webhook-timestamp"]) - 1)),
        ("webhook-signature", "v1," + "A" * 43 + "="),
    ):
        with refuses:
            JUDGE.verify(body, {**headers, name: other})
    with refuses:
        Webhook(SECRET[:-1] + "A").verify(body, headers)


@pytest.mark.parametrize(("off_s", "says"), [(-301, "too old"), (310, "too new")])
async def test_a_delivery_of_another_time_is_refused_although_its_signature_is_right(
    tmp_path: Path, off_s: int, says: str
) -> None:
    async with Receiver().listening() as receiver:
        sending = Sending(outbox_of(tmp_path, message(receiver.url)))
        sending.now = time.time() + off_s
        await sending.look()
    ((headers, body),) = receiver.got
    with pytest.raises(WebhookVerificationError, match=says):
        JUDGE.verify(body, headers)


async def test_a_delivery_that_is_tried_again_is_signed_for_its_own_time(tmp_path: Path) -> None:
    """What was first tried a day ago is as new to its receiver as the first attempt was."""
    async with Receiver().listening() as receiver:
        sending = Sending(outbox_of(tmp_path, message(receiver.url, first_at=time.time() - 80_000, attempts=9)))
        sending.now = time.time()
        await sending.look()
    ((headers, body),) = receiver.got
    assert JUDGE.verify(body, headers) == {"type": "job.succeeded"}
