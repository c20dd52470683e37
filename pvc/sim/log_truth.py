"""The log as it was committed by the simulated ZooKeeper, whatever any client was told; and what must hold of it.

It is read off the ensemble's transactions in the moment in which a majority has them, and knows the layout by its
paths alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from pvc.errors import PvcError
from pvc.events.record import EMPTY, Entry, Head, check_follows, unseal
from pvc.sim.zookeeper_server import Txn
from pvc.sim.zookeeper_tree import Node

_SEGMENT = re.compile(r".*/log/s/(\d{20})")
_ENTRY = re.compile(r".*/log/s/(\d{20})/(.*)")
_MANIFEST = re.compile(r".*/log/m/(\d{20})")
_NAME = re.compile(r"e-(\d{10})")


class LogTruth:
    """Every record in its place, once, and chained; the first thing that does not hold is told to `breaks`."""

    def __init__(self, breaks: Callable[[str], None], committed: Callable[[Entry], None] = lambda entry: None) -> None:
        self.entries: list[Entry] = []
        self.lost: dict[bytes, Entry] = {}
        """Records that were committed and are no more, by their hash."""
        self._batches: dict[bytes, list[bytes]] = {}
        """Hash of a record -> those of all that are to be appended with it."""
        self._places: dict[bytes, int] = {}
        """Hash of a record -> its position."""
        self._breaks = breaks
        self._told = committed
        self._archived: dict[int, None] = {}
        """Segments that have a manifest: only their records may leave ZooKeeper."""

    @property
    def head(self) -> Head:
        """The end of the log."""
        return self.entries[-1].head if self.entries else EMPTY

    def holds(self, entry: Entry) -> bool:
        """Whether this very record is in the log."""
        return entry.hash in self._places

    def same_at(self, head: Head) -> bool:
        """Whether the log has this record at that position."""
        if head.position == 0:
            return True
        return head.position <= len(self.entries) and self.entries[head.position - 1].hash == head.hash

    def begins(self, entries: Sequence[Entry]) -> None:
        """Somebody is about to append these, all or none."""
        hashes = [entry.hash for entry in entries]
        self._batches.update(dict.fromkeys(hashes, hashes))

    def committed(self, txn: Txn) -> None:
        """A transaction is on the disks of a majority."""
        appended: list[Entry] = []
        for path, node in txn.steps:
            if match := _MANIFEST.fullmatch(path):
                self._archived[int(match[1])] = None
            elif node is None and (match := _SEGMENT.fullmatch(path)) and int(match[1]) not in self._archived:
                self._breaks(f"segment {int(match[1])} was deleted, and has no manifest")
            elif (match := _ENTRY.fullmatch(path)) and (entry := self._entry(int(match[1]), match[2], node)):
                appended.append(entry)
        for path, node in txn.steps:
            if node is not None and node.version and (match := _SEGMENT.fullmatch(path)) and appended:
                self._check_head(node)
        hashes = [entry.hash for entry in appended]
        if hashes and self._batches.get(hashes[0], hashes) != hashes:
            self._breaks(f"only a part of a batch is in the log, from record {appended[0].position} on")
        for entry in appended:
            self._told(entry)

    def rewind(self, lost: Sequence[Txn]) -> None:
        """These transactions are no more."""
        gone = {node.data for txn in lost for path, node in txn.steps if node is not None and _ENTRY.fullmatch(path)}
        for entry in self.entries:
            if entry.data in gone:
                self.lost[entry.hash] = entry
                del self._places[entry.hash]
        self.entries = [entry for entry in self.entries if entry.data not in gone]

    def _entry(self, first: int, name: str, node: Node | None) -> Entry | None:
        number = _NAME.fullmatch(name)
        if number is None:
            self._breaks(f"a stranger in the log: {name}")
            return None
        position = first + int(number[1])
        if node is None:
            if first not in self._archived:
                self._breaks(f"record {position} was deleted, and its segment has no manifest")
            return None
        if position <= self.head.position:
            self._breaks(f"record {position} was changed, the log is at {self.head.position}")
            return None
        try:
            entry = unseal(node.data)
            if entry.position != position:
                self._breaks(f"record {entry.position} was numbered {position}")
            check_follows(entry, self.head)
        except PvcError as error:
            self._breaks(f"at position {position}: {error.message}")
            return None
        self.entries.append(entry)
        self._places[entry.hash] = position
        self.lost.pop(entry.hash, None)  # who has not been answered may send the same again
        return entry

    def _check_head(self, node: Node) -> None:
        said = msgspec.json.decode(node.data)["next"] - 1
        if said != self.head.position:
            self._breaks(f"the head says {said}, the last record is {self.head.position}")
