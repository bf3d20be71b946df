"""A program of a user's own as data: its graph as JSON in the metadata of a safetensors file with its weights.

Loading a `torch.export` program imports the compiler that made it, which is more than the rest of a serving process has
of Python. The graph itself is a list of ATen operations by name, and running those needs none of that.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from ranking.errors import BundleError

GRAPH = "endcap_graph"
NAMESPACES = ("aten", "prims")
ON_NUMBERS = ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge", "getitem")
"""What `operator` has that a graph may compute sizes by."""
METHODS = ("size",)
NAME, PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
WORDS: dict[str, type[Any]] = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


UNREADABLE = (
    SafetensorError, msgspec.MsgspecError, LookupError, AttributeError, TypeError, ValueError, RuntimeError,
)  # fmt: skip


class NotLowered(Exception):
    """A graph holds what cannot be written down so."""


class Step(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node. `shape` of its result where it is a tensor, None for a dimension that differs from call to call."""

    op: str
    name: str
    target: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    shape: list[int | None] | None = None


class Lowered(Struct, frozen=True, forbid_unknown_fields=True):
    """`inputs`: what the placeholders are given, in order."""

    inputs: list[str]
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a node's result."""

    shape: tuple[int | None, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


def save_lowered(program: GraphModule, inputs: Sequence[str], path: Path) -> None:
    """Raises NotLowered, with nothing written, or OSError when the disk refuses."""
    steps, tensors = [], {}
    for node in program.graph.nodes:
        if node.op == "get_attr":
            found: Any = program
            for part in str(node.target).split("."):
                found = getattr(found, part)
            if not isinstance(found, torch.Tensor):
                raise NotLowered(f"{node.target} is no tensor")
            tensors[str(node.target)] = found.detach().clone().contiguous()
        kwargs = {name: plain(value) for name, value in node.kwargs.items()}
        steps.append(Step(node.op, node.name, spelled(node), [plain(one) for one in node.args], kwargs, shape(node)))
    graph = msgspec.json.encode(Lowered(list(inputs), steps)).decode()
    path.write_bytes(save(tensors, {GRAPH: graph}))


def spelled(node: Node) -> str:
    target: Any = node.target
    if node.op == "call_function":
        if isinstance(target, OpOverload) and target.namespace in NAMESPACES:
            return str(target)
        for name in ON_NUMBERS:
            if target is getattr(operator, name):
                return f"operator.{name}"
        raise NotLowered(f"{node.name} calls {target}")
    if node.op == "call_module" or (node.op == "call_method" and target not in METHODS):
        raise NotLowered(f"{node.name} calls {target}")
    return str(target)


def shape(node: Node) -> list[int | None] | None:
    value = node.meta.get("val")
    return [one if isinstance(one, int) else None for one in value.shape] if isinstance(value, torch.Tensor) else None


def plain(value: Any) -> Any:
    """An argument as JSON has it; an object `{kind: …}` stands for what JSON has not."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Node):
        return {"node": value.name}
    if type(value) in (int, float):
        return value if math.isfinite(value) else {"number": repr(value)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for kind, of in WORDS.items():
        if isinstance(value, of):
            return {kind: str(value).removeprefix("torch.")}
    raise NotLowered(f"an argument is a {type(value).__name__}")


def load_lowered(path: Path) -> tuple[GraphModule, tuple[str, ...]]:
    """The program as `ranking.exported.callable_of` has it, and its inputs. Raises BundleError."""
    try:
        with safe_open(path, framework="pt") as file:
            lowered = msgspec.json.decode((file.metadata() or {})[GRAPH], type=Lowered)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return built(lowered, tensors), tuple(lowered.inputs)
    except UNREADABLE as error:
        raise BundleError(path, f"holds no graph: {' '.join(str(error).split())[:200]}") from error


def built(lowered: Lowered, tensors: dict[str, torch.Tensor]) -> GraphModule:
    graph, made = Graph(), dict[str, Node]()
    for step in lowered.steps:
        check(step, tensors)
        args = tuple(value_of(one, made) for one in step.args)
        kwargs = {name: value_of(one, made) for name, one in step.kwargs.items()}
        target = function(step.target) if step.op == "call_function" else step.target
        node = made[step.name] = graph.create_node(step.op, target, args, kwargs, step.name)
        if step.shape is not None:
            node.meta["val"] = Shape(tuple(step.shape))
    graph.lint()
    return GraphModule(tensors, graph)


def check(step: Step, tensors: dict[str, torch.Tensor]) -> None:
    """torch.fx writes names and targets into Python source that it then runs: nothing may be there that is no name.

    Raises ValueError.
    """
    fitting = {
        "placeholder": NAME.fullmatch(step.target) is not None,
        "get_attr": PATH.fullmatch(step.target) is not None and step.target in tensors,
        "call_function": True,  # looked up among torch's own (`function`)
        "call_method": step.target in METHODS,
        "output": step.target == "output",
    }
    if not fitting.get(step.op, False) or not all(NAME.fullmatch(one) for one in (step.name, *step.kwargs)):
        raise ValueError(f"the step {step.op[:20]!r} {step.name[:50]!r} of {step.target[:50]!r} is none")


def function(spelling: str) -> Callable[..., Any]:
    namespace, *rest = spelling.split(".")
    if namespace == "operator" and len(rest) == 1 and rest[0] in ON_NUMBERS:
        found: Callable[..., Any] = getattr(operator, rest[0])
        return found
    if namespace not in NAMESPACES or len(rest) != 2:
        raise ValueError(f"{spelling!r} is no operation")
    found = getattr(getattr(getattr(torch.ops, namespace), rest[0]), rest[1])
    if not isinstance(found, OpOverload) or any(one.name == "filename" for one in found._schema.arguments):
        raise ValueError(f"{spelling!r} is no operation on tensors")
    return found


def value_of(value: Any, made: dict[str, Node]) -> Any:
    if isinstance(value, list):
        return [value_of(one, made) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, said),) = value.items()
    match kind:
        case "node":
            return made[said]
        case "number":
            return float(said)
        case "device":
            return torch.device(said)
    found = getattr(torch, said)
    if not isinstance(found, WORDS[kind]):
        raise ValueError(f"{said!r} is no {kind}")
    return found
