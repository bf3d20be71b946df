"""A program taken apart says what the whole one says, and one that cannot be is left whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ranking.exported import callable_of, export, wanted_inputs
from ranking.factor import factor, item_table

USERS, CANDIDATES, DENSE, E, F = 4, 9, 3, 8, 2
NAMES = ("user", "dense", "rows", "item_embedding", "item_dense", "item_categorical", "signals")


def layers(width: int, *tail: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 1), *tail)


class Expanded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = layers(DENSE + E + F)

    def forward(self, dense: Tensor, item_embedding: Tensor, item_dense: Tensor) -> Tensor:
        b, c, _ = item_dense.shape
        return self.net(torch.cat([dense[:, None].expand(b, c, -1), item_embedding, item_dense], -1)).squeeze(-1)


class ItemsFirst(nn.Module):
    """The shopper stands in the middle, twice, the candidates' part is computed, and a sigmoid comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.squash = layers(F + DENSE + E + E, nn.Sigmoid()), nn.Linear(E, E)

    def forward(self, user: Tensor, dense: Tensor, item_dense: Tensor, item_embedding: Tensor) -> Tensor:
        c = item_dense.shape[1]
        shopper = torch.cat([dense.unsqueeze(1).repeat(1, c, 1), user.unsqueeze(1).repeat(1, c, 1)], dim=2)
        parts = [item_dense, shopper, torch.tanh(self.squash(item_embedding))]
        return self.net(torch.cat(parts, dim=-1)).squeeze(-1)


class Deeper(nn.Module):
    """Another depth and activation: the first layer comes apart, the rest is run as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = nn.Linear(DENSE + E, 16, bias=False), nn.Sequential(nn.GELU(), nn.Linear(16, 1))

    def forward(self, dense: Tensor, item_embedding: Tensor) -> Tensor:
        b, c, _ = item_embedding.shape
        x = self.first(torch.cat([dense[:, None].expand(b, c, DENSE), item_embedding], -1))
        return self.rest(x).view(b, c)


class Product(nn.Module):
    def forward(self, user: Tensor, item_embedding: Tensor) -> Tensor:
        return (user[:, None] * item_embedding).sum(-1)


class Shortcut(nn.Module):
    """Shopper and candidate meet in the first layer and once more after it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = layers(2 * E)

    def forward(self, user: Tensor, item_embedding: Tensor) -> Tensor:
        b, c, _ = item_embedding.shape
        both = torch.cat([user[:, None].expand(b, c, -1), item_embedding], -1)
        return self.net(both).squeeze(-1) + (user[:, None] * item_embedding).sum(-1)


class Signals(nn.Module):
    """Signals are of the pair: nothing of them can be computed beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.net = layers(DENSE + E + 1)

    def forward(self, dense: Tensor, item_embedding: Tensor, signals: Tensor) -> Tensor:
        b, c, _ = item_embedding.shape
        return self.net(torch.cat([dense[:, None].expand(b, c, -1), item_embedding, signals], -1)).squeeze(-1)


def inputs(users: int, candidates: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "user": normal(users, E), "dense": normal(users, DENSE),
        "rows": torch.zeros(users, candidates, dtype=torch.int64),
        "item_embedding": normal(users, candidates, E), "item_dense": normal(users, candidates, F),
        "item_categorical": torch.zeros(users, candidates, 1, dtype=torch.int64),
        "signals": normal(users, candidates, 1),
    }  # fmt: skip


def program(module: nn.Module) -> tuple[torch.fx.GraphModule, tuple[str, ...]]:
    names = wanted_inputs(module, NAMES, "test")
    return callable_of(export(module, names, inputs(3, 7), "test"), "test"), names


@pytest.mark.parametrize(("kind", "mlp"), [(Expanded, True), (ItemsFirst, True), (Deeper, False)])
@pytest.mark.parametrize(("users", "candidates"), [(1, 1), (1, CANDIDATES), (USERS, CANDIDATES)])
def test_the_parts_together_say_what_the_whole_says(
    kind: type[nn.Module], mlp: bool, users: int, candidates: int
) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    whole, names = program(module)
    parts = factor(whole, names)
    assert parts is not None and (parts.mlp is not None) == mlp
    given = inputs(users, candidates, 1)
    with torch.inference_mode():
        shopper = parts.user(*(given[name] for name in parts.user_inputs))
        # A table over the items of all users together, as a catalogue's would be.
        flat = [given[name].flatten(0, 1) for name in parts.item_inputs]
        table = torch.from_numpy(item_table(parts.item, flat, parts.width, chunk=4)).view(users, candidates, -1)
        found = parts.rest(shopper[:, None] + table)
        torch.testing.assert_close(found, module(*(given[name] for name in names)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Product, Shortcut, Signals])
def test_a_ranker_of_another_shape_is_left_whole(kind: type[nn.Module]) -> None:
    assert factor(*program(kind())) is None
