"""An event of a shopper, as it travels through the stream."""

from __future__ import annotations

import hashlib

import msgspec


class Event(msgspec.Struct, frozen=True, array_like=True):
    """`at` is microseconds since the epoch; `value` what a purchase paid, None where unknown. Ids are strings."""

    event_id: str
    user_id: str
    item_id: str
    kind: str
    at: int
    session_id: str | None = None
    value: float | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Event)


def encode_event(event: Event) -> bytes:
    return _encoder.encode(event)


def decode_event(data: bytes) -> Event:
    """Raises ValueError when it is none."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no event: {error}") from error


def mark(event_id: str) -> int:
    """64 bits that stand for an event id wherever the id itself would cost too much to keep."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "big") | 1
