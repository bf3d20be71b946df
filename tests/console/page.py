"""The console in a browser, in the words that a test wants to use."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

TAB, ENTER = "\ue004", "\ue007"


def http(url: str, body: Any = None, method: str | None = None) -> Any:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


class Page:
    """The console at one width, in the words that a test wants to use."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, width: int = 1400) -> Page:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(f"{self.url}/console?every=0.5")
        self.until(lambda: self.all("#views tbody tr") and "/s" in self.text("#rate"))
        return self

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        return self.texts(selector)[0]

    def texts(self, selector: str) -> list[str]:
        """As they are shown. The page draws itself anew twice a second; an element asked after that is gone."""
        from selenium.common.exceptions import StaleElementReferenceException

        for _ in range(20):
            try:
                return [element.text for element in self.all(selector)]
            except StaleElementReferenceException:
                continue
        raise AssertionError(f"{selector} is drawn anew faster than it can be read")

    def until(self, holds: Callable[[], Any], seconds: float = 10) -> Any:
        give_up = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < give_up, f"not within {seconds} s; the banner says {self.text('#banner')!r}"
            time.sleep(0.05)
        return found

    def try_user(self, **fields: str) -> None:
        for name, value in fields.items():
            field = self.driver.find_element("id", name)
            field.clear()
            field.send_keys(value)
        self.driver.find_element("id", "user_id").send_keys(ENTER)
        self.until(lambda: self.text("#try-summary") not in ("", "Asking…"))

    def theme(self, wanted: str) -> None:
        while self.js("return document.documentElement.dataset.theme") != wanted:
            self.driver.find_element("id", "theme").click()

    def press(self, keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(keys)
