"""A program as data is the same program; one that cannot be written so stays torch's; a damaged one is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ranking.errors import BundleError
from ranking.exported import callable_of, export, wanted_inputs
from ranking.factor import factor
from ranking.lowered import GRAPH, Lowered, NotLowered, Step, load_lowered, save_lowered
from tests.ranking.own_models import Larger, Ranker
from tests.ranking.test_factor import NAMES, Deeper, Expanded, ItemsFirst, inputs


class Sized(nn.Module):
    """Computes by sizes, by a type, and by numbers that JSON has not."""

    def forward(self, item_dense: Tensor, dense: Tensor) -> Tensor:
        b, c, _ = item_dense.shape
        spread = dense[:, None, :].expand(b, c, -1).reshape(b * c, -1).sum(-1).reshape(b, c)
        place = torch.arange(c, dtype=torch.float64).to(torch.float32) / c
        return item_dense.sum(-1).masked_fill(item_dense[..., 0] > float("inf"), float("-inf")) + spread + place


def program(module: nn.Module) -> tuple[torch.fx.GraphModule, tuple[str, ...]]:
    names = wanted_inputs(module, NAMES, "test")
    return callable_of(export(module, names, inputs(3, 7), "test"), "test"), names


@pytest.mark.parametrize("kind", [Expanded, ItemsFirst, Deeper, Sized])
@pytest.mark.parametrize(("users", "candidates"), [(1, 1), (2, 9)])
def test_a_graph_written_and_read_answers_bit_for_bit(
    kind: type[nn.Module], users: int, candidates: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole, names = program(kind().eval())
    save_lowered(whole, names, tmp_path / "graph.safetensors")
    again, said = load_lowered(tmp_path / "graph.safetensors")
    given = inputs(users, candidates, 1)
    with torch.inference_mode():
        assert torch.equal(again(*(given[name] for name in said)), whole(*(given[name] for name in names)))
    assert said == names


@pytest.mark.parametrize("kind", [Expanded, ItemsFirst, Deeper])
def test_a_graph_read_is_taken_apart_as_the_program_is(kind: type[nn.Module], tmp_path: Path) -> None:
    whole, names = program(kind().eval())
    save_lowered(whole, names, tmp_path / "graph.safetensors")
    one, other = factor(whole, names), factor(*load_lowered(tmp_path / "graph.safetensors"))
    assert one is not None and other is not None
    assert (one.width, one.user_inputs, one.item_inputs) == (other.width, other.user_inputs, other.item_inputs)
    assert (one.mlp is None) == (other.mlp is None)


def test_a_module_that_calls_what_is_no_operation_on_tensors_is_not_written_as_data(tmp_path: Path) -> None:
    whole, names = program(Larger().eval())
    with pytest.raises(NotLowered):
        save_lowered(whole, names, tmp_path / "graph.safetensors")
    assert not (tmp_path / "graph.safetensors").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"aten.', '"aten.no_such_'), ('"aten.', '"mine.'), ('"node"', '"nobody"'), ('"inputs"', '"given"'),
        ('"target":"net', '"target":"nets'),
    ],
)  # fmt: skip
def test_a_graph_that_is_none_is_refused_with_one_line(old: str, new: str, tmp_path: Path) -> None:
    whole, names = program(Expanded().eval())
    path = tmp_path / "graph.safetensors"
    save_lowered(whole, names, path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        graph = file.metadata()[GRAPH]
    assert old in graph
    path.write_bytes(save(load_file(path), {GRAPH: graph.replace(old, new, 1)}))
    with pytest.raises(BundleError) as raised:
        load_lowered(path)
    assert "\n" not in str(raised.value) and "graph.safetensors" in str(raised.value)


def test_reading_a_graph_does_not_import_the_compiler(tmp_path: Path) -> None:
    """What made the program is larger than what runs it."""
    whole, names = program(Ranker().eval())
    save_lowered(whole, names, tmp_path / "graph.safetensors")
    code = (
        "import sys; from pathlib import Path; from ranking.lowered import load_lowered; "
        f"load_lowered(Path({str(tmp_path / 'graph.safetensors')!r})); "
        "print([one for one in ('torch._dynamo', 'torch._inductor') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RUNS = 'open("it_ran", "w")'


@pytest.mark.parametrize(
    "step",
    [
        Step("placeholder", "x", f"x = {RUNS}  #"),
        Step("call_method", "y", f'size"), {RUNS}, ("', [{"node": "x"}]),
        Step("call_method", "y", "numpy", [{"node": "x"}]),
        Step("get_attr", "y", f'w"), {RUNS}, ("'),
        Step("call_function", "y", "aten.neg.default", [{"node": "x"}], {f"a={RUNS}, b": 1}),
        Step("call_function", "y", "aten.from_file.default", ["it_ran", True, 4]),
        Step("call_module", "y", "w", [{"node": "x"}]),
    ],
)
def test_a_graph_that_holds_code_is_refused_and_none_of_it_runs(
    step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.fx makes Python source of a graph's names and runs it."""
    monkeypatch.chdir(tmp_path)
    first = [] if step.op == "placeholder" else [Step("placeholder", "x", "x")]
    steps = [*first, step, Step("output", "output", "output", [{"node": step.name}])]
    graph = msgspec.json.encode(Lowered(["x"], steps)).decode()
    Path("graph.safetensors").write_bytes(save({"w": torch.zeros(1)}, {GRAPH: graph}))
    with pytest.raises(BundleError, match=r"graph\.safetensors"):
        load_lowered(Path("graph.safetensors"))[0](torch.zeros(2))
    assert not Path("it_ran").exists()
