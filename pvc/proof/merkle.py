"""The Merkle tree of RFC 6962 and 9162 over the log: roots, proofs, and what a growing tree has to remember.

Leaf i, counted from 0, is the stored bytes of record i + 1. Leaves and inner nodes are hashed with different first
bytes, so that neither can be passed off as the other. Everything is built on one notion: the hash of a range of leaves,
taken apart into complete subtrees. Who keeps the hashes of some subtrees makes a proof without looking at most leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from pvc.proof.findings import Unproven

HASH_BYTES = 32

MAX_PROOF_HASHES = 128
"""A proof over 2^63 leaves has at most this many hashes; a longer one is nonsense."""

Subtree = Callable[[int, int], bytes]
"""(level, number) -> the hash of the complete subtree over the leaves from number * 2^level on, 2^level of them."""

_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


EMPTY_ROOT = _sha256(b"").digest()
"""The root of the tree without leaves."""


def fold_level(hashes: Sequence[bytes]) -> list[bytes]:
    """The hashes one level up, of an even number of neighbours: where many are hashed, this is the fast way."""
    sha256 = _sha256
    left, right = hashes[::2], hashes[1::2]
    return [sha256(b"\x01" + a + b).digest() for a, b in zip(left, right, strict=True)]


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """The root of a complete subtree from the hashes of its leaves, a power of two of them."""
    while len(hashes) > 1:
        hashes = fold_level(hashes)
    return hashes[0]


def subtree_of(leaves: Sequence[bytes]) -> Subtree:
    """The subtrees over leaf hashes that are all at hand."""
    return lambda level, number: complete_root(leaves[number << level : (number + 1) << level])


def tree_root(size: int, subtree: Subtree) -> bytes:
    """The root of the tree over the first `size` leaves."""
    return range_root(0, size, subtree) if size else EMPTY_ROOT


def range_root(first: int, end: int, subtree: Subtree) -> bytes:
    """The hash of the leaves `first` to `end - 1` as one node. `first` is a multiple of the power of two that holds
    them, which is so for all that a proof or a root asks for."""
    count = end - first
    assert count > 0, "a range has at least one leaf"
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        assert first % count == 0, f"a subtree of {count} leaves does not begin at {first}"
        return subtree(level, first >> level)
    middle = first + _split(count)
    return node_hash(range_root(first, middle, subtree), range_root(middle, end, subtree))


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves (RFC 9162, 2.1.3.1)."""
    if not 0 <= index < size:
        raise Unproven(f"there is no leaf {index} in a tree of {size}", code="proof.no_such_leaf")
    proof: list[bytes] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            proof.append(range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(range_root(first, middle, subtree))
            first = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """The proof that the tree of `old` leaves is the beginning of that of `new` (RFC 9162, 2.1.4.1)."""
    if not 0 < old <= new:
        raise Unproven(f"a tree of {old} leaves is no beginning of one of {new}", code="proof.bad_sizes")
    proof: list[bytes] = []
    first, end, whole = 0, new, True
    while end > old:
        middle = first + _split(end - first)
        if old <= middle:
            proof.append(range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(range_root(first, middle, subtree))
            first, whole = middle, False
    if not whole:  # where the old tree is a complete subtree of the new one, the verifier knows its root
        proof.append(range_root(first, end, subtree))
    return proof[::-1]


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that a proof leads to from the hash of leaf `index` (RFC 9162, 2.1.3.2). Raises Unproven when it cannot
    be a proof for this index and size. The size itself is not proved: it counts only as signed with the root."""
    if not 0 <= index < size:
        raise Unproven(f"there is no leaf {index} in a tree of {size}", code="proof.no_such_leaf")
    _check_hashes([leaf, *proof])
    number, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Unproven("the proof has too many hashes", code="proof.malformed")
        if number & 1 or number == last:
            found = node_hash(sibling, found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        number, last = number >> 1, last >> 1
    if last:
        raise Unproven("the proof has too few hashes", code="proof.malformed")
    return found


def check_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Raise Unproven unless the proof shows that `leaf` is number `index` of the tree of this size and root."""
    if root_from_inclusion(index, size, leaf, proof) != root:
        raise Unproven(f"the proof does not lead from leaf {index} to the root of {size}", code="proof.wrong_root")


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise Unproven unless the proof shows that the tree of `old` leaves is the beginning of that of `new`
    (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        raise Unproven(f"a tree of {old} leaves is no beginning of one of {new}", code="proof.bad_sizes")
    _check_hashes([old_root, new_root, *proof])
    if old == new:
        if proof:
            raise Unproven("two trees of one size need no proof, but there is one", code="proof.malformed")
        if old_root != new_root:
            raise Unproven(f"there are two roots of the first {old} leaves", code="proof.wrong_root")
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise Unproven("the proof has too few hashes", code="proof.malformed")
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Unproven("the proof has too many hashes", code="proof.malformed")
        if number & 1 or number == last:
            old_found, new_found = node_hash(sibling, old_found), node_hash(sibling, new_found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        number, last = number >> 1, last >> 1
    if last:
        raise Unproven("the proof has too few hashes", code="proof.malformed")
    if (old_found, new_found) != (old_root, new_root):
        raise Unproven(f"the first {old} leaves of the one are not those of the other", code="proof.wrong_root")


class Frontier:
    """What a growing tree has to remember: the roots of the complete subtrees that its leaves make up, largest first.

    Appending takes one hash of a node on average. `size` leaves need as many hashes as `size` has bits that are set.
    """

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if size < 0 or len(hashes) != size.bit_count() or any(len(each) != HASH_BYTES for each in hashes):
            raise Unproven(f"{len(hashes)} hashes are no frontier of {size} leaves", code="proof.malformed")
        self.size = size
        self._hashes = list(hashes)

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the subtrees, largest first: with `size` all that is needed to go on elsewhere."""
        return tuple(self._hashes)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf by its hash. Returns the inner nodes that are complete now: level, number and hash of each."""
        return self.append_subtree(0, leaf)

    def append_subtree(self, level: int, found: bytes) -> list[tuple[int, int, bytes]]:
        """Add 2^level leaves by the root of the complete subtree over them. `size` is a multiple of that."""
        assert self.size % (1 << level) == 0, f"a subtree of level {level} does not begin at {self.size}"
        number, complete = self.size >> level, []
        self.size += 1 << level
        while number & 1:
            found = node_hash(self._hashes.pop(), found)
            number, level = number >> 1, level + 1
            complete.append((level, number, found))
        self._hashes.append(found)
        return complete

    def root(self) -> bytes:
        """The root of all leaves so far."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in self._hashes[-2::-1]:
            root = node_hash(left, root)
        return root


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > MAX_PROOF_HASHES or any(len(each) != HASH_BYTES for each in hashes):
        raise Unproven(f"a proof is made of at most {MAX_PROOF_HASHES} hashes of 32 bytes", code="proof.malformed")
