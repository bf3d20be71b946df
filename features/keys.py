"""The names of what Endcap keeps in Redis beside Feast's hashes. All begin with `endcap:`, which no Feast key does."""

from __future__ import annotations

GROUP = "features"
"""The consumer group that turns events into features."""


class Keys:
    """One Feast project's keys."""

    def __init__(self, project: str) -> None:
        self.project, self.prefix = project, f"endcap:{project}:"
        self.events = f"{self.prefix}events".encode()  # stream of events that are accepted and not yet in the features
        self.dead = f"{self.prefix}events:dead".encode()  # stream of entries that could not be used
        self.items = f"{self.prefix}items".encode()  # stream of item changes
        self.catalogue = f"{self.prefix}catalogue".encode()  # hash: what item changes say together
        self.shop = f"{self.prefix}shop".encode()  # the id of the shop whose features these are
        self.counted = f"{self.prefix}counted".encode()  # sorted set: items counted of late, by when, in microseconds
        self.newest = f"{self.prefix}newest".encode()  # sorted set: each view's newest event time in microseconds

    def seen(self, period: int) -> bytes:
        """The set of event ids accepted in a period."""
        return f"{self.prefix}seen:{period}".encode()

    def user(self, user_id: str) -> bytes:
        """A user's history: what the features are computed from."""
        return f"{self.prefix}user:{user_id}".encode()

    def item(self, item_id: str) -> bytes:
        """A sorted set of an item's events, by time."""
        return f"{self.prefix}item:{item_id}".encode()

    def bought(self, item_id: str) -> bytes:
        """A sorted set of an item's purchases, by time."""
        return f"{self.prefix}bought:{item_id}".encode()
