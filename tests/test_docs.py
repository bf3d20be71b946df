"""The documentation keeps up: every setting, metric, error and reason is in it, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from ranking.train.config import TrainConfig
from service import query, recommend, shopper
from service.config import Config
from service.errors import LOOKS
from service.ladder import CANDIDATES, NPROBE, POPULAR, RANKER
from service.metrics import Metrics
from service.placements import Placement, PlacementFilters, PlacementRules, PlacementShadow
from service.skew import Skew

ROOT = Path(__file__).parents[1]
LADDER = {NPROBE, CANDIDATES, RANKER, POPULAR}
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
DOCS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}


def settings() -> list[str]:
    names = []
    for section in msgspec.structs.fields(Config):
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct):
            names += [f"{section.name}.{one.name}" for one in msgspec.structs.fields(section.type)]
    nested = [f"filters.{one.name}" for one in msgspec.structs.fields(PlacementFilters)]
    nested += [f"rules.{one.name}" for one in msgspec.structs.fields(PlacementRules)]
    nested += [f"shadow.{one.name}" for one in msgspec.structs.fields(PlacementShadow)]
    plain = [one.name for one in msgspec.structs.fields(Placement) if one.name not in ("filters", "rules", "shadow")]
    return [*names, *nested, *plain]


@pytest.mark.parametrize("name", settings())
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS["docs/configuration.md"]


def test_no_setting_is_documented_that_there_is_not() -> None:
    written = set(re.findall(r"^\| `(\w+\.\w+)`", DOCS["docs/configuration.md"], re.MULTILINE))
    assert written <= set(settings())
    assert {f"train.{one.name}" for one in msgspec.structs.fields(TrainConfig)} <= written


def test_every_metric_is_documented() -> None:
    collected = [*Metrics().registry.collect(), *Skew(list).families()]
    ours = [one.name for one in collected if one.name.startswith("endcap_")]
    assert len(ours) >= 14
    for name in ours:
        assert f"`{name}" in DOCS["docs/operations.md"], name


def test_every_error_and_every_degraded_reason_is_documented() -> None:
    for look in LOOKS.values():
        assert f"`{look.slug}`" in DOCS["docs/api.md"]
    source = "".join(Path(one.__file__).read_text() for one in (recommend, query, shopper))
    reasons = {*re.findall(r'degraded\.append\("(\w+)"\)', source), *LADDER, "features"}
    assert reasons == {"context", "last_known", "features", "user", "item", "count", *LADDER}
    for reason in reasons:
        assert f"| `{reason}` |" in DOCS["docs/api.md"]
        assert re.search(rf"^  {reason}: ", (ROOT / "service/http/console/tryit.js").read_text(), re.MULTILINE)


def test_links_between_documents_lead_somewhere() -> None:
    for name, text in DOCS.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
