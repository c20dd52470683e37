"""Repairs this node's log from its replica: in the background, one repair at a time, after a look at both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pvc.daemon.config import Config
from pvc.daemon.filling import filling_of
from pvc.daemon.logs import LogCopies, open_zookeeper_log, remove_replica
from pvc.errors import Conflict, LogDamaged, PvcError, Unavailable, internal_error
from pvc.events.record import unseal
from pvc.files import replace_file
from pvc.log.base import Log
from pvc.log.history import HistoryIndex
from pvc.log.zookeeper_layout import RESTORE
from pvc.presence.base import Presence
from pvc.presence.hello import read_hello
from pvc.proof.frames import encode_file
from pvc.runtime.log_care import Keep, RepairState, RepairWish
from pvc.runtime.repair import Survey, Verdict, from_replica, reappend, survey
from pvc.runtime.world import World

if TYPE_CHECKING:
    from pvc.log.zookeeper_mending import Mending

logger = logging.getLogger(__name__)

MAX_SAVED_RECORDS = 1_000_000
"""Of a branch that is given up; a longer one is not kept in memory, and so not given up."""

READ = 1_000

SEEN_S = 2.0
"""For so long whoever has asked for a repair can see that it is done, before the daemon starts over."""


class Repairs:
    """Repairs of one node's log. One at a time."""

    def __init__(
        self,
        config: Config,
        world: World,
        log: Log,
        history: HistoryIndex,
        copies: LogCopies,
        presence: Presence,
        begin_anew: Callable[[], None],
    ) -> None:
        """`begin_anew` has the daemon forget everything and start over."""
        self._config = config
        self._world = world
        self._log = log
        self._history = history
        self._copies = copies
        self._presence = presence
        self._begin_anew = begin_anew
        self._state: RepairState | None = None
        self._job: asyncio.Task[None] | None = None

    @property
    def holder(self) -> str:
        """The name under which this node holds a log."""
        return f"repair by {self._config.node_name}"

    async def survey(self) -> RepairState:
        """How log and replica stand to each other, or how the repair goes on."""
        if self._state is not None and self._job is not None and not self._job.done():
            return self._state
        log = await self._open()
        try:
            found = await survey(log, self._history)
            held_by = getattr(log, "held_by", "")
        finally:
            await self._close(log)
        done = self._state
        return RepairState(
            survey=found,
            held_by=held_by,
            longer=await self._longer(found.replica_position),
            reached=found.log_position,
            step=done.step if done is not None else "",
            error=done.error if done is not None else "",
        )

    async def repair(self, wish: RepairWish) -> RepairState:
        """Begin. Raises Conflict where what is wished for does not settle it, or one is going on."""
        if self._job is not None and not self._job.done():
            raise Conflict(
                "a repair is going on", code="log.held", hint="`pvc log repair --dry-run` shows how far it is"
            )
        self._state = None
        found = await self.survey()
        work = self._work_for(found, wish)
        if work is None:
            return msgspec.structs.replace(found, step="nothing had to be done")
        self._state = msgspec.structs.replace(found, running=True, step="beginning")
        self._job = asyncio.create_task(self._run(work(found.survey, wish)), name="repair")
        return self._state

    async def close(self) -> None:
        """Break off what is going on; it can be begun again."""
        if self._job is not None:
            self._job.cancel()
            await asyncio.gather(self._job, return_exceptions=True)

    def _work_for(self, found: RepairState, wish: RepairWish) -> Callable[[Survey, RepairWish], Awaitable[None]] | None:
        verdict = found.survey.verdict
        if verdict is Verdict.WHOLE:
            return self._release if found.held_by else None
        if wish.keep is Keep.LOG:
            if verdict is Verdict.GONE:
                raise Conflict("there is no log that could be kept", code="log.diverged", hint="--keep replica")
            return self._adopt
        if found.longer and not wish.force:
            raise Conflict(
                f"{', '.join(found.longer)} has more records than this node; what only it has would be lost",
                code="log.longer_replica",
                hint="repair on that node, or give --force",
            )
        if verdict is Verdict.DIVERGED and wish.keep is None:
            raise Conflict(
                f"log and replica are different behind {found.survey.common}; one of the two is to be given up",
                code="log.diverged",
                hint="say which is to stand: --keep replica or --keep log; the other is kept in a file",
            )
        return self._restore_from_replica

    async def _run(self, work: Awaitable[None]) -> None:
        try:
            await work
            self._tell(running=False)
        except PvcError as error:
            logger.error("repair: ended by an error code=%s error=%s", error.code, error.message)
            self._tell(running=False, error=f"{error.message} ({error.code})")
        except Exception as error:
            logger.exception("repair: unexpected error")
            self._tell(running=False, error=internal_error(error).message)

    async def _restore_from_replica(self, found: Survey, wish: RepairWish) -> None:
        """Append what the log lacks; of a log that goes another way, cut that off before."""
        if found.verdict is Verdict.GONE:
            await self._found()
        log = await self._open()
        assert log is not None, "it is there, or was founded"
        try:
            if self._config.log.kind == "zookeeper":
                await _mending(log).hold(take_over=wish.take_over)
            if found.verdict is Verdict.DIVERGED:
                await self._save("log", found.common, log.read)
                self._tell(step=f"cutting off what the log has behind {found.common}")
                # Before the cut: a repair that dies behind it finds nothing to cut when it is begun again.
                await self._copies.own.discard_after(found.common)
                await self._cut(log, found.common)
                for shelf in self._copies.shared:
                    # Ceph may be down, and wait for this very log; what it has amiss, the scrub finds later.
                    with contextlib.suppress(Unavailable):
                        await shelf.discard_after(found.common)
            self._tell(step="appending what the replica has")
            filling = filling_of(self._config, self._world, log, self._history, self._copies)

            async def note(position: int) -> None:
                self._tell(reached=position)
                await filling.note(position)

            await reappend(log, from_replica(self._history, found.common), note, at_once=filling.at_once)
            if self._config.log.kind == "zookeeper":
                await _mending(log).release()
            self._tell(step=f"appended the records {found.common + 1} to {found.replica_position} again")
            logger.warning("repair: appended again first=%d last=%d", found.common + 1, found.replica_position)
            if self._config.log.kind != "zookeeper":  # there the daemon looks by itself, as on all nodes
                asyncio.get_running_loop().call_later(SEEN_S, self._begin_anew)
        finally:
            await self._close(log)

    async def _adopt(self, found: Survey, wish: RepairWish) -> None:
        """Believe the log, and give up what only this node has."""
        await self._save("replica", found.common, self._history.read)
        self._tell(step=f"gave up this node's records behind {found.common}; it starts over from the log")
        logger.warning("repair: gave up the replica's records first=%d", found.common + 1)
        # What all share is left to the scrub: the others may have put there already what takes their place.
        await self._copies.own.discard_after(found.common)
        for path in (self._config.data_dir / "snapshot", *self._config.data_dir.glob("snapshots/*.snap")):
            path.unlink(missing_ok=True)
        remove_replica(self._config)
        self._tell(running=False)
        self._begin_anew()

    async def _release(self, found: Survey, wish: RepairWish) -> None:
        log = await self._open()
        assert log is not None, "it was found whole"
        try:
            # Looked at now: since it was asked for, another may hold it. Of an empty one nothing can be half there.
            if (await log.head()).position and getattr(log, "held_by", "") == RESTORE:
                raise Conflict(
                    "the log is only as far as a restore has come: run `pvc cluster restore` again, which goes on",
                    code="log.held",
                    hint="run `pvc cluster restore` with the same backup",
                )
            await _mending(log).hold(take_over=wish.take_over)
            await _mending(log).release()
            self._tell(step="nothing is missing; the log is free again")
        finally:
            await self._close(log)

    async def _found(self) -> None:
        self._tell(step="founding the log")
        log = await open_zookeeper_log(self._config, self._copies, even_damaged=True, holder=self.holder)
        try:
            await _mending(log).found("")
        finally:
            await log.close()

    async def _cut(self, log: Log, position: int) -> None:
        if self._config.log.kind != "zookeeper":
            raise Conflict(
                "the embedded log is a file: records are not cut off from it",
                code="log.diverged",
                hint="stop pvcd, move log.db away, start it and repair again",
            )
        await _mending(log).cut(position)

    async def _save(self, what: str, after: int, read: Callable[[int, int], Awaitable[list[bytes]]]) -> Path | None:
        """Keep what is given up in a file that `pvc log verify --files` can read."""
        records: list[bytes] = []
        while batch := await read(after + 1 + len(records), READ):
            records += batch
            if len(records) > MAX_SAVED_RECORDS:
                raise Conflict(
                    f"more than {MAX_SAVED_RECORDS:,} records would be given up",
                    code="log.diverged",
                    hint="this is another cluster's log; see that the nodes are given the right ensemble",
                )
        if not records:
            return None
        last = after + len(records)
        path = self._config.data_dir / f"given-up-{what}-{after + 1}-{last}-{unseal(records[-1]).hash.hex()[:8]}.pvclog"
        await asyncio.to_thread(replace_file, path, encode_file(after + 1, records), mode=0o600)
        self._tell(step=f"kept the records {after + 1} to {last} in {path}")
        return path

    async def _open(self) -> Log | None:
        """A client of the log that believes what it finds; None where there is no log."""
        if self._config.log.kind != "zookeeper":
            return self._log
        try:
            return await open_zookeeper_log(self._config, self._copies, holder=self.holder)
        except LogDamaged as error:
            if error.code == "log.gone":
                return None
            raise

    async def _close(self, log: Log | None) -> None:
        if log is not None and log is not self._log:
            await log.close()

    async def _longer(self, position: int) -> tuple[str, ...]:
        """Nodes with more than this one. While none can be reached, the admin is to know."""
        try:
            members = await self._presence.members()
        except PvcError:
            return ()
        hellos = {name: read_hello(member.hello) for name, member in members.items()}
        return tuple(sorted(name for name, hello in hellos.items() if hello is not None and hello.position > position))

    def _tell(self, **news: object) -> None:
        if self._state is not None:
            self._state = msgspec.structs.replace(self._state, **news)


def _mending(log: Log) -> Mending:
    from pvc.log.zookeeper import ZookeeperLog

    assert isinstance(log, ZookeeperLog), "only such a log has segments"
    return log.mending
