"""The OpenAPI 3.1 document, generated from the wire types and the error table."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec

from service.errors import LOOKS
from service.wire import Problem, RankRequest, Recommendation, RecommendRequest


def examples(item_ids: list[str]) -> dict[str, dict[str, Any]]:
    """A request for each endpoint that takes a body, about items that the catalogue has."""
    asking = {"user_id": "u00001", "session": {"item_ids": item_ids[:2]}}
    return {
        "/v1/recommendations": {**asking, "placement": "home", "count": 5, "explain": True},
        "/v1/rank": {**asking, "item_ids": item_ids, "explain": True},
    }


TEXTS = {
    "/v1/recommendations": (
        "What should this shopper see now?",
        "Scored items for a placement, best first. An unknown or anonymous shopper gets 200: from the session's items "
        "where it has known ones, else popular items; `source` and `degraded` say so. Stage times are in the "
        "`Server-Timing` header.",
    ),
    "/v1/rank": (
        "In which order should this shopper see these items?",
        "The caller's own items in order of score. Items that the catalogue does not have are in `missing_item_ids`.",
    ),
    "/healthz": ("Alive", "200 as long as the process serves HTTP."),
    "/readyz": ("Ready", "200 once Redis answers and every bundle is loaded and warmed up, else 503 with the reason."),
    "/metrics": ("Metrics", "Prometheus text format."),
    "/openapi.json": ("This document", "OpenAPI 3.1."),
}

PLAIN = {"/metrics": "text/plain"}


def openapi(item_ids: list[str]) -> dict[str, Any]:
    """The document as plain values; `item_ids` are for its examples."""
    bodies_of = examples(item_ids)
    bodies = {"/v1/recommendations": RecommendRequest, "/v1/rank": RankRequest}
    kinds = [*bodies.values(), Recommendation, Problem]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    named = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, Any] = {}
    for path, (summary, description) in TEXTS.items():
        kind = bodies.get(path)
        operation: dict[str, Any] = {"summary": summary, "description": description, "responses": {}}
        operation["operationId"] = path.strip("/").replace("/", "_").replace(".", "_")
        if kind:
            content = {"application/json": {"schema": named[kind], "example": bodies_of[path]}}
            operation["requestBody"] = {"required": True, "content": content}
            operation["responses"]["200"] = {
                "description": "The answer",
                "content": {"application/json": {"schema": named[Recommendation]}},
            }
            operation["responses"] |= problems(named[Problem])
        else:
            operation["responses"]["200"] = {
                "description": "OK",
                "content": {PLAIN.get(path, "application/json"): {"schema": {}}},
            }
        paths[path] = {"post" if kind else "get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Endcap", "version": version("endcap"), "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": components},
    }


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
