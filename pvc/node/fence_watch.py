"""Asks the fence agents now and then whether they would do their work, so that it is known before a node is lost.

The primary asks those of all other nodes: it is the one that would need them. Its own is asked by the first of the
other coordinators, for many a BMC cannot be reached from the machine that it sits in. What was found is no part of the
log: it stands in the world, and travels with the node's figures.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pvc.clock import Clock
from pvc.drivers.fence import Fence
from pvc.errors import DriverError
from pvc.events.fence import FenceSettings
from pvc.projections.state import ClusterState, Node, NodeState
from pvc.runtime.telemetry import FenceAnswer
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

ASK_EVERY_S = 300.0
"""A password that has changed or a BMC that has died is known within minutes; an agent is a program that takes time."""

ASK_AGAIN_S = 60.0
"""After an answer that was none: somebody may be mending it and looking."""

LOOK_S = 1.0
"""Between two looks at what is to be asked, and whether what is being asked is still wanted."""

GRACE_S = 10.0
"""On top of the agent's own time-out, within which the driver ends it."""

Asked = tuple[FenceSettings, int]
"""What an answer is about: the settings, and which announcement of the node was its last. Another one is asked anew."""


class FenceWatch:
    """Asks one agent after the other; `run` until cancelled."""

    def __init__(self, node: str, world: World, fence: Fence, clock: Clock, *, may_act: Callable[[], bool]) -> None:
        self._node = node
        self._world = world
        self._fence = fence
        self._clock = clock
        self._may_act = may_act
        self._asked: dict[str, tuple[Asked, float]] = {}
        """Node -> what was asked, and when to ask again."""

    async def run(self) -> None:
        """Look, ask, wait."""
        while True:
            due = self._due()
            if due is not None:
                await self._ask(due)
            else:
                await asyncio.sleep(LOOK_S)

    def _due(self) -> Node | None:
        wanted = {node.name: node for node in self._wanted()}
        for name, (asked, _) in list(self._asked.items()):
            if name not in wanted or asked != _of(wanted[name]):
                del self._asked[name]
                self._world.fences.pop(name, None)
        due_s = {name: self._asked[name][1] if name in self._asked else float("-inf") for name in wanted}
        first = min(wanted, key=lambda name: (due_s[name], name), default="")
        return wanted[first] if first and due_s[first] <= self._clock.monotonic() else None

    def _wanted(self) -> list[Node]:
        if self._world.fault is not None or not self._may_act():
            return []
        return nodes_to_ask(self._world.state, self._node)

    async def _ask(self, node: Node) -> None:
        assert node.fence is not None, f"{node.name} has no fence agent"
        asking = asyncio.create_task(self._fence.is_on(node.name, node.fence))
        try:
            async with asyncio.timeout(node.fence.timeout_s + GRACE_S):
                while not asking.done():
                    await asyncio.wait({asking}, timeout=LOOK_S)
                    # Many a device has but one session, and who is to be fenced now needs it.
                    if not asking.done() and not any(_of(other) == _of(node) for other in self._wanted()):
                        return
            answer = FenceAnswer(on=asking.result())
        except TimeoutError:
            answer = FenceAnswer(error=f"{node.fence.agent} did not answer within {node.fence.timeout_s} s")
        except DriverError as error:
            answer = FenceAnswer(error=error.message)
        except Exception as error:
            # A defect; were it to end the watch, nobody would hear of any agent that fails later.
            logger.exception("fence: asking the agent failed unexpectedly node=%s", node.name)
            answer = FenceAnswer(error=f"unexpected {type(error).__name__}: {error}")
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        before = self._world.fences.get(node.name)
        if answer.error and (before is None or not before.error):
            logger.warning("fence: agent does not answer node=%s error=%s", node.name, answer.error)
        again_s = ASK_AGAIN_S if answer.error else ASK_EVERY_S
        self._asked[node.name] = (_of(node), self._clock.monotonic() + again_s)
        self._world.fences[node.name] = answer


def nodes_to_ask(state: ClusterState, own: str) -> list[Node]:
    """The nodes whose agents this one is to ask. Not those that are lost: they are being fenced, by the same device."""
    primary = state.cluster.primary if state.cluster is not None else ""
    others = sorted(node.name for node in state.nodes.values() if node.coordinator and node.state is NodeState.READY)
    second = next((name for name in others if name != primary), "")
    with_agent = [node for node in state.nodes.values() if node.fence is not None and node.state is NodeState.READY]
    if own == primary:
        return [node for node in with_agent if node.name != own]
    return [node for node in with_agent if node.name == primary and own == second]


def _of(node: Node) -> Asked:
    assert node.fence is not None, f"{node.name} has no fence agent"
    return node.fence, node.ready_at
