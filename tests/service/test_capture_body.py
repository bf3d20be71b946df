"""What is dropped and hashed of recorded bodies, and that nothing is written of what cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.capture_body import Cleaner
from tests.service.test_capture import KEY_OF_TEST


def cleaned(body: Any, drop: list[str] | None = None, hashed: list[str] | None = None) -> Any:
    return json.loads(Cleaner(drop or [], hashed or [], KEY_OF_TEST).text(json.dumps(body).encode(), lines=False))


def test_fields_are_dropped_at_any_depth_and_in_lists() -> None:
    body = {"user_id": "u", "context": {"country": "de", "age": 3}, "country": "fr",
            "events": [{"user_id": "v", "x": [[{"context": [{"country": 1, "b": 2}]}]]}]}  # fmt: skip
    assert cleaned(body, ["user_id", "context.country"]) == {
        "context": {"age": 3}, "country": "fr", "events": [{"x": [[{"context": [{"b": 2}]}]]}],
    }  # fmt: skip


def test_hashes_keep_who_is_who_and_the_form_of_what_they_hide() -> None:
    body = {"user_id": "u1", "session": {"item_ids": ["i1", "i2", "i1", None], "n": 5}, "events": [{"user_id": "u1"}]}
    found = cleaned(body, hashed=["user_id", "session"])
    ids = found["session"]["item_ids"]
    assert found["user_id"] == found["events"][0]["user_id"] != "u1"
    assert ids[0] == ids[2] != ids[1] and ids[3] is None
    hashes = [found["user_id"], *ids[:3], found["session"]["n"]]
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in hashes)
    assert cleaned(body, hashed=["user_id"])["user_id"] == found["user_id"]
    other = json.loads(Cleaner([], ["user_id"], b"o" * 32).text(json.dumps(body).encode(), lines=False))
    assert other["user_id"] != found["user_id"]


def test_values_that_nobody_asked_to_hide_are_what_they_were() -> None:
    body = {"user_id": "u", "a": [0.1, 1e-7, 2**63 - 1, True, None, '日本\u2028"', {}, []], "b": {"": ""}}
    assert cleaned(body, ["user_id"]) == {name: body[name] for name in ("a", "b")}


@pytest.mark.parametrize(
    "body",
    [b'{"user_id": "secret"', b'{"user_id": "secret", "user_id": "b"}', b'{"user_id": "secret", "a": NaN}',
     b"\xffsecret", b'{"user_id": "secret", "a": "\\ud800"}',
     b'{"user_id": "secret", "a": 1e999}', b"[" * 5000 + b'"secret"'],
)  # fmt: skip
def test_what_cannot_be_read_is_not_written_where_something_is_to_be_hidden(body: bytes) -> None:
    for one in (Cleaner(["user_id"], [], KEY_OF_TEST), Cleaner([], ["user_id"], KEY_OF_TEST)):
        assert one.text(body, lines=False) == "x" * len(body)


def test_each_line_of_ndjson_is_cleaned_alone() -> None:
    body = b'{"user_id": "u1", "a": 1}\r\n\n{"user_id": \n{"user_id": "u2"}\n'
    assert Cleaner(["user_id"], [], KEY_OF_TEST).text(body, lines=True) == '{"a":1}\n\n' + "x" * 12 + "\n{}\n"
