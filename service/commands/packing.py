"""Packing with what the deployment's Feast registry says of the shoppers' features."""

from __future__ import annotations

from pathlib import Path

from features.registry import service_features
from features.store import open_store
from ranking.pack import PackSpec, pack


def pack_with_registry(repo: Path, spec_path: Path, spec: PackSpec, models: Path) -> Path:
    """Writes the next version of the model under `models`. Raises BundleError and FeaturesError."""
    service = service_features(open_store(repo), spec.user.feature_service, "user")
    ages = {view.name: view.max_age_s for view in service.views}
    return pack(spec_path, spec, service.types, ages, models)
