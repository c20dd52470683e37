"""A coordinator's own key for checkpoints: its file, its announcement, and its replacement when one is asked for.

The log says which key counts; the files only hold what it may be. A new key is first written beside the present one,
then announced (which retires the present one in the same record), then put in its place. Whatever step a crash comes
after, the next look finds the key that the log names in one of the two files, or makes and announces another.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pvc.commands.facts_log import ReportSigningKey
from pvc.errors import DriverError, PvcError
from pvc.files import replace_file
from pvc.node.primary import Submit
from pvc.proof.note import Checkpoint, PublicKey, checkpoint_text, origin_of, signed_note
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

STEPS = 4
"""Looks at the files until the key that the log names is in its place: announce, put in place, once more each."""


class Signer:
    """A private key, and who it signs as."""

    def __init__(self, private: Ed25519PrivateKey, origin: str) -> None:
        self._private = private
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = PublicKey(name=origin, public=public)

    def sign(self, size: int, root: bytes) -> str:
        """The signed note that the log had this root at this size."""
        text = checkpoint_text(Checkpoint(origin=self.public.name, size=size, root=root))
        return signed_note(text, self.public, self._private.sign(text.encode()))


class KeyFiles:
    """The present key and the next one, each in a file that only its owner may read. Its methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(f"{path.name}.next")

    def load(self) -> tuple[Ed25519PrivateKey | None, Ed25519PrivateKey | None]:
        """The present key and the next one, each None where there is none that can be used. Raises DriverError."""
        return _load(self._path), _load(self._next)

    def make_next(self) -> Ed25519PrivateKey:
        """Make the next key, in place of one that there may be. Raises DriverError."""
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            replace_file(self._next, pem, mode=0o600)
        except OSError as error:
            raise _unusable(self._next, error) from error
        return private

    def promote(self) -> None:
        """Put the next key in the place of the present one. Raises DriverError."""
        try:
            self._next.replace(self._path)
        except OSError as error:
            raise _unusable(self._path, error) from error


class KeyKeeper:
    """Sees that this node signs with the key that the log names."""

    def __init__(self, node: str, world: World, files: KeyFiles, submit: Submit) -> None:
        self._node = node
        self._world = world
        self._files = files
        self._submit = submit
        self._signer: Signer | None = None

    async def signer(self) -> Signer | None:
        """This node's key, announced and in its place; None where the node signs nothing. Raises PvcError."""
        state = self._world.state
        node = state.nodes.get(self._node)
        if state.cluster is None or node is None or not node.coordinator:
            return None
        for _ in range(STEPS):
            cluster = self._world.state.cluster
            assert cluster is not None, "a cluster does not end"
            own = cluster.log.key_of(self._node)
            if own is not None and not own.rotate and self._signer is not None and self._signer.public.id == own.id:
                return self._signer
            self._signer = await self._step(
                origin_of(cluster.id),
                own.id if own is not None else "",
                frozenset(key.id for key in cluster.log.keys),
                own.rotate if own is not None else "",
            )
        return None

    async def _step(self, origin: str, named: str, used: frozenset[str], rotate: str) -> Signer | None:
        """Come nearer to a key that the log names. Returns it when it is in its place."""
        present, coming = (
            Signer(private, origin) if private is not None else None
            for private in await asyncio.to_thread(self._files.load)
        )
        if coming is not None and coming.public.id == named:
            await asyncio.to_thread(self._files.promote)
            present, coming = coming, None
        if present is not None and present.public.id == named and not rotate:
            return present
        fresh = next((each for each in (present, coming) if each is not None and each.public.id not in used), None)
        if fresh is None:
            fresh = Signer(await asyncio.to_thread(self._files.make_next), origin)
        logger.info("log: announcing a signing key node=%s key=%s", self._node, fresh.public.id)
        await self._submit(ReportSigningKey(node=self._node, key=str(fresh.public)), rotate)
        return None


def _load(path: Path) -> Ed25519PrivateKey | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        logger.error("log: the signing key is damaged, another one will be made file=%s error=%s", path, error)
        return None
    return private if isinstance(private, Ed25519PrivateKey) else None


def _unusable(path: Path, error: OSError) -> PvcError:
    return DriverError(
        f"the signing key {path} cannot be used: {error.strerror}",
        code="log.key_unusable",
        hint="see that the data directory has room, and belongs to root",
    )
