"""What this daemon offers about its log: a `pvc.runtime.log_care.LogCare` made of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pvc.daemon.config import Config
from pvc.daemon.log_status import log_status
from pvc.daemon.logs import LogCopies
from pvc.daemon.repairs import Repairs
from pvc.daemon.restores import Restores
from pvc.log.history import HistoryIndex
from pvc.node.node import Services
from pvc.runtime.log_care import LogStatus, RepairState, RepairWish


class DaemonLogCare:
    """One daemon's."""

    def __init__(
        self,
        config: Config,
        services: Services,
        history: HistoryIndex,
        copies: LogCopies,
        begin_anew: Callable[[], None],
    ) -> None:
        """`begin_anew` has the daemon forget everything and start over."""
        self._config = config
        self._services = services
        self._history = history
        self._copies = copies
        self._repairs = Repairs(config, services.world, services.log, history, copies, services.presence, begin_anew)
        self._restores = Restores(config, services.world, history, copies, services.clock, services.rng, begin_anew)

    async def status(self) -> LogStatus:
        """Where everything is."""
        services = self._services
        return await log_status(
            self._config,
            services.world,
            services.log,
            self._history,
            self._copies,
            services.presence,
            services.archive,
        )

    async def survey(self) -> RepairState:
        """How log and replica stand to each other."""
        return await self._repairs.survey()

    async def repair(self, wish: RepairWish) -> RepairState:
        """Begin to repair."""
        return await self._repairs.repair(wish)

    async def begin_restore(self) -> int:
        """Hold the empty log."""
        return await self._restores.begin()

    async def restore(self, records: Sequence[bytes]) -> int:
        """Append the next records."""
        return await self._restores.append(records)

    async def end_restore(self, source: str) -> None:
        """All is there."""
        await self._restores.end(source)

    async def close(self) -> None:
        """Break off what is going on; it can be begun again."""
        await self._repairs.close()
        await self._restores.close()
