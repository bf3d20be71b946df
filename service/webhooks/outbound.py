"""Requests that a client's words cause to leave this machine: to public addresses only.

A name is resolved once, every address of it is looked at, and the connection goes to one of these: a name that answers
otherwise the next time gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.ip_network("64:ff9b::/96")
COMPATIBLE = ipaddress.ip_network("::/96")


class Refused(ValueError):
    """A URL or an address that nothing is sent to. `str()` says why."""


def public(address: Address) -> bool:
    """Whether an address is of the internet: not of this machine, this network, or one that is set aside. An address
    inside another (mapped, translated, tunnelled) is looked at, too."""
    if isinstance(address, ipaddress.IPv6Address):
        low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64 or address in COMPATIBLE:
            inner.append(low)
        if any(one is not None and not public(one) for one in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
    set_aside = address.is_private or address.is_loopback or address.is_link_local or address.is_reserved
    return address.is_global and not (set_aside or address.is_multicast or address.is_unspecified)


def check_url(text: str, allowed: Collection[str]) -> URL:
    """A URL that something may be sent to, as far as its own words say. Raises Refused.

    `allowed`: hosts that may be private, and be spoken to without TLS.
    """
    try:
        url = URL(text)
        host, _ = url.raw_host, url.port
    except ValueError as error:
        raise Refused(f"is no URL: {error}") from error
    if not host or url.scheme not in ("http", "https"):
        raise Refused("is no https URL with a host")
    if url.user is not None or url.password is not None:
        raise Refused("has a user name or password in it")
    if host.lower() in allowed:
        return url
    if url.scheme != "https":
        raise Refused("is not https, and the settings do not allow its host")
    check_host(host)
    return url


def check_host(host: str) -> None:
    """Raises Refused for an address that is not public, however it is written. A name's addresses are not known yet."""
    try:
        address: Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # what the C library takes for an address: 2130706433, 0x7f000001, 127.1
            address = ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return
    if not public(address):
        raise Refused(f"{host} is not a public address")


class PublicResolver(AbstractResolver):
    """Resolves names to addresses that may be spoken to; raises OSError for a name of which one may not."""

    def __init__(self, allowed: Collection[str], resolver: AbstractResolver | None = None) -> None:
        self.allowed = allowed
        self.resolver = ThreadedResolver() if resolver is None else resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self.resolver.resolve(host, port, family)
        if host.lower() not in self.allowed:
            for one in found:
                if not public(ipaddress.ip_address(one["host"].partition("%")[0])):
                    raise NotPublic(f"{host} is at {one['host']}, which is not a public address")
        return found

    async def close(self) -> None:
        await self.resolver.close()


class NotPublic(OSError):
    """A name that is at an address of this network."""


def outbound(allowed: Collection[str], timeout_s: float, resolver: AbstractResolver | None = None) -> Any:
    """A client session for it; requests must not follow redirects. Call on an event loop."""
    connector = aiohttp.TCPConnector(
        resolver=PublicResolver(allowed, resolver), use_dns_cache=False, force_close=True, family=socket.AF_UNSPEC
    )
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=10, sock_read=min(timeout_s, 60))
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    )
