"""The other nodes' archives as a place for copies of sealed segments."""

from __future__ import annotations

import functools

from pvc.log.manifest import Manifest, decode_blob
from pvc.peers.client import Peers


class PeerCopies:
    """A segment from whichever node has a good copy."""

    title = "the other nodes"

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def fetch(self, manifest: Manifest) -> list[bytes]:
        """The segment's records, checked against its manifest. Raises Unavailable; bad copies are only logged."""
        check = functools.partial(decode_blob, manifest=manifest)
        return await self._peers.segment(manifest.first, manifest.last, check)
