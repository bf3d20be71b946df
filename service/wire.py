"""Request and response types: what storefronts send and get. msgspec validates the one, orjson writes the other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Id = Annotated[str, Meta(min_length=1, max_length=256, description="An id; always a string.")]
Scalar = Annotated[str, Meta(max_length=256)] | bool | int | float | None


class Session(Struct, frozen=True, forbid_unknown_fields=True):
    """What this visit has touched so far."""

    item_ids: Annotated[list[Id], Meta(max_length=200, description="Item ids, newest last.")]


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """A price range; both ends belong to it. An item without a price is outside every range."""

    min: Annotated[float, Meta(ge=0)] | None = None
    max: Annotated[float, Meta(ge=0)] | None = None


class Filter(Struct, frozen=True, forbid_unknown_fields=True):
    """Which items may be answered; every condition given must hold. Retrieval itself obeys it."""

    category: Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(min_length=1, max_length=200)] | None = None
    price: Price | None = None
    in_stock: Annotated[Literal[True], Meta(description="Always true: an item that is out of stock never appears.")] = (
        True
    )


Context = Annotated[
    dict[Annotated[str, Meta(max_length=256)], Scalar],
    Meta(
        max_length=64,
        description="Values known only now, by the name of a feature of the model (`user_profile:country` or, where "
        "one view has it, `country`). They replace the stored ones for this request. Other names are refused.",
    ),
]
Version = Annotated[str, Meta(min_length=1, max_length=64, description="Insist on this version of the model.")]


class RecommendRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What should this shopper see now?"""

    user_id: Id | None = None
    session: Session | None = None
    item_id: Annotated[Id, Meta(description="The item in view, for placements such as `similar`.")] | None = None
    placement: Id = "home"
    count: Annotated[int, Meta(ge=1, le=500)] = 20
    context: Context | None = None
    filter: Filter | None = None
    exclude_item_ids: Annotated[list[Id], Meta(max_length=2000)] = []
    model_version: Version | None = None
    explain: bool = False


class RankRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """In which order should this shopper see these items?"""

    item_ids: Annotated[list[Id], Meta(min_length=1, max_length=2000)]
    user_id: Id | None = None
    session: Session | None = None
    placement: Id = "home"
    context: Context | None = None
    model_version: Version | None = None
    explain: bool = False


class Model(Struct, frozen=True):
    """Which model answered."""

    name: str
    version: str


class ItemExplanation(Struct, frozen=True):
    """What lies behind one item's place. `retrieval_score` is its source's own; sources' scales differ."""

    title: str
    category: str
    price: float | None
    retrieval_score: float


class Item(Struct, frozen=True):
    """One item of an answer, best first."""

    item_id: str
    score: float
    source: str
    explain: ItemExplanation | UnsetType = UNSET


class ViewFreshness(Struct, frozen=True):
    """What was found of a feature view, and the age in seconds of its row at the time of the answer."""

    status: Literal["present", "missing", "outside_max_age", "unreadable", "not_read"]
    age_s: float | None


class Recommendation(Struct, frozen=True):
    """The answer. `degraded` names what it had to do without; empty when nothing."""

    recommendation_id: str
    model: Model
    items: list[Item]
    degraded: list[str]
    features: dict[str, ViewFreshness]
    took_ms: float
    missing_item_ids: list[str] | UnsetType = UNSET
    inputs: dict[str, Any] | UnsetType = UNSET


class BadField(Struct, frozen=True):
    """One bad field of a request."""

    path: str
    message: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str = ""
    errors: list[BadField] = []
