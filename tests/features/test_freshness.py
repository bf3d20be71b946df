"""What the sampler says of the store: ages, missing rows and max ages, on a real server with other keys in it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from features.errors import FeaturesError, FeatureStoreError
from features.freshness import Sampler, ViewSpec, judge, newest_row, span, view_specs
from features.keys import Keys
from features.layout import encode_timestamp, key_maker, timestamp_field
from features.pipeline import Pipeline
from features.store import apply, init_repo, open_store
from service.valkey import EmbeddedValkey, free_port
from tests.conftest import Server

NOW = 1_795_000_000.0
SPECS = [
    ViewSpec("fast", "user", "user_id", 60.0, 1000.0),
    ViewSpec("slow", "user", "user_id", None, None),
    ViewSpec("stats", "item", "item_id", 3600.0, None),
]


class Planted:
    """A project with rows of known ages."""

    def __init__(self, server: Server) -> None:
        self.project = "fresh*[" + secrets.token_hex(4)
        self.client: Any = redis.Redis(host=server.host, port=server.port, protocol=2)
        self.sampler = Sampler(Pipeline(server.host, server.port), self.project, SPECS, now=lambda: NOW)

    def put(self, join_key: str, entity_id: str, **ages: float) -> None:
        stamps = {timestamp_field(view): encode_timestamp(int((NOW - age) * 1e6)) for view, age in ages.items()}
        self.client.hset(key_maker(self.project, join_key)(entity_id), mapping={**stamps, b"x": b"y"})


@pytest.fixture
async def planted(valkey: Server) -> AsyncIterator[Planted]:
    one = Planted(valkey)
    yield one
    await one.sampler.pipeline.close()


async def test_ages_missing_rows_and_max_ages_are_told_apart(planted: Planted) -> None:
    """Among keys of another project, of another entity and of our own bookkeeping."""
    for n in range(100):
        planted.put("user_id", f"u{n}", **({"fast": n * 20.0} if n % 4 else {}), slow=5.0)
    planted.put("item_id", "i", stats=7200.0)
    planted.client.set(f"endcap:{planted.project}:user:u1", b"history")
    planted.client.hset(key_maker("other" + planted.project[:3], "user_id")("u"), timestamp_field("fast"), b"")
    found = await planted.sampler.look()
    ages = np.array([n * 20.0 for n in range(100) if n % 4])
    fast = found["fast"]
    assert (fast.entities, fast.missing) == (100, 0.25)
    assert fast.outside_max_age == pytest.approx((ages > 1000).sum() / 100)
    assert fast.within_slo == pytest.approx((ages <= 60).mean())
    assert fast.age_s == pytest.approx(np.quantile(ages, (0.5, 0.95, 0.99)).tolist(), abs=1e-3)
    assert found["slow"].within_slo is None and found["slow"].age_s == pytest.approx((5.0, 5.0, 5.0), abs=1e-3)
    assert (found["stats"].entities, found["stats"].within_slo) == (1, 0.0)
    assert planted.sampler.newest["fast"] == pytest.approx(NOW - 20, abs=1e-3)


async def test_a_sample_is_bounded_and_the_next_one_goes_on(planted: Planted) -> None:
    """3,000 entities, 500 at a time: every part is looked at in turn, so the newest row is found."""
    for n in range(3000):
        planted.put("user_id", f"u{n}", fast=100.0 + n)
    planted.sampler.sample = 500
    seen = [(await planted.sampler.look())["fast"] for _ in range(12)]
    assert all(one.entities < 1200 for one in seen) and seen[0].age_s != seen[1].age_s
    assert planted.sampler.newest["fast"] == pytest.approx(NOW - 100, abs=1e-3)


async def test_no_sample_is_only_the_few_keys_before_the_end_of_a_walk(planted: Planted) -> None:
    """A walk that ends before the sample is full goes on from the beginning, and counts no entity twice."""
    for n in range(1300):
        planted.put("user_id", f"u{n}", fast=1.0)
    planted.sampler.sample = 600
    seen = [(await planted.sampler.look())["fast"].entities for _ in range(8)]
    assert all(600 <= one <= 1300 for one in seen), seen


async def test_a_project_whose_name_ends_with_ours_is_not_ours(planted: Planted) -> None:
    planted.put("user_id", "u", fast=5.0)
    theirs = key_maker("my" + planted.project, "user_id")("u")
    planted.client.hset(theirs, timestamp_field("fast"), encode_timestamp(int((NOW - 9000) * 1e6)))
    same_length = key_maker("x" * len(planted.project), "user_id")("u")
    planted.client.hset(same_length, timestamp_field("fast"), encode_timestamp(int((NOW - 9000) * 1e6)))
    found = (await planted.sampler.look())["fast"]
    assert found.entities == 1 and found.within_slo == 1.0


async def test_the_newest_event_that_a_consumer_wrote_is_known_at_once(planted: Planted) -> None:
    planted.client.zadd(Keys(planted.project).newest, {"fast": int((NOW - 3) * 1e6), "gone": 5, b"\xff": 7})
    assert await planted.sampler.look() == {}
    assert planted.sampler.newest == {"fast": NOW - 3, "slow": None, "stats": None}


async def test_a_row_that_cannot_be_read_is_missing_and_no_failure(planted: Planted) -> None:
    planted.client.hset(key_maker(planted.project, "user_id")("u"), timestamp_field("fast"), b"\xff\xff")
    assert (await planted.sampler.look())["fast"].missing == 1.0


async def test_a_store_that_is_gone_is_an_error(tmp_path: Path) -> None:
    sampler = Sampler(Pipeline("127.0.0.1", free_port()), "p", SPECS)
    with pytest.raises(FeatureStoreError):
        await sampler.look()
    await sampler.pipeline.close()


def test_slos_come_from_the_tags_of_the_definitions(tmp_path: Path, valkey: Server) -> None:
    init_repo(tmp_path, "tagged" + secrets.token_hex(3), valkey.address)
    apply(tmp_path)
    specs = {one.view: one for one in view_specs(open_store(tmp_path))}
    assert {name: one.slo_s for name, one in specs.items()} == {
        "user_profile": 26 * 3600, "user_activity": 300, "user_recent": 300, "item_stats": 26 * 3600,
    }  # fmt: skip
    assert specs["item_stats"].join_key == "item_id" and specs["user_activity"].max_age_s == 30 * 86400
    assert specs["user_profile"].last_materialized is None
    definitions = tmp_path / "definitions.py"
    definitions.write_text(definitions.read_text().replace('"freshness_slo": "5m"', '"freshness_slo": "soon"'))
    apply(tmp_path)
    with pytest.raises(FeaturesError, match=r"feature view user_activity: tag freshness_slo is 'soon', not a span"):
        view_specs(open_store(tmp_path))


def test_the_newest_row_of_a_source_is_read_where_its_file_says_it(tmp_path: Path) -> None:
    """A time without a zone is UTC, and a file that cannot be read, or holds no times, ends nothing."""

    class Source:
        path, timestamp_field = str(tmp_path / "rows.parquet"), "at"

    assert newest_row(Source) is None
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 half")
    assert newest_row(Source) is None
    pq.write_table(pa.table({"at": [1, 2]}), Source.path)
    assert newest_row(Source) is None
    for zone in (None, "UTC", "Asia/Tokyo"):
        pq.write_table(pa.table({"at": pa.array([int(NOW) - 1, int(NOW)], pa.timestamp("s", zone))}), Source.path)
        assert newest_row(Source) == NOW


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("26h", 93600), ("7d", 604800), ("1.5h", 5400)]
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert span(text) == seconds
    for bad in ("", "5", "m", "-5m", "5 m", "5w", "1e3s"):
        assert span(bad) is None


def test_no_rows_at_all_is_all_missing() -> None:
    found: Any = judge(SPECS[0], [None, None], NOW)
    assert (found.missing, found.age_s, found.within_slo) == (1.0, None, None)


def test_the_embedded_server_keeps_what_it_has_taken(tmp_path: Path) -> None:
    """Killed and started anew it has every write that it answered."""
    server = EmbeddedValkey(tmp_path, "127.0.0.1", free_port())
    server.start()
    client: Any = redis.Redis(port=server.port, protocol=2)
    for n in range(200):
        client.set(f"k{n}", n)
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server._start()
    assert client.dbsize() == 200
    server.stop()
