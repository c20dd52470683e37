"""Writes and reads the golden corpora: logs as versions of PVC wrote them, with what they fold to.

The living one, in tests/golden, has every event of today. `python -m pvc.schemas --release` freezes it in
schemas/released with its version: it is never written again, and every later version must read it to the same state.
`python -m tests.support.golden NAME` writes a living one, and refuses to replace one that is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from pvc.events.record import Entry, unseal
from pvc.projections.snapshot import PROJECTION_VERSION
from tests.support.core import TinyCluster
from tests.support.samples import SAMPLES
from tests.support.story_of_a_cluster import live

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASED = Path(__file__).parents[2] / "schemas" / "released"


def living() -> Path:
    """The corpus that is being added to."""
    return sorted(GOLDEN.glob("records-*.json"))[-1]


def corpora() -> list[Path]:
    """All there are: those of released versions, and the living one."""
    return [*sorted(RELEASED.glob("[0-9]*/records.json")), *sorted(GOLDEN.glob("records-*.json"))]


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """A stored log."""

    projection_version: int
    """The fold's version that the hashes are of; a later fold may come to others, but must still read the records."""
    hashes: dict[int, str]
    """Position -> state hash, at every twentieth and the last."""
    records: list[str]
    """Each record's bytes in hex."""

    @property
    def entries(self) -> list[Entry]:
        """The records."""
        return [unseal(bytes.fromhex(record)) for record in self.records]


def read(path: Path) -> Corpus:
    """A stored corpus."""
    return msgspec.json.decode(path.read_bytes(), type=Corpus)


def make() -> Corpus:
    """A log with a cluster's ordinary life, and then one record with each sample of each event."""
    cluster = TinyCluster()
    hashes: dict[int, str] = {}
    for _ in live(cluster):
        _note(cluster, hashes)
    for samples in SAMPLES.values():
        for sample in samples:
            cluster.record(sample)
            _note(cluster, hashes)
    hashes[cluster.state.position] = cluster.state.state_hash()
    records = [entry.data.hex() for entry in cluster.entries]
    return Corpus(projection_version=PROJECTION_VERSION, hashes=hashes, records=records)


def _note(cluster: TinyCluster, hashes: dict[int, str]) -> None:
    if cluster.state.position % 20 == 0:
        hashes[cluster.state.position] = cluster.state.state_hash()


def main() -> None:
    """Write the corpus that the command line names."""
    path = GOLDEN / f"{sys.argv[1]}.json"
    if path.exists():
        raise SystemExit(f"{path} is there already; a corpus is never written again")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(make()), indent=1) + b"\n")


if __name__ == "__main__":
    main()
