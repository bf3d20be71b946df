"""A placement: where on a page the answer will stand, and so which sources, filters, rules and model make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from service.errors import UnknownPlacement

SOURCE_NAMES = ("personal", "session", "covisit", "similar", "popular", "new")
"""The candidate sources that `service/app.py` makes, known without importing what they need."""


WEIGHTS_OFF = 1e-6
"""How far off 1 the weights of a split may come to."""

Named = Annotated[str, Meta(pattern=r"^([0-9]{1,18}|[a-z][a-z0-9_-]{0,63})$")]
"""A version of the placement's model, by its number or an alias."""


class PlacementFilters(Struct, frozen=True, forbid_unknown_fields=True):
    """What a placement never shows, besides what is out of stock, whatever the request says."""

    categories: Annotated[list[str], Meta(min_length=1)] | None = None
    price_min: float | None = None
    price_max: float | None = None

    def __post_init__(self) -> None:
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise ValueError(
                f"price_min {self.price_min:g} is above price_max {self.price_max:g}: no item can be shown"
            )


class PlacementRules(Struct, frozen=True, forbid_unknown_fields=True):
    """`already_bought`: leave out what this shopper has bought. `category_cap`: at most so many items of one category,
    as long as others are left to fill the count. `new_every`: of every so many places at least one, at the end, has an
    item that came after training, where a source proposes one."""

    already_bought: bool = False
    category_cap: Annotated[int, Meta(ge=1)] | None = None
    new_every: Annotated[int, Meta(ge=2)] | None = None


class Placement(Struct, frozen=True, forbid_unknown_fields=True):
    """`sources` maps each candidate source to the most candidates it may propose, in order of precedence.
    `ranked`: whether the ranker orders them; without it the sources' own order stands. `timeout_ms`: how long an answer
    may take where the request does not say; `max_timeout_ms` bounds what a request may say (left out: `timeout_ms`).
    `priority`: whether its requests go before or after others, where they do not say. `split`: versions or aliases of
    the model, each with the share of the shoppers that it answers; `experiment` salts who is in which (left out: the
    placement's name)."""

    sources: dict[str, Annotated[int, Meta(ge=1, le=2000)]]
    model: str = "default"
    ranked: bool = True
    needs_item: bool = False
    timeout_ms: Annotated[float, Meta(gt=0)] = 50.0
    max_timeout_ms: Annotated[float, Meta(gt=0)] | None = None
    priority: Literal["interactive", "bulk"] = "interactive"
    filters: PlacementFilters = PlacementFilters()
    rules: PlacementRules = PlacementRules()
    split: Annotated[dict[Named, Annotated[float, Meta(gt=0, le=1)]], Meta(min_length=1)] | None = None
    experiment: Annotated[str, Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if self.split is not None and abs((total := sum(self.split.values())) - 1) > WEIGHTS_OFF:
            raise ValueError(f"split: the weights come to {total:g}, expected 1")
        if self.split is not None and "@" in self.model:
            raise ValueError(f"split: goes with a model's name alone, and model is {self.model!r}")
        if self.split is None and self.experiment is not None:
            raise ValueError(f"experiment: is {self.experiment!r}, but there is no split")
        if self.max_timeout_ms is not None and self.max_timeout_ms < self.timeout_ms:
            raise ValueError(f"timeout_ms {self.timeout_ms:g} is above max_timeout_ms {self.max_timeout_ms:g}")

    @property
    def models(self) -> list[str]:
        """What answers here: the model and the versions that it is split into, as `name@version` or `name@alias`."""
        return [self.model, *(f"{self.model}@{arm}" for arm in self.split or ())]

    @property
    def cap_ms(self) -> float:
        """The most that a request may take, whatever it says."""
        return self.timeout_ms if self.max_timeout_ms is None else self.max_timeout_ms


class Placements:
    """The placements of one deployment by name."""

    def __init__(self, placements: Mapping[str, Placement]) -> None:
        self.placements = dict(placements)

    def get(self, name: str) -> Placement:
        """Raises UnknownPlacement, which names those that there are."""
        if name not in self.placements:
            raise UnknownPlacement(f"no placement {name!r}; there are {', '.join(sorted(self.placements))}")
        return self.placements[name]
