"""Erasing people: their names and addresses in the log become unreadable. Decided by keys; names are not known here."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, invalid, require_cluster
from pvc.commands.vm_ref import NOTHING
from pvc.events.access import ErasureRequested, PersonErased
from pvc.events.sealed import parse_sealed
from pvc.events.types import END, NodeName
from pvc.projections.state import ClusterState


class ErasePerson(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Erase a person: make their name and addresses unreadable in all records, for good.

    Their key is destroyed. What was done, and when, stays in the history under a pseudonym, and the log verifies as
    before. Copies of the keys in backups have to be destroyed by hand.
    """

    principal: Annotated[
        str,
        Meta(
            # A sealed name is longer than any name; the gateway puts it here in the name's place.
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}" + END,
            description="The person's name, as the history shows it.",
            examples=["anna"],
        ),
    ]


class ReportPersonErased(Struct, frozen=True, kw_only=True):
    """The key is destroyed."""

    node: NodeName
    key: str


def erase_person(state: ClusterState, command: ErasePerson, context: Context) -> Decision:
    """A person who has a key, which the gateway has looked up. Asking again changes nothing."""
    require_cluster(state)
    sealed = parse_sealed(command.principal)
    if sealed is None:
        raise invalid(
            "principal",
            "a person is erased by their key, which is not known here",
            "`pvc audit erase NAME --dry-run` says what would become unreadable",
            "access.person_not_sealed",
        )
    if sealed.key in state.erasures:
        return NOTHING
    return Decision(events=(ErasureRequested(key=sealed.key),))


def person_erased(state: ClusterState, report: ReportPersonErased, context: Context) -> Decision:
    """Said once."""
    erasure = state.erasures.get(report.key)
    if erasure is None or erasure.erased_us:
        return NOTHING
    return Decision(events=(PersonErased(key=report.key, node=report.node),))


SPECS = (
    CommandSpec(
        name="audit.erase",
        struct=ErasePerson,
        decide=erase_person,
        action=Action.PEOPLE_MANAGE,
        path="/audit/erase",
        cli=("audit", "erase"),
        args=("principal",),
        example={"principal": "anna"},
        outcomes={PersonErased.TYPE: True},
        confirm="Nobody will ever again be able to read in the log who {principal} was, nor from where they came",
    ),
)
