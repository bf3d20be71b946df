"""The commands about bundles that users bring."""

from __future__ import annotations

from pathlib import Path

import torch

from features.errors import InputError
from features.registry import service_features
from features.store import open_store
from ranking.bundle import Bundle, load_bundle
from ranking.errors import BundleError
from ranking.forward import forward
from ranking.pack import pack as pack_bundle
from ranking.pack import read_spec
from service.console import console, step
from service.deployment import Deployment


def pack(directory: Path, spec_path: Path) -> None:
    """Makes the next version of a model out of a user's modules, item table and index."""
    here = Deployment.at(directory)
    try:
        bundle = packed(here, spec_path)
    except BundleError as error:  # what a user brought, not what a service found
        raise InputError(str(error)) from error
    with step("Compiling for this CPU"):  # kept for the processes that serve it
        how = type(forward(bundle, torch.device("cpu"))).__name__
    console.print(f"  forward pass on a CPU: {how}")


def packed(here: Deployment, spec_path: Path) -> Bundle:
    """The bundle, written and loaded once. Raises BundleError."""
    spec = read_spec(spec_path)
    with step(f"Packing {spec_path.name}") as running:
        service = service_features(open_store(here.repo), spec.user.feature_service, "user")
        ages = {view.name: view.max_age_s for view in service.views}
        path = pack_bundle(spec_path, spec, service.types, ages, here.models)
        bundle = load_bundle(path)
        running.report.read = {"items": len(bundle.items), "user features": len(bundle.schema.references())}
        running.report.wrote = {str(path): 1}
    return bundle
