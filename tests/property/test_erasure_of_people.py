"""Erasing anybody out of any log: no byte of it changes, the erased are read by nobody, all others as before."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pvc.clock import SystemClock
from pvc.commands.audit import ErasePerson, erase_person
from pvc.commands.base import Context
from pvc.events.cluster import MaintenanceSet
from pvc.events.record import Actor, CommandRef, Entry, Record, seal, unseal
from pvc.events.registry import Event, encode_event
from pvc.events.sealed import erased_name, parse_sealed
from pvc.keyring.base import new_key
from pvc.keyring.cipher import open_sealed, seal_address, seal_name
from pvc.keyring.memory import MemoryKeyring
from pvc.projections.fold import fold
from pvc.projections.snapshot import restore, snapshot
from pvc.projections.state import ClusterState
from pvc.proof.merkle import Frontier, leaf_hash
from pvc.runtime.people import People
from pvc.runtime.world import World
from tests.support.core import ADMIN, TinyCluster

NAMES = st.from_regex(r"\A[a-z]{2,9}\.[a-z]{2,30}\Z")
"""With a dot, which stands in no sealed text, so that none is found by chance."""
ADDRESSES = st.one_of(st.ip_addresses().map(str), st.just(""))


class Done(NamedTuple):
    """Somebody did something."""

    name: str
    address: str


DEEDS = st.lists(st.builds(Done, NAMES, ADDRESSES), min_size=1, max_size=12)


class Log:
    """Records by people, and a state that follows them."""

    def __init__(self) -> None:
        cluster = TinyCluster()
        cluster.do("cluster.init", name="main")
        self.world = World(cluster.state)
        self.entries = list(cluster.entries)
        self.keyring = MemoryKeyring()
        self.people = self.reader()

    def reader(self) -> People:
        return People(self.keyring, self.world, SystemClock(), random.Random(len(self.entries)))

    async def act(self, done: Done) -> Entry:
        actor = await self.people.seal_actor(Actor(principal=done.name, method="token", address=done.address))
        return self.append(actor, MaintenanceSet(on=bool(len(self.entries) % 2), reason=""))

    async def erase(self, name: str) -> str:
        """Returns the key's id."""
        sealed = await self.people.find(name)
        command = msgspec.structs.replace(ErasePerson(principal="x"), principal=sealed)
        [event] = erase_person(self.world.state, command, Context(command_id="c", time_us=1, actor=ADMIN)).events
        self.people.note(self.append(ADMIN, event), (event,))
        found = parse_sealed(sealed)
        assert found is not None
        await self.keyring.destroy(found.key)
        return found.key

    def append(self, actor: Actor, event: Event) -> Entry:
        head = self.world.state.head
        entry = seal(
            Record(
                position=head.position + 1,
                prev=head.hash,
                id=f"R{head.position + 1:025d}",
                time_us=head.position,
                actor=actor,
                origin="hv1",
                command=CommandRef(id=f"c{head.position}", name="test"),
                events=(encode_event(event),),
            )
        )
        self.world.apply(entry)
        self.entries.append(entry)
        return entry

    def root(self, size: int) -> bytes:
        frontier = Frontier()
        for entry in self.entries[:size]:
            frontier.append(leaf_hash(entry.data))
        return frontier.root()


async def told(people: People, entries: list[Entry]) -> list[dict[str, Any]]:
    body = json.dumps([msgspec.to_builtins(unseal(entry.data).record.actor) for entry in entries]).encode()
    actors: list[dict[str, Any]] = json.loads(await people.readable(body))
    return actors


@given(DEEDS, st.data())
def test_an_erasure_changes_no_byte_and_only_what_is_read_of_the_erased(deeds: list[Done], data: Any) -> None:
    names = sorted({done.name for done in deeds})
    erased = data.draw(st.sets(st.sampled_from(names)))

    async def scenario() -> None:
        log = Log()
        written = [await log.act(done) for done in deeds]
        size = len(log.entries)
        before, root = [entry.data for entry in log.entries], log.root(size)
        assert [(each["principal"], each.get("address", "")) for each in await told(log.reader(), written)] == deeds
        keys = {name: await log.erase(name) for name in sorted(erased)}

        assert [entry.data for entry in log.entries[:size]] == before and log.root(size) == root
        replayed = ClusterState()
        for entry in log.entries:
            fold(replayed, unseal(entry.data))
        assert replayed.state_hash() == log.world.state.state_hash()
        assert restore(snapshot(replayed)).state_hash() == replayed.state_hash()

        everything = b"".join(entry.data for entry in log.entries) + snapshot(log.world.state)
        for done in deeds:
            assert done.name.encode() not in everything
            assert not done.address or len(done.address) < 4 or done.address.encode() not in everything

        for reader in (log.people, log.reader()):
            for done, shown in zip(deeds, await told(reader, written), strict=True):
                if done.name in erased:
                    assert shown["principal"] == erased_name(keys[done.name])
                    assert shown.get("address", "") == ("erased" if done.address else "")
                else:
                    assert (shown["principal"], shown.get("address", "")) == done

        # Who acts again is somebody new.
        for done in deeds:
            again = await log.act(done)
            [shown] = await told(log.reader(), [again])
            assert shown["principal"] == done.name
            sealed = parse_sealed(again.record.actor.principal)
            assert sealed is not None and sealed.key not in keys.values()

    asyncio.run(scenario())


@given(st.text(min_size=1, max_size=80), st.text(max_size=60), st.integers(0, 2**32), st.data())
def test_only_the_very_key_opens_and_only_the_very_text(name: str, address: str, seed: int, data: Any) -> None:
    try:
        name.encode(), address.encode()
    except UnicodeEncodeError:
        return
    rng = random.Random(seed)
    key, other = new_key(name, rng), new_key(name, rng)
    for text, meant in ((seal_name(key), name), (seal_address(key, address, rng), address)):
        sealed = parse_sealed(text)
        assert sealed is not None and sealed.key == key.id
        assert open_sealed(key, sealed) == meant
        assert open_sealed(other, sealed) is None
        at = data.draw(st.integers(0, len(sealed.box) - 1))
        flipped = bytes(byte ^ (i == at) for i, byte in enumerate(sealed.box))
        assert open_sealed(key, sealed._replace(box=flipped)) is None
        assert open_sealed(key, sealed._replace(box=sealed.box[:at])) is None
        assert open_sealed(key, sealed._replace(kind="address" if sealed.kind == "person" else "person")) is None
