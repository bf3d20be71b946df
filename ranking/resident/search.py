"""Exact search by torch on one device: a matrix product in half precision finds what may be among the best, and float32
says which are.

A product of rounded numbers lies within a bound of the true one (`slack`). Of the k + margin best by the rounded
products the k best in float32 are the k best of all, where the k-th is above the worst of them by that bound. That is
told of every query (`sure`); the others are searched again in float32.

The bound is the standard one for a dot product of rounded factors: Nicholas J. Higham, "Accuracy and stability of
numerical algorithms", 2nd edition, SIAM 2002, sections 2.2 and 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Precision = Literal["float16", "bfloat16", "float32"]
DTYPES: dict[Precision, torch.dtype] = {
    "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32,
}  # fmt: skip
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""The most that rounding to the type changes a number of ordinary size, relative to it."""

SMALLEST = {torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134}
"""The most that it changes a number too small for that."""

MARGIN = {torch.float16: (64, 8), torch.bfloat16: (128, 1)}
"""How many more than k are looked at in float32: so many, and k by so much."""

PRODUCTS = 1 << 29
"""How many scores may be in memory at once; more vectors than that are taken in pieces."""

Passing = Callable[[int, int], torch.Tensor]
"""Which of the rows from the first number up to the second may be found: bool[n] or bool[B, n] on the device."""


class Nearest:
    """Vectors f32[N, E] on a device, with room for more, and the same in a shorter type. Not for concurrent callers.

    What `top` does is no more than kernels on the current stream: a CUDA graph may capture it. It holds as long as
    `room` does not change.
    """

    def __init__(
        self, vectors: npt.NDArray[np.float32], device: torch.device, precision: Precision, products: int = PRODUCTS
    ) -> None:
        self.device, self.dtype, self.products = device, DTYPES[precision], products
        self.size, self.room = 0, 0
        # Filled by `make_room`: the vectors, the same in the shorter type, and which rows there are (0, else -inf).
        self.vectors = self.coarse = self.open = torch.empty(0, device=device)
        self.unit, self.longest = torch.ones((), device=device), torch.zeros((), device=device)
        if device.type == "cuda":  # the bound counts on sums in float32
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self.add(vectors)

    def add(self, vectors: npt.NDArray[np.float32]) -> None:
        """Takes in vectors f32[n, E] after those that it has."""
        first, self.size = self.size, self.size + len(vectors)
        if self.size > self.room or not self.room:
            self.make_room(vectors.shape[1])
        self.vectors[first : self.size] = torch.from_numpy(np.ascontiguousarray(vectors)).to(self.device)
        self.open[first : self.size] = 0
        if self.dtype is torch.float32 or not len(vectors):
            return
        largest = float(np.abs(vectors).max(initial=0))
        if first == 0 or largest * float(self.unit) > 1:
            # A power of two, so that nothing is lost: the largest number then is between a half and one.
            _, exponent = np.frexp(max(largest, float(self.vectors[:first].abs().max()) if first else 0.0))
            self.unit.fill_(2.0 ** -float(exponent))
            first = 0
        self.coarse[first : self.size] = (self.vectors[first : self.size] * self.unit).to(self.dtype)
        lengths = (self.vectors[first : self.size] * self.unit).norm(dim=1)
        self.longest.copy_(torch.maximum(self.longest if first else torch.zeros_like(self.longest), lengths.max()))

    def make_room(self, width: int) -> None:
        """New tables for what there is and some more."""
        room = -(-(self.size + max(256, self.size // 50)) // 64) * 64
        vectors = torch.zeros(room, width, device=self.device)
        opened = torch.full((room,), -torch.inf, dtype=self.dtype, device=self.device)
        if self.room:
            vectors[: self.room], opened[: self.room] = self.vectors, self.open
        self.vectors, self.open = vectors, opened
        if self.dtype is not torch.float32:
            coarse = torch.zeros(room, width, dtype=self.dtype, device=self.device)
            if self.room:
                coarse[: self.room] = self.coarse
            self.coarse = coarse
        self.room = room

    def top(
        self, queries: torch.Tensor, k: int, closed: torch.Tensor | None = None, passing: Passing | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The k best rows for queries f32[B, E]: scores f32[B, k] (descending), rows i64[B, k] (-1 and minus infinity
        where fewer), and whether they are for certain the best in float32, bool[B].

        `closed`, of the table's type [room], is 0 for rows that may be found and minus infinity for the others;
        `passing` says it again for each query.
        """
        bias = self.open if closed is None else closed
        if self.dtype is torch.float32:
            scores, rows = self.best(queries, self.vectors, bias, k, passing)
            sure = torch.ones(len(queries), dtype=torch.bool, device=self.device)
            return scores, rows.masked_fill(torch.isneginf(scores), -1), sure
        most, share = MARGIN[self.dtype]
        looked = min(k + most + k // share, self.room)
        largest = queries.abs().amax(1, keepdim=True).clamp(min=1e-30)
        unit_queries = queries / largest
        near, at = self.best(unit_queries.to(self.dtype), self.coarse, bias, looked, passing)
        scores, rows = self.look_again(queries, near, at, k)
        if looked == self.room:
            return scores, rows, torch.ones(len(queries), dtype=torch.bool, device=self.device)
        worst, kth = near[:, -1].float(), scores[:, -1] * self.unit / largest[:, 0]
        return scores, rows, torch.isneginf(worst) | (kth >= worst + self.slack(unit_queries))

    def top_in_float32(
        self, queries: torch.Tensor, k: int, closed: torch.Tensor | None = None, passing: Passing | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same from float32 alone, for what `top` is not sure of."""
        bias = (self.open if closed is None else closed).float()
        scores, rows = self.best(queries, self.vectors, bias, k, passing)
        return scores, rows.masked_fill(torch.isneginf(scores), -1)

    def best(
        self, queries: torch.Tensor, table: torch.Tensor, bias: torch.Tensor, k: int, passing: Passing | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The k largest products and their rows; those of each piece of the table first, then of them."""
        piece = max(64, self.products // len(queries) // 64 * 64)
        found = []
        for start in range(0, self.room, piece):
            stop = min(start + piece, self.room)
            products = F.linear(queries, table[start:stop], bias[start:stop])
            if passing is not None:
                products.masked_fill_(~passing(start, stop), -torch.inf)
            scores, rows = torch.topk(products, min(k, stop - start), dim=1)
            found.append((scores, rows + start))
        if len(found) == 1:
            return found[0]
        scores, order = torch.topk(torch.cat([one for one, _ in found], 1), k, dim=1)
        return scores, torch.cat([one for _, one in found], 1).gather(1, order)

    def look_again(
        self, queries: torch.Tensor, near: torch.Tensor, at: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The k best of the rows i64[B, m] by their products in float32."""
        vectors = self.vectors.index_select(0, at.view(-1)).view(*at.shape, -1)
        exact = torch.bmm(vectors, queries.unsqueeze(2)).squeeze(2)
        scores, order = torch.topk(exact.masked_fill(torch.isneginf(near), -torch.inf), k, dim=1)
        return scores, at.gather(1, order).masked_fill(torch.isneginf(scores), -1)

    def slack(self, unit_queries: torch.Tensor) -> torch.Tensor:
        """f32[B]: how far a rounded product lies from the true one at most, both of numbers in units.

        Two factors and the product are rounded, and E products are added up, here and in what it is compared with.
        """
        width, rounding, smallest = unit_queries.shape[1], ROUNDING[self.dtype], SMALLEST[self.dtype]
        lengths = unit_queries.norm(dim=1)
        relative = 3.1 * rounding + width * 2.0**-22
        absolute = 1.1 * smallest * (width**0.5 * (lengths + self.longest) + 1)
        slack: torch.Tensor = lengths * self.longest * relative + absolute
        return slack


class TorchIndex:
    """An index (`ranking.index.Index`) by exact search on any torch device. Scores are inner products."""

    def __init__(
        self,
        vectors: npt.NDArray[np.float32],
        device: torch.device,
        precision: Precision = "float16",
        products: int = PRODUCTS,
    ) -> None:
        self.nearest, self.nprobe = Nearest(vectors, device, precision, products), 1
        self.again = 0
        """How many queries were searched again in float32."""

    @torch.inference_mode()
    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        allowed: npt.NDArray[np.bool_] | None = None,
        probe: float = 1.0,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """`allowed` may also be bool[B, N], one mask a query. `probe` is of no account here: all is searched."""
        nearest = self.nearest
        if (k := min(k, nearest.size)) == 0:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        given = torch.from_numpy(np.ascontiguousarray(queries)).to(nearest.device)
        mask = None if allowed is None else self.mask(allowed)
        scores, rows, sure = nearest.top(given, k, passing=by(mask))
        # Everything comes back in one copy.
        packed = torch.cat([scores.view(torch.int32), rows.to(torch.int32), sure.to(torch.int32)[:, None]], 1)
        home = packed.cpu().numpy()
        found = home[:, :k].copy().view(np.float32), home[:, k : 2 * k].astype(np.int64)
        unsure = np.flatnonzero(home[:, 2 * k] == 0)
        if len(unsure):
            self.again += len(unsure)
            at = torch.from_numpy(unsure).to(nearest.device)
            theirs = mask[at] if mask is not None and mask.dim() == 2 else mask
            exact, exact_rows = nearest.top_in_float32(given[at], k, passing=by(theirs))
            found[0][unsure], found[1][unsure] = exact.cpu().numpy(), exact_rows.cpu().numpy()
        return found

    def mask(self, allowed: npt.NDArray[np.bool_]) -> torch.Tensor:
        """On the device, and as long as the table."""
        missing = self.nearest.room - allowed.shape[-1]
        return F.pad(torch.from_numpy(np.ascontiguousarray(allowed)).to(self.nearest.device), (0, missing))

    def add(self, vectors: npt.NDArray[np.float32], count: int) -> None:
        self.nearest.add(vectors[-count:])


def by(mask: torch.Tensor | None) -> Passing | None:
    """A mask as what `Nearest.top` asks."""
    if mask is None:
        return None
    return lambda start, stop: mask[..., start:stop]
