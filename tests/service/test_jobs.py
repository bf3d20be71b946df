"""Jobs against a running service: what is asked for, what comes of it, and that nothing is done twice."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranking.batcher import LocalEngine
from service.jobs import work
from service.jobs.files import JobFiles
from service.jobs.opened import JOBS
from tests.service.batches import stream
from tests.service.conftest import Client, running

NDJSON, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"
USERS = [f"u{n}" for n in range(12)]


@pytest.fixture
def shop(deployment: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "shop"
    shutil.copytree(deployment, copy)
    exports = tmp_path / "exports"
    exports.mkdir()
    with (copy / "endcap.toml").open("a") as file:
        file.write(f'\n[jobs]\nallow = ["{exports}", "https://exports.example/day/"]\nmax_mb = 20\nmax_jobs = 3\n')
    return copy


@pytest.fixture
async def here(shop: Path) -> AsyncIterator[Client]:
    async with running(shop) as one:
        yield one


def lines(rows: Iterable[Any]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


async def upload(here: Client, body: Any, query: str = "", status: int = 202, **headers: str) -> dict[str, Any]:
    kind = {"Content-Type": NDJSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    return await here.post(f"/v1/jobs{query}", None, status, data=data, headers=kind)


async def ended(here: Client, job: str) -> dict[str, Any]:
    while True:
        status, text = await here.get(f"/v1/jobs/{job}")
        assert status == 200, text
        if (found := json.loads(text))["ended_at"]:
            return dict(found)
        await asyncio.sleep(0.02)


async def result(here: Client, job: str) -> list[dict[str, Any]]:
    _, text = await here.get(f"/v1/jobs/{job}/result")
    return [json.loads(line) for line in text.splitlines()]


def left(shop: Path) -> list[str]:
    """What jobs have left behind, whole ones apart."""
    return sorted(one.name for one in (shop / JOBS).iterdir() if one.name not in ("lock", "webhooks"))


async def test_a_job_answers_each_of_its_users_as_a_request_does(here: Client) -> None:
    made = await here.post("/v1/jobs", {"user_ids": USERS, "request": {"count": 5}}, 202)
    assert here.headers["Location"] == f"/v1/jobs/{made['id']}" and made["total"] == 12
    found = await ended(here, made["id"])
    assert (found["state"], found["done"], found["failed"], found["error"]) == ("succeeded", 12, 0, None)
    rows = await result(here, made["id"])
    assert [(row["index"], row["user_id"]) for row in rows] == list(enumerate(USERS))
    asked = await here.recommend(user_id="u3", count=5)
    assert [one["item_id"] for one in rows[3]["answer"]["items"]] == [one["item_id"] for one in asked["items"]]
    assert all(row["answer"]["degraded"] == [] for row in rows)
    _, text = await here.get("/metrics")
    assert 'endcap_job_rows_total{outcome="answered"} 12.0' in text
    _, listed = await here.get("/v1/jobs")
    assert [one["id"] for one in json.loads(listed)["jobs"]] == [made["id"]]


async def test_an_upload_is_ranked_row_by_row(here: Client) -> None:
    rows = [{"user_id": user, "item_ids": ["i1", "i2", "nothing"]} for user in USERS]
    made = await upload(here, lines(rows), "?kind=rank&placement=home")
    assert (await ended(here, made["id"]))["state"] == "succeeded"
    found = await result(here, made["id"])
    assert [row["user_id"] for row in found] == USERS
    assert {row["answer"]["missing_item_ids"][-1] for row in found} == {"nothing"}


async def test_an_arrow_upload_is_the_same_job(here: Client) -> None:
    table = pa.table({"user_id": USERS, "count": pa.array([3] * 11 + [None], pa.int32())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    made = await upload(here, sink.getvalue().to_pybytes(), "?count=4", Content_Type=ARROW)
    assert (await ended(here, made["id"]))["total"] == 12
    counts = [len(row["answer"]["items"]) for row in await result(here, made["id"])]
    assert counts == [3] * 11 + [4]  # null counts as left out


async def test_a_segment_is_the_users_whose_columns_say_so(here: Client, shop: Path) -> None:
    users = pq.read_table(shop / "data" / "users.parquet")
    country = users["country"][0].as_py()
    wanted = [row["user_id"] for row in users.to_pylist() if row["country"] == country]
    made = await here.post("/v1/jobs", {"segment": {"country": country}, "request": {"count": 2}}, 202)
    everybody = await here.post("/v1/jobs", {"segment": {}}, 202)
    assert (await ended(here, made["id"]))["total"] == len(wanted)
    assert [row["user_id"] for row in await result(here, made["id"])] == wanted
    assert (await ended(here, everybody["id"]))["total"] == users.num_rows


async def test_a_parquet_file_of_an_allowed_directory_is_read(here: Client, tmp_path: Path) -> None:
    path = tmp_path / "exports" / "day.parquet"
    pq.write_table(pa.table({"user_id": USERS, "revenue": [1.5] * 12, "count": [3] * 12}), path)
    made = await here.post("/v1/jobs", {"parquet": str(path)}, 202)
    assert (await ended(here, made["id"]))["state"] == "succeeded"
    assert [len(row["answer"]["items"]) for row in await result(here, made["id"])] == [3] * 12


BAD_JOBS: list[Any] = [
    ({}, "", "exactly one of"),
    ({"user_ids": ["u1"], "segment": {}}, "", "exactly one of"),
    ({"user_ids": []}, "user_ids", "length >= 1"),
    ({"user_ids": ["u1"], "kind": "train"}, "kind", ""),
    ({"user_ids": ["u1"], "request": {"cuont": 3}}, "request.cuont", "Unknown field"),
    ({"user_ids": ["u1"], "request": {"count": 0}}, "rows[0].count", ">= 1"),
    ({"user_ids": ["u1"], "request": {"placement": "similar"}}, "rows[0].item_id", "needs the item in view"),
    ({"rows": [{"user_id": "u1"}, {"user_id": 7}]}, "rows[1].user_id", "str"),
    ({"kind": "rank", "user_ids": ["u1"]}, "rows[0].item_ids", ""),
    ({"segment": {"land": "DE"}}, "segment.land", "there are user_id, country"),
    ({"segment": {"country": 7}}, "segment.country", "string"),
    ({"segment": {}, "request": {"count": 501}}, "rows[0].count", "500"),
    ({"user_ids": ["u1"], "callback_url": "https://shop.example/hook"}, "callback_url", "no secret is set"),
]


async def test_a_bad_job_is_told_by_its_place_and_leaves_nothing(here: Client, shop: Path) -> None:
    for asked, path, says in BAD_JOBS:
        found = await here.post("/v1/jobs", asked, 422)
        assert found["errors"][0]["path"] == path and says in found["errors"][0]["message"], found
    assert left(shop) == []


NOT_ALLOWED: list[Any] = [
    ("{exports}/../shop/data/users.parquet", "not below a directory"),
    ("{exports}/link.parquet", "not below a directory"),
    ("/etc/passwd", "not below a directory"),
    ("exports/day.parquet", "not below a directory"),
    ("{exports}", "no such file"),
    ("{exports}/none.parquet", "no such file"),
    ("{exports}/text.parquet", "cannot be read"),
    ("{exports}/no_users.parquet", "no column user_id; it has a"),
    ("{exports}/nobody.parquet", "has no row"),
    ("https://exports.example/other/day.parquet", "does not begin with"),
    ("https://exports.example/day/../other.parquet", "has .."),
    ("https://exports.example/day/%252e%252e/other.parquet", "has .."),
    ("https://exports.example.evil.example/day/a.parquet", "does not begin with"),
    ("https://a@exports.example/day/a.parquet", "user name"),
    ("http://exports.example/day/a.parquet", "not https"),
    ("https://127.0.0.1/day/a.parquet", "not a public address"),
    ("file:///etc/passwd", "no https URL"),
]


async def test_what_is_not_allowed_is_not_read(here: Client, shop: Path, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    (exports / "link.parquet").symlink_to(shop / "data" / "users.parquet")
    (exports / "text.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"a": [1]}), exports / "no_users.parquet")
    pq.write_table(pa.table({"user_id": pa.array([], pa.string())}), exports / "nobody.parquet")
    for name, says in NOT_ALLOWED:
        found = await here.post("/v1/jobs", {"parquet": name.format(exports=exports)}, 422)
        assert found["errors"][0]["path"] == "parquet" and says in found["detail"], (name, found)
    assert left(shop) == []


BAD_UPLOADS: list[Any] = [
    (b'{"user_id":"u1"}\n{"user_id":"u1",}\n', "", 400, "rows[1]: "),
    (b'{"user_id":"u1"}\n{"user_id":"u1","user_id":"u2"}\n', "?count=3", 400, "rows[1]: the key 'user_id'"),
    (b'{"user_id":"u1"}\n["u1"]\n', "", 422, "rows[1]: Expected an object"),
    (b'{"user_id":"u1"}\n{"usr_id":"u1"}\n', "", 422, "rows[1].usr_id"),
    (b'{"user_id":"u1","placement":"none"}\n', "", 404, "rows[0]: "),
    (b"\n\n", "", 422, "there is no row"),
    (b'{"user_id":"u1"}\n', "?cuont=3", 422, "cuont: Unknown parameter"),
    (b'{"user_id":"u1"}\n', "?count=x", 422, "count: is 'x'"),
    (b'{"user_id":"u1"}\n', "?count=3&count=4", 422, "count: stands twice"),
    (b'{"user_id":"' + b"u" * 2_000_000 + b'"}\n', "", 422, "rows[0]: has more than"),
    (b"\n" * 21_000_000, "", 413, "20,000,000 bytes"),
    (b"", "", 422, "there is no row"),
]


async def test_a_bad_upload_is_refused_as_a_whole(here: Client, shop: Path) -> None:
    for body, query, status, says in BAD_UPLOADS:
        found = await upload(here, body, query, status)
        assert says in found["detail"], found
    assert left(shop) == []


async def test_an_upload_that_is_no_arrow_stream_is_told(here: Client, shop: Path) -> None:
    found = await upload(here, b"no Arrow, but long enough to be looked at", status=400, Content_Type=ARROW)
    assert "no Arrow stream" in found["detail"]
    assert left(shop) == []


async def test_an_arrow_upload_that_gets_too_large_is_told_in_one_line(here: Client, shop: Path) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    body = stream({"user_id": ["u" * (65 << 20)]}, options=options)
    assert len(body) < 1 << 16
    found = await upload(here, body, status=422, Content_Type=ARROW)
    assert found["detail"] == (
        "a record batch has 68,157,448 bytes when unpacked; 67,108,864 are the most: write smaller ones, or without "
        "compression"
    )
    assert left(shop) == []


async def test_an_upload_that_breaks_off_leaves_nothing(here: Client, shop: Path) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield lines({"user_id": user} for user in USERS)
        raise ConnectionError("gone")

    with pytest.raises(aiohttp.ClientError):
        await upload(here, half())
    for _ in range(100):
        if not (found := left(shop)):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(found)


async def test_a_row_that_cannot_be_answered_fails_alone(here: Client) -> None:
    rows = [{"user_id": "u1"}, {"user_id": "u2", "model_version": "77"}, {"user_id": "u3", "context": {"nothing": 1}}]
    made = await upload(here, lines(rows))
    found = await ended(here, made["id"])
    assert (found["state"], found["done"], found["failed"]) == ("succeeded", 3, 2)
    told = await result(here, made["id"])
    assert "answer" in told[0] and "77" in told[1]["error"] and "nothing" in told[2]["error"]


async def test_the_same_key_and_body_are_one_job_and_another_body_is_refused(here: Client, shop: Path) -> None:
    asked, key = {"user_ids": ["u1", "u2"]}, {"Idempotency-Key": "monday"}
    one = await here.post("/v1/jobs", asked, 202, headers=key)
    again = await here.post("/v1/jobs", asked, 200, headers=key)
    assert one["id"] == again["id"] and here.headers["Idempotency-Replayed"] == "true"
    refused = await here.post("/v1/jobs", {"user_ids": ["u3"]}, 422, headers=key)
    assert refused["type"].endswith("idempotency-mismatch")
    assert len(left(shop)) == 1
    body = lines({"user_id": user} for user in USERS)
    two = await upload(here, body, Idempotency_Key="up")
    assert (await upload(here, body, status=200, Idempotency_Key="up"))["id"] == two["id"]
    await upload(here, body + body, status=422, Idempotency_Key="up")
    await upload(here, body, "?count=3", status=422, Idempotency_Key="up")
    await upload(here, body, status=422, Idempotency_Key="k" * 256)
    async with running(shop) as another:  # and after a restart
        assert (await another.post("/v1/jobs", asked, 200, headers=key))["id"] == one["id"]


async def test_of_two_uploads_at_once_under_one_key_one_is_the_job(here: Client, shop: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"user_id":"u1"}\n'
        await asyncio.sleep(0.2)
        yield b'{"user_id":"u2"}\n'

    async def one() -> tuple[int, str]:
        headers = {"Content-Type": NDJSON, "Idempotency-Key": "both"}
        async with here.session.post(f"{here.url}/v1/jobs", data=slow(), headers=headers) as answer:
            return answer.status, (await answer.json())["id"]

    first, second = await asyncio.gather(one(), one())
    assert sorted((first[0], second[0])) == [200, 202] and first[1] == second[1]
    assert left(shop) == [first[1]]


class Stuck:
    """Rows wait at the engine's door until they are let in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
        self.open, self.seen, self.after = asyncio.Event(), 0, after
        row = work.Work.row

        async def waits(doing: work.Work, record: Any, index: int, line: bytes) -> tuple[bytes, bool]:
            self.seen += 1
            if self.seen > self.after:
                await self.open.wait()
            return await row(doing, record, index, line)

        monkeypatch.setattr(work.Work, "row", waits)


async def test_a_cancelled_job_ends_where_it_is(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck(monkeypatch, after=4)
    monkeypatch.setattr(work, "SAVE_S", 0.0)
    made = await here.post("/v1/jobs", {"user_ids": USERS}, 202)
    waiting = await here.post("/v1/jobs", {"user_ids": USERS}, 202)
    while stuck.seen <= 4:
        await asyncio.sleep(0.01)
    for job, state in ((made, "cancelling"), (waiting, "cancelled")):
        async with here.session.delete(f"{here.url}/v1/jobs/{job['id']}") as answer:
            assert (answer.status, (await answer.json())["state"]) == (202, state)
    stuck.open.set()
    found = await ended(here, made["id"])
    assert found["state"] == "cancelled" and found["done"] < 12
    assert len(await result(here, made["id"])) == found["done"]
    assert (await ended(here, waiting["id"]))["done"] == 0
    async with here.session.delete(f"{here.url}/v1/jobs/{made['id']}") as answer:
        assert answer.status == 200  # it has ended already
    async with here.session.delete(f"{here.url}/v1/jobs/{'0' * 24}") as answer:
        assert answer.status == 404


async def test_a_job_whose_rows_only_wait_can_be_cancelled(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "BACKOFF_S", (0.01,))
    recommender = here.app.api.answers.recommender
    assert recommender is not None

    async def refuses(request: Any, trace: Any, call: Any) -> Any:
        raise recommender.limiter.refuse(bulk=True)

    monkeypatch.setattr(recommender, "recommend", refuses)
    made = await here.post("/v1/jobs", {"user_ids": USERS}, 202)
    while json.loads((await here.get(f"/v1/jobs/{made['id']}"))[1])["state"] != "running":
        await asyncio.sleep(0.01)
    async with here.session.delete(f"{here.url}/v1/jobs/{made['id']}") as answer:
        assert answer.status == 202
    found = await ended(here, made["id"])
    assert (found["state"], found["done"]) == ("cancelled", 0)


async def test_a_job_that_cannot_be_read_stops_no_other(here: Client, shop: Path) -> None:
    made = await here.post("/v1/jobs", {"user_ids": USERS}, 202)
    await ended(here, made["id"])
    (shop / JOBS / made["id"] / "job.json").write_text("{}")
    assert (await here.get(f"/v1/jobs/{made['id']}"))[0] == 404
    other = await here.post("/v1/jobs", {"user_ids": USERS}, 202)
    assert (await ended(here, other["id"]))["state"] == "succeeded"


async def test_no_more_jobs_wait_than_may(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck(monkeypatch)
    for _ in range(3):
        await here.post("/v1/jobs", {"user_ids": ["u1"]}, 202)
    found = await here.post("/v1/jobs", {"user_ids": ["u1"]}, 429)
    assert found["type"].endswith("too-many-jobs") and here.headers["Retry-After"]
    stuck.open.set()


async def part(here: Client, job: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with here.session.get(f"{here.url}/v1/jobs/{job}/result", headers=named) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_result_goes_on_where_a_download_broke_off(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it grows: what has been sent never changes."""
    stuck = Stuck(monkeypatch, after=4)
    monkeypatch.setattr(work, "SAVE_S", 0.0)
    made = await here.post("/v1/jobs", {"user_ids": USERS, "request": {"count": 3}}, 202)
    while stuck.seen <= 4:
        await asyncio.sleep(0.01)
    _, headers, first = await part(here, made["id"])
    assert first.count(b"\n") == 4 and first.endswith(b"\n")
    tag = headers["ETag"]
    status, headers, some = await part(here, made["id"], Range="bytes=0-99")
    assert (status, headers["Content-Range"], some) == (206, "bytes 0-99/*", first[:100])
    status, headers, _ = await part(here, made["id"], Range=f"bytes={len(first)}-")
    assert (status, headers["Content-Range"], headers["Endcap-Job-State"]) == (416, f"bytes */{len(first)}", "running")
    stuck.open.set()
    await ended(here, made["id"])
    _, _, whole = await part(here, made["id"])
    status, headers, rest = await part(here, made["id"], Range=f"bytes={len(first)}-", If_Range=tag)
    assert status == 206 and first + rest == whole and whole.count(b"\n") == 12
    assert headers["Content-Range"] == f"bytes {len(first)}-{len(whole) - 1}/{len(whole)}"
    assert (await part(here, made["id"], Range="bytes=-10"))[2] == whole[-10:]
    assert (await part(here, made["id"], Range="bytes=0-", If_Range='"another"'))[0] == 200
    assert (await part(here, made["id"], Range=f"bytes={len(whole)}-"))[0] == 416
    for odd in ("bytes=", "bytes=-", "lines=1-2", "bytes=0-1,3-4"):
        assert (await part(here, made["id"], Range=odd))[::2] == (200, whole)


async def test_a_result_can_be_had_as_arrow(here: Client) -> None:
    made = await upload(here, lines([{"user_id": "u1", "count": 4}, {"user_id": "u2", "model_version": "77"}]))
    await ended(here, made["id"])
    rows = await result(here, made["id"])
    status, headers, body = await part(here, made["id"], Accept=ARROW)
    table = pa.ipc.open_stream(body).read_all()
    assert (status, headers["Content-Type"], table["index"].to_pylist()) == (200, ARROW, [0, 1])
    first = table.to_pylist()[0]
    assert first["item_ids"] == [one["item_id"] for one in rows[0]["answer"]["items"]]
    assert first["scores"] == pytest.approx([one["score"] for one in rows[0]["answer"]["items"]])
    assert "77" in table["error"][1].as_py() and table["item_ids"][1].as_py() is None
    assert (await part(here, made["id"], Accept="text/html"))[0] == 406


async def test_a_result_of_nothing_yet_is_empty_in_both_forms(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck(monkeypatch)
    made = await here.post("/v1/jobs", {"user_ids": ["u1"]}, 202)
    queued = await here.post("/v1/jobs", {"user_ids": ["u1"]}, 202)
    while not stuck.seen:
        await asyncio.sleep(0.01)
    for job in (made["id"], queued["id"]):
        assert (await part(here, job))[::2] == (200, b"")
        assert pa.ipc.open_stream((await part(here, job, Accept=ARROW))[2]).read_all().num_rows == 0
    stuck.open.set()


async def test_a_row_waits_out_what_passes(here: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full gate, and answers that had to do without something: neither ends up in the result."""
    monkeypatch.setattr(work, "BACKOFF_S", (0.0, 0.0))
    recommender = here.app.api.answers.recommender
    assert recommender is not None
    ask, calls = recommender.recommend, []

    async def reluctant(request: Any, trace: Any, call: Any) -> Any:
        calls.append(request.user_id)
        if len(calls) <= 3:
            raise recommender.limiter.refuse(bulk=True)
        answer = await ask(request, trace, call)
        return msgspec.structs.replace(answer, degraded=["last_known"]) if len(calls) == 4 else answer

    monkeypatch.setattr(recommender, "recommend", reluctant)
    made = await here.post("/v1/jobs", {"user_ids": ["u1"]}, 202)
    assert (await ended(here, made["id"]))["failed"] == 0
    assert calls == ["u1"] * 5 and (await result(here, made["id"]))[0]["answer"]["degraded"] == []


async def test_openapi_describes_jobs(here: Client) -> None:
    document = json.loads((await here.get("/openapi.json"))[1])
    asked = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    jsonschema.Draft202012Validator({**document, **asked["schema"]}).validate(asked["example"])
    made = await here.post("/v1/jobs", asked["example"], 202)
    assert set(document["paths"]["/v1/jobs/{job_id}"]) == {"get", "delete"}
    told = document["paths"]["/v1/jobs/{job_id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**document, **told}).validate(await ended(here, made["id"]))
    assert document["paths"]["/v1/webhooks/dead"]["get"]["security"] == [{"admin": []}]
    operations = [two["operationId"] for one in document["paths"].values() for two in one.values()]
    assert len(set(operations)) == len(operations)


async def test_a_damaged_end_of_a_result_is_done_again(shop: Path) -> None:
    """What a killed process leaves: half a line, and a file that is longer than was told."""
    async with running(shop) as one:
        made = await one.post("/v1/jobs", {"user_ids": USERS}, 202)
        await ended(one, made["id"])
    files = JobFiles(shop / JOBS)
    path = files.of(made["id"]) / "result.ndjson"
    cut = path.read_bytes().splitlines(keepends=True)
    record = files.read(made["id"])
    assert record is not None
    for rest in (cut[5][:-7], b"\0" * 100 + b"\n", cut[6]):
        path.write_bytes(b"".join(cut[:5]) + rest)
        files.write(msgspec.structs.replace(record, state="running", ended_at=None))
        async with running(shop) as again:
            await ended(again, made["id"])
            rows = await result(again, made["id"])
        assert [(row["index"], row["user_id"]) for row in rows] == list(enumerate(USERS))
        assert path.read_bytes().startswith(b"".join(cut[:5]))


async def test_an_inline_engine_does_jobs_as_well(shop: Path) -> None:
    path = shop / "endcap.toml"
    path.write_text(path.read_text().replace('device = "auto"', 'device = "auto"\nthread = false'))
    async with running(shop) as one:
        assert not isinstance(one.app.engine, LocalEngine)
        made = await one.post("/v1/jobs", {"user_ids": USERS}, 202)
        assert (await ended(one, made["id"]))["done"] == 12
