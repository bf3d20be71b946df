from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from load.cli import main
from tests.load.conftest import Stub

SHORT = ["--rate", "200", "--duration", "0.5", "--warmup", "0.2", "--users-count", "50"]


def test_an_slo_that_is_met_exits_0_and_the_json_holds_every_figure(stub: Stub, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    url = stub.url("/ok")
    assert main(["open", url, *SHORT, "--slo", "p99=9s,errors=0%", "--json", str(out), "--pid", str(stub.pid)]) == 0
    figures = orjson.loads(out.read_bytes())
    assert figures["settings"]["url"] == url
    assert figures["planned"] == figures["sent"] == figures["ok"] == figures["statuses"]["200"] > 50
    assert figures["stages_ms"]["read"]["p99"] == pytest.approx(1.5, rel=0.01)
    assert figures["stages_ms"]["rank"]["mean"] == pytest.approx(4, rel=0.01)
    assert set(figures["stages_ms"]) == {"read", "rank"}
    assert figures["client_lateness_ms"]["count"] == figures["planned"]
    assert figures["server"]["rss_mb"] > 5
    assert figures["server"]["processes"] == 1
    assert [bound["met"] for bound in figures["slo"]] == [True, True]


def test_a_missed_slo_exits_1(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", stub.url("/cycle"), *SHORT, "--slo", "p99=9s,errors=0.1%"]) == 1
    assert "missed errors=0.1%" in capsys.readouterr().out


def test_degraded_answers_are_shown_as_a_share(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", stub.url("/degraded"), *SHORT, "--slo", "degraded=1%"]) == 1
    assert "user_recent x" in capsys.readouterr().out


def test_each_request_names_a_user_of_the_file_the_placement_and_the_count(stub: Stub, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("ann\nbob\n")
    arguments = ["--rate", "200", "--duration", "0.3", "--warmup", "0", "--users", str(users)]
    assert main(["open", stub.url("/ok"), *arguments, "--placement", "similar", "--count", "7"]) == 0

    async def log() -> Any:
        async with aiohttp.ClientSession() as session, session.get(stub.url("/log")) as response:
            return await response.json()

    posted = [body for body in asyncio.run(log())["bodies"] if body.get("placement") == "similar"]
    assert {body["user_id"] for body in posted} == {"ann", "bob"}
    assert {body["count"] for body in posted} == {7}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rerun"], "invalid choice: 'rerun'"),
        (["open"], "required: URL"),
        (["open", "http://127.0.0.1:1/"], "--rate"),
        (["open", "ftp://x/", *SHORT], "URL 'ftp://x/'"),
        (["open", "http://127.0.0.1:1/", *SHORT], "cannot connect to 127.0.0.1:1"),
        (["open", "http://x/", *SHORT, "--rate", "0"], "0 is not above 0"),
        (["open", "http://x/", *SHORT, "--rate", "nan"], "nan is not above 0"),
        (["open", "http://x/", *SHORT, "--duration", "ten"], "'ten' is not a number"),
        (["open", "http://x/", *SHORT, "--warmup", "-1"], "-1 is not at least 0"),
        (["open", "http://x/", *SHORT, "--count", "1.5"], "'1.5' is not a whole number from 1"),
        (["open", "http://x/", *SHORT, "--users", "f"], "not allowed with"),
        (["open", "http://x/", "--rate", "1", "--duration", "1"], "one of the arguments --users --users-count"),
        (["open", "http://x/", "--rate", "1", "--duration", "1", "--users", "no.txt"], "no.txt: No such file"),
        (["open", "http://x/", *SHORT, "--user-template", "u"], "user template 'u'"),
        (["open", "http://x/", *SHORT, "--slo", "p99=20"], "SLO 'p99=20'"),
        (["open", "http://x/", *SHORT, "--pid", "999999999"], "process 999999999 does not run"),
        (["open", "http://x/", *SHORT, "--json", "no/such/out.json"], "no such directory"),
        (["open", "http://x/", *SHORT, "--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_what_cannot_be_played_exits_2_with_one_clear_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("load: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
