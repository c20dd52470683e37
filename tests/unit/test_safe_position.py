"""Up to where records may leave ZooKeeper: nobody who is there may need them, and enough must have them."""

from __future__ import annotations

import msgspec
import pytest

from pvc.node.archivist import safe_position
from pvc.presence.base import Member
from pvc.presence.hello import Hello
from tests.support.core import a_cluster

OWN = "hv1"


def members(**said: tuple[int, int] | None) -> dict[str, Member]:
    """Node -> (position, archived); None for one whose words cannot be read."""
    return {
        name: Member(
            name=name,
            session="1",
            hello=b"gibberish"
            if one is None
            else msgspec.json.encode(Hello(version="1", position=one[0], state_hash="", archived=one[1])),
        )
        for name, one in said.items()
    }


@pytest.fixture
def state() -> object:
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
        (members(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60), hv4=(80, 0)), 60),
        (members(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60), hv4=(40, 0)), 40),  # it has not folded more
        (members(hv1=(90, 0), hv2=(90, 70), hv4=(80, 0)), 70),  # two of three: a majority
        (members(hv1=(90, 0), hv4=(80, 0)), 0),  # one of three
        (members(hv1=(90, 0), hv2=(90, 0), hv3=(90, 60)), 0),  # hv2 archives nothing, or is of an older version
        (members(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60), hv4=None), 0),  # who knows what it needs
        ({}, 0),
    ],
)
def test_the_slowest_who_is_there_counts(state: object, there: dict[str, Member], safe: int) -> None:
    assert safe_position(state, there, OWN, 75) == safe  # type: ignore[arg-type]


def test_what_this_node_has_archived_counts_as_it_is_and_not_as_it_last_said(state: object) -> None:
    there = members(hv1=(90, 0), hv2=(90, 70), hv3=(90, 60))
    assert safe_position(state, there, OWN, 55) == 55  # type: ignore[arg-type]
