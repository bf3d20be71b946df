"""endcap.toml: what is refused, and the line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import config as module
from service.config import check_sources, read_config
from service.errors import ConfigError

SOURCES = ("personal", "popular")
TEMPLATE = Path(module.__file__).parent / "endcap.toml"
MINIMAL = "[placements.home]\nsources = { personal = 10 }\n"


def refused(directory: Path, text: str) -> str:
    (directory / "endcap.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        check_sources(directory, read_config(directory), SOURCES)
    message = str(caught.value)
    assert "\n" not in message and "endcap.toml" in message
    return message


def test_the_template_that_init_writes_is_valid(tmp_path: Path) -> None:
    from service.app import SOURCE_NAMES

    (tmp_path / "endcap.toml").write_text(TEMPLATE.read_text())
    config = read_config(tmp_path)
    check_sources(tmp_path, config, SOURCE_NAMES)
    assert set(config.placements) == {"home", "similar", "popular"}
    assert config.placements["home"].sources["new"] > 0, "or no shopper sees an item before the next training"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[service]\nprot = 1\n" + MINIMAL, "service: Object contains unknown field `prot`"),
        ("[service]\nport = 70000\n" + MINIMAL, "service.port"),
        ("[placements.home]\nsources = { personal = 0 }\n", "placements"),
        ("[placements.home]\nsources = { nearest = 5 }\n", "placements.home.sources: no source 'nearest'"),
        ("[placements.home]\nsources = {}\n", "placements.home.sources: names no source"),
        ("[engine]\ndevice = 'gpu'\n" + MINIMAL, "engine.device"),
        ("", "placements"),
        ("[service\n", "line 1"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_missing_file_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="endcap init"):
        read_config(tmp_path)
