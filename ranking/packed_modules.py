"""A user's torch module, as a `torch.export` program. Their code runs here, and nowhere else: a bundle holds none."""

from __future__ import annotations

import importlib.util
import pickle  # its error only
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from safetensors.torch import load_file
from torch import Tensor, nn

from ranking.errors import BundleError
from ranking.exported import export, read_program, wanted_inputs, without_examples


class ModuleSource(Struct, frozen=True, forbid_unknown_fields=True):
    """A program of `torch.export.save` (`program`), or a class to export (`module = "file.py:Class"`), made with
    `config` and filled from `weights` (safetensors, or a state dict that torch loads with `weights_only`)."""

    program: str | None = None
    module: str | None = None
    weights: str | None = None
    config: dict[str, Any] = {}


def program_of(
    source: ModuleSource, base: Path, known: Sequence[str], examples: Mapping[str, Tensor], where: str
) -> Any:
    """The ExportedProgram of one module, over inputs of the names in `known`. Raises BundleError."""
    if (source.program is None) == (source.module is None):
        raise BundleError(where, "needs either program or module")
    if source.program is not None:
        program, _ = read_program(base / source.program, known)
        return without_examples(program)
    module = made(source, base, where)
    return export(module, wanted_inputs(module, known, where), dict(examples), where)


def made(source: ModuleSource, base: Path, where: str) -> nn.Module:
    """The user's module with its weights. Raises BundleError."""
    assert source.module is not None
    file, _, name = source.module.partition(":")
    path = base / file
    if not name or not path.is_file():
        what = "names no class; it is written file.py:Class" if not name else f"{path}: no such file"
        raise BundleError(where, f"module {source.module!r}: {what}")
    spec = importlib.util.spec_from_file_location(f"endcap_pack_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    try:
        code = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(code)
        finally:
            sys.path.remove(str(path.parent))
        module = getattr(code, name)(**source.config)
    except Exception as error:
        raise BundleError(where, f"module {source.module!r}: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BundleError(where, f"module {source.module!r} is no torch.nn.Module")
    if source.weights is not None:
        fill(module, base / source.weights, where)
    return module


def fill(module: nn.Module, path: Path, where: str) -> None:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        module.load_state_dict(state)
    except pickle.UnpicklingError as error:
        said = (
            "holds more than tensors by name, and nothing else is read; write it by torch.save(module.state_dict(), …)"
        )
        raise BundleError(where, f"weights {path}: {said}") from error
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise BundleError(where, f"weights {path}: {said}") from error
