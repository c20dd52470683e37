"""One simulated run of the log: clients that append and follow, servers and network that fail, all by a seed.

Every fifth seed or so the ensemble loses what it has acknowledged. Then the log need not be whole any more; but whoever
knew what is gone must find out, and write nothing on.
"""

from __future__ import annotations

import asyncio
import random

import msgspec

from pvc.sim.cluster_process import run_processes
from pvc.sim.log_world import LAG_S, LogWorld

LOSSY_PART = 0.2
"""Of the seeds."""


class LogFaults(msgspec.Struct, frozen=True, kw_only=True):
    """How often what happens, relative to each other."""

    deeds: tuple[tuple[str, int], ...] = (
        ("append", 45),
        ("break_off", 6),
        ("swallow", 8),
        ("restore", 8),
        ("stop_leader", 3),
        ("stop_server", 3),
        ("mend_servers", 6),
        ("freeze_server", 2),
        ("cut_server_off", 3),
        ("lag", 4),
        ("cut_client", 4),
        ("freeze_client", 3),
        ("thaw_client", 4),
        ("kill_client", 3),
        ("wipe_client", 1),
        ("archive", 6),
        ("start_client", 5),
    )
    lossy: float = LOSSY_PART


class LogResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    seed: int
    position: int
    acknowledged: int
    refused: int
    virtual_s: float
    trace: list[str]
    account: str


class LogSimulation:
    """One run."""

    def __init__(self, seed: int, *, faults: LogFaults | None = None, operations: int = 50) -> None:
        self.seed = seed
        self.trace: list[str] = []
        self._rng = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self._faults = faults or LogFaults()
        self._operations = operations

    def run(self) -> LogResult:
        """Run to the end on virtual time. Raises AssertionError when something does not hold."""
        return run_processes(self._main())

    async def _main(self) -> LogResult:
        rng = self._rng
        servers, clients = rng.choice((1, 3, 3, 3, 5)), rng.choice((2, 3, 3, 4))
        segment = rng.choice((4_096, 40, 12))
        world = self.world = LogWorld(rng, servers=servers, clients=clients, segment=segment)
        self.trace = world.trace
        loses_at = rng.randrange(self._operations) if rng.random() < self._faults.lossy else -1
        kinds, weights = zip(*self._faults.deeds, strict=True)
        for number in range(self._operations):
            self._do(world, rng.choices(kinds, weights=weights)[0])
            if number == loses_at:
                world.lose_tail(rng.randint(1, 6))
            dice = rng.random()
            await world.advance(rng.random() * (0.01 if dice < 0.6 else 0.5 if dice < 0.85 else 12.0))
        world.heal()
        await world.check_settled()
        account, found_out = world.account, sum(bool(one.found_out) for one in world.clients)
        return LogResult(
            seed=self.seed,
            position=world.truth.head.position,
            acknowledged=account.acknowledged,
            refused=account.conflicts + account.unavailable,
            virtual_s=asyncio.get_running_loop().time(),
            trace=world.trace,
            account=(
                f"{servers} servers, {clients} clients with {account.lives} lives, {account.unknown} outcomes unknown, "
                f"{account.followed} records followed, {account.archived} times archived, {found_out} found out"
            ),
        )

    def _do(self, world: LogWorld, deed: str) -> None:
        rng = self._rng
        one, other = rng.randrange(8), rng.randrange(8)
        match deed:
            case "append":
                for number in range(rng.choice((1, 1, 2, 3))):
                    world.append(one + number, rng.choice((1, 1, 2, 5)))
            case "swallow":
                world.swallow(one, rng.choice(("requests", "replies", "replies", "both")))
            case "lag":
                world.lag(one, rng.random() ** 2 * LAG_S)
            case "cut_client":
                world.cut_client(one, other)
            case "stop_leader" | "mend_servers":
                getattr(world, deed)()
            case _:
                getattr(world, deed)(one)
