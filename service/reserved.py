"""A port held for the workers that will listen on it."""

from __future__ import annotations

import socket


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port for workers of ours and receives nothing itself. Raises OSError when it is taken."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, kind, proto)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if taken_by_others(family, kind, address):
            raise OSError(f"port {port} is in use")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held


def taken_by_others(family: int, kind: int, address: object) -> bool:
    """Whether another program has the port: SO_REUSEPORT would share it with any of the same user that asks so too."""
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)  # type: ignore[arg-type]
        except OSError:
            return True
    return False
