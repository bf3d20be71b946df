"""endcap.toml: what is refused, and the line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import app, placements
from service import config as module
from service.config import read_config
from service.errors import ConfigError

TEMPLATE = Path(module.__file__).parent / "endcap.toml"
MINIMAL = "[placements.home]\nsources = { personal = 10 }\n"


def refused(directory: Path, text: str) -> str:
    (directory / "endcap.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(directory)
    message = str(caught.value)
    assert "\n" not in message and "endcap.toml" in message
    return message


def test_the_template_that_init_writes_is_valid(tmp_path: Path) -> None:
    (tmp_path / "endcap.toml").write_text(TEMPLATE.read_text())
    config = read_config(tmp_path)
    assert set(config.placements) == {"home", "similar", "popular"}
    assert config.placements["home"].sources["new"] > 0, "or no shopper sees an item before the next training"


def test_the_sources_that_a_placement_may_name_are_those_that_the_service_makes() -> None:
    assert app.SOURCE_NAMES == placements.SOURCE_NAMES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[service]\nprot = 1\n" + MINIMAL, "endcap.toml: service.prot: Unknown field; known: drain_s, host"),
        ("[service]\nport = 70000\n" + MINIMAL, "service.port"),
        ("[placements.home]\nsources = { personal = 0 }\n", "placements.home.sources.personal: Expected `int` >= 1"),
        (MINIMAL + "rules = { category_cap = 0 }\n", "placements.home.rules.category_cap: Expected"),
        (MINIMAL + "[placements.mine]\nranked = true\n", "placements.mine.sources: Missing"),
        (MINIMAL + "filters = { categories = [] }\n", "placements.home.filters.categories: Expected"),
        (MINIMAL + "filters = { categories = ['a', 1] }\n", "placements.home.filters.categories[1]: Expected `str`"),
        (MINIMAL + "filters = { price_min = 5, price_max = 2.5 }\n",
         "placements.home.filters: price_min 5 is above price_max 2.5"),
        (MINIMAL + "filters = { price_min = nan }\n", "placements.home.filters.price_min: nan is no setting"),
        (MINIMAL + "[service]\ntimeout_ms = inf\n", "service.timeout_ms: inf is no setting"),
        (MINIMAL + "[events.weights]\nview = 1.0\ncart = -inf\n", "events.weights.cart: -inf is no setting"),
        (MINIMAL + "[events.weights]\nview = 1.0\ncart = 0\n", "events.weights.cart: Expected `float` > 0.0"),
        ("[placements.home]\nsources = { nearest = 5 }\n", "placements.home.sources: no source 'nearest'"),
        ("[placements.home]\nsources = {}\n", "placements.home.sources: names no source"),
        ("[engine]\ndevice = 'gpu'\n" + MINIMAL,
         "engine.device: Expected \"auto\" or \"cpu\" or \"cuda\", got \"gpu\""),
        (MINIMAL + "split = { 12 = 0.9, 13 = 0.2 }\n", "placements.home: split: the weights come to 1.1, expected 1"),
        (MINIMAL + "split = { 12 = 1.0, 13 = 0 }\n", "placements.home.split.13: Expected `float` > 0.0"),
        (MINIMAL + "split = {}\n", "placements.home.split: Expected"),
        (MINIMAL + "split = { 12 = 0.5, Mine = 0.5 }\n", "placements.home.split.Mine: Expected `str` matching regex"),
        (MINIMAL + "split = { 12 = 1 }\nmodel = 'default@12'\n",
         "placements.home: split: goes with a model's name alone, and model is 'default@12'"),
        (MINIMAL + "experiment = 'x'\n", "placements.home: experiment: is 'x', but there is no split"),
        (MINIMAL + f"split = {{ 12 = 1 }}\nexperiment = '{'é' * 33}'\n",
         f"placements.home.experiment: '{'é' * 33}' is longer than 64 bytes"),
        (MINIMAL + "[capture]\nshare = 1.5\n", "capture.share: Expected `float` <= 1.0"),
        (MINIMAL + "[capture]\nhashed = []\n", "capture.hashed: Unknown field; known: directory, drop"),
        (MINIMAL + "[capture]\nendpoints = ['/v1/rank', '/v1/ranks']\n", "capture.endpoints[1]: Expected"),
        (MINIMAL + "[capture]\ndrop = ['context..country']\n", "capture.drop[0]: Expected"),
        (MINIMAL + "[capture]\ndrop = ['a.b']\nhash = ['c', 'a.b']\n", "capture.hash: 'a.b' is in drop as well"),
        (MINIMAL + "[capture]\nmax_mb = 0\n", "capture.max_mb: Expected `float` > 0.0"),
        ("", "placements"),
        ("[service\n", "line 1"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_missing_file_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="endcap init"):
        read_config(tmp_path)
