"""What a caller may see of the events: one predicate over an event's keys, made anew from the state at each sending.

Whatever narrows somebody's sight (a scope by tag, by a pattern of names) belongs here, so that the stream and the long
poll follow it from the moment on that it is in the state. Of a record the events are shown that may be seen.
"""

from __future__ import annotations

from collections.abc import Callable

from pvc.commands.access_rights import require
from pvc.commands.access_table import Action
from pvc.commands.seen_subjects import sees_subject
from pvc.errors import Unauthenticated
from pvc.gateway.auth import Principal
from pvc.log.history_keys import EventKeys
from pvc.projections.state import ClusterState

Sees = Callable[[EventKeys], bool]
"""Whether the event may be shown."""


def sees_all(_: EventKeys) -> bool:
    """The sight of who may see everything."""
    return True


def sight_of(principal: Principal, state: ClusterState, now_us: int) -> Sees:
    """What the caller may see as things stand now. Raises Unauthenticated where the token is valid no more, and
    Forbidden where its owner may not read the history any more."""
    asker = principal.asker
    token = state.tokens.get(asker.token)
    if asker.token and (token is None or token.expired(now_us)):
        raise Unauthenticated(
            "the token that this began with is no longer valid",
            code="access.token_invalid",
            hint="use another token; `pvc connection add` keeps it for you",
        )
    rights = require(state, asker, Action.HISTORY_READ)
    if rights.everything:
        return sees_all
    return lambda keys: sees_subject(state, rights, keys.subject)
