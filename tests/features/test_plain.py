"""Feast's values in JSON: as Feast's own server writes them, and as Feast's SDK reads what is pushed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from features.entitykeys import key_head, key_values
from features.errors import BadLookup
from features.plain import plain, written
from features.store import import_feast


def values() -> list[Any]:
    """A Value of every kind that Feast has, numbers at their ends."""
    import_feast()
    from feast.protos.feast.types import Value_pb2 as pb

    inner = pb.Map(val={"a": pb.Value(int64_val=1), "b": pb.Value(double_list_val=pb.DoubleList(val=[1.5, math.nan]))})
    texts = pb.StringList(val=["a", "é", ""])
    return [
        pb.Value(), pb.Value(null_val=0), pb.Value(bytes_val=b"\x00\xff"), pb.Value(string_val=""),
        pb.Value(string_val="é\u2028"), pb.Value(int32_val=-(2**31)), pb.Value(int64_val=2**63 - 1),
        pb.Value(int64_val=0), pb.Value(double_val=0.1), pb.Value(double_val=math.nan), pb.Value(float_val=1.1),
        pb.Value(float_val=-math.inf), pb.Value(double_val=math.inf), pb.Value(bool_val=False),
        pb.Value(unix_timestamp_val=1_795_000_000), pb.Value(bytes_list_val=pb.BytesList(val=[b"a", b""])),
        pb.Value(string_list_val=texts), pb.Value(int32_list_val=pb.Int32List(val=[-1, 2])),
        pb.Value(int64_list_val=pb.Int64List(val=[2**62, -5])), pb.Value(int64_list_val=pb.Int64List()),
        pb.Value(double_list_val=pb.DoubleList(val=[0.1, -math.inf])), pb.Value(float_list_val=pb.FloatList(val=[1.1])),
        pb.Value(bool_list_val=pb.BoolList(val=[True, False])),
        pb.Value(unix_timestamp_list_val=pb.Int64List(val=[1, 2])),
        pb.Value(string_set_val=pb.StringSet(val=["x"])), pb.Value(int64_set_val=pb.Int64Set(val=[7])),
        pb.Value(bytes_set_val=pb.BytesSet(val=[b"q"])), pb.Value(map_val=inner), pb.Value(struct_val=inner),
        pb.Value(map_list_val=pb.MapList(val=[inner])), pb.Value(json_val='{"a": 1}'),
        pb.Value(json_list_val=pb.StringList(val=["1"])), pb.Value(uuid_val="11111111-1111-1111-1111-111111111111"),
        pb.Value(decimal_val="1.20"), pb.Value(list_val=pb.RepeatedValue(val=[pb.Value(string_list_val=texts)])),
        pb.Value(zoned_timestamp_val=pb.ZonedTimestamp(unix_timestamp=1_795_000_000, zone="Europe/Paris")),
        pb.Value(zoned_timestamp_val=pb.ZonedTimestamp(unix_timestamp=1_795_000_000, zone="")),
    ]  # fmt: skip


def test_every_kind_of_value_is_in_json_what_feasts_own_server_writes() -> None:
    found = values()
    from feast.feature_server_utils import _value_to_native

    for value in found:
        data = value.SerializeToString()
        assert json.dumps(plain(data), allow_nan=False) == json.dumps(_value_to_native(value)), value


def test_no_time_is_null_where_feasts_server_writes_its_mark_of_it() -> None:
    import_feast()
    from feast.protos.feast.types import Value_pb2 as pb

    assert plain(pb.Value(unix_timestamp_val=-(2**63)).SerializeToString()) is None
    both = pb.Value(unix_timestamp_list_val=pb.Int64List(val=[1, -(2**63)]))
    assert plain(both.SerializeToString()) == [1, None]


PUSHED: list[tuple[str, Any]] = [
    ("STRING", "é"), ("INT32", -5), ("INT64", 2**63 - 1), ("FLOAT", 1.1), ("DOUBLE", 0.1), ("DOUBLE", 3),
    ("BOOL", False), ("STRING_LIST", ["a", ""]), ("STRING_LIST", []), ("INT64_LIST", [1, -2]), ("INT32_LIST", [3]),
    ("DOUBLE_LIST", [0.5, 1.0]), ("FLOAT_LIST", [1.1]), ("BOOL_LIST", [True]), ("JSON", '{"a": 1}'), ("INT64", None),
    ("UUID", "11111111-1111-1111-1111-111111111111"), ("UNIX_TIMESTAMP", 1_795_000_000),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), PUSHED)
def test_what_is_pushed_is_stored_as_feasts_sdk_stores_it(kind: str, value: Any) -> None:
    import_feast()
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

    assert written(kind, value) == python_values_to_proto_values([value], ValueType[kind])[0].SerializeToString()


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("INT32", 2**31, "Expected an integer of 32 bits, got 2147483648"),
        ("INT64", True, "Expected an integer of 64 bits, got True"),
        ("INT64", 1.0, "Expected an integer"), ("STRING", 5, "Expected a string, got 5"),
        ("FLOAT", "x", "Expected a number, got 'x'"), ("FLOAT", 10**400, "a float can hold"),
        ("BOOL", 1, "Expected true or false"), ("BYTES", "%", "Expected base64"),
        ("STRING_LIST", "a", "Expected a list for STRING_LIST"), ("STRING_LIST", [None], "Expected a string, got None"),
        ("UNIX_TIMESTAMP", "soon", "Expected a time such as"), ("UUID", "x", "Expected a UUID as a string"),
        ("JSON", "{", "Expected JSON as a string"), ("DECIMAL", "x", "Expected a decimal number as a string"),
        ("MAP", {}, "values of the type MAP cannot be pushed here"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_told(kind: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        written(kind, value)


def test_bytes_and_numbers_that_json_does_not_have_come_back_as_they_went() -> None:
    for kind, value in [("BYTES", "AP8="), ("DOUBLE", "NaN"), ("FLOAT", "-Infinity"), ("BYTES_LIST", ["YQ=="])]:
        assert plain(written(kind, value)) == value


@pytest.mark.parametrize(
    ("data", "said"), [(b"\x12\x05ab", None), (b"\xff\xff", "cut short"), (b"\x7a\x09\x0a", "cut short")]
)
def test_a_value_that_is_none_is_told(data: bytes, said: str | None) -> None:
    with pytest.raises(ValueError, match=said):
        plain(data)


def test_keys_are_those_that_feast_makes_whatever_the_join_keys() -> None:
    import_feast()
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    given = {"shop": ("INT64", [-3, "12"]), "area": ("STRING", ["é", 7]), "at": ("UNIX_TIMESTAMP", [5, 6]),
             "n": ("INT32", [1, 2]), "raw": ("BYTES", ["AP8=", ""])}  # fmt: skip
    names = sorted(given)
    parts = [key_values(given[name][0], given[name][1], name)[0] for name in names]
    ours = [b"".join((key_head(names), *some)) for some in zip(*parts, strict=True)]
    theirs = [
        {"shop": Value(int64_val=-3), "area": Value(string_val="é"), "at": Value(unix_timestamp_val=5),
         "n": Value(int32_val=1), "raw": Value(bytes_val=b"\x00\xff")},
        {"shop": Value(int64_val=12), "area": Value(string_val="7"), "at": Value(unix_timestamp_val=6),
         "n": Value(int32_val=2), "raw": Value(bytes_val=b"")},
    ]  # fmt: skip
    assert ours == [
        serialize_entity_key(EntityKey(join_keys=list(one), entity_values=list(one.values())), 3) for one in theirs
    ]


@pytest.mark.parametrize(("kind", "value"), [("STRING", None), ("INT64", "x"), ("INT64", 1.5), ("STRING", True)])
def test_an_entity_that_is_none_is_told_by_its_row(kind: str, value: Any) -> None:
    with pytest.raises(BadLookup, match=r"entities\.user_id\[1\]: Expected"):
        key_values(kind, [1, value], "entities.user_id")


def test_a_join_key_of_a_type_that_feast_has_no_key_for_is_told() -> None:
    with pytest.raises(BadLookup, match="of the type DOUBLE are not supported"):
        key_values("DOUBLE", [1.0], "entities.x")
