"""A simulated ZooKeeper of one, three or five servers on virtual time, with everything that may befall it by order.

It keeps ZooKeeper's promises and no more: what a majority has on its disks is committed and stays, in one order; each
server applies it in that order, at its own pace; who asks a server that is behind gets an old answer. Two things are
not ZooKeeper's: elections are decided in one instant by whoever can be reached, and `lose_tail` breaks the promise.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence

from pvc.sim.zookeeper_bridge import SimBridge
from pvc.sim.zookeeper_reign import Reign
from pvc.sim.zookeeper_server import Connection, Role, Server, Txn
from pvc.sim.zookeeper_tree import Identity
from pvc.sim.zookeeper_wire import Pace, Pipe, later
from pvc.zookeeper.port import OpenSession

TICK_S = 2.0
SYNC_LIMIT_TICKS = 5
"""Leader and followers give each other up after so many ticks of silence."""

ELECTION_S = 0.5
"""About how often servers without a leader look for one."""

FIRST_SESSION = 0x1000
"""Ids are only told apart; they begin where they cannot be taken for a count."""


class Ensemble:
    """The servers, the network between them, and what was committed. Make it in the loop that it serves."""

    def __init__(
        self,
        rng: random.Random,
        names: Sequence[str],
        *,
        reaches: Callable[[str, str], bool] = lambda one, other: True,
        committed: Callable[[Txn], None] = lambda txn: None,
        lost: Callable[[Sequence[Txn]], None] = lambda txns: None,
        note: Callable[[str], object] = lambda what: None,
        tick_s: float = TICK_S,
    ) -> None:
        self.rng = rng
        self.pace = Pace(rng)
        self.servers = {name: Server(name, self) for name in names}
        self.majority = len(names) // 2 + 1
        self.tick_s = tick_s
        self.sync_limit_s = SYNC_LIMIT_TICKS * tick_s
        self.note = note
        self.history: list[Txn] = []
        """All that is committed, in order."""
        self.lossy = False
        """Whether acknowledged transactions were lost, so that nothing is sure any more."""
        self.lag_s: dict[str, float] = {}
        """By so much messages of the leader reach this server late."""
        self.cuts: dict[frozenset[str], None] = {}
        """Pairs that do not reach each other."""
        self.swallowed: dict[str, str] = {}
        """Clients whose "requests", "replies" or "both" are lost on the way."""
        self.wires: dict[str, list[Connection]] = {}
        """The connections of each client, the last one last."""
        self._reaches = reaches
        self._committed = committed
        self._lost = lost
        self._epoch = 0
        self._sessions = FIRST_SESSION
        self._loop = asyncio.get_running_loop()
        later(0.0, self._look_after)

    # -- What can be seen of it ------------------------------------------------------------------------------------

    def now(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    @property
    def leader(self) -> Server | None:
        """The newest leader that believes to be one."""
        leading = [server for server in self.servers.values() if server.role is Role.LEADING]
        return max(leading, key=lambda server: server.epoch, default=None)

    def reaches(self, one: str, other: str) -> bool:
        """Whether messages go from the one to the other."""
        return frozenset((one, other)) not in self.cuts and self._reaches(one, other)

    # -- Clients ---------------------------------------------------------------------------------------------------

    def client(self, name: str) -> OpenSession:
        """What makes sessions in the place of `Bridge`, for a client that the network knows as `name`."""
        return functools.partial(SimBridge, ensemble=self, name=name)

    def connect(self, client: SimBridge, name: str, server: Server, identity: Identity) -> Connection:
        """A connection of a client, on which nothing was said yet."""
        # What was on its way when a partition began may arrive after it, though nobody waits for it any more.
        up = Pipe(
            self.pace,
            blocked=lambda: server.frozen or not self.reaches(name, server.name),
            swallowed=lambda: server.role is Role.DOWN or self.swallowed.get(name) in ("requests", "both"),
        )
        down = Pipe(
            self.pace,
            blocked=lambda: not self.reaches(server.name, name),
            swallowed=lambda: self.swallowed.get(name) in ("replies", "both"),
            context=client.context,
        )
        connection = Connection(client, name, server, identity, up, down)
        wires = self.wires.setdefault(name, [])
        wires.append(connection)
        del wires[:-4]
        return connection

    def new_session(self) -> int:
        """An id that none had before."""
        self._sessions += 1
        return self._sessions

    # -- What befalls it -------------------------------------------------------------------------------------------

    def stop(self, name: str, *, silently: bool = False) -> None:
        """Kill a server. `silently`: its machine lost power, so that nobody is told that connections broke."""
        server = self.servers[name]
        if server.role is Role.DOWN:
            return
        if silently:
            for connection in list(server.connections):
                server.hang_up(connection)
        reign, led = server.reign, server.role is Role.LEADING
        server.leave()
        server.role = Role.DOWN
        server.cut_log(self.rng.randint(min(server.durable, len(server.log)), len(server.log)))
        if reign is not None and not silently:
            followers = [one for one in self.servers.values() if one.reign is reign] if led else []
            reign.end() if led else reign.dismiss(server)
            for follower in followers:
                follower.leave()
        elif reign is not None and led:
            reign.end()

    def start(self, name: str) -> None:
        """Start it again, with what is on its disk."""
        server = self.servers[name]
        if server.role is Role.DOWN:
            server.role = Role.LOOKING

    def freeze(self, name: str) -> None:
        """A server stands still."""
        self.servers[name].frozen = True

    def thaw(self, name: str) -> None:
        """It goes on."""
        self.servers[name].frozen = False

    def cut(self, one: str, other: str) -> None:
        """Nothing gets through between these two, servers or clients."""
        self.cuts[frozenset((one, other))] = None

    def mend(self, one: str, other: str) -> None:
        """Everything gets through again, also what waited."""
        self.cuts.pop(frozenset((one, other)), None)

    def swallow(self, name: str, what: str) -> None:
        """A client's "requests", "replies" or "both" are lost from now on, without a word to anyone."""
        self.swallowed[name] = what

    def restore(self, name: str) -> None:
        """End of that; connections that have lost something break."""
        self.swallowed.pop(name, None)
        for connection in self.wires.get(name, ()):
            if connection.up.lost or connection.down.lost:
                connection.client.hung_up(connection)

    def lose_tail(self, count: int) -> int:
        """All servers are bounced, and the one that leads then has lost its last transactions, acknowledged or not.

        Returns how many acknowledged ones are gone (ZOOKEEPER-4785 and its like: never more than a few at a time).
        """
        servers = list(self.servers.values())
        first = max(servers, key=lambda server: (server.zxid, server.name))
        for server in servers:
            self.stop(server.name)
        keep = max(0, min(len(first.log), len(self.history)) - count)
        self.lossy = True
        lost, self.history = self.history[keep:], self.history[:keep]
        for server in servers:
            common = min(keep, len(server.log))
            server.cut_log(common)
            self.start(server.name)
        first.cut_log(keep)
        assert len(first.log) == keep, "the one that leads has all but what is lost"
        self._lost(lost)
        return len(lost)

    # -- Within ----------------------------------------------------------------------------------------------------

    def pipe(self, source: Server, target: Server) -> Pipe:
        """One direction between two servers."""
        return Pipe(
            self.pace,
            blocked=lambda: target.frozen or target.role is Role.DOWN or not self.reaches(source.name, target.name),
            lag=lambda: self.lag_s.get(target.name, 0.0),
        )

    def note_committed(self, log: Sequence[Txn], count: int) -> None:
        """A leader has committed so many transactions of its log."""
        done = len(self.history)
        assert count < done or not done or log[done - 1] is self.history[-1], "a leader lacks what was committed"
        for txn in log[done:count]:
            self.history.append(txn)
            self._committed(txn)

    def _look_after(self) -> None:
        later(ELECTION_S * (0.5 + self.rng.random()), self._look_after)
        for server in self.servers.values():
            silent_s = self.now() - server.leader_heard_s
            if server.role is Role.FOLLOWING and not server.frozen and silent_s > self.sync_limit_s:
                self.note(f"{server.name} has lost its leader")
                server.leave()
        self._elect()

    def _elect(self) -> None:
        """Whoever looks for a leader follows one that can be reached; or a majority of them makes a new one."""
        looking = [one for one in self.servers.values() if one.role is Role.LOOKING and not one.frozen]
        leaders = [one for one in self.servers.values() if one.role is Role.LEADING and not one.frozen]
        for server in list(looking):
            for leader in leaders:
                if leader.epoch >= server.epoch and self._both_ways(server, leader) and leader.reign is not None:
                    leader.reign.admit(server)
                    leader.reign.commit()
                    looking.remove(server)
                    break
        for leader in sorted(looking, key=lambda one: (one.zxid, one.name), reverse=True):
            group = [one for one in looking if one is leader or self._both_ways(one, leader)]
            if len(group) < self.majority or max(one.zxid for one in group) > leader.zxid:
                continue
            # Whoever leads others still, and does not know that they have left, has no majority any more.
            self._epoch += 1
            self.note(f"{leader.name} leads, epoch {self._epoch}")
            reign = Reign(self, leader, self._epoch)
            self.note_committed(leader.log, len(leader.log))
            for server in group:
                if server is not leader:
                    reign.admit(server)
            return

    def _both_ways(self, one: Server, other: Server) -> bool:
        return self.reaches(one.name, other.name) and self.reaches(other.name, one.name)
