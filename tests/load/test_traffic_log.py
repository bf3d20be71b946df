from __future__ import annotations

import gzip
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.errors import LoadError
from load.traffic_log import COMPLAINTS, LONGEST_LINE, SUFFIXES, Entry, TrafficLog, Writer

ENTRIES = [
    Entry(0, "GET", "/healthz"),
    Entry(1_500, "POST", "/v1/recommendations?a=%20b", {"Content-Type": "application/json"}, '{"user_id": "é\\n"}'),
    Entry(1_500, "POST", "/v1/events", {"Endcap-Priority": "bulk", "Endcap-Timeout-Ms": "35"}, ""),
]
GOOD = b'{"at_us":5,"method":"GET","path":"/"}\n'


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"log{request.param}"


def written(path: Path, entries: list[Entry]) -> Path:
    with Writer(path) as log:
        for entry in entries:
            log.write(entry)
    return path


def test_what_is_written_is_read_whatever_the_file(path: Path) -> None:
    log = TrafficLog(written(path, ENTRIES), strict=True)
    assert list(log) == ENTRIES
    assert list(log) == ENTRIES  # again, for who plays it in a loop


def test_the_same_rows_are_the_same_bytes_at_any_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(path, ENTRIES).read_bytes()
    monkeypatch.setattr(time, "time", lambda: 0x7EADBEEF)
    assert written(path, ENTRIES).read_bytes() == first


def test_a_log_of_nothing_is_a_log(path: Path) -> None:
    assert list(TrafficLog(written(path, []), strict=True)) == []


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.none() | st.text(st.characters(codec="utf-8")))))
def test_any_time_and_any_text_come_back_from_parquet_and_ndjson_alike(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str | None]]
) -> None:
    entries = [Entry(at, "POST", "/x", {}, body) for at, body in sorted(rows, key=lambda row: row[0])]
    folder = tmp_path_factory.mktemp("any")
    for suffix in SUFFIXES:
        assert list(TrafficLog(written(folder / f"log{suffix}", entries), strict=True)) == entries


def test_a_writer_that_ends_in_an_error_leaves_what_was_there_and_nothing_beside_it(path: Path) -> None:
    before = written(path, ENTRIES).read_bytes()
    with pytest.raises(KeyboardInterrupt), Writer(path) as log:
        log.write(ENTRIES[0])
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry(-1, "GET", "/"), "at_us -1 is not from 0"),
        (Entry(2**63, "GET", "/"), "is not from 0"),
        (Entry(0, "GE T", "/"), "'GE T' is no HTTP method"),
        (Entry(0, "", "/"), "'' is no HTTP method"),
        (Entry(0, "GET", "http://x/"), "path 'http://x/' is not /"),
        (Entry(0, "GET", "/a b"), "path '/a b' is not /"),
        (Entry(0, "GET", "/\r\nHost: y"), "is not / and then printable"),
        (Entry(0, "GET", "/é"), "is not / and then printable"),
        (Entry(0, "GET", "/", {"A b": "c"}), "'A b' is no HTTP header's name"),
        (Entry(0, "GET", "/", {"A": "b\r\nC: d"}), "is no HTTP header's value"),
        (Entry(0, "GET", "/", {"host": "x"}), "header host is the client's own"),
        (Entry(0, "GET", "/", {"Content-Length": "5"}), "header Content-Length is the client's own"),
        (Entry(0, "GET", "/", {"Cookie": "a"}), "header Cookie is a secret"),
        (Entry(0, "GET", "/", {"authorization": "a"}), "header authorization is a secret"),
        (Entry(0, "POST", "/", {}, "\ud800"), "half a surrogate pair"),
    ],
)
def test_what_is_no_request_or_a_secret_is_neither_written_nor_read(tmp_path: Path, entry: Entry, message: str) -> None:
    with pytest.raises(LoadError, match="row 1: ") as refused, Writer(tmp_path / "out.ndjson") as log:
        log.write(entry)
    assert message in str(refused.value)
    if message == "half a surrogate pair":  # not even JSON can say it
        return
    path = tmp_path / "in.ndjson"
    row = {"at_us": entry.at_us, "method": entry.method, "path": entry.path, "headers": entry.headers}
    path.write_bytes(orjson.dumps(row))
    log_read = TrafficLog(path)
    assert list(log_read) == []
    assert message in log_read.complaints[0]


def test_a_signal_while_the_file_is_opened_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "_encoded", interrupted)
    with pytest.raises(KeyboardInterrupt), Writer(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_a_writer_refuses_a_time_before_the_last(path: Path) -> None:
    with pytest.raises(LoadError, match="row 2: at_us 4 is earlier than 5"), Writer(path) as log:
        log.write(Entry(5, "GET", "/"))
        log.write(Entry(4, "GET", "/"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"not JSON", "malformed"),
        (b'{"at_us":6,"method":"GET","path":"/', "malformed"),
        (b'{"at_us":6,"method":"GET"}', "missing required field `path`"),
        (b'{"at_us":6.5,"method":"GET","path":"/"}', "Expected `int`"),
        (b'{"at_us":6,"method":"GET","path":"/","headers":{"A":1}}', "Expected `str`"),
        (b'{"at_us":6,"method":"GET","path":"/","bodi":""}', "unknown field `bodi`"),
        (b'{"at_us":6,"method":"GET","path":"/","body":"\xff"}', "can't decode byte 0xff"),
        (b'{"at_us":6,"method":"GET","path":"/","body":"\\ud800 and more"}', "row 2"),
        (b'{"at_us":4,"method":"GET","path":"/"}', "at_us 4 is earlier than 5"),
        (
            b'{"at_us":6,"method":"GET","path":"/","body":"' + b"a" * LONGEST_LINE + b'"}',
            "longer than 16,777,216 bytes",
        ),
    ],
)
def test_a_bad_row_is_counted_and_told_with_its_place_and_stops_nothing_unless_strict(
    tmp_path: Path, row: bytes, message: str
) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(GOOD + row + b"\n" + GOOD)
    log = TrafficLog(path)
    for _ in range(2):
        assert [entry.at_us for entry in log] == [5, 5]
        assert log.bad == 1
        assert len(log.complaints) == 1
        assert log.complaints[0].startswith(f"{path}: row 2: ")
        assert message in log.complaints[0]
    with pytest.raises(LoadError, match="row 2: "):
        list(TrafficLog(path, strict=True))


def test_empty_lines_are_no_rows_and_complaints_end_where_counting_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"\n \r\n" + b"x\n" * (COMPLAINTS + 5) + GOOD)
    log = TrafficLog(path)
    assert len(list(log)) == 1
    assert (log.bad, len(log.complaints)) == (COMPLAINTS + 5, COMPLAINTS)
    assert "row 3: " in log.complaints[0]


def test_what_came_before_a_broken_end_of_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson.gz"
    rows = b"".join(b'{"at_us":%d,"method":"GET","path":"/%d"}\n' % (n, n * n) for n in range(5_000))
    path.write_bytes(gzip.compress(rows)[:-2_000])
    log = TrafficLog(path)
    assert len(list(log)) > 1_000
    assert log.bad == 1
    assert "gzip is broken here" in log.complaints[0]
    path.write_bytes(GOOD)
    assert list(log) == []
    assert "row 1: gzip is broken here" in log.complaints[0]


def test_parquet_of_other_tools_is_read_and_its_bad_rows_are_told(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    table = pa.table(
        {
            "at_us": pa.array([1, None, 3, 2], pa.uint32()),
            "method": pa.array(["GET", "GET", None, "GET"]).dictionary_encode(),
            "path": pa.array(["/", "/", "/", "/b"], pa.large_string()),
        }
    )
    pq.write_table(table, path)
    log = TrafficLog(path)
    assert list(log) == [Entry(1, "GET", "/"), Entry(2, "GET", "/b")]
    assert [complaint.partition(": row ")[2][:2] for complaint in log.complaints] == ["2:", "3:"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"at_us": [1], "method": ["GET"]}, "there is no column path"),
        ({"at_us": [1], "method": ["GET"], "path": ["/"], "user": ["u"]}, "column user is none of a traffic log"),
        ({"at_us": [1.5], "method": ["GET"], "path": ["/"]}, "column at_us is double, not int64"),
        ({"at_us": [1], "method": ["GET"], "path": ["/"], "headers": ["{}"]}, "column headers is string, not map"),
    ],
)
def test_parquet_with_other_columns_is_no_log(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(LoadError, match=rf"log\.parquet: {message}"):
        TrafficLog(path)


def test_what_cannot_be_opened_or_written_is_one_line_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    for name, message in (("none.ndjson", "No such file"), ("log.csv", "ends in"), ("broken.parquet", "no Parquet")):
        with pytest.raises(LoadError, match=rf"{name}: .*{message}") as refused:
            TrafficLog(tmp_path / name)
        assert "\n" not in str(refused.value)
    with pytest.raises(LoadError, match=r"out\.ndjson: No such file"), Writer(tmp_path / "no" / "out.ndjson"):
        pass
    with pytest.raises(LoadError, match="Not a directory"), Writer(tmp_path / "broken.parquet" / "out.ndjson"):
        pass


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(path: Path) -> None:
    """Four times the rows, the same memory: of writing and of reading."""

    def entries(count: int) -> Iterator[Entry]:
        for number in range(count):
            yield Entry(number, "POST", "/v1/recommendations", {"Content-Type": "application/json"}, f"{number:0300d}")

    def peak(count: int) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with Writer(path) as log:
            for entry in entries(count):
                log.write(entry)
        assert sum(1 for _ in TrafficLog(path)) == count
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak(100)
        assert peak(44_000) < peak(11_000) * 1.3 + 500_000
    finally:
        tracemalloc.stop()
