"""One path of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Endpoint:
    """What a path does. `body` and `answer` are wire types; `kinds` the media types that the answer has. `also`: what
    it does by other methods than that of its own."""

    summary: str
    description: str
    body: type | None = None
    answer: type | None = None
    status: int = 200
    kinds: tuple[str, ...] = ("application/json",)
    lines: type | None = None  # of an NDJSON body: the type of a line
    query: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = ""  # left out: post where there is a body, else get
    example: Any = None  # of the body
    also: Mapping[str, Endpoint] = field(default_factory=dict)
    admin: bool = False  # needs the admin key; its body may be left out
