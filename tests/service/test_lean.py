"""What a process that answers shoppers does not load, and who asks in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import FeaturesError, InputError
from features.facts import Feast, gather
from service.errors import LogUnreadable
from service.served_rows import Asked, count, rows_of

ABSENT = ("feast", "pandas", "duckdb", "torch._dynamo", "redis", "fsspec", "grpc", "google.protobuf")


def apart(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SERVES = f"""
import asyncio, sys
from pathlib import Path
from service.lean import keep_pandas_out
keep_pandas_out()
from service.app import App
from service.config import read_config

async def main():
    app = App(Path(sys.argv[1]), read_config(Path(sys.argv[1])))
    await app.listen("127.0.0.1", 0)
    await app.load()
    assert await app.why_not_ready() is None
    await app.stop()

asyncio.run(main())
print([one for one in {ABSENT!r} if one in sys.modules])
"""


def test_a_process_that_serves_loads_no_feast_no_pandas_no_duckdb_and_no_compiler(deployment: Path) -> None:
    """Each is tens of megabytes in every worker."""
    assert apart(SERVES, str(deployment)) == "[]"


def test_pandas_can_still_be_imported_where_somebody_wants_it() -> None:
    code = "import pyarrow, service.lean as lean; lean.keep_pandas_out(); print(len(pyarrow.array([1, 2]).to_pandas()))"
    assert apart(code) == "2"


POOL = """
from service.lean import allocate_plainly
allocate_plainly()
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""


def test_arrow_takes_its_memory_from_malloc_unless_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own allocator keeps what loading has freed: 15 MiB of every process."""
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    assert apart(POOL) == "system"
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "mimalloc")
    assert apart(POOL) == "mimalloc"


RUNS = """
import sys
from pathlib import Path
from unittest import mock
import uvloop
from service.commands import running
from service.deployment import Deployment
assert "pyarrow" not in sys.modules
with mock.patch.object(uvloop, "run", lambda coroutine: coroutine.close()):
    running.run(Deployment.at(Path(sys.argv[1])), None, None, None)
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""


def test_a_service_chooses_before_arrow_is_loaded(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later nothing would come of it."""
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    assert apart(RUNS, str(deployment)) == "system"


ASKS = """
import sys
from pathlib import Path
import msgspec
from features.facts import Feast
feast = Feast(Path(sys.argv[1]))
found = feast.facts()
assert feast.facts() is found
assert "feast" not in sys.modules
print(msgspec.json.encode(found).decode())
"""


def test_a_child_says_of_feast_what_the_sdk_says_here(deployment: Path) -> None:
    import msgspec

    repo = deployment / "feature_repo"
    assert apart(ASKS, str(repo)) == msgspec.json.encode(gather(repo)).decode()


def test_facts_are_asked_for_again_when_the_registry_changes(deployment: Path) -> None:
    feast = Feast(deployment / "feature_repo")
    first = feast.facts()
    assert feast.facts() is first
    registry = next(Path(one) for one in first.files if one.endswith(".db"))
    os.utime(registry, ns=(registry.stat().st_mtime_ns + 1000, registry.stat().st_mtime_ns + 1000))
    again = feast.facts()
    assert again is not first and again == first


REFUSED = """
import sys
from pathlib import Path
from features.errors import InputError
from features.facts import Feast
try:
    Feast(Path(sys.argv[1])).facts()
except InputError as error:
    print(error)
"""


def test_a_mistake_that_the_child_finds_is_the_same_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as here:
        gather(tmp_path)
    assert apart(REFUSED, str(tmp_path)) == str(here.value)


def test_a_service_or_an_entity_that_there_is_not_is_told_by_name(deployment: Path) -> None:
    facts = Feast(deployment / "feature_repo").facts()
    with pytest.raises(FeaturesError, match="no feature service 'nope'; there are: "):
        facts.service("nope", "user")
    with pytest.raises(FeaturesError, match="no entity 'nobody'"):
        facts.service("default", "nobody")


COUNTS = """
import sys
import msgspec
from service.errors import LogUnreadable
from service.served_rows import Asked, rows_of
try:
    found = rows_of(msgspec.json.decode(sys.argv[1], type=Asked))
except LogUnreadable as error:
    found = str(error)
assert "duckdb" not in sys.modules
print(found)
"""


def test_a_child_that_cannot_read_the_log_says_why(tmp_path: Path) -> None:
    import msgspec

    hour = tmp_path / "date=2026-01-01" / "hour=00"
    hour.mkdir(parents=True)
    (hour / "damaged.parquet").write_bytes(b"PAR1 no PAR1")
    asked = Asked(str(tmp_path), {"a": 1.0}, 0.0, 2e9)
    with pytest.raises(LogUnreadable) as here:
        count(asked)
    assert apart(COUNTS, msgspec.json.encode(asked).decode()) == str(here.value)


def test_no_log_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(Asked(str(tmp_path / "none"), {}, 0.0, 2e9)) == []
