"""The dead-letter list, to be looked at and sent again; in every process, whoever sends."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from service.errors import UnknownWebhook
from service.webhooks.outbox import Message, Outbox
from service.webhooks.wire import DeadList, DeadWebhook


class Desk:
    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    async def dead(self) -> DeadList:
        return DeadList([tell(one) for one in await asyncio.to_thread(self.outbox.all, "dead")])

    async def resend(self, name: str) -> DeadWebhook:
        """Has it tried from now on as if it were new, under its old id. Raises UnknownWebhook."""
        message = await asyncio.to_thread(self.outbox.read, name)
        if message is None or message.state != "dead":
            raise UnknownWebhook(f"there is no {name[:100]!r} in the dead-letter list")
        now = time.time()
        again = replace(message, state="pending", attempts=0, first_at=now, due=now)
        await asyncio.to_thread(self.outbox.write, again)
        return tell(again)


def tell(message: Message) -> DeadWebhook:
    first_at = datetime.fromtimestamp(message.first_at, UTC)
    body = msgspec.json.decode(message.body)
    return DeadWebhook(message.id, message.url, first_at, message.attempts, message.error, body)
