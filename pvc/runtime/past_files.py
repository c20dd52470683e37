"""The stored states of the past: one file for every so many records, so that no past state needs a long replay.

Disposable like the newest snapshot: a file that is damaged, of another version of the fold or of another log is thrown
away, and made anew by whoever next has to replay across its position. Blocking; used from threads.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import zlib
from bisect import bisect_right, insort
from pathlib import Path

from pvc.errors import PvcError
from pvc.files import replace_file
from pvc.projections.snapshot import PROJECTION_VERSION, StaleSnapshot, restore
from pvc.projections.state import ClusterState

logger = logging.getLogger(__name__)

SPACING = 4_096
"""Records between two stored states: a segment's worth. Replaying so many takes some 50 ms of processor, and reading
a state of 10,000 VMs some 80 ms, so that any past state is within 200 ms; with twice as many it would not be. A million
records then have 244 files: 7 MB in all with 1,000 VMs, 70 MB with 10,000."""

MAX_BYTES = 256 * 1024 * 1024
"""What all stored states may take on the disk: 30 million records with 1,000 VMs, 4 million with 10,000. Past that they
are thinned where they stand closest, so that they stay evenly spread and all of the past takes a little longer."""

_DIGEST_BYTES = 32
_LEVEL = 1
"""Of zlib: three quarters of what the slowest level saves, for a tenth of its time."""


class PastFiles:
    """The stored states in one directory, for one process; whoever comes from another thread waits its turn."""

    def __init__(self, directory: Path, *, spacing: int = SPACING, max_bytes: int = MAX_BYTES) -> None:
        self._directory = directory
        self.spacing = spacing
        self._max_bytes = max_bytes
        self._sizes: dict[int, int] = {}
        self._positions: list[int] = []
        self._opened = False
        self._turn = threading.RLock()
        self.generation = 0
        """Grows when all that was stored was found not to be trusted."""

    @property
    def size_bytes(self) -> int:
        """What all of them take on the disk."""
        return sum(self._sizes.values())

    def positions(self) -> list[int]:
        """Where there is a stored state, in order."""
        with self._turn:
            self._open()
            return self._positions.copy()

    def wants(self, position: int) -> bool:
        """Whether a state of this position would close a gap: there is none close before it, nor close after."""
        with self._turn:
            self._open()
            at = bisect_right(self._positions, position)
            before = self._positions[at - 1] if at else 0
            after = self._positions[at] if at < len(self._positions) else position + self.spacing
            return position - before >= self.spacing // 2 and after - position >= self.spacing // 2

    def nearest(self, position: int) -> ClusterState | None:
        """The last stored state up to this position; None when there is none that can be used."""
        with self._turn:
            self._open()
            while at := bisect_right(self._positions, position):
                found = self._positions[at - 1]
                try:
                    return self._read(found)
                except (OSError, PvcError, zlib.error) as error:
                    logger.warning(
                        "past state: not usable, made anew when asked for position=%d error=%s", found, error
                    )
                    self.drop(found)
            return None

    def save(self, position: int, data: bytes) -> None:
        """Store what `snapshot_to_read` made of the state at this position. A full disk is only worth a warning."""
        with self._turn:
            self._open()
            packed = zlib.compress(data, _LEVEL)
            try:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                replace_file(self._path(position), hashlib.sha256(packed).digest() + packed, mode=0o600)
            except OSError as error:
                logger.warning("past state: not stored position=%d error=%s", position, error)
                return
            if position not in self._sizes:
                insort(self._positions, position)
            self._sizes[position] = len(packed) + _DIGEST_BYTES
            while self.size_bytes > self._max_bytes and len(self._positions) > 1:
                self.drop(self._least_missed())

    def drop(self, position: int) -> None:
        """Throw one away."""
        with self._turn:
            self._positions.remove(position)
            del self._sizes[position]
            try:
                self._path(position).unlink(missing_ok=True)
            except OSError as error:
                logger.warning("past state: not removed position=%d error=%s", position, error)

    def discard(self) -> None:
        """Throw all of them away: the states that they were made from are not to be trusted."""
        with self._turn:
            self._open()
            self.generation += 1
            for position in self._positions.copy():
                self.drop(position)

    def _open(self) -> None:
        """Learn what there is; files of another version of the fold are of no use. What cannot be looked at, or not
        removed, is only worth a warning."""
        if self._opened:
            return
        self._opened = True
        try:
            paths = list(self._directory.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("past state: the stored ones cannot be looked at error=%s", error)
            return
        for path in paths:
            name = re.fullmatch(r"(\d+)-v(\d+)\.snap", path.name)
            try:
                if name is None or int(name[2]) != PROJECTION_VERSION:
                    path.unlink(missing_ok=True)
                else:
                    self._sizes[int(name[1])] = path.stat().st_size
            except OSError as error:
                logger.warning("past state: passed over path=%s error=%s", path, error)
        self._positions = sorted(self._sizes)

    def _read(self, position: int) -> ClusterState:
        content = self._path(position).read_bytes()
        digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(packed).digest() != digest:
            raise StaleSnapshot("its checksum is wrong")
        state = restore(zlib.decompress(packed))
        if state.position != position:
            raise StaleSnapshot(f"it is of position {state.position}")
        return state

    def _least_missed(self) -> int:
        """The one whose neighbours are closest to each other; the newest stays, since it is the next one's start."""
        inner = self._positions[:-1]
        befores = [0, *inner]
        gaps = [(after - before, at) for before, at, after in zip(befores, inner, self._positions[1:], strict=False)]
        return min(gaps)[1]

    def _path(self, position: int) -> Path:
        return self._directory / f"{position:012d}-v{PROJECTION_VERSION}.snap"
