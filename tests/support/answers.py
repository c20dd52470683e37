"""What the core answers to a command: the types of its events, or a refusal that is whole."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.errors import Rejected
from tests.support.core import TinyCluster


def types(events: tuple[Any, ...]) -> list[str]:
    """The events' types, in order."""
    return [event.TYPE for event in events]


def refused(cluster: TinyCluster, name: str, /, **fields: Any) -> Rejected:
    """The refusal of a command, which records nothing and says what to do instead."""
    head = cluster.state.head
    with pytest.raises(Rejected) as refusal:
        cluster.do(name, **fields)
    assert cluster.state.head == head, "a refusal records nothing"
    assert refusal.value.message and refusal.value.hint
    return refusal.value
