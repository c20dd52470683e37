"""How many connections the gateway has open at once, and who has to go where there is no room for another.

The daemon keeps VMs as well: strangers must not use up its files. Of strangers those go first that have been there
longest, of the address that has most of them. Who has shown a token is known, and no stranger takes their place; only
where too many are known, the oldest connection goes of the principal that has most. So a flood costs those who make it
their own connections, with a token or without, and whoever comes with one in the middle of it still finds a place.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import resource
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pvc.clock import SystemClock
from pvc.gateway.budget import Budget

MAX_CONNECTIONS = 8_000
"""In all: the streams that a gateway serves, and as many requests again."""

MAX_STRANGERS = 2_000
"""Who have not shown a token yet; with TLS each has some 50 KB."""

MAX_STRANGERS_EACH = 1_000
"""Of one address: so many readers behind one proxy may come back at once after a gateway was restarted."""

COMING_AT_ONCE, COMING_A_SECOND = 1_000, 200.0
"""Connections from one address: all readers behind a proxy at once, and from then on more than good clients make, who
keep theirs. To begin with one costs a loop ten times as much as to turn it away, so a flood from one address does not
keep the others waiting."""

KEPT_FREE = 8
"""One place in so many is never of who is known: whoever comes needs one to show a token from, and some time there."""

MANY = 200
"""So many leave something behind when they go: with TLS some 10 MB."""

TURNED_AWAY_AT_ONCE = 100
"""Who have gone already, or find no room: some 20 us each."""

_PART_OF_FILES = 2
"""One in so many files may be a connection, where the process is given few."""

Address = tuple[Any, ...]


class Crowd:
    """The connections of one listening socket. Lives in one event loop."""

    def __init__(
        self,
        *,
        most: int = MAX_CONNECTIONS,
        strangers: int = MAX_STRANGERS,
        strangers_each: int = MAX_STRANGERS_EACH,
        coming: Budget | None = None,
    ) -> None:
        """`coming` says how often somebody may come from one address; None: at any rate."""
        self._most = most
        self._most_known = max(1, most - max(1, most // KEPT_FREE))
        self._most_strangers = strangers
        self._most_each = strangers_each
        self._coming = coming
        self._all: dict[Guest, None] = {}
        self._strangers: dict[str, OrderedDict[Guest, None]] = {}
        """By address, those who came first first."""
        self._count = 0
        self._known: dict[str, OrderedDict[Guest, None]] = {}
        """By principal, those who have shown it first first."""
        self._known_count = 0
        self._by_address: dict[Address, Guest] = {}
        self.thinned: Callable[[], None] = _nothing
        """Called when many have gone."""
        self._gone = 0
        self.sent_away = 0
        """How many had to go so far, or were not let in."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def strangers(self) -> int:
        """How many have not shown a token."""
        return self._count

    @property
    def known(self) -> int:
        """How many have."""
        return self._known_count

    def enter(self, guest: Guest, address: Address) -> bool:
        """Somebody has come. False where they come too often, or all who could make room are on their way out."""
        group = group_of(address)
        if self._coming is not None and self._coming.take(group) is None:
            self.sent_away += 1
            return False
        if len(self._all) >= self._most and not self._count:
            self.sent_away += 1
            return False
        guest.group, guest.address = group, address
        self._all[guest] = None
        self._by_address[address] = guest
        self._add_stranger(guest, full=len(self._all) > self._most)
        return True

    def tell(self, address: Address, whose: str | None, hang_up: Callable[[], None] | None = None) -> None:
        """Whoever comes from this address and port has just shown a token of this principal's; None: has asked for
        something and shown none. `hang_up` ends the connection, also where nobody reads from it."""
        guest = self._by_address.get(address)
        if guest is None or guest.sent_away:
            return
        guest.hang_up = hang_up
        if guest.whose == whose:
            return
        self._forget(guest)
        if whose is None:
            self._add_stranger(guest, full=False)
            return
        guest.whose = whose
        self._known.setdefault(whose, OrderedDict())[guest] = None
        self._known_count += 1
        if self._known_count > self._most_known:
            self._send_away(max(self._known.values(), key=len))

    def leave(self, guest: Guest) -> None:
        """The connection is closed."""
        self._all.pop(guest, None)
        self._forget(guest)
        guest.hang_up = None
        if self._by_address.get(guest.address) is guest:
            del self._by_address[guest.address]
        self._gone += 1
        if self._gone >= MANY:
            self._gone = 0
            self.thinned()

    def _add_stranger(self, guest: Guest, *, full: bool) -> None:
        if len(self._strangers.get(guest.group, ())) >= self._most_each:
            self._send_away(self._strangers[guest.group])
        elif full or self._count >= self._most_strangers:
            self._send_away(max(self._strangers.values(), key=len))
        self._strangers.setdefault(guest.group, OrderedDict())[guest] = None
        self._count += 1

    def _send_away(self, alike: OrderedDict[Guest, None]) -> None:
        """The oldest of these."""
        guest = next(iter(alike))
        self._forget(guest)
        guest.sent_away = True
        self.sent_away += 1
        with contextlib.suppress(OSError):
            guest.shutdown(socket.SHUT_RDWR)  # whoever reads from it or writes to it closes it then
        if guest.hang_up is not None:
            guest.hang_up()

    def _forget(self, guest: Guest) -> None:
        """Neither a stranger any more, nor known."""
        if guest.whose is not None:
            known = self._known[guest.whose]
            del known[guest]
            self._known_count -= 1
            if not known:
                del self._known[guest.whose]
            guest.whose = None
        same = self._strangers.get(guest.group)
        if same is not None and guest in same:
            del same[guest]
            self._count -= 1
            if not same:
                del self._strangers[guest.group]


def _nothing() -> None:
    """Nobody wants to know."""


class Guest(socket.socket):
    """One connection, which says when it is closed."""

    crowd: Crowd | None = None
    group = ""
    address: Address = ()
    whose: str | None = None
    """The principal that was shown last; None: a stranger."""
    sent_away = False
    hang_up: Callable[[], None] | None = None

    def has_gone(self) -> bool:
        """Whether the other side has hung up without a word: it costs a call to see that, and many times as much to
        begin with TLS."""
        self.setblocking(False)
        try:
            return not self.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close it, and leave."""
        if self.crowd is not None:
            self.crowd.leave(self)
        super().close()


class Door(socket.socket):
    """A listening socket that lets in no more than its crowd holds. What it gives is counted from the first byte on:
    a TLS handshake that never ends is a connection too."""

    crowd: Crowd | None = None
    backlog = 0

    def listen(self, backlog: int = 0) -> None:
        """With as long a queue as was asked for at first: who serves here takes `backlog` also for how many to accept
        at one time."""
        self.backlog = max(self.backlog, backlog)
        super().listen(self.backlog)

    def accept(self) -> tuple[socket.socket, Address]:
        """The next one who is let in, and has not gone again while it waited. Raises as a socket does, and
        BlockingIOError also when it has turned enough away for one turn of the loop."""
        for _ in range(TURNED_AWAY_AT_ONCE):
            number, address = self._accept()  # type: ignore[attr-defined]
            guest = Guest(self.family, self.type, self.proto, fileno=number)
            if not guest.has_gone() and (self.crowd is None or self.crowd.enter(guest, address)):
                guest.crowd = self.crowd
                return guest, address
            guest.close()
        raise BlockingIOError


def group_of(address: Address) -> str:
    """Who counts as one: an IPv4 address, or the /64 that an IPv6 address is in, which is one customer's."""
    return _group_of_host(str(address[0])) if address else ""


@functools.lru_cache(maxsize=4_096)
def _group_of_host(text: str) -> str:
    host = text.partition("%")[0]
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(parsed, "ipv4_mapped", None)
    if parsed.version == 4 or mapped is not None:
        return str(mapped or parsed)
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False))


def crowd_for_this_process() -> Crowd:
    """One that leaves the daemon's other work files enough."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft // _PART_OF_FILES
    most = max(16, min(MAX_CONNECTIONS, room))
    return Crowd(
        most=most,
        strangers=min(MAX_STRANGERS, most // 2),
        strangers_each=min(MAX_STRANGERS_EACH, most // 4),
        coming=Budget(SystemClock(), burst=COMING_AT_ONCE, every_s=1 / COMING_A_SECOND),
    )
