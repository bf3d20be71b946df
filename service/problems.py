"""Errors as problem details (RFC 9457), whichever door they leave by."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from service.errors import FieldError, Look, look
from service.wire import BadField, Problem

FAILED = Look(500, "internal-error", "The service failed on this request")

log = logging.getLogger(__name__)


def problem(found: Look, detail: str, errors: Iterable[FieldError] = ()) -> Problem:
    return Problem(
        type=f"urn:endcap:problem:{found.slug}",
        title=found.title,
        status=found.status,
        detail=detail,
        errors=[BadField(error.path, error.message) for error in errors],
    )


def problem_of(error: Exception) -> Problem:
    """What a client is told. One that no table has is our own mistake: the log has it, the client only that."""
    found = look(error)
    if found is None:
        log.error("a request failed", exc_info=error)
        return problem(FAILED, "")
    return problem(found, str(error), getattr(error, "errors", ()))
