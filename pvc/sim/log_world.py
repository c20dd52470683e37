"""Clients of one log over a simulated ensemble, and all that may befall them: driven by a seed, or by hypothesis.

Each deed is a plain method that only begins something; `advance` lets time pass. `heal` ends all that is wrong, and
`check_settled` says what must then hold.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from pvc.log.zookeeper_layout import SegmentLimits
from pvc.sim.log_archive import SimArchive
from pvc.sim.log_client import Account, LogClient
from pvc.sim.log_truth import LogTruth
from pvc.sim.zookeeper_ensemble import Ensemble

SETTLE_S = 90.0
"""Virtual seconds in which healed clients have done what they were asked to: a new session, an election, a deadline."""

LAG_S = 8.0
"""The most by which a server may be behind."""

PROMPT_S = 1.5
"""Where nothing is wrong, everyone has seen a record after so long; much sooner than the poll that goes beside."""


class LogWorld:
    """Servers and clients. Make it in the loop that it lives in."""

    def __init__(self, rng: random.Random, *, servers: int = 3, clients: int = 3, segment: int = 4_096) -> None:
        self.rng = rng
        self.trace: list[str] = []
        self.broken = ""
        self.account = Account()
        self.truth = LogTruth(self.breaks, lambda entry: self.note(f"#{entry.position} {entry.record.id}"))
        self.ensemble = Ensemble(
            rng,
            [f"s{number}" for number in range(1, servers + 1)],
            committed=self.truth.committed,
            lost=self.truth.rewind,
            note=self.note,
        )
        self._limits = SegmentLimits(records=segment)
        self._archive = SimArchive(self.note)
        self.clients = [self._client(f"c{number}") for number in range(1, clients + 1)]
        for client in self.clients:
            client.start()

    def _client(self, name: str) -> LogClient:
        return LogClient(
            name,
            self.ensemble.client(name),
            self.truth,
            self._archive,
            self.account,
            limits=self._limits,
            breaks=self.breaks,
            note=self.note,
            may_be_damaged=lambda: self.ensemble.lossy,
        )

    def breaks(self, what: str) -> None:
        """Something does not hold."""
        self.note(f"BROKEN: {what}")
        self.broken = self.broken or what

    def note(self, what: str) -> None:
        """For the trace."""
        self.trace.append(f"{asyncio.get_running_loop().time():9.3f} {what}")

    async def advance(self, seconds: float) -> None:
        """Let time pass. Raises AssertionError at the first thing that does not hold."""
        until = asyncio.get_running_loop().time() + seconds
        while (left_s := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left_s, 1.0))
            assert not self.broken, self.broken

    # -- What befalls the servers ----------------------------------------------------------------------------------

    def stop_server(self, number: int) -> None:
        """Kill one."""
        self._server_note(number, "dies")
        self.ensemble.stop(self._server(number), silently=self.rng.random() < 0.3)

    def start_server(self, number: int) -> None:
        """Start it again."""
        self.ensemble.start(self._server(number))

    def freeze_server(self, number: int) -> None:
        """Stop one in mid-step."""
        self._server_note(number, "stands still")
        self.ensemble.freeze(self._server(number))

    def thaw_server(self, number: int) -> None:
        """Let it go on."""
        self.ensemble.thaw(self._server(number))

    def stop_leader(self) -> None:
        """Kill whoever leads."""
        leader = self.ensemble.leader
        if leader is not None:
            self.note(f"the leader {leader.name} dies")
            self.ensemble.stop(leader.name)

    def cut_server_off(self, number: int) -> None:
        """No other server reaches it; clients do."""
        name = self._server(number)
        self._server_note(number, "cut off from the others")
        for other in self.ensemble.servers:
            if other != name:
                self.ensemble.cut(name, other)

    def lag(self, number: int, seconds: float) -> None:
        """A server hears of everything late."""
        self._server_note(number, f"{seconds:.1f} s behind")
        self.ensemble.lag_s[self._server(number)] = seconds

    def mend_servers(self) -> None:
        """All servers run, reach each other, and are quick."""
        for name in self.ensemble.servers:
            self.ensemble.start(name)
            self.ensemble.thaw(name)
        self.ensemble.lag_s.clear()
        self.ensemble.cuts.clear()

    def lose_tail(self, count: int) -> None:
        """All servers forget the last transactions, acknowledged or not."""
        lost = self.ensemble.lose_tail(count)
        self.note(f"{lost} committed transactions are lost; the log is at {self.truth.head.position}")

    # -- What befalls the clients ----------------------------------------------------------------------------------

    def append(self, number: int, entries: int) -> None:
        """Have a client append something."""
        self._one(number).append(entries)

    def archive(self, number: int) -> None:
        """Have a client archive what is sealed."""
        self._one(number).archive()

    def wipe_client(self, number: int) -> None:
        """It is killed, and begins with an empty disk."""
        client = self._one(number)
        self.note(f"{client.name} loses its disk")
        client.wipe()

    def break_off(self, number: int) -> None:
        """Its connection breaks."""
        name = self._one(number).name
        self.note(f"{name}'s connection breaks")
        for connection in self.ensemble.wires.get(name, [])[-1:]:
            connection.client.hung_up(connection)

    def swallow(self, number: int, what: str) -> None:
        """Its "requests", "replies" or "both" are lost."""
        name = self._one(number).name
        self.note(f"{name}'s {what} are lost")
        self.ensemble.swallow(name, what)

    def restore(self, number: int) -> None:
        """End of that."""
        self.ensemble.restore(self._one(number).name)

    def cut_client(self, number: int, server: int) -> None:
        """It does not reach that server; what is on the way waits, and may come late."""
        name = self._one(number).name
        self.note(f"{name} does not reach {self._server(server)}")
        self.ensemble.cut(name, self._server(server))

    def freeze_client(self, number: int) -> None:
        """SIGSTOP."""
        client = self._one(number)
        if client.process is not None:
            self.note(f"{client.name} stands still")
            client.process.freeze()

    def thaw_client(self, number: int) -> None:
        """SIGCONT."""
        client = self._one(number)
        if client.process is not None:
            client.process.thaw()

    def kill_client(self, number: int) -> None:
        """`kill -9`, and a new start at once or some time."""
        client = self._one(number)
        self.note(f"{client.name} is killed")
        client.kill()

    def start_client(self, number: int) -> None:
        """Start it again if it does not run."""
        self._one(number).start()

    # -- In the end ------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Nothing is wrong any more."""
        self.note("healed")
        self.mend_servers()
        for number in range(len(self.clients)):
            self.restore(number)
            self.thaw_client(number)
            self.start_client(number)

    async def check_settled(self) -> None:
        """Everyone comes to rest with the same log. Raises AssertionError."""
        await self._until_idle(SETTLE_S)
        await self.advance(LAG_S)
        for client in self.clients:
            for entry in client.refused:
                assert not self.truth.holds(entry), (
                    f"record {entry.position} was refused to {client.name}, and is there"
                )
            set_back = client.known.hash in self.truth.lost
            assert not set_back or client.found_out, f"{client.name} knows {client.known.position}, which was lost"
        well = [client for client in self.clients if not client.found_out]
        # Twice, so that a watch that was used up has been set again.
        for _ in range(2 if well else 0):
            self.append(self.clients.index(self.rng.choice(well)), 1)
            await self._until_idle(PROMPT_S)
        assert all(client.replica == self.truth.entries for client in well), "followers have another log"

    async def _until_idle(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while not all(client.idle for client in self.clients):
            late = [client.name for client in self.clients if not client.idle]
            assert asyncio.get_running_loop().time() < until, f"{', '.join(late)} not done after {seconds:g} s"
            await self.advance(0.25)
        await self.advance(0.25)

    def _one(self, number: int) -> LogClient:
        return self.clients[number % len(self.clients)]

    def _server(self, number: int) -> str:
        names: Sequence[str] = list(self.ensemble.servers)
        return names[number % len(names)]

    def _server_note(self, number: int, what: str) -> None:
        self.note(f"{self._server(number)} {what}")
