"""The console of a real service in its own process: what it shows is what the service says, and Redis really stops."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.valkey import EmbeddedValkey, free_port
from tests.console.page import Page, http
from tests.service.conftest import make_deployment

USER = "u3"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    one = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), "127.0.0.1", free_port())
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def url(driver: Any, server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that has answered a few times; only where there is a browser to look at it."""
    directory = make_deployment(tmp_path_factory.mktemp("real"), f"{server.host}:{server.port}")
    port = free_port()
    command = [sys.executable, "-m", "service.cli", "serve", "--dir", str(directory), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while True:
            try:
                http(f"{address}/readyz")
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.2)
        for n in range(12):
            http(f"{address}/v1/recommendations", {"user_id": f"u{n}"})
        yield address
        process.terminate()


def test_it_shows_what_the_service_says(driver: Any, url: str) -> None:
    """Every view with its ages in the store and as served; a shopper's items, features and ages; nothing refused."""
    driver.get("about:blank")
    driver.get_log("browser")
    page = Page(driver, url).open()
    views = http(f"{url}/v1/freshness")["views"]
    assert page.texts("#views .choose") == [view["view"] for view in views] and len(views) == 4
    page.until(lambda: all("not sampled" not in text for text in page.texts("#views tbody tr")))
    served = {view["view"]: view["served"]["5m"]["requests"] for view in views}
    assert served == {"item_stats": 12, "user_activity": 12, "user_profile": 12, "user_recent": 12}
    page.try_user(user_id=USER, count="5")
    answer = http(f"{url}/v1/recommendations", {"user_id": USER, "count": 5, "explain": True})
    titles = [text.splitlines()[0] for text in page.texts("#try-items tbody th")]
    assert titles == [item["explain"]["title"] for item in answer["items"]]
    assert page.texts("#try-items td:nth-child(2)") == [item["source"] for item in answer["items"]]
    assert sum("✓ Used" in text for text in page.texts("#try-features summary")) == 4
    engine = http(f"{url}/v1/engine")
    page.until(lambda: "leaves 20" in page.text("#outlook"))
    page.until(
        lambda: (
            page.text("#batch-chart .chosen") == f"{http(f'{url}/v1/engine')['batches']['worth_having']} worth having"
        )
    )
    assert len(page.all("#batch-chart .dot")) == len(engine["batches"]["curve"]) == 6
    skew = http(f"{url}/v1/skew")["versions"][-1]
    assert page.texts("#skew .choose") == [one["feature"].split(":")[1] for one in skew["features"]]
    page.until(lambda: "Nothing to compare with: no training statistics" in page.text("#skew-note"))
    assert driver.get_log("browser") == []


def test_it_says_so_when_redis_stops_and_when_it_is_back(driver: Any, url: str, server: EmbeddedValkey) -> None:
    page = Page(driver, url).open()
    page.until(lambda: "✓ Ready" in page.text("#ready"))
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    page.until(lambda: "Redis does not answer" in page.text("#banner"), 20)
    assert "events and item changes are refused (status 503)" in page.text("#banner")
    page.try_user(user_id=USER)
    assert "feature store did not answer" in page.text("#try-degraded")
    assert page.all("#try-items tbody tr"), "answers go on"
    server._start()
    page.until(lambda: page.text("#banner") == "" and "✓ Ready" in page.text("#ready"), 30)


def test_the_files_have_their_types_and_a_policy(url: str) -> None:
    import urllib.request

    for path, kind in (("", "text/html"), ("/console.js", "text/javascript"), ("/vendor/uPlot.min.css", "text/css")):
        with urllib.request.urlopen(f"{url}/console{path}", timeout=5) as answer:
            assert answer.headers.get_content_type() == kind
            assert answer.headers["Content-Security-Policy"] == "default-src 'self'; img-src data:"
    for path in ("/../server.py", "/nothing.js"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/console{path}", timeout=5)
