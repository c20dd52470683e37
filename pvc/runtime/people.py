"""People's names and addresses on their way into the log, and out of it again for a reader.

What goes in is sealed with the person's own key, what is shown is opened with it; the pure core, the log and all that
is made of it have the sealed texts alone. Keys are kept here in memory, and let go of when the log says that a person
is to be erased.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from pvc.clock import Clock, Rng
from pvc.errors import PvcError, Unavailable
from pvc.events.access import ErasureRequested
from pvc.events.record import Actor, Entry
from pvc.events.registry import Event
from pvc.events.sealed import (
    SEALED,
    beginning_of,
    erased_name,
    hidden_name,
    key_of_pseudonym,
    parse_sealed,
)
from pvc.keyring.base import IdTaken, Keyring, PersonKey, new_key
from pvc.keyring.cipher import open_sealed, seal_address, seal_name
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

OF_PEOPLE = ("token", "oidc")
"""How a person, or a service in a person's stead, proves itself; root's socket and nodes are nobody's name."""

READ_DEADLINE_S = 1.0
"""Who asks what happened shall not wait long for names, when the keys cannot be had."""

AGAIN_S = 5.0
"""After keys could not be had, so that not every reader in an outage waits out the deadline."""

TRIES = 10
"""Draws of a key's id: with a thousand people one is taken once in four million draws."""

MAX_OPENED = 20_000
"""Texts remembered opened, some 200 bytes each: opening one costs 20 us, and pages are asked for again."""

GONE_S = 60.0
"""So long a key that was not there is taken to be gone without another look."""

MAX_GONE = 10_000
"""Ids remembered of which there is no key; what somebody wrote into a description must not fill the memory."""

_SEALED = re.compile(SEALED.pattern.encode())

Known = Callable[[str], Awaitable[Iterable[str]]]
"""The actors in the log that begin like this."""


class People:
    """Seals and opens for one daemon. Lives in one event loop."""

    def __init__(self, keyring: Keyring, world: World, clock: Clock, rng: Rng) -> None:
        self.keyring = keyring
        self._world = world
        self.clock = clock
        self._rng = rng
        self._keys: dict[str, PersonKey] = {}
        self._ids: dict[str, str] = {}
        """Principal -> id of the key in memory."""
        self._opened: dict[str, str] = {}
        """Sealed text -> what it says; nothing of a key that was let go of."""
        self._gone: dict[str, float] = {}
        """Ids of which the keyring has no key -> when to ask again: one that was lost may be restored."""
        self._again_s = float("-inf")
        self._changes = 0
        """Keys that came or went."""

    @property
    def generation(self) -> int:
        """Rises with each key that comes or goes: what was opened before may read otherwise now."""
        return self._changes + len(self._world.state.erasures)

    async def seal_actor(self, actor: Actor) -> Actor:
        """An actor as it goes into a record. Raises Unavailable when a key is needed that cannot be had."""
        if actor.method not in OF_PEOPLE:
            return actor
        key, principal = await self._key_for(actor.principal)
        address = seal_address(key, actor.address, self._rng) if actor.address else ""
        return msgspec.structs.replace(actor, principal=principal, address=address)

    async def seal(self, principal: str) -> str:
        """A person's name as it goes into an event. Raises Unavailable."""
        _, sealed = await self._key_for(principal)
        return sealed

    async def keyed_hash(self, principal: str, text: str) -> str:
        """A hash of something about a person, which nobody can guess the text of once the key is destroyed. Raises
        Unavailable."""
        key, _ = await self._key_for(principal)
        return hmac.new(key.secret, f"about\0{text}".encode(), hashlib.sha256).hexdigest()

    async def find(self, principal: str) -> str:
        """The name as it stands in records now; empty where the person has no key. Raises Unavailable."""
        # Not from memory: another gateway may have erased the person, and met them anew.
        key = await self.keyring.find(principal)
        if key is None or key.id in self._world.state.erasures:
            return ""
        self._remember(key)
        return seal_name(key)

    async def keep(self, key: PersonKey) -> bool:
        """Have a key again that was lost; False where the person, or the id, has another one. Raises Unavailable."""
        try:
            kept = await self.keyring.make(key)
        except IdTaken:
            return False
        self._gone.pop(key.id, None)
        return kept == key

    async def actors(self, asked: str, known: Known) -> tuple[str, ...]:
        """The actors in records that are meant by a name, a pseudonym or what is stored. Raises Unavailable."""
        if asked == "root" or "/" in asked or parse_sealed(asked) is not None:
            return (asked,)  # nobody's name, or sealed already
        pseudonym = key_of_pseudonym(asked)
        found = list(await known(beginning_of(pseudonym))) if pseudonym else []
        try:
            sealed = await self.find(asked)
        except Unavailable:
            held = self._held(asked)
            if held is None:
                raise
            sealed = seal_name(held)
        return tuple(dict.fromkeys([asked, *found, *([sealed] if sealed else [])]))

    def names_of(self, principal: str) -> frozenset[str] | None:
        """All that a reader may write for an actor of the log: what is stored, the name, the pseudonyms; None where
        the name is not at hand. The other way round from `actors`, which can fetch it."""
        sealed = parse_sealed(principal)
        if sealed is None:
            return frozenset((principal,))
        shown = self._shown(principal)
        if shown == hidden_name(sealed.key):
            return None
        return frozenset((principal, shown, erased_name(sealed.key), hidden_name(sealed.key)))

    async def readable(self, body: bytes, quoted: Callable[[], str] | None = None) -> bytes:
        """JSON with every sealed text in it opened, or replaced by a pseudonym; what is in `quoted` stays as it is.
        Never fails."""
        if b"person~" not in body and b"address~" not in body:
            return body
        there = quoted() if quoted is not None else ""
        opened = [found for found in _SEALED.finditer(body) if found[0].decode() not in there]
        await self._learn({found[2].decode() for found in opened})
        texts = {found[0]: msgspec.json.encode(self._shown(found[0].decode()))[1:-1] for found in opened}
        return _SEALED.sub(lambda found: texts.get(found[0], found[0]), body)

    def forget_erased(self) -> None:
        """Let go of all keys that are erased by now."""
        for key_id in self._keys.keys() & self._world.state.erasures.keys():
            self.forget(key_id)

    def note(self, entry: Entry, events: tuple[Event, ...]) -> None:
        """Let go of the keys of those who are to be erased. To be called after each record."""
        for event in events:
            if isinstance(event, ErasureRequested):
                self.forget(event.key)

    def forget(self, key_id: str) -> None:
        """Let go of a key."""
        self._changes += 1
        of_it = f"~{key_id}~"
        self._opened = {text: opened for text, opened in self._opened.items() if of_it not in text}
        key = self._keys.pop(key_id, None)
        if key is not None and self._ids.get(key.principal) == key_id:
            del self._ids[key.principal]

    async def _key_for(self, principal: str) -> tuple[PersonKey, str]:
        """The key of who acts, and the name sealed with it; who was erased acts under the pseudonym, with a new one."""
        sealed = parse_sealed(principal)
        if sealed is not None:
            held = await self._by_id(sealed.key)
            if held is not None:
                return held, principal
            principal = erased_name(sealed.key)
        key = await self._of(principal)
        return key, seal_name(key)

    async def _by_id(self, key_id: str) -> PersonKey | None:
        if key_id in self._world.state.erasures:
            return None
        if key_id not in self._keys:
            self._take_note({key_id}, await self.keyring.read([key_id]))
        return self._keys.get(key_id)

    def _held(self, principal: str) -> PersonKey | None:
        key = self._keys.get(self._ids.get(principal, ""))
        return key if key is not None and key.id not in self._world.state.erasures else None

    async def _of(self, principal: str) -> PersonKey:
        """The person's key, made if there is none."""
        held = self._held(principal)
        for _ in range(TRIES):
            if held is not None:
                break
            fresh = new_key(principal, self._rng)
            if fresh.id in self._world.state.erasures:
                continue
            try:
                held = await self.keyring.make(fresh)
            except IdTaken:
                continue
            if held.id in self._world.state.erasures:
                # Its end is in the log already; whoever destroys it first, it makes room for a new one.
                await self.keyring.destroy(held.id)
                held = None
        assert held is not None, "ids are drawn anew until one is free"
        self._remember(held)
        return held

    def _remember(self, key: PersonKey) -> None:
        if key.id not in self._keys:
            self._changes += 1
        self._keys[key.id] = key
        self._ids[key.principal] = key.id
        self._gone.pop(key.id, None)

    async def _learn(self, ids: set[str]) -> None:
        now = self.clock.monotonic()
        unknown = ids - self._keys.keys() - self._world.state.erasures.keys()
        unknown = {key_id for key_id in unknown if self._gone.get(key_id, now) <= now}
        if not unknown or self.clock.monotonic() < self._again_s:
            return
        try:
            async with asyncio.timeout(READ_DEADLINE_S):
                found = await self.keyring.read(unknown)
        except (PvcError, TimeoutError) as error:
            self._again_s = self.clock.monotonic() + AGAIN_S
            reason = error.message if isinstance(error, PvcError) else f"no answer within {READ_DEADLINE_S:g} s"
            logger.warning("people: names stay sealed for now reason=%s", reason)
            return
        self._take_note(unknown, found)

    def _take_note(self, asked: set[str], found: dict[str, PersonKey]) -> None:
        if len(self._gone) > MAX_GONE:
            self._gone.clear()
        for key_id in asked:
            # The log may have been folded on while the answer was under way.
            if key_id in found and key_id not in self._world.state.erasures:
                self._remember(found[key_id])
            elif key_id not in found:
                self._gone[key_id] = self.clock.monotonic() + GONE_S

    def _shown(self, text: str) -> str:
        known = self._opened.get(text)
        if known is not None and text.split("~", 2)[1] not in self._world.state.erasures:
            return known
        sealed = parse_sealed(text)
        if sealed is None:
            return text
        key = self._keys.get(sealed.key)
        erased = sealed.key in self._world.state.erasures or sealed.key in self._gone
        opened = open_sealed(key, sealed) if key is not None and not erased else None
        if opened is not None:
            if len(self._opened) >= MAX_OPENED:
                self._opened.clear()
            self._opened[text] = opened
            return opened
        if sealed.kind == "person":
            return erased_name(sealed.key) if erased else hidden_name(sealed.key)
        return "erased" if erased else "sealed"
