"""Torch modules of a bundle: a declared architecture, its configuration and weights in safetensors, or a torch.export
program of a user's own (`ranking.exported`), as torch wrote it or as data (`ranking.lowered`). No pickle.

Two contracts, both batched over B users and, for the ranker, C candidates a user; ids are item-table rows, -1 is empty:

    user tower  (dense f32[B, D], categorical i64[B, K], history i64[B, L]) -> user f32[B, E], unit length
    ranker      (user f32[B, E], dense f32[B, D], categorical i64[B, K], history i64[B, L],
                 rows i64[B, C], embedding f32[B, C, E], item_dense f32[B, C, F], item_categorical i64[B, C, G],
                 signals f32[B, C, S]) -> score f32[B, C]

`signals` are what the candidate sources thought of each candidate, one column a source that the engine knows.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ranking.errors import BundleError
from ranking.exported import (
    RANKER_INPUTS,
    USER_INPUTS,
    ExportedRanker,
    ExportedTower,
    callable_of,
    check_inputs,
    read_program,
)
from ranking.lowered import load_lowered
from ranking.manifest import ModuleSpec as ModuleSpec
from ranking.ranker import Ranker
from ranking.towers import UserTower

ARCHITECTURES: dict[str, type[nn.Module]] = {"endcap/user_tower/1": UserTower, "endcap/ranker/1": Ranker}
EXPORTED: dict[str, tuple[type[ExportedTower] | type[ExportedRanker], tuple[str, ...]]] = {
    "torch.export/user_tower/1": (ExportedTower, USER_INPUTS),
    "torch.export/ranker/1": (ExportedRanker, RANKER_INPUTS),
}
"""Users' own modules, and the inputs that each may ask for."""
LOWERED = {"endcap/graph/user_tower/1": "torch.export/user_tower/1", "endcap/graph/ranker/1": "torch.export/ranker/1"}
"""The same as data (`ranking.lowered`)."""


def save_module(module: nn.Module, path: Path) -> None:
    """Writes the module's parameters and persistent buffers as safetensors. Raises OSError when the disk refuses."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in module.state_dict().items()}
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error


def load_module(spec: ModuleSpec, bundle: Path, item_embeddings: torch.Tensor) -> nn.Module:
    """Builds the declared architecture and fills it. `item_embeddings` f32[N, E] is the bundle's table, shared.

    Raises BundleError when the architecture is unknown or the weights are not its own.
    """
    if spec.architecture in LOWERED:
        kind, known = EXPORTED[LOWERED[spec.architecture]]
        graph, inputs = load_lowered(bundle / spec.file)
        check_inputs(inputs, known, f"{bundle}: {spec.file}")
        return kind(graph, inputs, item_embeddings).eval().requires_grad_(False)
    if spec.architecture in EXPORTED:
        kind, known = EXPORTED[spec.architecture]
        program, inputs = read_program(bundle / spec.file, known)
        return (
            kind(callable_of(program, f"{bundle}: {spec.file}"), inputs, item_embeddings).eval().requires_grad_(False)
        )
    if spec.architecture not in ARCHITECTURES:
        names = sorted([*ARCHITECTURES, *EXPORTED, *LOWERED])
        raise BundleError(bundle, f"unknown architecture {spec.architecture!r}; known: {names}", file=spec.file)
    try:
        module = ARCHITECTURES[spec.architecture](**spec.config, item_embeddings=item_embeddings)
        module.load_state_dict(load_file(bundle / spec.file))
    except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(bundle, " ".join(str(error).split()), file=spec.file) from error
    return module.eval().requires_grad_(False)
