"""Strict JSON: what is refused, with which error, and which field it names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest, MalformedBody
from service.http.strict import StrictDecoder
from service.wire import RankRequest, RecommendRequest

RECOMMEND = StrictDecoder(RecommendRequest)


def refused(body: bytes, decoder: StrictDecoder = RECOMMEND) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        decoder.decode(body)
    return {error.path: error.message for error in caught.value.errors}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"count": NaN}',
        b'{"count": Infinity}',
        b'{"context": {"x": -Infinity}}',
        b'{"count": 1e999}',
        b'{"user_id": "a", "user_id": "b"}',
        b'{"session": {"item_ids": ["a"], "item_ids": []}}',
        b'{"user_id": "\xff"}',
        b'{"user_id": "a"} trailing',
        b'\xef\xbb\xbf{"user_id": "a"}',
        b'{"context": ' * 20_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"context": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ],
)
def test_what_is_not_strict_json_is_malformed_or_invalid_and_never_crashes(body: bytes) -> None:
    with pytest.raises((MalformedBody, InvalidRequest)):
        RECOMMEND.decode(body)


def test_duplicate_keys_are_malformed_at_any_depth() -> None:
    with pytest.raises(MalformedBody, match="'item_ids' stands twice"):
        RECOMMEND.decode(b'{"session": {"item_ids": ["a"], "item_ids": []}}')


def test_an_unknown_field_is_named_with_those_that_there_are() -> None:
    found = refused(b'{"user": "u1"}')
    assert list(found) == ["user"] and "user_id" in found["user"]


def test_every_bad_field_is_named_not_only_the_first() -> None:
    body = b'{"count": 0, "user_id": 7, "session": {"item_ids": ["a", 3]}, "filter": {"price": {"min": -1}}, "x": 1}'
    found = refused(body)
    assert set(found) == {"count", "user_id", "session.item_ids[1]", "filter.price.min", "x"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", "501"),
        ("count", "10e9"),
        ("count", "true"),
        ("count", '"20"'),
        ("user_id", '""'),
        ("user_id", '"' + "x" * 257 + '"'),
        ("exclude_item_ids", '["' + '","'.join("a" * 1 for _ in range(2001)) + '"]'),
        ("explain", "1"),
        ("filter", '{"in_stock": false}'),
        ("placement", "null"),
    ],
)
def test_wrong_types_and_ranges_name_the_field(field: str, value: str) -> None:
    found = refused(f'{{"{field}": {value}}}'.encode())
    assert [path.split(".")[0].split("[")[0] for path in found] == [field]


def test_a_required_field_that_is_missing_is_named() -> None:
    assert refused(b"{}", StrictDecoder(RankRequest)) == {"item_ids": "Missing"}


def test_several_mistakes_within_one_field_are_all_named() -> None:
    body = b'{"session": {"item_ids": [1, "a", ""], "x": 1}, "filter": {"price": {"min": -1, "max": "a"}}}'
    assert set(refused(body)) == {
        "session.item_ids[0]", "session.item_ids[2]", "session.x", "filter.price.min", "filter.price.max",
    }  # fmt: skip
    assert refused(b'{"context": {"a": [1], "b": {}}}').keys() == {"context.a", "context.b"}


def test_of_very_many_mistakes_the_first_twenty_are_named() -> None:
    found = refused(b'{"session": {"item_ids": [' + b"1," * 150 + b"1]}}")
    assert len(found) == 21 and found[""] == "and more; the first 20 are listed"


def test_a_list_that_is_too_long_is_one_mistake_whatever_it_holds() -> None:
    assert list(refused(b'{"exclude_item_ids": [' + b"1," * 3000 + b"1]}")) == ["exclude_item_ids"]


def test_of_a_value_that_must_be_one_of_a_few_they_are_named() -> None:
    assert refused(b'{"filter": {"in_stock": false}}') == {"filter.in_stock": "Expected true, got false"}


@pytest.mark.parametrize(("body", "got"), [(b"[]", "array"), (b"null", "null"), (b'"x"', "str"), (b"3", "int")])
def test_a_body_that_is_no_object_is_refused_in_json_s_words(body: bytes, got: str) -> None:
    assert refused(body) == {"": f"Expected `object`, got `{got}`"}


def test_a_full_request_decodes() -> None:
    body = (
        b'{"user_id": "u1", "session": {"item_ids": ["i1"]}, "item_id": "i2", "placement": "home", "count": 500, '
        b'"context": {"country": "DE", "views_1h": 3}, "filter": {"category": ["Mugs"], "price": {"min": 1, '
        b'"max": 5.5}, "in_stock": true}, "exclude_item_ids": ["i3"], "model_version": "4", "explain": true}'
    )
    request = RECOMMEND.decode(body)
    assert request.count == 500 and request.filter.price.max == 5.5 and request.context["country"] == "DE"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=12,
)
known = st.sampled_from([*RECOMMEND.fields, "surprise"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(known, json_values, max_size=6))
def test_any_json_either_decodes_or_is_refused_with_a_path(raw: dict[str, Any]) -> None:
    import json

    try:
        RECOMMEND.decode(json.dumps(raw).encode())
    except InvalidRequest as error:
        assert error.errors and all(one.message for one in error.errors)
    except MalformedBody as error:
        assert str(error)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(body: bytes) -> None:
    try:
        RECOMMEND.decode(body)
    except (InvalidRequest, MalformedBody) as error:
        assert str(error)
