"""A ranker's program, taken apart where shopper and candidate first meet.

Most rankers begin with a linear layer over what is known of the shopper beside what is known of the candidate. Such a
layer is a sum: W [user; item] + b = (W_u user + b) + W_i item. The first part is the same for all candidates of a
shopper, the second the same for all shoppers, so it is computed once an item when the bundle is loaded. What is left
for each pair is one addition and the layers after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from ranking.exported import ITEM_INPUTS

F32 = npt.NDArray[np.float32]

aten = torch.ops.aten
CAT, LINEAR, EXPAND, REPEAT = aten.cat.default, aten.linear.default, aten.expand.default, aten.repeat.default
SIZE = "size"
RELU = (aten.relu.default, aten.relu_.default)
SIGMOID = aten.sigmoid.default
MONOTONE = (
    SIGMOID, aten.squeeze.dim, aten.flatten.using_ints, aten.view.default, aten.reshape.default,
    aten.dropout.default,
)  # fmt: skip
"""What may follow the last layer without changing the order of the candidates."""

PER_ITEM = frozenset(ITEM_INPUTS) - {"signals"}
"""The inputs that are the same for every shopper."""


@dataclass(slots=True)
class Mlp:
    """`relu`, a layer [M, H], `relu`, a layer to one score, and a sigmoid if it is `squashed`: what follows the first
    layer in many rankers."""

    weight: Tensor  # f32[M, H]
    bias: Tensor  # f32[M]
    last: Tensor  # f32[M]
    last_bias: Tensor  # f32[1]
    squashed: bool = False


@dataclass(slots=True)
class Factored:
    """The three parts. `user`: the shoppers' inputs in the program's order -> f32[B, H]. `item`: those of candidates
    [1, C, *] -> f32[1, C, H]. `rest`: their sum f32[B, C, H] -> score f32[B, C]. `mlp` where the rest is one."""

    user: nn.Module
    user_inputs: tuple[str, ...]
    item: nn.Module
    item_inputs: tuple[str, ...]
    rest: nn.Module
    width: int
    mlp: Mlp | None


class Side(nn.Module):
    """One side's share of the first layer."""

    def __init__(self, parts: GraphModule, weight: Tensor, bias: Tensor | None, *, squeeze: bool) -> None:
        super().__init__()
        self.parts, self.squeeze = parts, squeeze
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, *inputs: Tensor) -> Tensor:
        x = torch.cat(self.parts(*inputs), -1)
        out = nn.functional.linear(x, self.weight, self.bias)  # type: ignore[arg-type]
        return out.squeeze(1) if self.squeeze else out


def factor(program: GraphModule, inputs: Sequence[str]) -> Factored | None:
    """None where the program is not of this shape."""
    given = dict(zip(placeholders(program), inputs, strict=True))
    depends = dependencies(program, given)
    layer = first_layer(program, depends)
    if layer is None:
        return None
    weight, bias = (None if one is None else tensor(program, one) for one in (layer.args[1], layer_bias(layer)))
    assert weight is not None
    sides: dict[str, tuple[list[Node], list[Tensor]]] = {"user": ([], []), "item": ([], [])}
    at = 0
    for piece in flat(layer.args[0]):
        width = int(piece.meta["val"].shape[-1])
        source: Any = piece
        if depends[piece] == {"item"}:
            side = "item"
        elif depends[piece] == {"user"} and piece.target in (EXPAND, REPEAT):
            side, source = "user", piece.args[0]
            if int(source.meta["val"].ndim) != 3 or source.meta["val"].shape[1] != 1:
                return None
        else:
            return None
        sides[side][0].append(source)
        sides[side][1].append(weight[:, at : at + width])
        at += width
    if not all(nodes for nodes, _ in sides.values()):
        return None
    rest = rest_of(program, layer, given)
    if rest is None:
        return None
    users = tuple(name for name in inputs if name not in ITEM_INPUTS)
    items = tuple(name for name in inputs if name in PER_ITEM)
    parts = {}
    for side, names in (("user", users), ("item", items)):
        nodes, weights = sides[side]
        where = {node: name for node, name in given.items() if name in names}
        cut = extract(program, nodes, where)
        if cut is None:
            return None
        parts[side] = Side(cut, torch.cat(weights, 1), bias if side == "user" else None, squeeze=side == "user")
    return Factored(
        parts["user"], users, parts["item"], items, rest, len(weight), mlp_after(program, layer),
    )  # fmt: skip


def placeholders(program: GraphModule) -> list[Node]:
    return [node for node in program.graph.nodes if node.op == "placeholder"]


def dependencies(program: GraphModule, given: Mapping[Node, str]) -> dict[Node, set[str]]:
    """Which of user and item each node is computed from. Sizes depend on neither."""
    depends: dict[Node, set[str]] = {}
    for node in program.graph.nodes:
        if node in given:
            name = given[node]
            depends[node] = {"user", "item"} if name == "signals" else {"item" if name in ITEM_INPUTS else "user"}
        elif node.target == SIZE:
            depends[node] = set()
        else:
            depends[node] = set().union(*(depends[one] for one in node.all_input_nodes))
    return depends


def first_layer(program: GraphModule, depends: Mapping[Node, set[str]]) -> Node | None:
    """The linear layer in which everything of user and item meets, if there is one."""
    for node in program.graph.nodes:
        if depends[node] == {"user", "item"} and node.op == "call_function" and node.target != CAT:
            mixes = [one for one in node.all_input_nodes if depends[one] == {"user", "item"}]
            if node.target == LINEAR and mixes == [node.args[0]] and node.args[0].target == CAT:
                return node  # type: ignore[no-any-return]
            return None
    return None


def layer_bias(layer: Node) -> Any:
    return layer.args[2] if len(layer.args) > 2 else layer.kwargs.get("bias")


def flat(node: Any) -> list[Node]:
    """What a concatenation along the last dimension is made of, others of its kind inside it taken apart."""
    if node.op != "call_function" or node.target != CAT:
        return [node]
    pieces, dim = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if dim not in (-1, node.meta["val"].ndim - 1):
        return [node]
    return [one for piece in pieces for one in flat(piece)]


def tensor(program: GraphModule, node: Any) -> Tensor:
    """A weight by the attribute that the graph gets it from."""
    found: Any = program
    for name in str(node.target).split("."):
        found = getattr(found, name)
    weight: Tensor = found.detach()
    return weight


def extract(program: GraphModule, results: Sequence[Node], given: Mapping[Node, str]) -> GraphModule | None:
    """The part of the program that makes `results` from `given` alone; None where it needs more than that."""
    needed: set[Node] = set()
    waiting = list(results)
    while waiting:
        node = waiting.pop()
        if node in needed:
            continue
        needed.add(node)
        if node not in given:
            if node.op == "placeholder":
                return None
            waiting += node.all_input_nodes
    graph, made = Graph(), dict[Node, Node]()
    for node, name in given.items():
        made[node] = graph.placeholder(name)
    for node in program.graph.nodes:
        if node in needed and node not in made:
            made[node] = graph.node_copy(node, lambda one: made[one])
    graph.output(tuple(made[one] for one in results))
    return GraphModule(program, graph)


def rest_of(program: GraphModule, layer: Node, given: Mapping[Node, str]) -> nn.Module | None:
    """What comes after the first layer; sizes of the inputs become those of its output. None where it needs more."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    result = output.args[0]
    graph = Graph()
    hidden = graph.placeholder("hidden")
    made: dict[Node, Node] = {layer: hidden}
    for node in program.graph.nodes:
        if node in made or not is_needed(node, result, layer):
            continue
        if node.op == "placeholder":
            return None
        if node.target == SIZE and node.args[0] in given:
            candidates = given[node.args[0]] in ITEM_INPUTS and node.args[1] == 1
            if not candidates and node.args[1] != 0:
                return None
            made[node] = graph.call_method(SIZE, (hidden, node.args[1]))
        else:
            made[node] = graph.node_copy(node, lambda one: made[one])
    graph.output(made[result])
    return GraphModule(program, graph)


def is_needed(node: Node, result: Node, layer: Node) -> bool:
    """Whether `result` is computed from `node` by a way that does not lead through the layer or a size."""
    seen, waiting = {layer}, [result]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        if one is node:
            return True
        seen.add(one)
        if one.target != SIZE:
            waiting += one.all_input_nodes
    return False


def mlp_after(program: GraphModule, layer: Node) -> Mlp | None:
    """The two layers after the first, where they are all that there is."""

    def only_user(node: Node, targets: Sequence[Callable[..., Any]]) -> Node | None:
        users = list(node.users)
        return users[0] if len(users) == 1 and users[0].target in targets else None

    steps: list[Node] = []
    node = layer
    for targets in (RELU, (LINEAR,), RELU, (LINEAR,)):
        found = only_user(node, targets)
        if found is None:
            return None
        steps.append(found)
        node = found
    squashed = 0
    while (after := only_user(node, MONOTONE)) is not None:
        node = after
        squashed += after.target == SIGMOID
    if [one.op for one in node.users] != ["output"] or squashed > 1:
        return None
    _, deep, _, last = steps
    weight, last_weight = tensor(program, deep.args[1]), tensor(program, last.args[1])
    if len(last_weight) != 1:
        return None
    biases = [
        torch.zeros(len(tensor(program, one.args[1]))) if layer_bias(one) is None else tensor(program, layer_bias(one))
        for one in (deep, last)
    ]
    return Mlp(weight, biases[0], last_weight[0], biases[1], bool(squashed))


def item_table(item: Callable[..., Tensor], inputs: Sequence[Tensor], width: int, chunk: int = 16384) -> F32:
    """The candidates' share of the first layer, for all items: inputs [N, *] each -> f32[N, H].

    Memory of numpy's, which asks the kernel for huge pages: rows are read from all over it. Room for an eighth more is
    kept behind them, which is no memory before items come that fill it, and spares a copy of all of it then.
    """
    size = len(inputs[0])
    out = np.empty((size + size // 8 + 64, width), np.float32)[:size]
    with torch.inference_mode():
        for start in range(0, size, chunk):
            out[start : start + chunk] = item(*(one[None, start : start + chunk] for one in inputs))[0].numpy()
    return out
