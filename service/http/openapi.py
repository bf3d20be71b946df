"""The OpenAPI 3.1 document, generated from the wire types and the error table."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from service.accept import ARROW, JSON, NDJSON, PROTOBUF
from service.call import AFTER, PRIORITY, TIMEOUT
from service.engine_wire import EngineReport
from service.errors import LOOKS
from service.feast_wire import GetOnlineFeaturesRequest, OnlineFeatures, PushRequest, WriteRequest, Written
from service.freshness_wire import FreshnessReport, ViewReport
from service.http.endpoint import Endpoint
from service.http.openapi_jobs import JOBS
from service.many_json import BatchLine, RankBatch, RecommendBatch
from service.models_wire import Changed, ChangeRequest, ModelsReport
from service.skew_wire import SkewReport
from service.travel_wire import TimeTravel
from service.wire import (
    Accepted,
    EventRow,
    EventsRequest,
    ItemsAccepted,
    ItemsRequest,
    Problem,
    RankRequest,
    Recommendation,
    RecommendRequest,
    StoredFeatures,
)

HEADERS = {
    AFTER: "The `token` of events that the features must hold; else `degraded` says `context`.",
    TIMEOUT: "Milliseconds that the caller will wait, up to what the placement allows.",
    PRIORITY: "`interactive` or `bulk`: after the others, and refused first.",
}
STREAMS = (NDJSON, ARROW, PROTOBUF)
BOTH = (JSON, PROTOBUF)
TABLES = (JSON, "text/csv", ARROW)

ENDPOINTS = {
    "/v1/recommendations": Endpoint(
        "What should this shopper see now?",
        "Scored items for a placement, best first. An unknown or anonymous shopper gets 200: from the session's items "
        "where it has known ones, else popular items; `source` and `degraded` say so. Stage times are in the "
        "`Server-Timing` header.",
        RecommendRequest, Recommendation, headers=HEADERS, kinds=BOTH,
    ),
    "/v1/recommendations/{recommendation_id}": Endpoint(
        "Why did this shopper see that, and what would they see now?",
        "A logged answer made again from its logged features, by the same version, another one, or with features "
        "changed: both lists, each item's move, and what besides may explain a difference. The catalogue is as of now.",
        answer=TimeTravel, path={"recommendation_id": "Of an answer that the serving log has."},
        query={"model_version": "A loaded version; left out: the one that answered.",
               "set": "`view.feature=value`, also several times. Numbers, booleans and lists are JSON."},
    ),
    "/v1/rank": Endpoint(
        "In which order should this shopper see these items?",
        "The caller's own items in order of score. Items that the catalogue does not have are in `missing_item_ids`.",
        RankRequest, Recommendation, headers=HEADERS, kinds=BOTH,
    ),
    "/v1/recommendations:batch": Endpoint(
        "What should these shoppers see now?",
        "Up to 10,000 requests, as `requests`, as lines or as rows of an Arrow stream, answered as they are done: "
        "`index` says which. One that is wrong or fails is told in its place (docs/transports.md).",
        RecommendBatch, BatchLine, lines=RecommendRequest, kinds=STREAMS, headers=HEADERS,
    ),
    "/v1/rank:batch": Endpoint(
        "In which order should these shoppers see these items?",
        "As `/v1/recommendations:batch`; `defaults` may hold the items.",
        RankBatch, BatchLine, lines=RankRequest, kinds=STREAMS, headers=HEADERS,
    ),
    "/v1/events": Endpoint(
        "What shoppers did",
        "Up to 1,000 events as JSON, or any number as NDJSON, an event a line. What is accepted is durable; the same "
        "`event_id` counts once. A bad row is told in `rejected` and loses nothing of the rest.",
        EventsRequest, Accepted, 202, lines=EventRow, kinds=BOTH,
    ),
    "/v1/items": Endpoint(
        "What is new about items",
        "Prices, stock, new and removed items, in the answers of every worker within a second. A new item stands at "
        "its category's centroid until the next training, and its `source` is `cold_start`.",
        ItemsRequest, ItemsAccepted, 202,
    ),
    "/v1/freshness": Endpoint(
        "How fresh is every feature view?",
        "For each view its SLO, last materialization and newest event, ages in the store over a sample of entities, "
        "and ages as served over the last 5 minutes, hour and day.",
        answer=FreshnessReport, kinds=TABLES,
    ),
    "/v1/freshness/{view}": Endpoint(
        "How fresh was one view as served?",
        "Ages of the view behind the answers of a window, by placement, model version, hour or minute.",
        answer=ViewReport, kinds=TABLES, path={"view": "The feature view's name."},
        query={"window": "Such as `5m`, `1h` or `24h`; at most a day.",
               "by": "`placement`, `model_version`, `hour` or `minute`."},
    ),
    "/v1/features/user/{user_id}": Endpoint(
        "What does the store hold of this shopper?",
        "Each value of each view with its event time, its age and whether an answer would use it.",
        answer=StoredFeatures, path={"user_id": "The shopper's id."},
    ),
    "/v1/skew": Endpoint(
        "Are the features served like those that the model was trained on?",
        "For each model version and user input: the population stability index of the last hour's values against "
        "training's, what is missing, the range, and the share of each bin, as served and in training.",
        answer=SkewReport,
    ),
    "/v1/engine": Endpoint(
        "What do batches cost here, and what is to be expected at twice the rate?",
        "The curve of seconds by batch size that the engine of this process has learned, what its stage took in the "
        "last minute, what it is expected to take at this rate and at twice the rate, and up to which rate p99 is "
        "within the SLO.",
        answer=EngineReport,
    ),
    "/v1/models": Endpoint(
        "Which versions are there, and which stands for what?",
        "Of each model its versions, aliases, the rollout under way and the last changes, as the registry has them "
        "now; what each placement answers with and which versions are loaded, in the process that answers.",
        answer=ModelsReport,
    ),
    "/v1/models/{name}/versions/{version}/promote": Endpoint(
        "From now on this version stands for production",
        "Or for another alias. The version is loaded and checked first, in a process of its own. Needs the admin key.",
        ChangeRequest, Changed, path={"name": "The model.", "version": "Its version."}, admin=True,
    ),
    "/v1/models/{name}/rollback": Endpoint(
        "Back to what stood before",
        "What production, or another alias, was before its last promotion; a rollout under way ends. Needs the "
        "admin key.",
        ChangeRequest, Changed, path={"name": "The model."}, admin=True,
    ),
    "/get-online-features": Endpoint(
        "Features by name, as Feast's own server gives them",
        "Of many entities of any feature view or service; a stock Feast SDK with `online_store: {type: remote}` reads "
        "here. Open where `feast_api.enabled` says so. A view, a service or a name that Feast would not take is told "
        "in Feast's form, a JSON string, with 404 or 422.",
        GetOnlineFeaturesRequest, OnlineFeatures,
    ),
    "/push": Endpoint(
        "Rows for the feature views of a push source",
        "Written to the online store where they are newer than what is there. Open where `feast_api.push` says so.",
        PushRequest, Written,
    ),
    "/write-to-online-store": Endpoint(
        "Rows for one feature view", "What a Feast SDK with a remote online store sends. As `/push`.",
        WriteRequest, Written,
    ),
    "/health": Endpoint("Feast's API is open", "200 and no body once Feast's registry is known."),
    **JOBS,
    "/healthz": Endpoint("Alive", "200 as long as the process serves HTTP."),
    "/readyz": Endpoint("Ready", "200 once Redis answers and every bundle is loaded and warmed up, else 503."),
    "/metrics": Endpoint("Metrics", "Prometheus text format.", kinds=("text/plain",)),
    "/openapi.json": Endpoint("This document", "OpenAPI 3.1."),
}  # fmt: skip


def examples(item_ids: list[str]) -> dict[str, dict[str, Any]]:
    """A request for each endpoint that takes a body, about items that the catalogue has."""
    asking = {"user_id": "u00001", "session": {"item_ids": item_ids[:2]}}
    recent = {"user_id": ["u00001"], "event_timestamp": ["2026-01-31T09:00:00Z"], "item_ids": [item_ids[:2]],
              "purchased_item_ids": [[]]}  # fmt: skip
    event = {"event_id": "e-1", "user_id": "u00001", "item_id": item_ids[0], "type": "view"}
    return {
        "/v1/recommendations": {**asking, "placement": "home", "count": 5, "explain": True},
        "/v1/rank": {**asking, "item_ids": item_ids, "explain": True},
        "/v1/recommendations:batch": {"requests": [asking, {"user_id": "u00002"}], "defaults": {"count": 5}},
        "/v1/rank:batch": {"requests": [asking, {"user_id": "u00002"}], "defaults": {"item_ids": item_ids}},
        "/v1/events": {"events": [event, {**event, "event_id": "e-2", "type": "cart"}]},
        "/v1/items": {"items": [{"item_id": item_ids[0], "in_stock": True}]},
        "/v1/models/{name}/versions/{version}/promote": {"alias": "production", "why": "longer histories"},
        "/v1/models/{name}/rollback": {"alias": "production", "why": "fewer carts"},
        "/get-online-features": {"features": ["user_profile:country"], "entities": {"user_id": ["u00001"]}},
        "/push": {"push_source_name": "user_recent_push", "df": recent},
        "/write-to-online-store": {"feature_view_name": "user_recent", "df": recent},
    }


@cache
def _schemas() -> tuple[dict[type | None, Any], dict[str, Any]]:
    """A reference for each type that an endpoint takes or gives, and what they refer to."""
    every = [two for one in ENDPOINTS.values() for two in (one, *one.also.values())]
    wanted = [kind for one in every for kind in (one.body, one.answer, one.lines) if kind]
    kinds = [*dict.fromkeys(wanted), Problem]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return {None: {}, **dict(zip(kinds, schemas, strict=True))}, components


def openapi(item_ids: list[str]) -> dict[str, Any]:
    """The document as plain values; `item_ids` are for its examples."""
    named, components = _schemas()
    shown = examples(item_ids)
    paths = {}
    for path, one in ENDPOINTS.items():
        paths[path] = {
            two.method or ("post" if two.body else "get"): operation(path, two, named, shown.get(path))
            for two in (one, *one.also.values())
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Endcap", "version": version("endcap"), "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}}},
    }


def operation(path: str, one: Endpoint, named: dict[type | None, Any], shown: Any) -> dict[str, Any]:
    """What a path does by one method. `shown`: an example of its body."""
    found: dict[str, Any] = {"summary": one.summary, "description": one.description}
    found["operationId"] = re.sub(r"\W+", "_", f"{path} {one.method}".strip()).strip("_")
    found["parameters"] = [
        {"name": name, "in": place, "required": place == "path", "description": text, "schema": {"type": "string"}}
        for place, told in (("path", one.path), ("query", one.query), ("header", one.headers))
        for name, text in told.items()
    ]
    if one.body:
        example = shown if one.example is None else one.example
        content: dict[str, Any] = {JSON: {"schema": named[one.body], "example": example}}
        if one.lines:
            content[NDJSON] = {"schema": named[one.lines]}
        for kind in (PROTOBUF, ARROW):
            if kind in one.kinds:
                content[kind] = {}
        found["requestBody"] = {"required": not one.admin, "content": content}
    if one.admin:
        found["security"] = [{"admin": []}]
    answer = {kind: {"schema": named[one.answer] if "json" in kind else {}} for kind in one.kinds}
    found["responses"] = {str(one.status): {"description": "The answer", "content": answer}}
    if one.answer:
        found["responses"] |= problems(named[Problem])
    return found


def problems(schema: dict[str, Any]) -> dict[str, Any]:
    """One response a status, made of the error table and what the HTTP server itself refuses."""
    titles: dict[int, list[str]] = {413: ["The body is larger than the limit"]}
    for entry in LOOKS.values():
        titles.setdefault(entry.status, []).append(f"{entry.title} (`{entry.slug}`)")
    return {
        str(status): {
            "description": "; ".join(texts),
            "content": {"application/problem+json": {"schema": schema}},
        }
        for status, texts in sorted(titles.items())
    }
