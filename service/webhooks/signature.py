"""Standard Webhooks (standardwebhooks.com): `v1,` and the base64 of HMAC-SHA256 over id, timestamp and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
LEAST, MOST = 24, 64
"""Bytes of a secret, as the specification has them."""


def secret_of(text: str) -> bytes:
    """The key in a `whsec_…` secret. Raises ValueError, which does not say it."""
    if not text.startswith(PREFIX):
        raise ValueError(f"does not begin with {PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64 after {PREFIX}") from error
    if not LEAST <= len(key) <= MOST:
        raise ValueError(f"has {len(key)} bytes; {LEAST} to {MOST} are right")
    return key


def headers(key: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a delivery at `timestamp` (seconds since the epoch)."""
    signed = hmac.new(key, b"%s.%d.%s" % (message.encode("ascii"), timestamp, body), hashlib.sha256).digest()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode('ascii')}",
    }
