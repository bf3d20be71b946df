"""Bytes that are no batch: each is a mistake that is told, of the whole or of one request."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest, MalformedBody
from service.http.strict import StrictDecoder
from service.many_protobuf import read
from service.rpc.stubs import recommendations_pb2 as pb
from service.wire import RecommendRequest

DECODER = StrictDecoder(RecommendRequest)
WRONG = (MalformedBody, InvalidRequest)
BODY = pb.BatchRequest(
    requests=[pb.RecommendRequest(user_id="u1", count=3, context={"x": pb.Scalar(whole=-1)}), pb.RecommendRequest()],
    defaults=pb.RecommendRequest(placement="home"),
).SerializeToString()


def read_all(body: bytes) -> list[RecommendRequest | None] | None:
    """All requests, None for one that is wrong, and for a batch that is."""
    try:
        rows = read(bytearray(body), DECODER, 100, 10_000)
    except WRONG:
        return None
    found: list[RecommendRequest | None] = []
    for place in range(len(rows)):
        try:
            request = rows[place]
        except WRONG:
            found.append(None)
        else:
            assert isinstance(request, RecommendRequest)
            found.append(request)
    return found


def readable(body: bytes) -> bool:
    """By protobuf's own reader."""
    try:
        pb.BatchRequest.FromString(body)
    except DecodeError:
        return False
    return True


def test_the_batch_that_the_others_are_made_of_is_right() -> None:
    first, second = read_all(BODY) or ()
    assert first is not None and (first.user_id, first.count, first.context) == ("u1", 3, {"x": -1})
    assert second is not None and (second.user_id, second.placement) == (None, "home")


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(0, 8 * len(BODY) - 1), max_size=6), st.integers(0, len(BODY)))
def test_whichever_bits_are_flipped_it_is_read_as_protobuf_does_or_a_mistake(places: list[int], end: int) -> None:
    damaged = bytearray(BODY)
    for place in places:
        damaged[place // 8] ^= 1 << place % 8
    found = read_all(bytes(damaged[:end]))
    if not readable(bytes(damaged[:end])):
        assert found is None or None in found


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60))
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x8a\x80\x80\x80\x80\x80\x80\x80\x80\x00\x00")
def test_no_bytes_are_taken_that_protobuf_does_not_take(data: bytes) -> None:
    found = read_all(data)
    if not readable(data):
        assert found is None or None in found
