"""Users' own torch modules, as `torch.export` programs: any architecture over declared inputs.

What a module's `forward` calls its arguments says what it is given:

    user tower   dense f32[B, D], categorical i64[B, K], history i64[B, L] (rows of the item table, newest last,
                 left-padded with -1), history_embeddings f32[B, L, E] (zeros where the history is empty),
                 history_mask bool[B, L]                                             -> user f32[B, E]
    ranker       the same, user f32[B, E], and of C candidates rows i64[B, C], item_embedding f32[B, C, E],
                 item_dense f32[B, C, F], item_categorical i64[B, C, G], signals f32[B, C, S] -> score f32[B, C]

A program holds its own weights and no item table: that is the bundle's. Source: https://docs.pytorch.org/docs/stable/export.html
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ranking.archive import load_archive
from ranking.errors import BundleError

HISTORY_INPUTS = ("history", "history_embeddings", "history_mask")
USER_INPUTS = ("dense", "categorical", *HISTORY_INPUTS)
ITEM_INPUTS = ("rows", "item_embedding", "item_dense", "item_categorical", "signals")
RANKER_INPUTS = ("user", *USER_INPUTS, *ITEM_INPUTS)

MOST_USERS, MOST_CANDIDATES = 1 << 16, 1 << 20


class ExportedTower(nn.Module):
    """A user tower's program under the bundle's contract (`ranking.models`)."""

    def __init__(self, program: GraphModule, inputs: Sequence[str], item_embeddings: Tensor) -> None:
        super().__init__()
        self.program, self.inputs = program, tuple(inputs)
        self.register_buffer("item_embeddings", item_embeddings, persistent=False)

    def forward(self, dense: Tensor, categorical: Tensor, history: Tensor) -> Tensor:
        given = user_inputs(self.inputs, self.item_embeddings, dense, categorical, history)
        found: Tensor = self.program(*(given[name] for name in self.inputs))
        return found


class ExportedRanker(nn.Module):
    """A ranker's program under the bundle's contract."""

    def __init__(self, program: GraphModule, inputs: Sequence[str], item_embeddings: Tensor) -> None:
        super().__init__()
        self.program, self.inputs = program, tuple(inputs)
        self.register_buffer("item_embeddings", item_embeddings, persistent=False)

    def forward(
        self, user: Tensor, dense: Tensor, categorical: Tensor, history: Tensor,
        rows: Tensor, embedding: Tensor, item_dense: Tensor, item_categorical: Tensor, signals: Tensor,
    ) -> Tensor:  # fmt: skip
        given = user_inputs(self.inputs, self.item_embeddings, dense, categorical, history)
        given |= {
            "user": user, "rows": rows, "item_embedding": embedding, "item_dense": item_dense,
            "item_categorical": item_categorical, "signals": signals,
        }  # fmt: skip
        found: Tensor = self.program(*(given[name] for name in self.inputs))
        return found


def user_inputs(
    wanted: Sequence[str], embeddings: Any, dense: Tensor, categorical: Tensor, history: Tensor
) -> dict[str, Tensor]:
    """The inputs about the shoppers; those of the history only where one is wanted."""
    given = {"dense": dense, "categorical": categorical, "history": history}
    if "history_mask" in wanted or "history_embeddings" in wanted:
        mask = history >= 0
        given["history_mask"] = mask
        if "history_embeddings" in wanted:
            table: Tensor = embeddings
            found = table.index_select(0, history.clamp(min=0).view(-1)).view(*history.shape, -1)
            given["history_embeddings"] = found * mask.unsqueeze(-1).to(found.dtype)
    return given


def wanted_inputs(module: nn.Module, known: Sequence[str], where: str) -> tuple[str, ...]:
    """What the module's `forward` asks for. Raises BundleError for a name that is no input."""
    parameters = inspect.signature(module.forward).parameters.values()
    names = tuple(one.name for one in parameters if one.default is inspect.Parameter.empty)
    return check_inputs(names, known, where)


def check_inputs(names: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise BundleError(where, f"its forward asks for {name!r}, which is no input; there are {', '.join(known)}")
    if not names:
        raise BundleError(where, f"its forward asks for nothing; there are {', '.join(known)}")
    return tuple(names)


def export(module: nn.Module, inputs: Sequence[str], examples: dict[str, Tensor], where: str) -> Any:
    """The module as an ExportedProgram that takes any number of users and candidates.

    `examples` holds every input for 3 users (and 7 candidates). Raises BundleError where torch cannot export it.
    """
    users = torch.export.Dim("users", min=1, max=MOST_USERS)
    candidates = torch.export.Dim("candidates", min=1, max=MOST_CANDIDATES)
    given = {name: examples[name] for name in inputs}
    shapes = {name: {0: users, 1: candidates} if name in ITEM_INPUTS else {0: users} for name in inputs}
    try:
        with unheard():
            program = torch.export.export(module.eval(), (), kwargs=given, dynamic_shapes=shapes)
    except Exception as error:
        said = " ".join(str(error).split())[:400]
        at = line_of(error, module)
        raise BundleError(where, f"torch.export refuses it{at}: {type(error).__name__}: {said}") from error
    return without_examples(program)


@contextmanager
def unheard() -> Iterator[None]:
    """Without the graph that torch prints and what it logs on the way to an error: the error itself is told."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def line_of(error: Exception, module: nn.Module) -> str:
    """The line of the user's own file at which it came to that, where there is one."""
    file = getattr(getattr(module.forward, "__code__", None), "co_filename", None)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}, `{frames[-1].line}`" if frames else ""


def without_examples(program: Any) -> Any:
    """The program without the inputs that it was exported with: torch would keep them as a pickle."""
    program._example_inputs = None
    return program


def read_program(path: Path, known: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """An ExportedProgram from a file, and the inputs that it asks for. Raises BundleError.

    For a file whose hash the caller has checked, or that its user has just named.
    """
    try:
        program = load_archive(path)
    except Exception as error:
        raise BundleError(path, f"is no torch.export program: {' '.join(str(error).split())[:200]}") from error
    names = tuple(name for name in program.graph_signature.user_inputs if isinstance(name, str))
    return program, check_inputs(names, known, str(path))


def callable_of(program: Any, where: str) -> GraphModule:
    """The program as a module of its inputs in order that returns a tensor, without torch's own checks of sizes.

    Raises BundleError where it returns anything else.
    """
    module: GraphModule = program.module()
    module = GraphModule(module, module.graph)  # torch's own refuses eval()
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)
        elif node.target == torch.ops.aten.sym_size.int:  # tracing would take its result for a constant
            node.op, node.target = "call_method", "size"
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    found = output.args[0]
    if isinstance(found, tuple | list):
        if len(found) != 1:
            raise BundleError(where, f"returns {len(found)} tensors, not one")
        output.args = (found[0],)
    module.graph.set_codegen(torch.fx.graph.CodeGen())
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """The module there. What an exported program makes anew in each run it makes where it was exported, unless told."""
    for part in module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                node.args = tuple(device if isinstance(one, torch.device) else one for one in node.args)
                if "device" in node.kwargs:
                    node.kwargs = {**node.kwargs, "device": device}
            part.recompile()
    return module.to(device)
