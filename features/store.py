"""The Feast repo of a deployment: made, registered, materialized, opened. The only module that drives the Feast SDK.

Feast is imported when it is first needed: it takes seconds, and `endcap --help` should not.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from features.errors import FeaturesError, FeatureStoreError, InputError
from features.files import replace_file
from features.keys import Keys
from features.progress import Progress, Report, silent

YAML, DEFINITIONS = "feature_store.yaml", "definitions.py"
TEMPLATE = Path(__file__).parent / "repo"
BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)
PROMETHEUS_MODE = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
ADDRESS = re.compile(r"^(?P<head>\s*connection_string:\s*)(?P<value>\S+)", re.MULTILINE)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Feast's prints, progress bars and the deprecation warnings of what it calls off our terminal."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def import_feast() -> None:
    """Imports Feast without two things that its import does to the whole process (docs/decisions/0005).

    typeguard's run-time checks rewrite the source of a dozen modules: 9.2 s of CPU instead of 4.0. And Feast sets
    prometheus_client's multi-process mode, in which every registry of the process shares its values through files.
    """
    before = {name: os.environ.get(name) for name in PROMETHEUS_MODE}
    import prometheus_client  # noqa: F401 - it chooses its mode when it is first imported
    import typeguard

    def unchecked(target: Any = None, **_: Any) -> Any:
        return (lambda later: later) if target is None else target

    checked, typeguard.typechecked = typeguard.typechecked, unchecked
    try:
        import feast  # noqa: F401
    finally:
        typeguard.typechecked = checked
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def check_repo(repo: Path, project: str, address: str | None) -> None:
    """Raises InputError when there is a repo already, or for a project's name or an address that cannot be used."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", project):
        raise InputError(f"the project's name {project!r} must be letters, digits and underscores")
    if address is not None:
        port = re.fullmatch(r"[^\s:]+:(\d{1,5})", address)
        if port is None or not 0 < int(port[1]) < 65536:
            raise InputError(f"the Redis address {address!r} is not HOST:PORT")
    for name in (YAML, DEFINITIONS):
        if (repo / name).exists():
            raise InputError("is there already", file=repo / name)


def init_repo(repo: Path, project: str, address: str) -> None:
    """Writes the Feast repo. Raises InputError as `check_repo` does."""
    check_repo(repo, project, address)
    repo.mkdir(parents=True, exist_ok=True)
    text = (TEMPLATE / YAML).read_text(encoding="utf-8")
    (repo / YAML).write_text(text.format(project=project, address=address), encoding="utf-8")
    shutil.copyfile(TEMPLATE / DEFINITIONS, repo / DEFINITIONS)


def open_store(repo: Path) -> Any:
    """The repo's `feast.FeatureStore`. Raises InputError when the repo cannot be read."""
    os.environ.setdefault("FEAST_USAGE", "False")
    if not (repo / YAML).exists():
        raise InputError("no such file; `endcap init` makes one", file=repo / YAML)
    with quiet():
        import_feast()
        from feast import FeatureStore
        from feast.errors import FeastError
        from google.protobuf.message import DecodeError

        try:
            store = FeatureStore(repo_path=str(repo))
            store.registry  # noqa: B018 - read here and not when it is first asked for, where nobody expects a fault
            return store
        except DecodeError as error:
            raise InputError(
                "Feast's registry is damaged; without it `endcap materialize` makes another", file=registry(repo)
            ) from error
        except (FeastError, ValueError, OSError) as error:
            raise InputError(first_line(error), file=repo / YAML) from error


def settings(repo: Path) -> dict[str, Any]:
    """feature_store.yaml, as it stands. Raises InputError."""
    path = repo / YAML
    try:
        found = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError("no such file; `endcap init` makes one", file=path) from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(" ".join(str(error).split()), file=path) from error
    return found if isinstance(found, dict) else {}


def registry(repo: Path) -> Path:
    """The file of Feast's registry."""
    named = settings(repo).get("registry")
    named = named.get("path") if isinstance(named, dict) else named
    return repo / str(named or "registry.db")


def project_of(repo: Path) -> str:
    """The Feast project's name. Raises InputError."""
    project = settings(repo).get("project")
    if not isinstance(project, str) or not project:
        raise InputError("names no project", file=repo / YAML)
    return project


def connection(repo: Path) -> dict[str, Any]:
    """The online store's address and options, as keyword arguments of a Redis client. Raises InputError."""
    path = repo / YAML
    online = settings(repo).get("online_store")
    if not isinstance(online, dict) or not isinstance(online.get("connection_string"), str):
        raise InputError("online_store has no connection_string", file=path)
    if (kind := str(online.get("redis_type", "redis"))) != "redis":
        raise InputError(f"online_store.redis_type {kind!r} is not supported, only a single redis", file=path)
    address, *options = (part.strip() for part in online["connection_string"].split(","))
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"connection_string {address!r} is not HOST:PORT", file=path)
    found: dict[str, Any] = {"host": host.strip("[]"), "port": int(port)}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("db", "password", "username", "ssl"):
            raise InputError(f"connection_string has the unknown option {name!r}", file=path)
        found[name] = int(value) if name == "db" else value.lower() == "true" if name == "ssl" else value
    return found


def set_address(repo: Path, address: str) -> None:
    """Changes the online store's HOST:PORT, and nothing else, in feature_store.yaml."""
    path = repo / YAML
    text = ADDRESS.sub(
        lambda match: match["head"] + ",".join([address, *match["value"].split(",")[1:]]),
        path.read_text(encoding="utf-8"),
        count=1,
    )
    replace_file(path, text.encode())


def apply(repo: Path) -> None:
    """Registers the repo's definitions with Feast and drops the views and services that they no longer hold, as
    `feast apply` does. Raises InputError, naming the place.
    """
    store, path = open_store(repo), repo / DEFINITIONS
    with quiet():
        from feast import Entity, FeatureService
        from feast.base_feature_view import BaseFeatureView
        from feast.data_source import DataSource
        from feast.errors import FeastError

        spec = importlib.util.spec_from_file_location("endcap_feature_definitions", path)
        if spec is None or spec.loader is None or not path.exists():
            raise InputError("no such file", file=path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            kinds = (Entity, BaseFeatureView, FeatureService, DataSource)
            defined = [one for one in vars(module).values() if isinstance(one, kinds)]
            names = {one.name for one in defined if isinstance(one, BaseFeatureView | FeatureService)}
            known = (*store.list_all_feature_views(), *store.list_feature_services())
            gone = [one for one in known if one.name not in names]
            store.apply(defined, objects_to_delete=gone, partial=False)
        except (FeastError, ImportError, SyntaxError, NameError, TypeError, ValueError) as error:
            raise InputError(first_line(error), file=path) from error


def materialize(repo: Path, end: datetime | None = None, progress: Progress = silent) -> Report:
    """Loads the newest row of every entity of every view into the online store, through Feast.

    Rows newer than `end` (default: now) stay out. Raises InputError when a view's file is missing, FeatureStoreError
    when Redis does not answer.
    """
    import pyarrow as pa  # here and below: who only looks up an address does without
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    store = open_store(repo)
    end = end or datetime.now(UTC)
    address = "{host}:{port}".format(**connection(repo))
    report = Report()
    with quiet():
        views = sorted(store.list_feature_views(), key=lambda view: str(view.name))
    if not views:
        raise InputError("Feast has no feature view registered; run `endcap materialize` on a repo with definitions")
    for view in views:
        check_source(view)
    for number, view in enumerate(views):
        progress(number, len(views))
        source = Path(view.batch_source.path)
        stamp = view.batch_source.timestamp_field
        rows = pq.read_table(source, columns=[*view.join_keys, stamp])
        rows = rows.filter(pc.less_equal(rows[stamp], pa.scalar(end, pa.timestamp("us", tz="UTC"))))
        report.wrote[view.name] = rows.group_by(view.join_keys).aggregate([]).num_rows
        with quiet():
            import redis

            try:
                store.materialize(BEGINNING, end, feature_views=[view.name])
            except (redis.RedisError, OSError) as error:
                raise FeatureStoreError(f"Redis at {address}: {first_line(error)}") from error
    progress(len(views), len(views))
    return report


def check_source(view: Any) -> None:
    """Raises InputError unless the view's file is there and has a column for each of its features."""
    import pyarrow.parquet as pq

    source = Path(view.batch_source.path)
    if not source.exists():
        raise InputError("no such file; `endcap materialize` makes it from the shop's events", file=source)
    renamed = view.batch_source.field_mapping or {}
    columns = [renamed.get(name, name) for name in pq.read_schema(source).names]
    for feature in view.features:
        if feature.name not in columns:
            there = ", ".join(columns)
            raise InputError(
                f"the view {view.name} has a feature of this name, and its file no such column; there are {there}",
                file=source, column=feature.name,
            )  # fmt: skip


def make_room(repo: Path, line: str, *, entities: bool) -> int:
    """Empties the online store for a shop, unless what it holds is of the same line; returns how many keys went.

    With `entities` Feast's hashes of the project go. What Endcap keeps beside them goes where it is known to be another
    shop's: events that came before the first shop was loaded stay. Raises FeatureStoreError when Redis does not answer.
    """
    import redis

    options, project = connection(repo), project_of(repo)
    names = Keys(project)
    patterns = [b"*" + project.encode()] if entities else []
    removed = 0
    try:
        with redis.Redis(**options, protocol=2) as client:
            if (there := client.get(names.shop)) == line.encode():
                return 0
            if there is not None:
                patterns.append(names.prefix.encode() + b"*")
            for pattern in patterns:
                keys = client.scan_iter(match=pattern, count=1000)
                for some in iter(lambda: list(itertools.islice(keys, 1000)), []):  # noqa: B023 - used at once
                    removed += client.unlink(*some)
            client.set(names.shop, line)
    except (redis.RedisError, OSError) as error:
        raise FeatureStoreError("Redis at {host}:{port}: ".format(**options) + first_line(error)) from error
    return removed


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def require(repo: Path, service: str) -> None:
    """Raises FeaturesError unless the registry has this feature service."""
    from features.registry import service_features

    if not service_features(open_store(repo), service, "user").views:
        raise FeaturesError(f"Feast's feature service {service!r} has no view of the entity `user`")
