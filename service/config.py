"""endcap.toml: the settings of one deployment. Frozen; an unknown key is refused with its path.

The only module that reads it, and the only one that may read the environment.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ranking.train.config import TrainConfig
from service.errors import ConfigError, FieldError
from service.many import BatchConfig
from service.mistakes import mistakes
from service.placements import SOURCE_NAMES, Placement
from service.split import MOST_SALT
from service.webhooks.signature import secret_of

FILE = "endcap.toml"


class ServiceConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP edge. `timeout_ms` bounds any request, whatever its placement allows. `workers`: processes that answer
    on the same port."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    timeout_ms: Annotated[float, Meta(gt=0)] = 1000.0
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 1 << 20
    drain_s: Annotated[float, Meta(ge=0)] = 10.0


class GrpcConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The gRPC door, on a port of its own at the host of `service`; without a port there is none. How many calls one
    connection may have open, how long it lasts, and how long a client that says nothing, or takes nothing, is waited
    for."""

    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    max_streams: Annotated[int, Meta(ge=1, le=100_000)] = 100
    max_connection_age_s: Annotated[float, Meta(ge=1, le=1_000_000)] = 1800.0
    idle_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    stall_s: Annotated[float, Meta(gt=0, le=3_600)] = 5.0


class FeaturesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The Feast repo; the most that an answer waits for the online store, whatever its budget leaves for it; and of how
    many shoppers a process remembers what the store last said, for when it says nothing."""

    repo: str = "feature_repo"
    timeout_ms: Annotated[float, Meta(gt=0)] = 100.0
    remember_users: Annotated[int, Meta(ge=0)] = 5000
    embedded_valkey: bool = False


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Inference. How large batches are is learned; `max_batch` bounds it (0: 32 on a CPU, 256 on a GPU), and a batch
    takes at most half of `slo_ms`. `thread`: whether it has a thread of its own beside the event loop, which helps a
    process that has more than one core. `precision`: what a GPU searches in; answers are float32's in any case."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float16", "bfloat16", "float32"] = "float16"
    max_batch: Annotated[int, Meta(ge=0, le=4096)] = 0
    slo_ms: Annotated[float, Meta(gt=0)] = 20.0
    thread: bool = True


class ModelsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where bundles are (a directory or the URL of an object store), where those of an object store are kept on this
    machine, and how many of a model's newest versions are loaded (a request can insist on one)."""

    directory: Annotated[str, Meta(min_length=1)] = "models"
    cache: Annotated[str, Meta(min_length=1)] = "cache/models"
    keep: Annotated[int, Meta(ge=1)] = 2


class EventsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The kinds of event, and how much one of each counts in training; which live events are taken in and for how long
    an id is known again; whether this process turns them into features."""

    weights: dict[str, Annotated[float, Meta(gt=0)]] = msgspec.field(
        default_factory=lambda: {"view": 1.0, "cart": 3.0, "purchase": 5.0}
    )
    consume: bool = True
    max_late_days: Annotated[float, Meta(gt=0)] = 30.0
    max_ahead_s: Annotated[float, Meta(ge=0)] = 300.0
    remember_hours: Annotated[float, Meta(gt=0)] = 48.0
    max_backlog: Annotated[int, Meta(ge=1)] = 1_000_000


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The serving log."""

    enabled: bool = True
    keep_days: Annotated[float, Meta(gt=0)] = 14.0


FieldName = Annotated[str, Meta(pattern=r"^[^.\s]+(\.[^.\s]+)*$")]
Recorded = Literal["/v1/recommendations", "/v1/rank", "/v1/events", "/v1/items"]


class CaptureConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Recorded traffic. `drop` and `hash` name JSON fields, at any depth, with as much of their path as is needed.

    `share` is of users. A file has at most `max_file_mb`, all of them together `max_mb` (1 MB is 1,000,000 bytes).
    """

    enabled: bool = False
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    directory: Annotated[str, Meta(min_length=1)] = "log/traffic"
    endpoints: Annotated[list[Recorded], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["/v1/recommendations", "/v1/rank", "/v1/events"]
    )
    drop: list[FieldName] = msgspec.field(default_factory=list)
    hash: list[FieldName] = msgspec.field(default_factory=list)
    max_file_mb: Annotated[float, Meta(gt=0)] = 64.0
    max_mb: Annotated[float, Meta(gt=0)] = 1000.0
    max_days: Annotated[float, Meta(gt=0)] = 7.0


class FeastApiConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP API of Feast's own feature server: whether it is open, and for writing too; the most entities of a
    request, the most rows of a push, and what either may take. `empty_lists`: what an empty list is in an answer."""

    enabled: bool = False
    push: bool = False
    max_entities: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    max_push_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    timeout_ms: Annotated[float, Meta(gt=0)] = 5000.0
    empty_lists: Literal["null", "list"] = "null"


class AdminConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may change by HTTP which version stands for what: who has the key, which is in an environment variable or,
    where one is named, in a file. Without a key nobody may."""

    key_env: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "ENDCAP_ADMIN_KEY"
    key_file: Annotated[str, Meta(min_length=1)] | None = None


class OipConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The Open Inference Protocol: whether the models themselves may be asked, by whoever reaches the port; of how many
    users a request may be, and how long it may take."""

    enabled: bool = False
    max_batch: Annotated[int, Meta(ge=1, le=65536)] = 1024
    timeout_ms: Annotated[float, Meta(gt=0)] = 10_000.0


class JobsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Work that outlives a request. `allow`: directories and https URLs that a job may read Parquet from. `share`: of
    its time that a process gives a job while it has shoppers. `max_mb` is of one job's input (1 MB is 1,000,000 bytes).
    """

    allow: list[Annotated[str, Meta(pattern=r"^(/|https?://[^/?#@]+/)[^?#]*$")]] = msgspec.field(default_factory=list)
    share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    max_jobs: Annotated[int, Meta(ge=0)] = 100
    max_mb: Annotated[float, Meta(gt=0)] = 1000.0
    keep_days: Annotated[float, Meta(gt=0)] = 7.0


class WebhooksConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The secret that webhooks are signed with is in an environment variable or, where one is named, in a file.
    `allow_hosts` may be private, and be spoken to without TLS. `ca_file`: certificates that are trusted too (PEM)."""

    secret_env: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "ENDCAP_WEBHOOK_SECRET"  # noqa: S105 - the name of one
    secret_file: Annotated[str, Meta(min_length=1)] | None = None
    allow_hosts: list[Annotated[str, Meta(pattern=r"^[a-z0-9._:-]+$")]] = msgspec.field(default_factory=list)
    ca_file: Annotated[str, Meta(min_length=1)] | None = None
    retry_hours: Annotated[float, Meta(gt=0)] = 24.0


LEAST_KEY = 16
"""Characters of an admin key."""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """All of endcap.toml. Relative paths are relative to the file."""

    placements: Annotated[dict[str, Placement], Meta(min_length=1)]
    service: ServiceConfig = ServiceConfig()
    grpc: GrpcConfig = GrpcConfig()
    features: FeaturesConfig = FeaturesConfig()
    engine: EngineConfig = EngineConfig()
    models: ModelsConfig = ModelsConfig()
    batch: BatchConfig = BatchConfig()
    events: EventsConfig = EventsConfig()
    log: LogConfig = LogConfig()
    capture: CaptureConfig = CaptureConfig()
    admin: AdminConfig = AdminConfig()
    feast_api: FeastApiConfig = FeastApiConfig()
    oip: OipConfig = OipConfig()
    jobs: JobsConfig = JobsConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    train: TrainConfig = TrainConfig()


def read_config(directory: Path) -> Config:
    """Reads `endcap.toml`. Raises ConfigError, one line that names the file and the setting."""
    path = directory / FILE
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `endcap init {directory}` makes one") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if wrong := next(chain(not_finite(raw), mistakes(raw, Config)), None):
        raise ConfigError(f"{path}: {wrong.path or 'top level'}: {wrong.message}")
    config = msgspec.convert(raw, Config)
    check_sources(directory, config, SOURCE_NAMES)
    check_capture(path, config.capture)
    check_experiments(path, config.placements)
    return config


def admin_key(directory: Path, admin: AdminConfig) -> bytes | None:
    """The admin key; None where none is set. Raises ConfigError for one that is too short or cannot be read, and never
    says it."""
    where, key = secret(directory, "admin.key", admin.key_env, admin.key_file)
    if key is not None and len(key) < LEAST_KEY:
        raise ConfigError(f"{where}: the key has {len(key)} bytes; {LEAST_KEY} are the least")
    return key


def webhook_key(directory: Path, webhooks: WebhooksConfig) -> bytes | None:
    """What webhooks are signed with; None where none is set. Raises ConfigError, and never says it."""
    where, text = secret(directory, "webhooks.secret", webhooks.secret_env, webhooks.secret_file)
    try:
        return None if text is None else secret_of(text.decode("ascii", "replace"))
    except ValueError as error:
        raise ConfigError(f"{where}: the secret {error}") from error


def secret(directory: Path, setting: str, variable: str, name: str | None) -> tuple[str, bytes | None]:
    """Where a secret is said to be, and the secret; of a variable that is not set, None. Raises ConfigError."""
    if name is None:
        found = os.environ.get(variable, "").encode("utf-8", "surrogateescape").strip()
        return f"{directory / FILE}: {setting}_env", found or None
    where, file = f"{directory / FILE}: {setting}_file", directory / name
    try:
        return where, file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{where}: {file}: {error.strerror or error}") from error


def check_capture(path: Path, capture: CaptureConfig) -> None:
    """Raises ConfigError where two settings contradict each other."""
    if both := next((name for name in capture.hash if name in capture.drop), None):
        raise ConfigError(f"{path}: capture.hash: {both!r} is in drop as well")


def check_experiments(path: Path, placements: Mapping[str, Placement]) -> None:
    """Raises ConfigError where what salts a split is longer than a salt may be."""
    for name, placement in placements.items():
        salt = placement.experiment or name
        if placement.split is not None and len(salt.encode("utf-8")) > MOST_SALT:
            raise ConfigError(f"{path}: placements.{name}.experiment: {salt!r} is longer than {MOST_SALT} bytes")


def not_finite(value: Any, path: str = "") -> Iterator[FieldError]:
    """The numbers of a TOML document that are none: `inf` passes every lower bound, and no setting means it."""
    if isinstance(value, float) and not math.isfinite(value):
        yield FieldError(path, f"{value} is no setting; a finite number is")
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from not_finite(one, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from not_finite(one, f"{path}[{place}]")


def check_sources(directory: Path, config: Config, known: tuple[str, ...]) -> None:
    """Raises ConfigError when a placement names a source that there is not, or none."""
    for name, placement in config.placements.items():
        setting = f"{directory / FILE}: placements.{name}.sources"
        if not placement.sources:
            raise ConfigError(f"{setting}: names no source")
        for source in placement.sources:
            if source not in known:
                raise ConfigError(f"{setting}: no source {source!r}; there are {', '.join(known)}")
