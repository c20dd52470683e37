"""This node's standing: its place among the others, and whether it may start VMs.

A node may start a VM only while three things hold: its session surely lives (the lease), the log says that it is ready,
and it has said so itself within this very session. The last makes sure that its fold is not behind: what it appended
stands after every record by which its VMs could have been given to another node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from pvc import __version__
from pvc.errors import Conflict, PvcError
from pvc.presence.base import Presence
from pvc.presence.hello import Contact, Hello
from pvc.projections.state import NodeState
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

HELLO_S = 1.0
"""Between two hellos, at most: what they say is only to be looked at, and each costs a write of all servers."""

RETRY_S = 1.0

UNREADY_CHARS_MAX = 300
"""Of what keeps the node from being ready: it goes into a small ZooKeeper node, and perhaps into the log."""

START_MARGIN_S = 1.0
"""A start takes about so long to begin: it shall not begin when the lease is as good as over."""


class Standing:
    """Keeps the place; `run` until cancelled."""

    def __init__(
        self,
        node: str,
        world: World,
        presence: Presence,
        changed: asyncio.Event,
        *,
        contact: Contact | None = None,
        archived: Callable[[], int] = lambda: 0,
    ) -> None:
        """`archived`: up to which position everything is in this node's own archive."""
        self._node = node
        self._world = world
        self._presence = presence
        self._changed = changed
        self._contact = contact or Contact()
        self._archived = archived
        self._session = 0
        self._announced_in = 0
        self._unready = ""

    @property
    def joined(self) -> bool:
        """Whether there is a session that holds the place."""
        return self._session > 0 and self._presence.joined

    @property
    def announced(self) -> bool:
        """Whether the node has said within this session that it is ready, and the log has it so."""
        node = self._world.state.nodes.get(self._node)
        in_this_session = self._session == self._announced_in and self.joined
        return in_this_session and node is not None and node.state is NodeState.READY

    @property
    def session(self) -> int:
        """Counts the sessions; an announcement is one of the session that it was begun in."""
        return self._session

    def note_announced(self, session: int) -> None:
        """The announcement that was begun in this session stands in the log."""
        self._announced_in = session
        self._unready = ""

    def note_unready(self, why: str) -> None:
        """What keeps the node from announcing itself; the others are told, for its VMs may wait for that."""
        self._unready = why[:UNREADY_CHARS_MAX]

    def may_start(self) -> bool:
        """Whether a VM may be started now."""
        if self._world.fault is not None or any(node.unheard for node in self._world.state.nodes.values()):
            return False
        return self.announced and self._presence.lease_left_s() > START_MARGIN_S

    async def run(self) -> None:
        """Take the place, and take it again whenever the session was lost."""
        said: Hello | None = None
        while True:
            try:
                if not self._presence.joined or self._session == 0:
                    said = self._hello()
                    await self._presence.join(self._node, msgspec.json.encode(said))
                    self._session += 1
                    self._changed.set()
                    logger.info("presence: joined name=%s session=%d", self._node, self._session)
                elif said is None or self._is_news(said):
                    said = self._hello()
                    await self._presence.update(msgspec.json.encode(said))
            except Conflict as error:
                logger.error("presence: %s", error.message)
            except PvcError as error:
                logger.debug("presence: not reached error=%s", error)
            await asyncio.sleep(HELLO_S if self._presence.joined else RETRY_S)

    def _hello(self) -> Hello:
        state = self._world.state
        return Hello(
            version=__version__,
            position=state.position,
            state_hash=state.state_hash(),
            fault=self._fault,
            unready=self._unready,
            gateway=self._contact.gateway,
            certificate=self._contact.certificate,
            archived=self._archived(),
        )

    def _is_news(self, said: Hello) -> bool:
        """Cheaper than to make the next one: that takes the hash of the state."""
        now = (self._world.position, self._fault, self._unready, self._archived())
        return (said.position, said.fault, said.unready, said.archived) != now

    @property
    def _fault(self) -> str:
        return self._world.fault.code if self._world.fault is not None else ""
