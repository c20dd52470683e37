"""Proofs about trees of any size: each verifies, and none does once a bit, an index, a size or a root is another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.proof.findings import Unproven
from pvc.proof.merkle import (
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    subtree_of,
    tree_root,
)

LEAVES = [leaf_hash(str(number).encode()) for number in range(600)]
SUBTREE = subtree_of(LEAVES)
SIZES = st.integers(1, len(LEAVES))


def by_definition(leaves: list[bytes]) -> bytes:
    """The root as RFC 6962 defines it, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return node_hash(by_definition(leaves[:half]), by_definition(leaves[half:]))


@given(SIZES)
def test_the_root_is_that_of_the_definition_however_it_is_made(size: int) -> None:
    frontier = Frontier()
    nodes = {(0, number): leaf for number, leaf in enumerate(LEAVES)}
    for leaf in LEAVES[:size]:
        nodes |= {(level, number): found for level, number, found in frontier.append(leaf)}
    root = by_definition(LEAVES[:size])
    assert frontier.root() == root == tree_root(size, SUBTREE)
    # All that a root needs is among the nodes that a growing tree has told of.
    assert tree_root(size, lambda level, number: nodes[level, number]) == root


@given(st.data(), SIZES)
def test_every_leaf_is_proved_and_no_other_in_its_place(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    root, proof = tree_root(size, SUBTREE), inclusion_proof(index, size, SUBTREE)
    check_inclusion(index, size, LEAVES[index], proof, root)
    other = data.draw(st.integers(0, size + 3).filter(lambda number: number != index))
    for wrong in (
        (other, size, LEAVES[index], proof, root),
        (index, size, LEAVES[(index + 1) % len(LEAVES)], proof, root),
        (index, size, LEAVES[index], _flipped(data, [*proof, root])[:-1] or [root], root),
        (index, size, LEAVES[index], proof, _flipped(data, [root])[0]),
        (index, size, LEAVES[index], [*proof, root], root),
        (index, size, LEAVES[index], proof[1:] if proof else [root], root),
    ):
        if wrong != (index, size, LEAVES[index], proof, root):
            with pytest.raises(Unproven):
                check_inclusion(*wrong)


@given(st.data(), SIZES, SIZES)
def test_every_beginning_is_proved_and_no_other_tree(data: st.DataObject, one: int, other: int) -> None:
    old, new = sorted((one, other))
    old_root, new_root = tree_root(old, SUBTREE), tree_root(new, SUBTREE)
    proof = consistency_proof(old, new, SUBTREE)
    check_consistency(old, new, old_root, new_root, proof)
    rewritten = [*LEAVES]
    changed = data.draw(st.integers(0, old - 1))
    rewritten[changed] = leaf_hash(b"rewritten")
    forged = subtree_of(rewritten)
    with pytest.raises(Unproven):
        check_consistency(old, new, old_root, tree_root(new, forged), consistency_proof(old, new, forged))
    for wrong in (
        (old, new, _flipped(data, [old_root])[0], new_root, proof),
        (old, new, old_root, _flipped(data, [new_root])[0], proof),
        (old, new, old_root, new_root, [*proof, old_root]),
        (old, new, old_root, new_root, _flipped(data, proof) if proof else [old_root]),
    ):
        with pytest.raises(Unproven):
            check_consistency(*wrong)


@given(st.data(), SIZES)
def test_a_tree_grows_by_whole_subtrees_as_by_leaves(data: st.DataObject, size: int) -> None:
    level = data.draw(st.integers(0, 6))
    frontier = Frontier()
    whole = size >> level
    for number in range(whole):
        frontier.append_subtree(level, SUBTREE(level, number))
    for leaf in LEAVES[whole << level : size]:
        frontier.append(leaf)
    assert frontier.root() == tree_root(size, SUBTREE)


def _flipped(data: st.DataObject, hashes: list[bytes]) -> list[bytes]:
    """The same with one bit changed."""
    number = data.draw(st.integers(0, len(hashes) - 1))
    bit = data.draw(st.integers(0, 255))
    value = int.from_bytes(hashes[number], "big") ^ (1 << bit)
    return [*hashes[:number], value.to_bytes(32, "big"), *hashes[number + 1 :]]
