"""A whole deployment with an untrained model, and the service running on it in the test's own loop."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import torch
from torch import nn

from features.consumer import Consumer
from features.registry import service_features
from features.shop import write_shop
from features.store import open_store
from ranking import forward
from ranking.batching import Sample
from ranking.engine import BatchPath
from ranking.train.save import save
from service import prepared
from service.app import App
from service.commands.data import init, materialize
from service.config import Config, read_config
from service.deployment import Deployment
from tests.conftest import Server
from tests.features.shops import shop
from tests.ranking.factory import make_trained

DAY_S = 86400.0
MAX_AGE_S: dict[str, float | None] = {
    "user_profile": 365 * DAY_S, "user_activity": 30 * DAY_S, "user_recent": 365 * DAY_S,
}  # fmt: skip
ITEMS = 200


def save_untrained(models: Path, seed: int = 0, **changes: Any) -> Path:
    """The next version of a model with random weights that fits the Feast repo that `endcap init` makes."""
    trained = make_trained(ITEMS, seed=seed)
    user = msgspec.structs.replace(trained.user, **{"feature_service": "default", "max_age_s": MAX_AGE_S, **changes})
    object.__setattr__(trained, "user", user)
    return save(trained, models, "default", {"untrained": {"recall@10": 0.0}})


@pytest.fixture(scope="session", autouse=True)
def quick_starts() -> Iterator[None]:
    """A test's service takes the weights that another has traced, and the batches that another has timed, for its own;
    and it ends without waiting for half a second's read of the events."""
    learn, traced = prepared.learn, forward.traced
    timed: dict[tuple[object, ...], list[Sample]] = {}
    compiled: dict[tuple[object, ...], Callable[..., Any]] = {}

    def learn_once(path: BatchPath, config: Config, most: int) -> list[Sample]:
        key = (type(path), path.bundle.key, len(path.bundle.items), repr(config.placements), most)
        if key not in timed:
            timed[key] = learn(path, config, most)
        return timed[key]

    def trace_once(module: nn.Module, examples: Sequence[Sequence[torch.Tensor]]) -> Callable[..., Any]:
        all_of_it = [*module.named_parameters(), *module.named_buffers()]  # the items' table too, which is not saved
        weights = [(name, tuple(one.shape), one.detach().numpy().tobytes()) for name, one in all_of_it]
        key = (type(module), repr(module), *weights)
        if key not in compiled:
            compiled[key] = traced(module, examples)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "learn", learn_once)
        patch.setattr(forward, "traced", trace_once)
        patch.setitem(Consumer.__init__.__kwdefaults__, "block_s", 0.05)
        yield


@pytest.fixture(scope="session")
def deployment(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIR: shoppers u0..u11 with 600 events over the last 40 days, 200 items, two versions, features online."""
    return make_deployment(tmp_path_factory.mktemp("deployment"), valkey.address)


def make_deployment(directory: Path, address: str, project: str = "deployment", more: str = "") -> Path:
    """A shop, its features online and two untrained versions. `more`: goes to the end of the Feast definitions."""
    init(directory, project, address)
    with (directory / "feature_repo" / "definitions.py").open("a") as definitions:
        definitions.write(more)
    unhurried(directory)
    one = shop(items=ITEMS, start=datetime.now(UTC).replace(microsecond=0) - timedelta(days=40))
    write_shop(one, directory / "data")
    Deployment.at(directory).name_shop({"format": "test"})
    materialize(directory)
    for seed in (0, 1):
        save_untrained(directory / "models", seed)
    assert service_features(open_store(directory / "feature_repo"), "default", "user").views
    return directory


def unhurried(directory: Path) -> None:
    """Gives every placement time, so that answers are whole also on a busy machine."""
    path = directory / "endcap.toml"
    text = re.sub(r"^(\[placements\.\w+\].*)$", r"\1\ntimeout_ms = 20000", path.read_text(), flags=re.M)
    path.write_text(text.replace("timeout_ms = 1000 ", "timeout_ms = 20000 "))


class Client:
    """A running service and an HTTP client for it."""

    def __init__(self, app: App, session: aiohttp.ClientSession, url: str) -> None:
        self.app, self.session, self.url = app, session, url

    async def post(self, path: str, body: Any = None, status: int | None = 200, **options: Any) -> dict[str, Any]:
        """The decoded answer; asserts the status (None: any error), and that an error is problem details."""
        content = {"json": body} if body is not None else {}
        async with self.session.post(self.url + path, **content, **options) as response:
            text = await response.text()
            assert response.status == status or (status is None and 400 <= response.status < 500), text
            kind = "application/json" if status in (200, 202) else "application/problem+json"
            assert response.content_type == kind, text
            found: dict[str, Any] = msgspec.json.decode(text)
            self.headers = response.headers
            return found

    async def recommend(self, status: int = 200, **body: Any) -> dict[str, Any]:
        return await self.post("/v1/recommendations", body, status)

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as response:
            return response.status, await response.text()


def counted(scrape: str, name: str, **labels: str) -> float:
    """What the samples of this name come to that have these labels, whatever others they have."""
    found = [line for line in scrape.splitlines() if line.startswith(name + "{")]
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(line.rpartition(" ")[2]) for line in found if set(wanted) <= set(re.findall(r'\w+="[^"]*"', line)))


@asynccontextmanager
async def running(deployment: Path) -> AsyncIterator[Client]:
    """The service on a free port, until the end of the block."""
    app = App(deployment, read_config(deployment))
    port = await app.listen("127.0.0.1", 0)
    await app.load()
    async with aiohttp.ClientSession() as session:
        yield Client(app, session, f"http://127.0.0.1:{port}")
    await app.stop()


@pytest.fixture
async def client(deployment: Path) -> AsyncIterator[Client]:
    async with running(deployment) as one:
        yield one
