"""What Feast's own feature server does, done by the fast reader: features by name, of many entities; and pushes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from features.errors import BadLookup, FeaturesError, NotServed
from features.facts import Feast
from features.lookup import LookupReader, resolve
from features.offer import Offer, OfferedView
from features.push import Pusher, batch, named_view, pushed_views
from service.config import FeastApiConfig
from service.errors import DeadlineExceeded, DoorClosed, FieldError, InvalidRequest, Overloaded
from service.feast_columns import Columns
from service.feast_wire import GetOnlineFeaturesRequest, PushRequest, WriteRequest, Written

LOOK_S = 30.0
"""How often the registry is looked at: its files' times; Feast is asked only when those have changed."""

TOGETHER = 4
"""Requests of the largest size that may be answered at once: each keeps its answer in memory until it is sent."""

log = logging.getLogger(__name__)


class FeastDesk:
    """Answers by what the registry offered when it was last looked at."""

    def __init__(
        self, feast: Feast, reader: LookupReader, pusher: Pusher, config: FeastApiConfig, offer: Offer
    ) -> None:
        self.feast, self.reader, self.pusher, self.config, self.offer = feast, reader, pusher, config, offer
        self.task: asyncio.Task[None] | None = None
        self.in_flight = 0  # entities that are being read

    def start(self) -> None:
        self.task = asyncio.create_task(self.follow())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def follow(self) -> None:
        """Goes on with what was offered before where the registry cannot be read."""
        said = ""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
                said = ""
            except FeaturesError as error:
                if str(error) != said:
                    log.warning("Feast's API goes on with the registry as it was: %s", error)
                said = str(error)

    async def look(self) -> None:
        """Takes the registry as it is now. Raises FeaturesError."""
        self.offer = (await asyncio.to_thread(self.feast.facts)).offer

    async def features(self, asked: GetOnlineFeaturesRequest) -> bytes:
        """The answer's JSON. Raises InvalidRequest, NotOffered, NotServed, Overloaded, DeadlineExceeded or
        FeatureStoreError."""
        most = self.config.max_entities
        for name, values in asked.entities.items():
            if len(values) > most:
                message = f"Expected at most {most:,} entities, got {len(values):,} (feast_api.max_entities)"
                raise InvalidRequest(FieldError(f"entities.{name[:100]}", message))
        with in_place():
            lookup = resolve(
                self.offer, asked.features, asked.feature_service, asked.entities, full_names=asked.full_feature_names
            )
        columns = Columns(lookup, empty_lists=self.config.empty_lists == "list")
        with self.room(lookup.rows), self.in_time():
            async with asyncio.timeout(self.config.timeout_ms / 1e3), aclosing(self.reader.read(lookup)) as chunks:
                async for rows in chunks:
                    columns.add(rows)
        return columns.body(versions=asked.include_feature_view_version_metadata)

    async def push(self, asked: PushRequest) -> Written:
        """Raises DoorClosed too."""
        self.writable()
        if asked.to != "online":
            raise NotServed(f"to is {asked.to!r}: only the online store is written here; nothing was written")
        return await self.write(pushed_views(self.offer, asked.push_source_name), asked.df)

    async def write_view(self, asked: WriteRequest) -> Written:
        """Raises DoorClosed too."""
        self.writable()
        return await self.write([named_view(self.offer, asked.feature_view_name)], asked.df)

    def writable(self) -> None:
        if not self.config.push:
            raise DoorClosed("nothing can be pushed: feast_api.push is false in endcap.toml")

    async def write(self, views: Sequence[OfferedView], frame: Mapping[str, Sequence[Any]]) -> Written:
        most = self.config.max_push_rows
        if (rows := max(map(len, frame.values()), default=0)) > most:
            message = f"Expected at most {most:,} rows, got {rows:,} (feast_api.max_push_rows)"
            raise InvalidRequest(FieldError("df", message))
        offer = self.offer
        with in_place():
            batches = [batch(offer, view, frame) for view in views]  # all of them, before any is written
        with self.in_time():
            async with asyncio.timeout(self.config.timeout_ms / 1e3):
                written = [await self.pusher.write(offer, one) for one in batches]
        return Written(sum(written), sum(len(one.keys) for one in batches) - sum(written))

    @contextmanager
    def room(self, rows: int) -> Iterator[None]:
        """Raises Overloaded where too many entities are being read."""
        if self.in_flight + rows > TOGETHER * self.config.max_entities:
            raise Overloaded(f"{self.in_flight:,} entities are being read, which is what can be done at once")
        self.in_flight += rows
        try:
            yield
        finally:
            self.in_flight -= rows

    @contextmanager
    def in_time(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            most = f"{self.config.timeout_ms:g} ms (feast_api.timeout_ms)"
            raise DeadlineExceeded(f"the store did not answer in {most}") from error


@contextmanager
def in_place() -> Iterator[None]:
    """A mistake of the request, as every other one is told."""
    try:
        yield
    except BadLookup as error:
        raise InvalidRequest(FieldError(error.path[:200], error.message)) from error
