"""Webhooks as they are told of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct


class DeadWebhook(Struct, frozen=True):
    """A message that nobody took: since when and how often it was tried, why it failed last, and what it says."""

    id: str
    url: str
    first_at: datetime
    attempts: int
    error: str | None
    body: Any


class DeadList(Struct, frozen=True):
    """The oldest first."""

    webhooks: list[DeadWebhook]
