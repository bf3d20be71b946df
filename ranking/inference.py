"""A bundle's two modules by themselves, from a caller's tensors to theirs: no placement, no source, no rule.

The user tower and the ranker are those that answer shoppers, in the form in which they do so (`ranking.forward`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranking.batch import SIGNALS, Rows, Scores
from ranking.bundle import Bundle
from ranking.engine import BatchPath
from ranking.errors import BadTensor, EngineError
from ranking.items import ItemTable
from ranking.users import I64

Named = npt.NDArray[np.int64] | npt.NDArray[np.object_]
"""Items, each by its row of the item table or by its id."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Of B users dense f32[B, D], categorical i64[B, K] and history [B, L]; for the ranker also items [B, C], C at
    least 1. In a history -1, or an empty id, is no item."""

    dense: Scores
    categorical: I64
    history: Named
    items: Named | None = None

    def part(self, begin: int, end: int) -> Inputs:
        """Those of some of the users."""
        items = None if self.items is None else self.items[begin:end]
        return Inputs(self.dense[begin:end], self.categorical[begin:end], self.history[begin:end], items)


def check_values(bundle: Bundle, inputs: Inputs) -> None:
    """What the modules of a bundle would not survive, or answer with anything. Raises BadTensor."""
    if len(at := np.argwhere(~np.isfinite(inputs.dense))):
        found = inputs.dense[tuple(at[0])]
        raise BadTensor("dense", f"{place(at[0])} is {found}, expected a finite FP32")
    for k, column in enumerate(bundle.schema.categorical):
        codes, most = inputs.categorical[:, k], len(column.vocabulary)
        if len(wrong := np.flatnonzero((codes < 0) | (codes > most))):
            found = codes[wrong[0]]
            raise BadTensor("categorical", f"[{wrong[0]}, {k}] is {found}, expected 0 to {most} ({column.source})")


def infer(path: BatchPath, inputs: Inputs) -> Scores:
    """The users' vectors f32[B, E] or, where `inputs` have items, their scores f32[B, C]. Call on the thread that
    answers, between two batches; `check_values` comes first.

    Raises BadTensor for an item that there is not, EngineError where a module answers with what is no number.
    """
    items = path.bundle.items
    history = rows_of(items, "history", inputs.history, items.learned)
    users = path.models.users(inputs.dense, inputs.categorical, history)
    finite(users.vectors, "user tower")
    if inputs.items is None:
        return users.vectors
    rows = rows_of(items, "item_id", inputs.items, len(items), empty=False)
    signals = np.zeros((*rows.shape, len(SIGNALS)), np.float32)
    if path.models.wants_signals:
        for one, (of, past) in enumerate(zip(rows, history, strict=True)):
            signals[one, :, 0] = path.covisits.lookup(of, *path.covisits.accumulate(past))
    return finite(path.models.scores(users, rows, signals, [rows.shape[1]] * len(rows)), "ranker")


def rows_of(items: ItemTable, tensor: str, given: Named, most: int, *, empty: bool = True) -> Rows:
    """The rows below `most` of the items that a tensor names. Raises BadTensor for what is none, and for an empty place
    where none may be."""
    if given.dtype != np.object_:
        rows: Rows = given.astype(np.int64)
        wrong = (rows < (-1 if empty else 0)) | (rows >= most)
        expected = f"expected a row, {-1 if empty else 0} to {most - 1}"
    else:
        rows = items.row_of.rows([str(one) for one in given.ravel()]).reshape(given.shape)
        none = (given == "") & empty
        rows[none] = -1
        wrong = ((rows < 0) & ~none) | (rows >= most)
        expected = "expected the id of an item" + (" that the model has learned" if most == items.learned else "")
    if len(at := np.argwhere(wrong)):
        raise BadTensor(tensor, f"{place(at[0])} is {str(given[tuple(at[0])])[:100]!r}, {expected}")
    return rows


def finite(said: Scores, module: str) -> Scores:
    """Raises EngineError."""
    if not np.isfinite(said).all():
        raise EngineError(f"the {module} answered with NaN or infinity")
    return said


def place(at: npt.NDArray[np.intp]) -> str:
    return str([int(one) for one in at])
