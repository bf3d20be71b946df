"""Requests that a client's words cause to leave this machine: to public addresses only.

A name is resolved once, every address of it is looked at, and the connection goes to one of these: a name that answers
otherwise the next time gains nothing. Redirects are not followed. A certificate is held against the name, as ever.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.ip_network("64:ff9b::/96")
COMPATIBLE = ipaddress.ip_network("::/96")
SET_ASIDE = tuple(
    ipaddress.ip_network(one)
    for one in (
        "fec0::/10",  # site-local, given up in 2004; and so is the relay of 6to4
        "192.88.99.0/24",
        "3fff::/20",  # examples, newer than some Pythons
        "168.63.129.16/32",  # a virtual machine's host on Azure
    )
)
"""Not of the internet, though Python's `is_global` says so."""
MOST_WORDS = 300
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Refused(ValueError):
    """A URL or an address that nothing is sent to. `str()` says why."""


def public(address: Address) -> bool:
    """Whether an address is of the internet: not of this machine, this network, or one that is set aside. An address
    inside another (mapped, translated, tunnelled) is looked at, too."""
    if isinstance(address, ipaddress.IPv6Address):
        low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.ipv4_mapped is not None or address in NAT64:  # the way to it from here, as it is without IPv4
            return public(low)
        inner = [address.sixtofour, *(address.teredo or ()), low if address in COMPATIBLE else None]
        if any(one is not None and not public(one) for one in inner):
            return False
    if any(address in one for one in SET_ASIDE):
        return False
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
    """Raises Refused for an address that is not public, however it is written, and for this machine's own name. Other
    names' addresses are not known yet."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        raise Refused(f"{host} is this machine")
    try:
        address: Address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        if NUMBER.fullmatch(name.rpartition(".")[2]) is None:
            return
        try:  # what the C library takes for an address: 2130706433, 0x7f000001, 127.1
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except OSError as error:
            raise Refused(f"{host} is no address, and no name ends in a number") from error
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


def trusting(path: Path) -> ssl.SSLContext:
    """What OpenSSL trusts by itself, and the certificates of a PEM file as well. Raises OSError; ssl.SSLError, which is
    one, where there is none in it."""
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=path)
    return context


def why(error: Exception) -> str:
    """What went wrong with a request, on one line."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = error.certificate_error
        words = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else str(found)
        return f"the certificate of {error.host}:{error.port} is refused: {words}"[:MOST_WORDS]
    return (str(error).splitlines() or [""])[0][:MOST_WORDS] or type(error).__name__


def outbound(
    allowed: Collection[str], timeout_s: float, trust: ssl.SSLContext | None, resolver: AbstractResolver | None = None
) -> Any:
    """A client session for it; requests must not follow redirects. Call on an event loop. `trust`: whose certificates
    are taken; None: those that OpenSSL trusts by itself."""
    connector = aiohttp.TCPConnector(
        resolver=PublicResolver(allowed, resolver), use_dns_cache=False, force_close=True, family=socket.AF_UNSPEC,
        ssl=True if trust is None else trust,
    )  # fmt: skip
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=10, sock_read=min(timeout_s, 60))
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    )
