"""The tree of RFC 6962: the well-known test vectors of Certificate Transparency, and the edges of proofs."""

from __future__ import annotations

import hashlib

import pytest

from pvc.proof.findings import Unproven
from pvc.proof.merkle import (
    EMPTY_ROOT,
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_from_inclusion,
    subtree_of,
    tree_root,
)

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Of the first 0, 1, ... 8 leaves."""

INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
SUBTREE = subtree_of(HASHES)


def hexed(proof: list[bytes]) -> list[str]:
    return [each.hex() for each in proof]


def test_roots_are_those_of_certificate_transparency() -> None:
    assert [tree_root(size, SUBTREE).hex() for size in range(9)] == ROOTS


def test_a_growing_tree_has_the_same_roots_and_can_go_on_elsewhere() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for size, leaf in enumerate(HASHES, start=1):
        frontier = Frontier(frontier.size, frontier.hashes)  # as if stored and read again
        frontier.append(leaf)
        assert (frontier.size, frontier.root().hex()) == (size, ROOTS[size])


def test_inclusion_proofs_are_those_of_certificate_transparency() -> None:
    for (index, size), proof in INCLUSION.items():
        assert hexed(inclusion_proof(index, size, SUBTREE)) == proof
        check_inclusion(index, size, HASHES[index], [bytes.fromhex(h) for h in proof], bytes.fromhex(ROOTS[size]))


def test_consistency_proofs_are_those_of_certificate_transparency() -> None:
    for (old, new), proof in CONSISTENCY.items():
        assert hexed(consistency_proof(old, new, SUBTREE)) == proof
        hashes = [bytes.fromhex(h) for h in proof]
        check_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), hashes)


def test_a_leaf_cannot_be_passed_off_as_an_inner_node() -> None:
    assert leaf_hash(HASHES[0] + HASHES[1]) != node_hash(HASHES[0], HASHES[1])
    assert leaf_hash(b"") == hashlib.sha256(b"\0").digest()


@pytest.mark.parametrize(("index", "size"), [(-1, 8), (8, 8), (0, 0)])
def test_a_leaf_that_there_is_not_cannot_be_proved(index: int, size: int) -> None:
    with pytest.raises(Unproven) as refused:
        inclusion_proof(index, size, SUBTREE)
    assert refused.value.code == "proof.no_such_leaf"
    with pytest.raises(Unproven):
        root_from_inclusion(index, size, HASHES[0], [])


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3)])
def test_no_tree_begins_with_a_larger_one_or_with_nothing(old: int, new: int) -> None:
    with pytest.raises(Unproven):
        consistency_proof(old, new, SUBTREE)
    with pytest.raises(Unproven):
        check_consistency(old, new, HASHES[0], HASHES[0], [])


def test_proofs_of_hashes_of_another_length_or_without_end_are_refused() -> None:
    root = bytes.fromhex(ROOTS[8])
    for proof in ([HASHES[0][:31]] * 3, [HASHES[0]] * 200):
        with pytest.raises(Unproven) as refused:
            check_inclusion(0, 8, HASHES[0], proof, root)
        assert refused.value.code == "proof.malformed"


def test_a_frontier_with_a_hash_too_many_is_refused() -> None:
    with pytest.raises(Unproven):
        Frontier(4, HASHES[:2])
    with pytest.raises(Unproven):
        Frontier(1, [b"short"])
