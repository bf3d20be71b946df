"""What can go wrong in the service room, and how each error of every room looks to a client.

ServiceError
 |- MalformedBody      not JSON, or JSON that two readers could read differently
 |- InvalidRequest     JSON whose fields are wrong: every bad field with its path
 |- UnsupportedMedia   a body of another type
 |- NotAcceptable      an answer asked for in a type that there is not
 |- TooLarge           a body that is larger than the endpoint reads
 |- UnknownPlacement   a placement that endcap.toml does not have
 |- UnknownView        a feature view that Feast does not have
 |- UnknownAnswer      an answer that the serving log does not have
 |- UnknownJob         a job that there is not (any more)
 |- UnknownWebhook     a webhook that is not in the dead-letter list
 |- IdempotencyMismatch  a key that another request has used
 |- TooManyJobs        as many jobs wait as may
 |- NotReady           started, but Redis or a bundle is missing
 |- LogUnreadable      the serving log, which was asked about, cannot be read
 |- NotStored          events or item changes that the store did not take
 |- Overloaded         more requests are in flight than can be answered in time
 |- DoorClosed         an API that endcap.toml does not open
 |- AdminDisabled      a change by HTTP where no admin key is set
 |- Unauthorized       a change by HTTP without the admin key
 |- DeadlineExceeded   no answer in time
 |- ConfigError        endcap.toml cannot be used (never reaches a client)
 |- CaptureError       the key of recorded traffic cannot be used (never reaches a client)
"""

from __future__ import annotations

from dataclasses import dataclass

from features.errors import FeatureStoreError, NotServed
from ranking.errors import (
    BundleError,
    EngineError,
    EngineStopped,
    NoSuchVersion,
    RegistryError,
    RegistryUnavailable,
    UnknownVersion,
)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field: `path` as in `session.item_ids[3]`, '' for the body itself."""

    path: str
    message: str


class ServiceError(Exception):
    """Base of every error that the service room raises on purpose."""

    errors: tuple[FieldError, ...] = ()


class MalformedBody(ServiceError):
    """Not JSON, or JSON with NaN, duplicate keys or too deep a nesting."""


class InvalidRequest(ServiceError):
    """JSON whose fields are wrong."""

    def __init__(self, *errors: FieldError) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.path}: {error.message}".removeprefix(": ") for error in errors))


class UnsupportedMedia(ServiceError):
    """A body of a type that the endpoint does not read."""


class NotAcceptable(ServiceError):
    """None of the types in `Accept` is one that the endpoint writes."""


class TooLarge(ServiceError):
    """A body that is larger than the endpoint reads."""


class UnknownPlacement(ServiceError):
    """A placement that endcap.toml does not have."""


class UnknownView(ServiceError):
    """A feature view that Feast does not have."""


class UnknownAnswer(ServiceError):
    """An answer that the serving log does not have (any more), or not yet."""


class UnknownJob(ServiceError):
    """A job that there is not, or not any more."""


class UnknownWebhook(ServiceError):
    """A webhook that is not in the dead-letter list."""


class IdempotencyMismatch(ServiceError):
    """An Idempotency-Key that another request has used."""


class TooManyJobs(ServiceError):
    """As many jobs wait as may."""


class LogUnreadable(ServiceError):
    """The serving log cannot be read."""


class NotStored(ServiceError):
    """The store did not take what was sent; what of it is in already is said."""


class NotReady(ServiceError):
    """Redis does not answer, or no bundle is loaded."""


class Overloaded(ServiceError):
    """More requests are in flight than can be answered in time."""


class DeadlineExceeded(ServiceError):
    """No answer in the time that the request had."""


class DoorClosed(ServiceError):
    """An API that endcap.toml does not open."""


class AdminDisabled(ServiceError):
    """A change by HTTP where no admin key is set."""


class Unauthorized(ServiceError):
    """A change by HTTP without the admin key."""


class CaptureError(ServiceError):
    """The key of recorded traffic cannot be used."""


class ConfigError(ServiceError):
    """endcap.toml cannot be used. `str()` is one line that names the file and the setting."""


@dataclass(frozen=True, slots=True)
class Look:
    """How an error looks to a client: HTTP status, problem type (`urn:endcap:problem:<slug>`), title, Retry-After s,
    and how to say who one is (WWW-Authenticate)."""

    status: int
    slug: str
    title: str
    retry_after_s: int | None = None
    challenge: str | None = None


LOOKS: dict[type[Exception], Look] = {
    MalformedBody: Look(400, "malformed-body", "The body cannot be read"),
    InvalidRequest: Look(422, "invalid-request", "The request has invalid fields"),
    UnsupportedMedia: Look(415, "unsupported-media-type", "The body is of another type"),
    NotAcceptable: Look(406, "not-acceptable", "The answer cannot have that type"),
    TooLarge: Look(413, "request-entity-too-large", "Request entity too large"),
    UnknownPlacement: Look(404, "unknown-placement", "There is no such placement"),
    UnknownVersion: Look(404, "unknown-version", "There is no such model version"),
    UnknownView: Look(404, "unknown-view", "There is no such feature view"),
    UnknownAnswer: Look(404, "unknown-answer", "The serving log has no such answer"),
    UnknownJob: Look(404, "unknown-job", "There is no such job"),
    UnknownWebhook: Look(404, "unknown-webhook", "No such webhook is in the dead-letter list"),
    IdempotencyMismatch: Look(422, "idempotency-mismatch", "The Idempotency-Key belongs to another request"),
    TooManyJobs: Look(429, "too-many-jobs", "As many jobs wait as may", 60),
    NoSuchVersion: Look(404, "unknown-version", "There is no such model version"),
    RegistryError: Look(409, "registry-conflict", "The change cannot be made; nothing was changed"),
    RegistryUnavailable: Look(503, "registry-unavailable", "The registry of models does not answer", 1),
    BundleError: Look(422, "version-refused", "The version fails its check; nothing was changed"),
    AdminDisabled: Look(403, "admin-disabled", "Nobody may change anything here by HTTP"),
    Unauthorized: Look(401, "unauthorized", "The admin key is missing or another", challenge='Bearer realm="endcap"'),
    DoorClosed: Look(403, "door-closed", "This API is not open here"),
    NotServed: Look(501, "not-supported", "Feast has it, and this service does not do it"),
    LogUnreadable: Look(503, "log-unreadable", "The serving log cannot be read", 1),
    NotStored: Look(503, "not-stored", "The store did not take it; send it again", 1),
    FeatureStoreError: Look(503, "store-unavailable", "The feature store does not answer", 1),
    NotReady: Look(503, "not-ready", "The service is not ready", 1),
    Overloaded: Look(503, "overloaded", "More requests are waiting than can be answered in time", 1),
    EngineStopped: Look(503, "stopping", "The service is shutting down", 1),
    DeadlineExceeded: Look(504, "deadline-exceeded", "No answer in the time that the request had"),
    EngineError: Look(500, "engine-failed", "The model failed on this request"),
}


def look(error: Exception) -> Look | None:
    """How this error looks, by the nearest class in the table; None for one that is not in it."""
    return next((LOOKS[kind] for kind in type(error).__mro__ if kind in LOOKS), None)
