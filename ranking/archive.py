"""A `.pt2` file without its dangers: torch's own reader unpickles what it finds in one, loads machine code, and has
sympy evaluate sizes as Python.

torch 2.13 tries `torch.load(weights_only=True)` and, where that refuses, the same without; it calls `pickle.loads` for
objects among the constants, and dlopen for what AOTInductor compiled:
https://github.com/pytorch/pytorch/blob/v2.8.0/torch/_export/serde/serialize.py (`deserialize_torch_artifact`),
https://github.com/pytorch/pytorch/blob/v2.8.0/torch/export/pt2_archive/_package.py (`load_pt2`)
"""

from __future__ import annotations

import ast
import logging
import os
import pickle  # its error only
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""torch.load reads it at each call, and heeds it whatever its caller says."""

OBJECTS, CODE = ("custom_obj", "opaque_obj"), "aotinductor"
"""In names of an archive's entries: constants that are unpickled, and machine code."""

SIZE, FUNCTIONS = "expr_str", ("floor", "ceiling")
"""How a program names a size that is computed, as sympy's `srepr` writes it; and what it calls that begins small."""
IN_A_SIZE = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.keyword, ast.Constant, ast.UnaryOp, ast.BinOp,
             ast.unaryop, ast.operator, ast.Tuple)  # fmt: skip

ONE_AT_A_TIME = threading.Lock()
"""The environment is the whole process's."""


def load_archive(path: Path) -> Any:
    """The ExportedProgram of a file, with no pickle executed. Raises ValueError, or whatever torch raises."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive")
    with zipfile.ZipFile(path) as archive:
        names = [name.lower() for name in archive.namelist()]  # torch's reader takes either case
        graphs = [msgspec.json.decode(archive.read(one)) for one in archive.namelist() if one.lower().endswith(".json")]
    if len(set(names)) < len(names):
        raise ValueError("two of its entries have the same name")
    for name in names:
        if CODE in name:
            raise ValueError(f"{name} is machine code")
        if any(one in name for one in OBJECTS):
            raise ValueError(f"{name} is a pickle")
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise ValueError("torch.save wrote it, which is a pickle; torch.export.save writes programs")
    for size in sizes(graphs):
        check_size(size)
    try:
        with weights_only(), silent():
            return torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise ValueError("it holds a pickle of more than tensors, which is not executed") from error


def sizes(found: Any) -> Iterator[str]:
    """Every size in a graph's JSON, however deep."""
    if isinstance(found, list):
        for one in found:
            yield from sizes(one)
    elif isinstance(found, dict):
        for name, one in found.items():
            if name == SIZE:
                yield str(one)
            yield from sizes(one)


def check_size(size: str) -> None:
    """Raises ValueError for what is more than a sum, a product or the like of symbols."""
    try:
        tree = ast.parse(size.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"the size {size[:50]!r} is none") from error
    for node in ast.walk(tree):
        fits = isinstance(node, IN_A_SIZE)
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            fits = name in FUNCTIONS or name[:1].isupper()
        elif isinstance(node, ast.Name):
            fits = not node.id.startswith("_")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            fits = node.value.isidentifier()
        if not fits:
            raise ValueError(f"the size {size[:50]!r} is none")


@contextmanager
def weights_only() -> Iterator[None]:
    """Has `torch.load` read tensors and nothing else, whoever calls it."""
    with ONE_AT_A_TIME:
        before = os.environ.get(WEIGHTS_ONLY)
        os.environ[WEIGHTS_ONLY] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[WEIGHTS_ONLY]
            else:
                os.environ[WEIGHTS_ONLY] = before


@contextmanager
def silent() -> Iterator[None]:
    """Without what torch warns of and logs on the way to an error: the error itself is told."""
    log = logging.getLogger("torch.export")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before
