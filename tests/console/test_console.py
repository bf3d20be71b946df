"""What analysts and on-call engineers may rely on at `/console`, in a real browser.

The assertions compare the page with the endpoints of the same service, so they hold against the stub and the real one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console.page import ENTER, TAB, Page, http

USER = "u00012"

CONTRAST = """
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { const c = rgb(getComputedStyle(e).backgroundColor);
    return c[3] === 0 ? behind(e.parentElement) : c; };
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body, body *")].filter(e => own(e) && e.checkVisibility()).map(e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName + " " + e.textContent.trim().slice(0, 40)]; });
"""
FOCUS = """
  const all = [...document.querySelectorAll("a, button, input, summary")];
  window.reached = [];
  document.addEventListener("focusin", ({target: one}) =>
    reached.push([all.indexOf(one), one.matches(":focus-visible")]));
  all[0].focus();
  return all.length;
"""
SHIFTS = """
  const done = arguments[0], found = [];
  new PerformanceObserver(list => found.push(...list.getEntries().map(e => e.value))).observe({type: "layout-shift"});
  setTimeout(() => done(found), 1500);
"""
FIGURES = """
  const done = arguments[0];
  import("/console/api.js").then(({figures, quantile, readMetrics}) => {
    const text = (le1, le2, inf) => [["0.1", le1], ["0.2", le2], ["+Inf", inf]].map(([le, n]) =>
      `endcap_stage_seconds_bucket{le="${le}",stage="x"} ${n}`).join("\\n") +
      `\\nendcap_stage_seconds_count{stage="x"} ${inf}`;
    const at = (...counts) => readMetrics(text(...counts));
    const x = figures(at(60, 100, 110), at(10, 10, 10)).stages.x;
    done([quantile(x, 0.25), quantile(x, 0.7), quantile(x, 0.99), figures(at(1, 1, 1), at(2, 2, 2))]);
  });
"""
REASONS = """
  const done = arguments[0];
  import("/console/api.js").then(({figures, readMetrics}) => {
    const at = (one, other, user) => readMetrics(
      `endcap_degraded_total{group="a",reason="features"} ${one}\nendcap_degraded_total{group="b",reason="features"} ` +
      `${other}\nendcap_degraded_total{group="b",reason="user"} ${user}`);
    done(figures(at(15, 12, 4), at(10, 10, 1)).reasons);
  });
"""


@pytest.fixture(scope="module")
def console_url() -> Iterator[str]:
    """Where the service is; the stub of this directory, in its own process."""
    command = [sys.executable, "-m", "tests.console.stub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


@pytest.fixture
def switch(console_url: str) -> Iterator[Callable[[str, str], None]]:
    """Breaks a part of the service and mends it; everything is whole again afterwards."""
    yield lambda part, state: http(f"{console_url}/stub/{part}", state, "PUT")
    http(f"{console_url}/stub/answers", "yes", "PUT")
    http(f"{console_url}/stub/redis", "up", "PUT")
    http(f"{console_url}/stub/sample", "well", "PUT")
    http(f"{console_url}/stub/engine", "well", "PUT")


@pytest.fixture
def page(driver: Any, console_url: str) -> Page:
    return Page(driver, console_url)


def human(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    unit, length = ("s", 1) if seconds < 60 else ("min", 60) if seconds < 3600 else ("h", 3600)
    return f"{seconds / length:g} {unit}"


def test_every_view_is_shown_with_its_slo(page: Page) -> None:
    views = http(f"{page.url}/v1/freshness")["views"]
    page.open()
    assert page.texts("#views .choose") == [view["view"] for view in views]
    assert page.texts("#views td:nth-child(2) > span") == [human(view["slo_s"]) for view in views]


def test_a_missed_slo_is_marked_in_words_and_a_kept_one_is_not(page: Page) -> None:
    views = http(f"{page.url}/v1/freshness")["views"]
    late = {one["view"] for one in views if (one["served"]["5m"]["within_slo"] or 1) < 0.99}
    assert late, "nothing to see: the service misses no SLO"
    page.open()
    marks = dict(zip(page.texts("#views .choose"), page.texts("#views .mark"), strict=True))
    assert {view for view, mark in marks.items() if "SLO missed" in mark} == late


def test_the_chosen_view_is_charted_with_its_slo_for_an_hour_and_a_day(page: Page) -> None:
    page.open().all("#views .choose")[0].click()
    name, first = page.text("#views .choose"), page.driver.find_element("css selector", "#age-chart .plot")
    page.until(lambda: page.text("#age-of") == name)
    assert re.search(rf"age of {name}\. .*p99 now \d.*SLO now 26\sh", first.get_attribute("aria-label"))
    page.driver.find_element("css selector", "[data-window='24h']").click()
    asked = "return performance.getEntriesByType('resource').some(e => e.name.endsWith(arguments[0]))"
    page.until(lambda: page.js(asked, f"/v1/freshness/{name}?window=24h&by=hour"))


def test_the_banner_comes_when_redis_is_down_and_goes_when_it_is_back(
    page: Page, switch: Callable[[str, str], None]
) -> None:
    page.open()
    assert page.text("#banner") == "" and "Ready" in page.text("#ready")
    switch("redis", "down")
    page.until(lambda: "Redis does not answer" in page.text("#banner"))
    assert "What still works" in page.text("#banner") and "Not ready" in page.text("#ready")
    assert "events and item changes are refused (status 503)" in page.text("#banner")
    page.try_user(user_id=USER)
    assert "feature store did not answer" in page.text("#try-degraded")
    switch("redis", "up")
    page.until(lambda: page.text("#banner") == "" and "✓ Ready" in page.text("#ready"))


def test_redis_is_not_blamed_for_a_sample_that_failed_otherwise(page: Page, switch: Callable[[str, str], None]) -> None:
    page.open()
    switch("sample", "broken")
    page.until(lambda: "Ages in the store are not sampled" in page.text("#banner"))
    assert "Redis" not in page.text("#banner") and "OverflowError" in page.text("#banner")
    switch("sample", "well")
    page.until(lambda: page.text("#banner") == "")


def test_the_banner_says_when_nothing_answers(page: Page, switch: Callable[[str, str], None]) -> None:
    page.open()
    switch("answers", "no")
    page.until(lambda: "The service does not answer" in page.text("#banner"))
    assert page.all("#views tbody tr"), "the last figures stay"
    switch("answers", "yes")
    page.until(lambda: page.text("#banner") == "")


def test_a_user_tried_shows_titles_sources_and_the_ages_of_the_features(page: Page) -> None:
    wanted = {"user_id": USER, "placement": "home", "count": 5, "explain": True}
    answer = http(f"{page.url}/v1/recommendations", wanted)
    page.open().try_user(user_id=USER, count="5")
    titles = [text.splitlines()[0] for text in page.texts("#try-items tbody th")]
    assert titles == [item["explain"]["title"] for item in answer["items"]]
    assert page.texts("#try-items td:nth-child(2)") == [item["source"] for item in answer["items"]]
    shown = {text.split()[0]: text for text in page.texts("#try-features summary")}
    for view, found in answer["features"].items():
        assert (found["status"] == "present") == ("✓ Used" in shown[view])
        assert (found["age_s"] is None) or re.search(r"[\d.]+ (ms|s|min|h|d) old", shown[view])
    assert not page.all("#try-answer img"), "a title is text, whatever is in it"


def test_a_problem_shows_its_field(page: Page) -> None:
    page.open().try_user(user_id=USER, count="0")
    assert "count" in page.text("#try-problem code") and page.text("#count-problem").startswith("✗ ")
    assert page.driver.find_element("id", "count").get_attribute("aria-invalid") == "true"
    page.try_user(count="3")
    assert page.text("#count-problem") == "" and len(page.all("#try-items tbody tr")) == 3


def test_everything_is_reached_with_tab_and_works_with_enter(page: Page) -> None:
    page.open().try_user(user_id=USER, count="3")
    wanted = page.js(FOCUS)
    page.press(TAB * (wanted - 1))
    reached = page.js("return window.reached")
    assert len({place for place, _ in reached}) == wanted and all(ring for _, ring in reached)
    for group in ("#views", "[aria-label='Time shown']", "#stages"):
        other = page.driver.find_element("css selector", f"{group} [aria-pressed='false']")
        other.send_keys(ENTER)
        assert other.get_attribute("aria-pressed") == "true"
    before = page.text("#theme")
    page.driver.find_element("id", "theme").send_keys(ENTER)
    assert page.text("#theme") != before


def test_nothing_is_asked_of_another_host_and_the_console_of_the_browser_stays_empty(page: Page) -> None:
    page.driver.get("about:blank")
    page.driver.get_log("browser")
    page.open().try_user(user_id=USER)
    asked = page.js("return performance.getEntries().filter(e => e.initiatorType).map(e => e.name)")
    assert len(asked) > 5 and all(one.startswith((page.url, "data:")) for one in asked), asked
    assert page.driver.get_log("browser") == []


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_readable_in_both_themes_narrow_and_wide(page: Page, theme: str, width: int, tmp_path: Path) -> None:
    page.open(width).theme(theme)
    page.try_user(user_id=USER, count="3")
    faint = [(ratio, words) for ratio, words in page.js(CONTRAST) if ratio < 4.5]
    assert not faint
    assert page.js("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.driver.save_screenshot(str(tmp_path / f"{theme}-{width}.png"))


def test_the_curve_of_batches_is_drawn_with_the_size_worth_having(page: Page) -> None:
    found = http(f"{page.url}/v1/engine")["batches"]
    page.open()
    page.until(lambda: page.all("#batch-chart .ring"))
    assert len(page.all("#batch-chart .dot")) == len(found["curve"]) and len(page.all("#batch-chart .knee")) == 1
    assert page.text("#batch-chart .chosen") == f"{found['worth_having']} worth having"
    label = page.driver.find_element("css selector", "#batch-chart svg").get_attribute("aria-label")
    assert "1: 2,100, 2: 1,100" in label and "Worth having: 16." in label
    assert "16 queries are worth having, 32 when many wait" in page.text("#batch-size")
    assert "20.0 queries (the knee)" in page.text("#batch-size")


def test_what_to_expect_is_said_in_a_sentence_and_beside_what_is_measured(page: Page) -> None:
    page.open()
    page.until(lambda: "requests/s" in page.text("#outlook"))
    now, then = r"At 4\d\srequests/s you have p99 4\.1\sms; ", r"at twice the rate, 9\.8\sms; "
    assert re.fullmatch(now + then + r"beyond 640\srequests/s it leaves 20\sms\.", page.text("#outlook"))
    assert page.texts("#outlook-figures td:nth-child(4)") == ["4.1 ms", "5.1 ms", "9.8 ms", "20.0 ms"]
    assert page.texts("#outlook-figures td:nth-child(3)")[:3] == ["2.4 ms", "2.3 ms", "2.6 ms"]
    assert page.texts("#outlook-figures td:nth-child(2)")[3] == "640 /s"


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("idle", r"Nothing was asked in the last minute\. Beyond 640\srequests/s it leaves 20\sms\."),
        ("new", r"At 4\d\srequests/s you have p99 4\.1\sms\. Too little is asked for a forecast\."),
        ("full", r"At .*; at twice the rate, more come than get done; p99 leaves 20\sms at any rate\."),
        ("shared", r"This worker, one of 4: at 4\d\srequests/s you have .* leaves 20\sms\."),
    ],
)
def test_what_cannot_be_foretold_is_said_so(
    page: Page, switch: Callable[[str, str], None], engine: str, said: str
) -> None:
    switch("engine", engine)
    page.open()
    page.until(lambda: re.fullmatch(said, page.text("#outlook")))


def test_who_answered_is_told_with_its_share(page: Page) -> None:
    page.open()
    page.until(lambda: "Answered by" in page.text("#answered-by"))
    told = page.text("#answered-by").replace("\u00a0", " ")
    assert told == "Answered by default@12 as 12 75.0 %, default@13 as candidate 25.0 %"


def test_a_reason_is_added_up_over_all_who_answered(page: Page) -> None:
    """Two arms had to do without features, one in 80 answers of all each."""
    found = page.open().driver.execute_async_script(REASONS)
    assert found == {"features": 7, "user": 3}


def test_a_shifted_feature_is_marked_in_words_and_its_shares_are_drawn(page: Page) -> None:
    """The worst is shown first; a choice stays; long lists of words are cut, and what is cut is added up."""
    versions = http(f"{page.url}/v1/skew")["versions"]
    page.open()
    page.until(lambda: page.all("#skew tbody tr"))
    assert page.texts("#skew .choose") == ["avg_price", "country", "views_1h", "carts_1h"]
    marks = ["✗ shifted", "✓ same", "! look", "needs 200"]
    assert page.texts("#skew td:nth-child(2) small") == marks
    assert page.text("#skew-of") == "user_profile:avg_price" and len(page.all("#skew-bins tbody tr")) == 11
    assert "Served 0 to 212.5, trained on 0 to 140 (p1 1.5, p99 99.75)" in page.text("#skew-extent")
    assert re.search(r"beside 20,000 examples\..* Shifted: avg_price\.", page.text("#skew-note"))
    page.all("#skew .choose")[1].click()
    assert page.text("#skew-of") == "user_profile:country"
    names, live = page.texts("#skew-bins tbody th"), page.texts("#skew-bins td:nth-child(3)")
    assert len(names) == 12 and (names[0], names[-1]) == ("missing", "(others)")
    rest = sum(one["live"] for one in versions[1]["features"][1]["bins"][11:])
    assert live[-1] == f"{rest * 100:.1f}\u00a0%".replace("\u00a0", " ")
    time.sleep(2)  # the page asks again
    assert page.text("#skew-of") == "user_profile:country"


def test_a_version_without_statistics_says_so(page: Page) -> None:
    page.open()
    page.until(lambda: len(page.all("#skew-versions button")) == 2)
    page.all("#skew-versions button")[0].click()
    assert "Nothing to compare with: no training statistics" in page.text("#skew-note")
    assert set(page.texts("#skew td:nth-child(2) span")) == {"\u2013"} and not page.all("#skew-bins tbody tr")
    page.all("#skew-versions button")[1].click()
    assert page.all("#skew-bins tbody tr")


def test_nothing_moves_while_the_page_polls(page: Page) -> None:
    page.open()
    assert page.driver.execute_async_script(SHIFTS) == []


def test_latencies_are_interpolated_between_polls_and_a_restart_is_noticed(page: Page) -> None:
    page.open()
    assert page.driver.execute_async_script(FIGURES) == [pytest.approx(0.05), pytest.approx(0.15), 0.2, None]
    assert re.fullmatch(r"[\d.]+ ms", page.text("#stages tbody td:nth-child(3)"))
