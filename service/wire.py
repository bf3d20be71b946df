"""Request and response types: what storefronts send and get. msgspec validates the one and writes the other."""

from __future__ import annotations

from datetime import datetime
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
    """Which model answered, and for which group of shoppers (docs/models.md)."""

    name: str
    version: str
    group: str = "default"


class ItemExplanation(Struct, frozen=True):
    """What lies behind one item's place. `retrieval_score` is its source's own; sources' scales differ."""

    title: str
    category: str
    price: float | None
    retrieval_score: float


class Item(Struct, frozen=True, gc=False):
    """One item of an answer, best first."""

    item_id: str
    score: float
    source: str
    explain: ItemExplanation | UnsetType = UNSET


class ViewFreshness(Struct, frozen=True, gc=False):
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


class EventRow(Struct, frozen=True, forbid_unknown_fields=True):
    """What a shopper did. `event_id` makes it count once, however often it is sent."""

    event_id: Id
    user_id: Id
    item_id: Id
    type: Annotated[str, Meta(max_length=64, description="One of the kinds in `events.weights` of endcap.toml.")]
    timestamp: Annotated[
        str | int | float | None,
        Meta(description="RFC 3339 with an offset, or seconds since the epoch. Left out: now."),
    ] = None
    session_id: Id | None = None
    value: Annotated[float, Meta(ge=0, le=1e12, description="What a purchase paid, all units together.")] | None = None


class EventsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Events of any shoppers, in any order."""

    events: Annotated[list[EventRow], Meta(max_length=1000)]


class Rejected(Struct, frozen=True):
    """A row that was not taken in, by its place in the request (from 0), and why."""

    index: int
    message: str


class Accepted(Struct, frozen=True):
    """`accepted` rows are durable in the stream. `duplicates` had been accepted before. `rejected` lists the first
    1,000 rows that were refused, `rejected_count` counts all. `token`, sent as the header `Endcap-After`, makes an
    answer wait for these events; it is null where no row was right."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]
    rejected_count: int
    token: str | None


class ItemRow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is new about an item; what is left out stays. A new item needs a title and a category."""

    item_id: Id
    title: Annotated[str, Meta(min_length=1, max_length=1000)] | UnsetType = UNSET
    category: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    price: Annotated[float, Meta(ge=0, le=1000000000000.0)] | UnsetType | None = UNSET
    in_stock: bool | UnsetType = UNSET
    removed: (
        Annotated[bool, Meta(description="True takes it out of the catalogue, false brings it back.")] | UnsetType
    ) = UNSET
    attributes: Annotated[
        dict[Annotated[str, Meta(max_length=256)], Annotated[str, Meta(max_length=256)] | float | None],
        Meta(max_length=64, description="Other columns of the catalogue that the model reads."),
    ] = {}


class ItemsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Item changes; of two about one item the later one stands."""

    items: Annotated[list[ItemRow], Meta(max_length=1000)]


class ItemsAccepted(Struct, frozen=True):
    """`accepted` changes are on their way to every worker. `rejected` lists the first 1,000 rows that were refused."""

    accepted: int
    rejected: list[Rejected]
    rejected_count: int


class StoredView(Struct, frozen=True):
    """What the store holds of one view: its features' values, the time from which they were true, their age now, and
    whether an answer would use them."""

    view: str
    status: Literal["present", "missing", "outside_max_age", "unreadable", "not_read"]
    age_s: float | None
    event_time: datetime | None
    max_age_s: float | None
    features: dict[str, Any]


class StoredFeatures(Struct, frozen=True):
    """A user's features as the service sees them at `at`."""

    user_id: str
    at: datetime
    views: list[StoredView]
