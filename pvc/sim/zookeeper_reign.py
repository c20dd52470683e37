"""A leader's time in office: it orders all writes, has them on a majority's disks, and decides which sessions live.

A request is checked against everything proposed before it, whatever becomes of that; so an append is a comparison. A
deposed leader that has not noticed yet still answers `sync` and reads, but nothing of it is ever committed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pvc.sim.zookeeper_server import FSYNC_S, Connection, Request, Role, Server, Txn
from pvc.sim.zookeeper_wire import Pipe, later

if TYPE_CHECKING:
    from pvc.sim.zookeeper_ensemble import Ensemble

MIN_TICKS, MAX_TICKS = 2, 20
"""Between these a session's time-out is granted."""


class Follower:
    """What a leader knows of a follower."""

    def __init__(self, server: Server, to: Pipe, now: float) -> None:
        self.server = server
        self.to = to
        self.acknowledged = 0
        self.heard_s = now


class Reign:
    """One leader and its followers."""

    def __init__(self, ensemble: Ensemble, server: Server, epoch: int) -> None:
        self.server = server
        self.epoch = epoch
        self.open = True
        self._ensemble = ensemble
        self._followers: dict[Server, Follower] = {}
        self._proposed = 0
        server.role, server.reign, server.epoch = Role.LEADING, self, epoch
        server.apply_to(len(server.log))
        server.durable = self._on_disk = len(server.log)
        self._tree = server.tree.copy()
        self._closing: dict[int, None] = {}
        self._owners: dict[int, Server] = {}
        self._syncs: deque[tuple[int, Request]] = deque()
        now = ensemble.now()
        # A new leader cannot know whom the old one has heard of: everyone gets the full time-out.
        self._deadlines = {session: now + timeout_s for session, timeout_s in self._tree.sessions.items()}
        later(ensemble.tick_s / 2, self._beat)

    # -- Followers -------------------------------------------------------------------------------------------------

    def admit(self, server: Server) -> None:
        """A server follows from now on: its log becomes the leader's, and what differs is cut off."""
        ensemble, log = self._ensemble, self.server.log
        earlier = self._followers.pop(server, None)
        if earlier is not None:
            earlier.to.close()  # what was on its way then is of another connection
        common = min(len(server.log), len(log))
        while common and server.log[common - 1] is not log[common - 1]:
            common -= 1
        assert common >= server.applied or ensemble.lossy, "an honest leader has all that was ever applied"
        server.cut_log(common)
        server.log.extend(log[common:])
        server.durable = len(server.log)
        server.role, server.reign, server.epoch = Role.FOLLOWING, self, self.epoch
        server.leader_heard_s = ensemble.now()
        server.to_leader = ensemble.pipe(server, self.server)
        follower = Follower(server, ensemble.pipe(self.server, server), ensemble.now())
        self._followers[server] = follower
        follower.acknowledged = len(server.log)
        follower.to.send(server.learn, self, self.server.committed)

    def acknowledge(self, server: Server, count: int) -> None:
        """A follower has so many transactions on its disk."""
        follower = self._followers.get(server)
        if self.open and follower is not None:
            follower.acknowledged = max(follower.acknowledged, count)
            self.commit()

    def heard(self, server: Server, touched: dict[int, None]) -> None:
        """A follower lives, and has heard of these sessions."""
        follower = self._followers.get(server)
        if self.open and follower is not None:
            follower.heard_s = self._ensemble.now()
            for session in touched:
                self.touch(session)

    def commit(self) -> None:
        """Let everyone know what a majority has on its disks."""
        counts = sorted(
            [self._on_disk, *(follower.acknowledged for follower in self._followers.values())], reverse=True
        )
        majority = self._ensemble.majority
        if len(counts) < majority or counts[majority - 1] <= self.server.committed:
            return
        committed = counts[majority - 1]
        self._ensemble.note_committed(self.server.log, committed)
        self.server.apply_to(committed)
        for follower in self._followers.values():
            follower.to.send(follower.server.learn, self, committed)
        while self._syncs and self._syncs[0][0] <= committed:
            self._answer_sync(self._syncs.popleft()[1])

    def end(self) -> None:
        """Step down."""
        if self.open:
            self.open = False
            for follower in self._followers.values():
                follower.to.close()
            if self.server.reign is self:
                self.server.leave()

    def dismiss(self, server: Server) -> None:
        """A follower is gone, and that was noticed at once."""
        follower = self._followers.pop(server, None)
        if follower is not None:
            follower.to.close()
        if self.open and not self._has_majority():
            self.end()

    def _has_majority(self) -> bool:
        since = self._ensemble.now() - self._ensemble.sync_limit_s
        there = [one for one in self._followers.values() if one.heard_s >= since and one.server.reign is self]
        return len(there) + 1 >= self._ensemble.majority

    def _beat(self) -> None:
        if not self.open:
            return
        later(self._ensemble.tick_s / 2, self._beat)
        if self.server.frozen:
            return
        if not self._has_majority():
            self._ensemble.note(f"{self.server.name} has lost its followers")
            self.end()
            return
        for follower in self._followers.values():
            follower.to.send(follower.server.beat, self)
        now = self._ensemble.now()
        for session, deadline in list(self._deadlines.items()):
            if deadline < now and session not in self._closing:
                self._ensemble.note(f"session {session:x} expires")
                self._close(session, None)

    # -- Sessions --------------------------------------------------------------------------------------------------

    def touch(self, session: int) -> None:
        """A sign of life."""
        timeout_s = self._tree.sessions.get(session)
        if timeout_s is not None:
            self._deadlines[session] = self._ensemble.now() + timeout_s

    def validate(self, connection: Connection, session: int, timeout_s: float) -> None:
        """A client goes on with its session at this server."""
        if not self.open:
            return
        known = self._tree.sessions.get(session)
        if known is None or session in self._closing:
            session = 0
        else:
            self.touch(session)
            self._owners[session] = connection.server
        self._reply(connection.server, connection.server.welcome, connection, session, known or timeout_s)

    def _close(self, session: int, request: Request | None) -> None:
        self._closing[session] = None
        self._deadlines.pop(session, None)
        steps = self._tree.end_session(session)
        self._propose(Txn(self._next(), steps, request, None, closes=session))

    # -- Requests --------------------------------------------------------------------------------------------------

    def receive(self, request: Request) -> None:
        """A write, or a sync, of some server's client."""
        if not self.open:
            return
        session, server = request.session, request.connection.server
        if request.kind == "open":
            tick_s = self._ensemble.tick_s
            timeout_s = min(max(float(request.paths[0]), MIN_TICKS * tick_s), MAX_TICKS * tick_s)
            session = self._ensemble.new_session()
            self._deadlines[session] = self._ensemble.now() + timeout_s
            self._owners[session] = server
            self._propose(Txn(self._next(), (), request, (session, timeout_s), opens=(session, timeout_s)))
            return
        if request.kind == "sync":
            if self.server.committed == len(self.server.log):
                self._answer_sync(request)
            else:
                self._syncs.append((len(self.server.log), request))
            return
        if session not in self._tree.sessions or session in self._closing:
            self._reply(server, server.drop, request.connection)
            return
        if self._owners.setdefault(session, server) is not server:
            # The session has moved to another server meanwhile: what the old one still has to say comes too late.
            self._reply(server, server.drop, request.connection)
            return
        if request.kind == "close":
            self._close(session, request)
            return
        zxid = epoch, count = self._next()
        try:
            steps, results = self._tree.prepare(
                request.operations, session, request.connection.identity, number=epoch << 32 | count
            )
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._propose(Txn(zxid, (), request, error))
            return
        self._propose(Txn(zxid, steps, request, results))

    def _propose(self, txn: Txn) -> None:
        for path, node in txn.steps:
            self._tree.apply(path, node)
        if txn.opens is not None:
            self._tree.sessions[txn.opens[0]] = txn.opens[1]
        if txn.closes:
            self._tree.sessions.pop(txn.closes, None)
        self.server.log.append(txn)
        later(FSYNC_S * self._ensemble.rng.random(), self._written, len(self.server.log))
        for follower in self._followers.values():
            follower.to.send(follower.server.propose, self, txn)

    def _written(self, count: int) -> None:
        if self.open:
            self._on_disk = self.server.durable = max(self._on_disk, count)
            self.commit()

    def _answer_sync(self, request: Request) -> None:
        server = request.connection.server
        self._reply(server, server.settled, request, None)

    def _reply(self, server: Server, act: object, *args: object) -> None:
        assert callable(act)
        if server is self.server:
            act(*args)
        elif server in self._followers:
            self._followers[server].to.send(act, *args)

    def _next(self) -> tuple[int, int]:
        self._proposed += 1
        return self.epoch, self._proposed
