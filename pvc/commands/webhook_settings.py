"""Whether a webhook's settings may enter the log: its address, its filters, and the private networks it may be in."""

from __future__ import annotations

import ipaddress
import re
from typing import TypeAlias
from urllib.parse import urlsplit

from pvc.commands.base import find_node, find_vm, invalid
from pvc.commands.event_types import check_type
from pvc.errors import InvalidInput
from pvc.events.webhook import WebhookSettings
from pvc.projections.state import ClusterState

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC_PORTS = (443, 8443)
"""Of receivers on the Internet: nothing else speaks on these ports, so nothing else can be reached by a webhook."""

KINDS = ("vm", "node", "cluster", "access", "webhook")
"""What events are about."""

MIN_PREFIX = {4: 8, 6: 32}
"""A private network that is larger than this is no decision about a receiver."""

PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128")
)
"""What may be allowed at all. Link-local addresses, where clouds keep their secrets, may not."""

_ALLOWED = re.compile(
    r"^(?:\[(?P<six>[0-9a-fA-F:.]+(?:/\d{1,3})?)\]|(?P<four>[0-9.]+(?:/\d{1,2})?))(?::(?P<port>\d{1,5}))?$"
)


def check_settings(settings: WebhookSettings) -> None:
    """Return when the settings are acceptable. Raises InvalidInput naming the field at fault."""
    allowed = [parse_allowed(text) for text in settings.allow_private]
    _check_url(settings.url, private=bool(allowed))
    for pattern in settings.types:
        check_type(pattern, field="types")


def resolve_subjects(state: ClusterState, subjects: tuple[str, ...]) -> tuple[str, ...]:
    """Subjects with the ids of VMs in place of their names. Raises InvalidInput, NotFound."""
    return tuple(dict.fromkeys(_resolved(state, subject) for subject in subjects))


def parse_allowed(text: str) -> tuple[Network, int]:
    """A network and a port (0: the one in the URL) of `CIDR[:port]`; IPv6 in brackets where there is a port.

    Raises InvalidInput.
    """
    found = _ALLOWED.match(text)
    bare = text if found is None and text.count(":") > 1 else ""
    try:
        network = ipaddress.ip_network(bare or (found["six"] or found["four"] if found else text))
        port = int(found["port"] or 0) if found else 0
    except ValueError as error:
        raise _bad_network(text, str(error)) from None
    if port > 65_535:
        raise _bad_network(text, f"{port} is no port")
    if network.prefixlen < MIN_PREFIX[network.version] or not any(_within(network, private) for private in PRIVATE):
        raise _bad_network(text, "it is not inside of a private network")
    if network.network_address.is_loopback and not port:
        raise _bad_network(text, "every node has its own services there, so the port has to be named")
    return network, port


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _check_url(url: str, *, private: bool) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError as error:
        raise _bad_url(f"{url[:100]!r} is no URL: {error}", "such as https://hooks.example.com/pvc") from None
    if parts.scheme not in ("https", "http") or not host or not url.isascii() or re.search(r"[\s\x00-\x1f\\]", url):
        raise _bad_url(f"{url[:100]!r} is no address to post to", "such as https://hooks.example.com/pvc")
    if parts.username is not None or parts.password is not None:
        raise _bad_url("an address with a password in it would put it into the log", "the receiver has the signature")
    if parts.fragment:
        raise _bad_url("what comes after # is never sent", "leave it out")
    if parts.scheme == "http" and not private:
        raise _bad_url("without TLS anybody on the way reads and changes what is sent", "use https://")
    if not private and port not in PUBLIC_PORTS:
        ports = " or ".join(str(one) for one in PUBLIC_PORTS)
        raise _bad_url(
            f"port {port} is none of a public receiver", f"use {ports}, or --allow-private for a private one"
        )


def _resolved(state: ClusterState, subject: str) -> str:
    kind, slash, name = subject.partition("/")
    if kind not in KINDS or (slash and not name):
        raise invalid("subjects", f"{subject[:80]!r} is no subject", "such as vm/web01, node/hv1, or vm for all VMs")
    if not name:
        return kind
    if kind == "vm":
        return f"vm/{find_vm(state, name).id}"
    if kind == "node":
        return f"node/{find_node(state, name, field='subjects').name}"
    if kind == "webhook":
        return f"webhook/{state.webhook_names.get(name, name)}"
    return subject


def _bad_url(message: str, hint: str) -> InvalidInput:
    return invalid("url", message, hint, "webhook.bad_url")


def _bad_network(text: str, why: str) -> InvalidInput:
    hint = "such as 10.0.7.0/24, 10.0.7.5/32:8443 or [fd00:7::/64]:8443"
    return invalid("allow_private", f"{text[:80]!r} cannot be allowed: {why}", hint, "webhook.bad_network")
