"""What aliases, versions and models are called. Imports nothing: what speaks HTTP needs these and no model."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

PRODUCTION, CANDIDATE = "production", "candidate"

Version = Annotated[str, Meta(pattern=r"^[0-9]{1,18}$")]
Alias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]

MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""The name of a model: the whole of it."""
