"""Commands about the cluster itself."""

from __future__ import annotations

import uuid
from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.base import CommandSpec, Context, Decision
from pvc.errors import Rejected
from pvc.events.access import TokenCreated
from pvc.events.cluster import ClusterInitialised
from pvc.events.node import NodeReady
from pvc.events.types import END, ClusterName, Role
from pvc.projections.state import ClusterState

_IDS = uuid.UUID("6f7a4a0e-3f0b-4d0f-9d52-0f0b7c1f6a01")
"""Namespace of the ids derived from command ids."""


class InitCluster(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Initialise the cluster and make the first admin token.

    Done once, as root on the first node. The token is shown in the reply and never again; the log keeps its hash.
    """

    name: ClusterName
    token_id: Annotated[str, Meta(pattern="^([0-9a-z]{8,32})?" + END, description="Set by the gateway.")] = ""
    token_sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?" + END, description="Set by the gateway.")] = ""


def init_cluster(state: ClusterState, command: InitCluster, context: Context) -> Decision:
    """The first record of every cluster."""
    if state.cluster is not None:
        raise Rejected(
            f"the cluster {state.cluster.name!r} is initialised already",
            code="cluster.already_initialised",
            hint="`pvc cluster status` shows it",
        )
    initialised = ClusterInitialised(cluster=derived_id(context.command_id), name=command.name)
    if not command.token_id:
        return Decision(events=(initialised,))
    token = TokenCreated(token=command.token_id, principal="admin", role=Role.ADMIN, secret_sha256=command.token_sha256)
    return Decision(events=(initialised, token))


def derived_id(command_id: str) -> str:
    """The UUID of the thing that a command makes: the same for every decision of the same command."""
    return str(uuid.uuid5(_IDS, command_id))


SPECS = (
    CommandSpec(
        name="cluster.init",
        struct=InitCluster,
        decide=init_cluster,
        role=Role.ADMIN,
        path="/cluster/init",
        cli=("cluster", "init"),
        args=("name",),
        internal=("token_id", "token_sha256"),
        example={"name": "main"},
        outcomes={NodeReady.TYPE: True},
    ),
)
