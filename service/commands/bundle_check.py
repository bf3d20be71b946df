"""`endcap bundle check`: a bundle is loaded whole, and held against the deployment's Feast registry."""

from __future__ import annotations

from pathlib import Path

import msgspec

from features.errors import FeaturesError, InputError
from features.registry import service_features
from features.store import open_store
from ranking.bundle import Bundle, load_bundle
from ranking.errors import BundleError
from service.commands.bundle_place import bundle_at
from service.console import console
from service.deployment import Deployment
from service.fit import USER, differences

REGISTRY = "Feast registry"


def check(directory: Path, named: str, as_json: bool) -> None:
    """Prints a line for each check that was passed. Raises InputError, one line, for the first that was not."""
    path = bundle_at(directory, named)
    lines: list[dict[str, str]] = []

    def passed(what: str, found: str) -> None:
        lines.append({"check": what, "found": found})
        if not as_json:
            console.print(f"ok  {what}: {found}", markup=False, soft_wrap=True)

    said = None
    try:
        passed(REGISTRY, against_registry(directory, load_bundle(path, passed)))
    except BundleError as error:
        said = str(error)
    if as_json:
        result = {"path": str(path), "ok": said is None, "error": said, "passed": lines}
        console.print(msgspec.json.format(msgspec.json.encode(result)).decode(), markup=False, soft_wrap=True)
    if said is not None:
        raise InputError(said)


def against_registry(directory: Path, bundle: Bundle) -> str:
    """What was found. Raises BundleError where a shopper's features are not those that the model was made for."""
    if not Deployment.exists(directory):
        return f"not asked, as there is no deployment in {directory}; --dir names one"
    schema = bundle.schema
    try:
        service = service_features(open_store(Deployment.at(directory).repo), schema.feature_service, USER)
    except FeaturesError as error:
        raise BundleError(bundle.path, f"does not fit the {REGISTRY}: {error}") from error
    if complaints := differences(schema, service):
        raise BundleError(bundle.path, f"does not fit the {REGISTRY}: {'; '.join(complaints)}")
    return f"{len(schema.references())} features of {schema.feature_service}, each of its type and max age"
