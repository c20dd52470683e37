"""Up to where records may leave ZooKeeper: nobody who is there may need them, and enough must have them."""

from __future__ import annotations

import msgspec
import pytest

from pvc.node.removal import removal
from pvc.presence.hello import Hello
from pvc.projections.state import ClusterState
from tests.support.core import a_cluster

OWN = "hv1"


def hellos(**said: tuple[int, int] | None) -> dict[str, Hello | None]:
    """Node -> (position, archived); None for one whose words cannot be read."""
    return {
        name: one
        and Hello(version="1", position=one[0], state_hash="", archived=one[1], gateway=f"https://{name}:7370")
        for name, one in said.items()
    }


@pytest.fixture
def state() -> ClusterState:
    """Three coordinators, and a node that is none."""
    cluster = a_cluster("hv1")
    for name in ("hv2", "hv3"):
        cluster.add_node(name, coordinator=True)
    cluster.add_node("hv4")
    state = cluster.state
    state.put_node(msgspec.structs.replace(state.nodes["hv1"], coordinator=True))
    return state


@pytest.mark.parametrize(
    ("there", "safe"),
    [
        (hellos(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60), hv4=(80, 0)), 60),
        (hellos(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60), hv4=(40, 0)), 40),  # it has not folded more
        (hellos(hv1=(90, 0), hv2=(90, 70), hv4=(80, 0)), 70),  # two of three: a majority
        (hellos(hv1=(90, 0), hv4=(80, 0)), 0),  # one of three
        (hellos(hv1=(90, 0), hv2=(90, 0), hv3=(90, 60)), 0),  # hv2 archives nothing, or is of an older version
        (hellos(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60), hv4=None), 0),  # who knows what it needs
        ({}, 0),
    ],
)
def test_the_slowest_who_is_there_counts(state: ClusterState, there: dict[str, Hello | None], safe: int) -> None:
    found = removal(state, there, OWN, 75, shared=False)
    assert found.position == safe
    assert found.waits_for


def test_what_this_node_has_archived_counts_as_it_is_and_not_as_it_last_said(state: ClusterState) -> None:
    found = removal(state, hellos(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60)), OWN, 55, shared=False)
    assert found.position == 55 and "hv1, which has archived" in found.waits_for


def test_nothing_goes_where_nobody_else_could_have_it_back(state: ClusterState) -> None:
    there = hellos(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60))
    there["hv2"] = msgspec.structs.replace(there["hv2"], gateway="")  # type: ignore[arg-type]
    found = removal(state, there, OWN, 75, shared=False)
    assert found.position == 0 and "hv2, whose archive the others cannot reach" in found.waits_for
    assert removal(state, there, OWN, 75, shared=True).position == 60, "all can reach what they share"


def test_a_node_by_itself_has_its_own_archive_and_needs_nobody() -> None:
    state = a_cluster("hv1").state
    state.put_node(msgspec.structs.replace(state.nodes["hv1"], coordinator=True))
    alone: dict[str, Hello | None] = {"hv1": Hello(version="1", position=90, state_hash="", archived=0)}
    assert removal(state, alone, "hv1", 80, shared=False).position == 80
