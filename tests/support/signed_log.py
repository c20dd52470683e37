"""A log with keys and checkpoints as a cluster writes it, and what an attacker makes of it."""

from __future__ import annotations

import hashlib

from pvc.events.cluster import ClusterInitialised, LogCheckpointed, SigningKeyAdded, SigningKeyRetired
from pvc.events.node import NodeJoined
from pvc.events.record import EMPTY, Actor, CommandRef, Entry, Head, Record, seal, unseal
from pvc.events.registry import Event, encode_event
from pvc.proof.merkle import Frontier, leaf_hash
from tests.support.keys import CLUSTER, TestKey


class SignedLog:
    """Grows as a cluster's log does: `SignedLog().begin()`, then records and checkpoints."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.head: Head = EMPTY
        self.tree = Frontier()
        self.notes: list[str] = []

    def add(self, *events: Event) -> Entry:
        position = self.head.position + 1
        entry = seal(
            Record(
                position=position,
                prev=self.head.hash,
                id=f"R{position:025d}",
                time_us=position * 1_000,
                actor=Actor(principal="admin", method="token"),
                origin="hv1",
                command=CommandRef(id=f"C{position}", name="test.write"),
                events=tuple(encode_event(event) for event in events),
            )
        )
        self.records.append(entry.data)
        self.head = entry.head
        self.tree.append(leaf_hash(entry.data))
        return entry

    def begin(self, key: TestKey) -> SignedLog:
        self.add(ClusterInitialised(cluster=CLUSTER, name="main"))
        self.add_key(key)
        return self

    def add_key(self, key: TestKey, node: str = "hv1") -> None:
        self.add(SigningKeyAdded(node=node, key_id=key.public.id, key=str(key.public)))

    def retire(self, key: TestKey, node: str = "hv1") -> None:
        self.add(SigningKeyRetired(node=node, key_id=key.public.id, reason="rotated"))

    def live(self, records: int) -> None:
        for _ in range(records):
            self.add(NodeJoined(node=f"hv{self.head.position}"))

    def checkpoint(self, key: TestKey) -> str:
        size, root = self.tree.size, self.tree.root()
        note = key.sign(size, root)
        self.notes.append(note)
        self.add(LogCheckpointed(node="hv1", epoch=1, size=size, root=root.hex(), key_id=key.public.id, note=note))
        return note

    def rewritten(self, position: int, *, chained: bool) -> list[bytes]:
        """The records with one changed; with all that follow chained anew, as somebody would who knows the format."""
        records = list(self.records)
        changed = unseal(records[position - 1]).record
        records[position - 1] = _encoded(changed, actor=Actor(principal="mallory", method="token"))
        for number in range(position, len(records)) if chained else ():
            before = hashlib.sha256(records[number - 1]).digest()
            records[number] = _encoded(unseal(records[number]).record, prev=before)
        return records


def _encoded(record: Record, **changes: object) -> bytes:
    from msgspec.structs import replace

    return seal(replace(record, **changes)).data
