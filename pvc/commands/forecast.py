"""What would be: the questions that a what-if may ask, and the forecast that answers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from pvc.commands.base import Context, Decide
from pvc.events.types import NodeName
from pvc.projections.state import ClusterState
from pvc.projections.story import ToldEvent


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What if this command were given?"""

    name: str
    command: msgspec.Struct
    decide: Decide


class NodeLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What if this node were lost?"""

    node: NodeName


Question: TypeAlias = Asked | NodeLoss


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The error that the real thing would give."""

    code: str
    message: str
    hint: str
    field: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of one question, by itself."""

    question: str
    """The command's name, or `node-loss <node>`."""
    refusal: Refusal | None
    events: list[ToldEvent]
    """What would be recorded at once; what follows is in the forecast's placements."""
    notes: list[str]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """A VM that would be elsewhere, or in another state, once all is done."""

    vm: str
    name: str
    source: str
    """Its node now; empty: there is no such VM yet."""
    target: str
    """Its node then; empty: there would be no such VM any more."""
    before: str
    after: str
    why: list[str]
    """What the choice of the node rested on, where one was chosen."""


class Unplaced(msgspec.Struct, frozen=True, kw_only=True):
    """A VM that would be left where it is, and why."""

    vm: str
    name: str
    node: str
    reason: str


class NodeForecast(msgspec.Struct, frozen=True, kw_only=True):
    """A node that would be another one: its state, and the memory that VMs hold of it."""

    node: str
    before: str
    after: str
    memory_mib: int
    allocated_before_mib: int
    allocated_after_mib: int


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of all questions, one after the other."""

    position: int
    """Of the state that was asked about; nothing was written."""
    answers: list[Answer]
    placements: list[Placement]
    left: list[Unplaced]
    nodes: list[NodeForecast]
    records: int
    """How many records it would take."""
    notes: list[str]


Foresee = Callable[[ClusterState, Sequence[Question], Context], Forecast]
"""Answers from a fork of the state, which it may change at will."""
