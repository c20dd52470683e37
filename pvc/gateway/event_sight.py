"""What a caller may see of the events: one predicate over an event's keys, made anew from the state at each sending.

Whatever narrows somebody's sight (a scope by tag, by a pattern of names) belongs here, so that the stream and the long
poll follow it from the moment on that it is in the state. Of a record the events are shown that may be seen.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pvc.errors import Unauthenticated
from pvc.events.types import Role
from pvc.gateway.auth import Principal, require_role
from pvc.log.history_keys import EventKeys
from pvc.projections.state import ClusterState

Sees = Callable[[EventKeys], bool]
"""Whether the event may be shown."""


def sees_all(_: EventKeys) -> bool:
    """The sight of who may see everything."""
    return True


def sight_of(principal: Principal, state: ClusterState) -> Sees:
    """What the caller may see as things stand now. Raises Unauthenticated where the token is there no more, and
    Forbidden where its role has become too low."""
    if principal.token:
        token = state.tokens.get(principal.token)
        if token is None:
            raise Unauthenticated(
                "the token that this began with is no longer valid",
                code="access.token_invalid",
                hint="use another token; `pvc connection add` keeps it for you",
            )
        require_role(msgspec.structs.replace(principal, role=token.role), Role.VIEWER)
    return sees_all
