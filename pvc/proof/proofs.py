"""Proofs as files: what is claimed, the hashes that show it, and the signed checkpoint that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from pvc.proof.findings import Unproven
from pvc.proof.merkle import MAX_PROOF_HASHES, check_consistency, check_inclusion, leaf_hash
from pvc.proof.note import PublicKey, SignedCheckpoint, check_signature, parse_checkpoint

INCLUSION = "pvc-inclusion-1"
CONSISTENCY = "pvc-consistency-1"


class Inclusion(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag=INCLUSION):
    """That a record is among those that a checkpoint vouches for."""

    position: int
    record: bytes
    size: int
    root: str
    proof: list[str]
    checkpoint: str
    key: str = ""

    def check(self, keys: Sequence[PublicKey]) -> dict[str, Any]:
        """What it proves, as plain values. Raises Unproven."""
        signed, key = _vouched(self.checkpoint, keys)
        _same(signed, self.size, self.root)
        root, proof = signed.checkpoint.root, _hashes(self.proof)
        check_inclusion(self.position - 1, signed.checkpoint.size, leaf_hash(self.record), proof, root)
        record = _plain_record(self.record)
        if record.get("position") != self.position:
            raise Unproven(
                f"the record calls itself {record.get('position')}, not {self.position}", code="proof.malformed"
            )
        return {
            "statement": f"record {self.position} is in the log of {self.size} records that was vouched for",
            "record": record,
            "size": self.size,
            "origin": signed.checkpoint.origin,
            "key": key.id,
        }


class Consistency(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag=CONSISTENCY):
    """That an older log is the beginning of a newer one."""

    old: int
    new: int
    old_root: str
    new_root: str
    proof: list[str]
    old_checkpoint: str
    new_checkpoint: str
    key: str = ""

    def check(self, keys: Sequence[PublicKey]) -> dict[str, Any]:
        """What it proves, as plain values. Raises Unproven."""
        new, key = _vouched(self.new_checkpoint, keys)
        _same(new, self.new, self.new_root)
        old, _ = _vouched(self.old_checkpoint, keys)
        _same(old, self.old, self.old_root)
        if old.checkpoint.origin != new.checkpoint.origin:
            raise Unproven("the two checkpoints are of two logs", code="proof.other_log")
        sizes = old.checkpoint.size, new.checkpoint.size
        check_consistency(*sizes, old.checkpoint.root, new.checkpoint.root, _hashes(self.proof))
        return {
            "statement": f"the log of {self.old} records is the beginning of that of {self.new}",
            "old": self.old,
            "new": self.new,
            "origin": new.checkpoint.origin,
            "key": key.id,
        }


Proof: TypeAlias = Inclusion | Consistency


def read_proof(data: bytes) -> Proof:
    """A proof, not yet checked. Raises Unproven."""
    try:
        proof: Proof = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unproven(
            f"this is no proof: {error}",
            code="proof.malformed",
            hint="`pvc log prove` and `pvc log consistency` make one",
        ) from error
    return proof


def _vouched(note: str, keys: Sequence[PublicKey]) -> tuple[SignedCheckpoint, PublicKey]:
    if not note:
        raise Unproven(
            "no signed checkpoint comes with it",
            code="proof.no_checkpoint",
            hint="ask for a proof against a size that a checkpoint was signed for",
        )
    signed = parse_checkpoint(note)
    return signed, check_signature(signed, keys)


def _same(signed: SignedCheckpoint, size: int, root: str) -> None:
    if (signed.checkpoint.size, signed.checkpoint.root.hex()) != (size, root):
        raise Unproven("size and root are not those of the signed checkpoint", code="proof.wrong_root")


def _hashes(texts: Sequence[str]) -> list[bytes]:
    try:
        return [bytes.fromhex(text) for text in texts[: MAX_PROOF_HASHES + 1]]
    except ValueError as error:
        raise Unproven(f"a hash of the proof is no hex: {error}", code="proof.malformed") from error


def _plain_record(data: bytes) -> dict[str, Any]:
    try:
        record = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unproven(f"the record cannot be decoded: {error}", code="proof.malformed") from error
    if not isinstance(record, dict):
        raise Unproven("the record is none", code="proof.malformed")
    plain: dict[str, Any] = msgspec.to_builtins({**record, "prev": bytes(record.get("prev", b"")).hex()})
    return plain


_decoder = msgspec.json.Decoder(Proof)
