from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from load.errors import LoadError
from load.http1 import parse_url
from load.traffic import read_users, recommendation_requests, template_users, zipf


def test_draws_follow_zipf_and_the_seed() -> None:
    """The k-th most frequent user comes back in proportion to 1 / k."""
    drawn = zipf(1000, 200_000, 1.0, seed=1)
    frequencies = np.sort(np.bincount(drawn, minlength=1000))[::-1]
    assert frequencies[0] / frequencies[1] == pytest.approx(2, rel=0.1)
    assert frequencies[0] / frequencies[9] == pytest.approx(10, rel=0.1)
    assert np.array_equal(drawn, zipf(1000, 200_000, 1.0, seed=1))
    assert not np.array_equal(drawn, zipf(1000, 200_000, 1.0, seed=2))


def test_exponent_zero_draws_everyone_alike_and_one_user_is_always_drawn() -> None:
    frequencies = np.bincount(zipf(10, 100_000, 0.0, seed=1), minlength=10)
    assert frequencies.min() == pytest.approx(10_000, rel=0.05)
    assert set(zipf(1, 50, 1.0, seed=1).tolist()) == {0}


def test_who_is_popular_does_not_depend_on_the_place_in_the_list() -> None:
    assert {int(np.bincount(zipf(100, 2000, 1.0, seed=seed)).argmax()) for seed in range(5)} != {0}


def test_each_planned_request_is_a_whole_post_for_the_drawn_user() -> None:
    target = parse_url("http://shop:8080/v1/recommendations")
    requests = list(
        recommendation_requests(target, np.array([0.5, 0.7]), ["a", "b\u00e9"], np.array([1, 0]), "home", 5)
    )
    assert [request.at for request in requests] == [0.5, 0.7]
    head, body = requests[0].payload.split(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/recommendations HTTP/1.1\r\nHost: shop:8080\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert orjson.loads(body) == {"user_id": "b\u00e9", "placement": "home", "count": 5}


def test_users_are_read_one_a_line_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "users.txt"
    path.write_bytes("17850\r\nu 1\nbé\n".encode())
    assert read_users(path) == ["17850", "u 1", "bé"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a\n\nb\n", "row 2: no user id"), (b"a\n\xff\n", "row 2: not UTF-8"), (b"", "no users")],
)
def test_a_bad_user_file_is_refused_with_its_name_and_row(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "users.txt"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=rf"users\.txt: {message}"):
        read_users(path)
    with pytest.raises(LoadError, match=r"none\.txt: No such file"):
        read_users(tmp_path / "none.txt")


def test_a_template_gives_distinct_ids_or_is_refused() -> None:
    assert template_users("u%05d", 2) == ["u00000", "u00001"]
    for template in ("u", "u%d-%d", "u%", "u%q", "u%.0s"):
        with pytest.raises(LoadError, match="user template"):
            template_users(template, 2)
