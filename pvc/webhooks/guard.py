"""Where a webhook may connect to: an address that was resolved once, all of whose kind were checked, and that one.

Whoever names an address could otherwise have a coordinator talk to what only a coordinator reaches: its own services,
the machines' power switches, a cloud's secrets. A name is resolved once for a connection, every address that it has is
checked, and the connection goes to an address that was checked, so a name that changes its mind gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple, TypeAlias

from pvc.errors import DriverError
from pvc.thread_pool import DaemonPool

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVERS = 8
"""Names that are looked up at once."""

RESOLVE_S = 5.0
"""For looking up one name."""

MAX_ADDRESSES = 16
"""Of one name; who has more wants something else."""

KNOWN_S = 60.0
"""How long the addresses of the cluster's own names are remembered: there are many, and they stay."""

MAX_KNOWN = 1_000

_SPECIAL: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by carriers"),
    ("127.0.0.0/8", "this machine"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "for protocols"),
    ("192.0.2.0/24", "for documentation"),
    ("192.31.196.0/24", "for AS112"),
    ("192.52.193.0/24", "for AMT"),
    ("192.88.99.0/24", "6to4 relays"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "for AS112"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::1/128", "this machine"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
    ("64:ff9b::/96", "an IPv4 address behind NAT64"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
    ("2001::/23", "for protocols, Teredo among them"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "an IPv4 address behind 6to4"),
    ("2620:4f:8000::/48", "for AS112"),
    ("3fff::/20", "for documentation"),
    ("5f00::/16", "for segment routing"),
)
_NETWORKS = tuple((ipaddress.ip_network(text), what) for text, what in _SPECIAL)
_GLOBAL_SIX = ipaddress.IPv6Network("2000::/3")
"""All that is routed on the Internet. What is outside of it is special, known here or not."""

_NEVER = frozenset(ipaddress.ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254"))
"""Where clouds keep their machines' secrets, in the midst of what may be allowed."""

_LOOPBACK = ipaddress.ip_address("127.0.0.1")
"""Stands for all addresses of this machine with itself."""

_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


class Own(NamedTuple):
    """Something of the cluster itself."""

    host: str
    """An address or a name."""
    port: int = 0
    """0: all of it."""
    what: str = "a part of the cluster"


class Refused(DriverError):
    """Not an address that this webhook may connect to. Nothing was sent."""

    status = 502
    default_code = "webhook.address_refused"


_resolvers = DaemonPool("resolver", RESOLVERS)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""A name and a port -> addresses. Raises OSError."""


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver, in threads of its own: it cannot be hurried, and the loop's others have work to do."""
    async with asyncio.timeout(RESOLVE_S):
        found = await _resolvers.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def special(address: Address) -> str:
    """Why an address is none of the Internet's; empty where it is one."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        return special(mapped)
    for network, what in _NETWORKS:
        if address.version == network.version and address in network:
            return what
    if isinstance(address, ipaddress.IPv6Address):
        if address not in _GLOBAL_SIX:
            return "not of the Internet"
        if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
            return "an IPv4 address behind ISATAP"
    return ""


def canonical(text: str) -> Address:
    """An address without disguise: IPv4 inside of IPv6 is IPv4, and no zone. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_local(address: Address) -> bool:
    """Whether this machine has the address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


class Guard:
    """Tells where to connect to. `own` gives what the cluster consists of, now."""

    def __init__(
        self,
        own: Callable[[], Collection[Own]],
        *,
        resolve: Resolve = resolve_by_system,
        is_local: Callable[[Address], bool] = is_local,
    ) -> None:
        self._own = own
        self._known: dict[str, tuple[float, list[Address]]] = {}
        """Names of the cluster's own -> until when they are known, and their addresses."""
        self._resolve = resolve
        self._is_local = is_local

    async def addresses(
        self, host: str, port: int, allowed: Collection[tuple[Network, int]], *, tls: bool
    ) -> list[str]:
        """The addresses of a receiver, all of which it may have. Raises Refused, or OSError where there are none."""
        try:
            found = [canonical(text) for text in await self._resolve(host, port)]
        except TimeoutError:
            raise OSError(f"{host} was not resolved within {RESOLVE_S:g} s") from None
        except (UnicodeError, ValueError) as error:
            raise Refused(f"{host[:100]!r} has no address that can be used: {error}") from error
        if not found:
            raise OSError(f"{host} has no address")
        if len(found) > MAX_ADDRESSES:
            raise Refused(f"{host} has {len(found)} addresses, more than {MAX_ADDRESSES}")
        own = await self._own_addresses()
        for address in found:
            why = self._why_not(address, port, allowed, own, tls=tls)
            if why:
                named = f"{host} is {address}: " if host != str(address) else ""
                raise Refused(
                    f"{named}{address} port {port} may not be connected to: {why}",
                    hint="a private receiver needs --allow-private; the cluster's own addresses are never allowed",
                )
        return [str(address) for address in found]

    def _why_not(
        self,
        address: Address,
        port: int,
        allowed: Collection[tuple[Network, int]],
        own: dict[Address, dict[int, str]],
        *,
        tls: bool,
    ) -> str:
        ports = own.get(_LOOPBACK if address.is_loopback else address, {})
        if 0 in ports or port in ports:
            return f"it is {ports.get(0) or ports[port]}"
        if address in _NEVER:
            return "clouds keep their machines' secrets there"
        if not address.is_loopback and self._is_local(address):
            return "it is this node's own"
        inside = any(
            address.version == network.version and address in network and wanted in (0, port)
            for network, wanted in allowed
        )
        what = special(address)
        if what and not inside:
            return f"it is {what}"
        if not tls and not inside:
            return "without TLS only what is allowed by --allow-private"
        return ""

    async def _own_addresses(self) -> dict[Address, dict[int, str]]:
        known: dict[Address, dict[int, str]] = {}
        names = list(dict.fromkeys(self._own()))
        for one, addresses in zip(names, await asyncio.gather(*(self._of(one) for one in names)), strict=True):
            for address in addresses:
                if not address.is_loopback:
                    known.setdefault(address, {})[0] = one.what
                elif one.port:  # every node's: what listens there is told by its port, on each of these addresses
                    known.setdefault(_LOOPBACK, {})[one.port] = one.what
        return known

    async def _of(self, own: Own) -> list[Address]:
        try:
            return [canonical(own.host)]
        except ValueError:
            pass
        known = self._known.get(own.host)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        try:
            found = [canonical(text) for text in await self._resolve(own.host, own.port)]
        except (OSError, ValueError, UnicodeError, TimeoutError):
            found = known[1] if known is not None else []  # what was so is to be shunned until it is known otherwise
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        self._known[own.host] = (time.monotonic() + KNOWN_S, found)
        return found
