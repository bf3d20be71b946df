"""The item table: every item's facts as columns in memory, one row an item. Rows are what the engine speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ranking.encoding import Encoder
from ranking.errors import BundleError
from ranking.schema import ItemSchema
from ranking.shareable import mapped, shared
from ranking.texts import RowOf, Texts

COLUMNS = {"item_id": "string", "title": "string", "category": "string", "price": "double", "in_stock": "bool",
           "popularity": "double"}  # fmt: skip
STATS_AT = "stats_at"
"""The column, which need not be there, that says of when an item's statistics are."""

NEVER = float("inf")
"""Of when the statistics of an item are that has none: they are not old."""

POPULARITY_OF = ("events_30d", "purchases_30d")
"""Popularity is the sum of these columns: events in 30 days, purchases counting twice."""


@dataclass(frozen=True, slots=True)
class ItemTable:
    """N items. `ids[row]` and `row_of[id]` translate; everything else is indexed by row.

    The model has learned the first `learned` of them; those after came later (`ranking.live`).
    """

    ids: Texts
    row_of: RowOf
    titles: Texts
    categories: list[str]  # the distinct ones
    category: npt.NDArray[np.int32]  # [N], an index into `categories`
    price: npt.NDArray[np.float32]  # [N], NaN where unknown
    in_stock: npt.NDArray[np.bool_]  # [N]
    popularity: npt.NDArray[np.float64]  # [N]
    counted: bool  # whether popularity is that of POPULARITY_OF, and not something of the bundle's own
    popular: npt.NDArray[np.int64]  # [N], rows, most popular first
    dense: npt.NDArray[np.float32]  # [N, F], encoded
    categorical: npt.NDArray[np.int64]  # [N, G], encoded
    embeddings: npt.NDArray[np.float32]  # [N, E]
    stats_at: npt.NDArray[
        np.float64
    ]  # [N], event time of what is counted of an item, seconds since the epoch, or NEVER
    learned: int

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """The rows of the ids that are known, in order; unknown ones are left out."""
        found = self.row_of.rows(ids)
        return found[found >= 0]

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that no item has, in order."""
        found = self.row_of.rows(ids).tolist()  # in one go: one by one a lookup takes ten times as long
        return [one for one, row in zip(ids, found, strict=True) if row < 0]

    def oldest_stats(self, rows: npt.NDArray[np.int64]) -> float:
        """Of when the oldest statistics of these items are: seconds since the epoch, NEVER where none has any."""
        return float(self.stats_at[rows].min(initial=NEVER))


def encode_items(table: pa.Table, schema: ItemSchema) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The model inputs of every item: dense float32[N, F], categorical int64[N, G]. Raises ValueError."""
    encoder = Encoder(schema.dense, schema.categorical)
    raw = np.empty((table.num_rows, len(schema.dense)), np.float64)
    for f, one in enumerate(schema.dense):
        if one.vocabulary is None:
            raw[:, f] = as_numbers(table, one.source)
        else:
            values, codes = distinct(table, one.source)
            raw[:, f] = Encoder([one], ()).numbers([values])[codes, 0]
    categorical = np.zeros((table.num_rows, len(schema.categorical)), np.int64)
    for g, word in enumerate(schema.categorical):
        values, codes = distinct(table, word.source)
        categorical[:, g] = Encoder((), [word]).categorical([values])[codes, 0]
    return encoder.dense(raw), categorical


def as_numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    try:
        found: npt.NDArray[np.float64] = table[name].cast("double").to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        kind = table.schema.field(name).type
        raise ValueError(f"column {name} is {kind}, not numbers: words need a vocabulary") from error
    return found


def distinct(table: pa.Table, name: str) -> tuple[list[Any], npt.NDArray[np.int64]]:
    """The values of a column, None among them at the end, and which of them each row has: int64[N]."""
    try:
        whole = table[name].combine_chunks().dictionary_encode()
    except pa.ArrowException as error:
        raise ValueError(f"column {name} is {table.schema.field(name).type}, not words") from error
    values = whole.dictionary.to_pylist()
    codes = whole.indices.fill_null(len(values)).to_numpy(zero_copy_only=False).astype(np.int64)
    return [*values, None], codes


def item_table(table: pa.Table, embeddings: npt.NDArray[np.float32], schema: ItemSchema, at: float) -> ItemTable:
    """Builds the item table from its Parquet columns (`COLUMNS` and those of the schema) and embeddings [N, E].

    Where nothing says of when the statistics are, they are of `at`, in seconds since the epoch. Raises ValueError for
    an id that is there twice, or a column of another type.
    """
    ids = Texts(table["item_id"])
    try:
        row_of = RowOf(ids)
    except ValueError as error:
        raise ValueError(f"column item_id {error}") from error
    category = table["category"].combine_chunks().dictionary_encode()
    dense, categorical = encode_items(table, schema)
    popularity = table["popularity"].to_numpy(zero_copy_only=False).astype(np.float64)
    return ItemTable(
        ids=ids,
        row_of=row_of,
        titles=Texts(table["title"]),
        categories=category.dictionary.to_pylist(),
        category=shared(category.indices.to_numpy(zero_copy_only=False).astype(np.int32)),
        price=shared(table["price"].to_numpy(zero_copy_only=False).astype(np.float32)),
        in_stock=shared(table["in_stock"].to_numpy(zero_copy_only=False).astype(bool)),
        popularity=shared(popularity),
        counted=not popularity.any() or np.array_equal(popularity, popularity_of(table)),
        popular=shared(np.argsort(-popularity, kind="stable").astype(np.int64)),
        dense=shared(dense),
        categorical=shared(categorical),
        embeddings=embeddings,
        stats_at=shared(stats_times(table, at)),
        learned=len(ids),
    )


def popularity_of(table: pa.Table) -> npt.NDArray[np.float64]:
    """Popularity by the columns POPULARITY_OF; empty where they are not there."""
    if not set(POPULARITY_OF) <= set(table.column_names):
        return np.zeros(0)
    parts = [table[name].cast("double").to_numpy(zero_copy_only=False) for name in POPULARITY_OF]
    return np.asarray(np.nan_to_num(np.sum(parts, axis=0)), np.float64)


def stats_times(table: pa.Table, at: float) -> npt.NDArray[np.float64]:
    """When each item's statistics are of, in seconds since the epoch."""
    if STATS_AT not in table.column_names:
        return np.full(table.num_rows, at)
    micros = table[STATS_AT].cast(pa.timestamp("us", "UTC")).cast("int64").cast("double")
    seconds: npt.NDArray[np.float64] = np.nan_to_num(micros.to_numpy(zero_copy_only=False) / 1e6, nan=NEVER)
    return seconds


def read_item_table(directory: Path, schema: ItemSchema, dimension: int, at: float) -> ItemTable:
    """Reads and checks `items.parquet` and `embeddings.npy` of a bundle made at `at`. Raises BundleError."""
    table = read_columns(directory)
    if not table.num_rows:
        raise BundleError(directory, "holds no item", file="items.parquet")
    wanted: dict[str, Any] = COLUMNS | dict.fromkeys(schema.columns())
    for name, kind in wanted.items():
        if name not in table.column_names:
            raise BundleError(directory, f"column {name} is missing", file="items.parquet")
        if kind and str(table.schema.field(name).type) != kind:
            found = table.schema.field(name).type
            raise BundleError(directory, f"column {name} is {found}, not {kind}", file="items.parquet")
    for name in ("item_id", "title", "category", "in_stock", "popularity"):
        if table[name].null_count:
            raise BundleError(directory, f"column {name} has {table[name].null_count} nulls", file="items.parquet")
    embeddings = read_array(directory, "embeddings.npy", np.float32, (table.num_rows, dimension))
    finite = np.isfinite(embeddings).all(1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise BundleError(directory, f"has NaN or infinity in row {row + 1}", file="embeddings.npy")
    try:
        return item_table(table, embeddings, schema, at)
    except ValueError as error:
        raise BundleError(directory, str(error), file="items.parquet") from error


def read_columns(directory: Path) -> pa.Table:
    try:
        # By this thread: what Arrow's others have freed, malloc keeps.
        return pq.read_table(directory / "items.parquet", use_threads=False)
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())[:200]
        raise BundleError(directory, f"is damaged, or no Parquet: {said}", file="items.parquet") from error


def read_array(directory: Path, name: str, kind: type[np.generic], shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """A `.npy` file of a bundle, mapped: writable, as torch wants it, and the pages are still shared between processes.

    None in `shape` is any number. Raises BundleError.
    """
    try:
        found = mapped(directory / name)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise BundleError(directory, f"is damaged, or no array: {said}", file=name) from error
    fits = found.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, found.shape, strict=True))
    if not fits or found.dtype != kind:
        wanted = ", ".join("M" if one is None else str(one) for one in shape)
        said = f"{found.dtype}{list(found.shape)}, expected {np.dtype(kind)}[{wanted}]"
        raise BundleError(directory, said, file=name)
    return found
