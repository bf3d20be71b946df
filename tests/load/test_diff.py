"""`endcap diff` against two real services that answer as each user's name says."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from load import sides
from load.cli import main
from load.comparison import Asked, Comparison, Item, Reply
from load.segments import Segments
from load.sides import Ask, Side


@pytest.fixture(scope="session")
def shelf() -> Iterator[str]:
    """The address of tests/load/shelf.py, in its own process."""
    with subprocess.Popen([sys.executable, "-m", "tests.load.shelf"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()
        process.wait(timeout=10)


def recommendation(user: str, at_us: int = 0, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    text = orjson.dumps({"user_id": user, **body}).decode()
    headers = {"Content-Type": "application/json"} if headers is None else headers
    return {"at_us": at_us, "method": "POST", "path": "/v1/recommendations", "headers": headers, "body": text}


class Played:
    """A log of requests, played to both sides of the shelf."""

    def __init__(self, shelf: str, folder: Path) -> None:
        self.shelf, self.folder = shelf, folder
        self.log = folder / "log.ndjson"

    def write(self, *rows: Any) -> None:
        self.log.write_bytes(b"".join(row if isinstance(row, bytes) else orjson.dumps(row) + b"\n" for row in rows))

    def run(self, *arguments: str, code: int = 0, sides: tuple[str, ...] = ("/a", "/b")) -> dict[str, Any]:
        out = self.folder / "out.json"
        urls = [self.shelf + side for side in sides]
        assert main(["diff", str(self.log), *urls, "--json", str(out), *arguments]) == code
        figures: dict[str, Any] = orjson.loads(out.read_bytes())
        return figures

    def asked(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.shelf}/log") as response:
            asked: list[dict[str, Any]] = orjson.loads(response.read())
        return asked


@pytest.fixture
def played(shelf: str, tmp_path: Path) -> Played:
    return Played(shelf, tmp_path)


def test_figures_are_those_of_lists_worked_out_by_hand(played: Played) -> None:
    """Of three pairs one is the same, one has its first two turned round, one shares nothing."""
    played.write(recommendation("u1"), recommendation("swap1"), recommendation("other1"))
    figures = played.run()
    agreement = figures["all"]
    assert agreement["pairs"] == 3
    assert agreement["identical"] == pytest.approx(1 / 3)
    assert agreement["overlap"] == {"1": pytest.approx(1 / 3), "5": pytest.approx(2 / 3), "10": None,
                                    "count": pytest.approx(2 / 3)}  # fmt: skip
    # Turned round: X = 0, 2, 3, 4, 5, so the first depth's weight of 0.1 is lost.
    assert agreement["rbo"] == pytest.approx((1 + 0.9 + 0) / 3)
    assert agreement["tau"] == pytest.approx((1 + 0.8) / 2)  # one pair of ten out of order; nothing common: no tau
    assert agreement["score_shift"]["mean"] == 0
    assert (figures["requests"], figures["failed_pairs"], figures["skipped"]) == (3, 0, {})
    assert [one["user"] for one in figures["most_changed"]] == ["other1", "swap1"]
    assert [item["item_id"] for item in figures["most_changed"][1]["b"]] == ["i2", "i1", "i3", "i4", "i5"]


def test_a_pair_that_is_degraded_differently_is_added_up_apart(played: Played) -> None:
    played.write(recommendation("u1"), recommendation("busy1"))
    figures = played.run()
    assert figures["all"]["pairs"] == figures["degraded_differently"]["pairs"] == 1
    assert figures["degraded"] == {"a": {}, "b": {"candidates": 1}}


def test_errors_are_counted_on_their_side_and_compare_nothing(played: Played) -> None:
    users = ["u1", "down1", "down2", "broken1", "huge1", "silent1"]
    played.write(*(recommendation(user) for user in users))
    figures = played.run("--timeout", "0.5")
    assert figures["errors"] == {"a": {}, "b": {"503": 2, "unreadable": 2, "timeout": 1}}
    assert (figures["failed_pairs"], figures["all"]["pairs"]) == (5, 1)


def test_a_side_that_refuses_for_a_moment_is_asked_again(played: Played) -> None:
    played.write(recommendation("full1"))
    figures = played.run()
    assert (figures["all"]["pairs"], figures["failed_pairs"]) == (1, 0)


def test_what_is_no_recommendation_is_skipped_and_counted_and_bad_rows_are_told(played: Played) -> None:
    event = recommendation("u1") | {"path": "/v1/events"}
    bodiless = recommendation("u1") | {"body": None}
    split = recommendation("u1", headers={"Endcap-Priority": "bulk\r\nX: y"})
    played.write(event, bodiless, b"{not json\n", split, recommendation("u1"))
    figures = played.run()
    assert figures["skipped"] == {"other endpoints": 1, "bodies that are no JSON object": 1}
    assert (figures["requests"], figures["bad_rows"], len(figures["complaints"])) == (1, 2, 2)
    assert main(["diff", str(played.log), played.shelf, played.shelf, "--strict"]) == 2


def test_both_sides_get_the_request_of_the_log(played: Played) -> None:
    """One at a time, each to both; the token of another deployment is not sent."""
    headers = {"endcap-timeout-ms": "35", "Endcap-After": "1-0"}
    rows = [recommendation(f"turn{number}", headers=headers, count=3, placement="home") for number in range(4)]
    played.write(*rows)
    played.run("--concurrency", "1")
    asked = [one for one in played.asked() if one["body"]["user_id"].startswith("turn")]
    assert [one["body"]["user_id"] for one in asked] == [f"turn{number}" for number in range(4) for _ in "ab"]
    assert {orjson.dumps(one["body"]) for one in asked} == {row["body"].encode() for row in rows}
    assert {one["headers"]["Endcap-Timeout-Ms"] for one in asked} == {"35"}
    assert {one["headers"]["Content-Type"] for one in asked} == {"application/json"}
    assert not any("Endcap-After" in one["headers"] for one in asked)


def test_two_versions_of_one_address_are_asked_for_by_name(played: Played) -> None:
    played.write(recommendation("u1", model_version="7"))
    figures = played.run("--version-a", "1", "--version-b", "2", "--timeout-ms", "400", sides=("/a",))
    assert figures["models"] == {"a": {"default 1": 1}, "b": {"default 2": 1}}
    assert figures["all"]["overlap"]["1"] == 0
    assert {one["headers"]["Endcap-Timeout-Ms"] for one in played.asked()[-2:]} == {"400"}


def test_segments_come_from_a_table_of_users(played: Played) -> None:
    table = played.folder / "segments.csv"
    table.write_text("user_id,segment,note\nu1,new,x\nother1,loyal,y\n")
    played.write(recommendation("u1"), recommendation("other1"), recommendation("u2"))
    figures = played.run("--segment", str(table))
    overlaps = {one["segment"]: one["overlap"]["count"] for one in figures["segments"]}
    assert overlaps == {"new": 1, "loyal": 0, "(none)": 1}


def test_segments_come_from_an_input_that_the_answer_explains(played: Played) -> None:
    played.write(recommendation("u1"), recommendation("u2"), recommendation("swap4"))
    figures = played.run("--segment-by", "country")
    assert {one["segment"]: one["pairs"] for one in figures["segments"]} == {"DE": 2, "FR": 1}
    assert {one["segment"] for one in played.run("--segment-by", "age")["segments"]} == {"(none)"}


def test_figures_by_placement_stand_apart(played: Played) -> None:
    played.write(recommendation("u1", placement="cart"), recommendation("other1", placement="home"))
    placements = {one["placement"]: one["rbo"] for one in played.run()["placements"]}
    assert placements == {"cart": pytest.approx(1), "home": 0}


def test_ranks_are_compared_by_order_and_say_nothing_of_which_items_were_chosen(played: Played) -> None:
    """The items are the caller's: an overlap of 1 by definition would hide how recommendations differ."""
    rank = {"path": "/v1/rank"}
    played.write(recommendation("other1"), recommendation("u1") | rank, recommendation("swap1") | rank)
    figures = played.run("--min-overlap", "0.1", code=1)
    assert figures["all"]["pairs"] == 3
    assert figures["all"]["overlap"]["count"] == 0
    ranked = next(one for one in figures["placements"] if one["placement"] == "home, rank")
    assert ranked["overlap"] == {"1": 0.5, "5": 1, "10": None, "count": None}
    assert ranked["tau"] == pytest.approx((1 + 0.8) / 2)
    assert [one["user"] for one in figures["most_changed"]] == ["other1", "swap1"]


def test_the_ten_most_changed_users_are_told_each_once(played: Played) -> None:
    users = [f"swap{number}" for number in range(20)] + ["other1", "other1", "other2"]
    played.write(*(recommendation(user) for user in users))
    changed = [one["user"] for one in played.run()["most_changed"]]
    assert len(changed) == 10
    assert changed[:2] == ["other1", "other2"]
    assert len(set(changed)) == 10


def test_a_user_whose_later_request_changed_more_is_told_by_that_one() -> None:
    comparison = Comparison()
    for number, other in ((1, "ba"), (2, "xy"), (3, "ba")):
        a, b = (Reply([Item(item, 1.0) for item in items]) for items in ("ab", other))
        comparison.add(Asked(number, "u1", "home"), a, b, None)
    assert [one["request"] for one in comparison.figures()["most_changed"]] == [2]


async def test_which_side_is_asked_first_alternates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A is asked before B for one request, and B before A for the next."""
    order = []

    async def reach(session: Any, base: str) -> None: ...

    async def answer(session: Any, side: Side, ask: Ask, explain: str | None) -> Reply:
        order.append(side.base)
        return Reply([])

    monkeypatch.setattr(sides, "_reach", reach)
    monkeypatch.setattr(sides, "_answer", answer)
    asks = [Ask(Asked(number, None, "home"), "/v1/recommendations", {}, {}) for number in range(4)]
    both = (Side("a", None), Side("b", None))
    await sides.compare(asks, both, Segments(None, None), concurrency=1, timeout_s=1)
    assert "".join(order) == "abbaabba"


@pytest.mark.parametrize(
    ("users", "least", "code"),
    [
        (["u1", "u2"], "1", 0),
        (["u1", "other1"], "0.5", 0),
        (["u1", "other1"], "0.51", 1),
        (["u1", "down1"], "0.5", 1),  # half the pairs failed: the rest is no verdict
        (["busy1"], "0", 1),  # nothing compared meets no bound
    ],
)
def test_a_missed_min_overlap_exits_1(played: Played, users: list[str], least: str, code: int) -> None:
    played.write(*(recommendation(user) for user in users))
    assert played.run("--min-overlap", least, code=code)["verdict"]["met"] == (code == 0)


def test_limit_plays_the_first_requests_only(played: Played) -> None:
    played.write(*(recommendation(f"u{number}") for number in range(9)))
    assert played.run("--limit", "4")["requests"] == 4


def test_the_page_and_the_terminal_show_ids_as_text_never_as_markup(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "<script>alert('[red]')</script>"
    table = played.folder / "segments.csv"
    table.write_text(f'user_id,segment\n"{evil}","<script>segment"\n')
    played.write(recommendation(evil, placement="<script>placement"))
    page = played.folder / "page.html"
    played.run("--html", str(page), "--segment", str(table))
    html = page.read_text()
    assert "<script" not in html
    for text in ("alert(", "&lt;script&gt;segment", "&lt;script&gt;placement", "0</td>"):
        assert text in html
    assert "http" not in html.replace(played.shelf, "").replace("http-equiv", "")
    assert "[red]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.ndjson", "http://127.0.0.1:1", "http://127.0.0.1:1"], "no.ndjson: No such file"),
        (["LOG", "http://127.0.0.1:1", "http://127.0.0.1:1"], "cannot reach http://127.0.0.1:1"),
        (["LOG", "http://127.0.0.1:1"], "expected URL_B, or --version-a and --version-b"),
        (["LOG", "http://127.0.0.1:1", "--version-a", "1"], "expected URL_B, or --version-a and --version-b"),
        (["LOG", "http://x?a=b", "http://x"], "the log has the paths"),
        (["LOG", "ftp://x", "http://x"], "URL 'ftp://x'"),
        (["LOG", "http://x", "http://x", "--min-overlap", "90"], "'90' is not a share from 0 to 1"),
        (["LOG", "http://x", "http://x", "--min-overlap", "nan"], "'nan' is not a share from 0 to 1"),
        (["LOG", "http://x", "http://x", "--timeout", "x"], "'x' is not seconds"),
        (["LOG", "http://x", "http://x", "--limit", "0"], "'0' is not a whole number from 1"),
        (["LOG", "http://x", "http://x", "--json", "no/out.json"], "no/out.json: no such directory"),
        (["LOG", "http://x", "http://x", "--segment", "no.csv"], "no.csv: No such file"),
        (["LOG", "http://x", "http://x", "--segment", "LOG"], "expected the columns user_id and segment"),
    ],
)
def test_what_cannot_be_compared_exits_2_with_one_clear_line(
    played: Played, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    played.write(recommendation("u1"))
    assert main(["diff", *(str(played.log) if one == "LOG" else one for one in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("load: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,segment\nu1,\n", "row 2: no segment"),
        ("user_id,segment\n,new\n", "row 2: no user_id"),
        ("user_id,segment\nu1,a\nu1,b\n", "row 3: 'u1' is in 'a' already"),
    ],
)
def test_a_bad_table_of_segments_is_refused_by_its_row(
    played: Played, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    played.write(recommendation("u1"))
    table = played.folder / "segments.csv"
    table.write_text(text)
    assert main(["diff", str(played.log), "http://x", "http://x", "--segment", str(table)]) == 2
    assert message in capsys.readouterr().err
