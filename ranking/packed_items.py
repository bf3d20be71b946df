"""A user's item table, as a bundle keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranking.errors import BundleError
from ranking.schema import ItemSchema

if TYPE_CHECKING:
    from ranking.pack import ItemInputs


@dataclass(frozen=True, slots=True)
class PackedItems:
    """`table` has the bundle's columns (`ranking.items.COLUMNS` and those of the schema); embeddings f32[N, E]."""

    table: pa.Table
    embeddings: npt.NDArray[np.float32]


def read_items(path: Path, spec: ItemInputs, schema: ItemSchema) -> PackedItems:
    """Raises BundleError, which names the file, the column and, where there is one, the first bad row."""
    try:
        raw = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise BundleError(path, " ".join(str(error).split())[:200]) from error
    if not raw.num_rows:
        raise BundleError(path, "holds no item")

    def column(name: str, kind: pa.DataType) -> pa.ChunkedArray:
        if name not in raw.column_names:
            raise BundleError(path, f"column {name} is missing; there are {', '.join(raw.column_names)}")
        try:
            return raw[name].cast(kind)
        except pa.ArrowException as error:
            raise BundleError(path, f"column {name} is {raw.schema.field(name).type}, not {kind}") from error

    def whole(name: str, kind: pa.DataType) -> pa.ChunkedArray:
        found = column(name, kind)
        if found.null_count:
            row = pc.index(pc.is_null(found), True).as_py()
            raise BundleError(path, f"column {name} is empty in row {row + 1}")
        return found

    ids = whole(spec.id, pa.string())
    seen: dict[str, int] = {}
    for row, one in enumerate(ids.to_pylist()):
        if seen.setdefault(one, row) != row:
            raise BundleError(path, f"column {spec.id} has {one!r} in row {seen[one] + 1} and again in row {row + 1}")
    rows = len(ids)
    filled = {
        "item_id": ids,
        "title": ids if spec.title is None else whole(spec.title, pa.string()),
        "category": pa.array([""] * rows) if spec.category is None else whole(spec.category, pa.string()),
        "price": pa.nulls(rows, pa.float64()) if spec.price is None else column(spec.price, pa.float64()),
        "in_stock": pa.array(np.ones(rows, bool)) if spec.in_stock is None else whole(spec.in_stock, pa.bool_()),
        "popularity": pa.array(np.zeros(rows)) if spec.popularity is None else whole(spec.popularity, pa.float64()),
    }
    for name in schema.columns():
        if name not in filled:
            column(name, raw.schema.field(name).type if name in raw.column_names else pa.null())
            filled[name] = raw[name]
    return PackedItems(pa.table(filled), vectors(path, spec.embedding, column(spec.embedding, pa.list_(pa.float32()))))


def vectors(path: Path, name: str, column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Lists of one length -> float32[N, E]."""
    whole = column.combine_chunks()
    lengths = pc.list_value_length(whole)
    sizes = lengths.fill_null(-1).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero(sizes != sizes[0])
    if sizes[0] < 1 or len(odd):
        row = int(odd[0]) if len(odd) else 0
        raise BundleError(path, f"column {name} has {max(int(sizes[row]), 0)} numbers in row {row + 1}, not {sizes[0]}")
    flat = whole.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    found: npt.NDArray[np.float32] = np.ascontiguousarray(flat.reshape(len(sizes), sizes[0]))
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise BundleError(path, f"column {name} has NaN or infinity in row {int(bad[0]) + 1}")
    return found
