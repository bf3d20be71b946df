"""Stands in for msgspec where `make gpu-check` runs and nothing can be installed: structs that hold, and no more.

The benchmark and the GPU tests make their bundles in memory; whatever reads or writes one needs the real thing.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, dataclass_transform


class MsgspecError(Exception):
    """Never raised here; named in `except` clauses."""


class ValidationError(MsgspecError):
    pass


@dataclass_transform()
class Struct:
    def __init_subclass__(cls, *, frozen: bool = False, **_: Any) -> None:
        super().__init_subclass__()
        for name, value in list(vars(cls).items()):
            if isinstance(value, dict | list) and name in inspect.get_annotations(cls):
                setattr(cls, name, dataclasses.field(default_factory=value.copy))
        dataclasses.dataclass(frozen=frozen)(cls)
