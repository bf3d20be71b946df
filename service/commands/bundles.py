"""The commands about bundles that users bring."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import torch

from features.errors import InputError
from ranking.bundle import Bundle, lengths, load_bundle
from ranking.errors import BundleError
from ranking.forward import forward
from ranking.index import write_index
from ranking.pack import AUTO, IndexInput, PackSpec, read_spec
from service.commands.index import Asked, show, tune_pack
from service.commands.packing import pack_with_registry
from service.commands.registry import say_next
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
    console.print(f"  embeddings: {lengths(bundle.items.embeddings)}")
    say_next(here, bundle.name, bundle.version)


def packed(here: Deployment, spec_path: Path) -> Bundle:
    """The bundle, written and loaded once. Raises BundleError."""
    spec = read_spec(spec_path)
    if spec.index.file is None and spec.index.factory == AUTO:
        with tempfile.TemporaryDirectory() as beside:
            return packed_as(here, spec_path, tuned(here, spec_path, spec, Path(beside)))
    return packed_as(here, spec_path, spec)


def tuned(here: Deployment, spec_path: Path, spec: PackSpec, beside: Path) -> PackSpec:
    """The same with the index that `endcap index tune` chooses, which lies in the folder `beside`."""
    asked = Asked()
    found, of = tune_pack(here, spec_path, spec, asked)
    show(found, asked, of)
    ready = beside.resolve() / "index.faiss"
    write_index(found.index, ready)
    index = IndexInput(str(ready), found.best.factory, found.best.nprobe)
    return msgspec.structs.replace(spec, index=index)


def packed_as(here: Deployment, spec_path: Path, spec: PackSpec) -> Bundle:
    with step(f"Packing {spec_path.name}") as running:
        path = here.registry.publish(spec.name, lambda models: pack_with_registry(here.repo, spec_path, spec, models))
        bundle = load_bundle(path)
        running.report.read = {"items": len(bundle.items), "user features": len(bundle.schema.references())}
        running.report.wrote = {str(path): 1}
    return bundle
