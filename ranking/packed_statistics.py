"""What a user's own model saw in training: a sample of the raw values of its user inputs, a row an example."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranking.errors import BundleError
from ranking.schema import Categorical, Dense, UserSchema, Value
from ranking.statistics import Statistics, inputs, statistics_of


def read_statistics(path: Path, schema: UserSchema) -> dict[str, Statistics]:
    """Of a Parquet file with a column for each user input, named by its Feast reference or by its feature.

    Raises BundleError, which names the file and the column.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise BundleError(path, " ".join(str(error).split())[:200]) from error
    if not table.num_rows:
        raise BundleError(path, "holds no row")
    wanted = inputs(schema)
    features = Counter(source.partition(":")[2] for source in wanted)
    columns: dict[str, list[Value]] = {}
    for source, one in wanted.items():
        feature = source.partition(":")[2]
        names = [source, *([feature] if features[feature] == 1 else [])]
        name = next((each for each in names if each in table.column_names), None)
        if name is None:
            there = ", ".join(table.column_names)
            raise BundleError(path, f"column {' or '.join(names)} is missing; there are {there}")
        kind = table.schema.field(name).type
        if not fits(one, kind):
            what = "a number" if isinstance(one, Dense) and one.vocabulary is None else "a word"
            raise BundleError(path, f"column {name} is {kind}, and {source} is {what}")
        columns[source] = table[name].to_pylist()
    return statistics_of(schema, columns)


def fits(one: Dense | Categorical, kind: pa.DataType) -> bool:
    """Whether an input can be made of a column's values; one without any value fits all."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    if isinstance(one, Dense) and one.vocabulary is None:
        return bool(whole or pa.types.is_floating(kind))
    return bool(whole or pa.types.is_string(kind) or pa.types.is_large_string(kind))
