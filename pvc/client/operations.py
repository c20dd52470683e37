"""What a command gives back: its reply, and where it has begun something, the way to wait for that and to cancel it."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import msgspec

from pvc.client.core import Core, new_key
from pvc.client.errors import OperationFailed
from pvc.client.generated.models import CommandReply, OperationInfo, Reply, ToldEvent
from pvc.client.ports import finish
from pvc.client.waiting import OPEN, Standing, timed_out, until_over

WAIT_S = 600.0
"""Where nothing is said: a VM with much memory takes minutes to migrate, a guest as long to shut down."""

Progress = Callable[[OperationInfo], None]


class Begun:
    """What became of a command, and what it has begun. Most commands are done at once, and have begun nothing."""

    def __init__(self, core: Core, reply: CommandReply) -> None:
        self._core = core
        self.reply = reply
        """All that the gateway said."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.reply.name} at {self.position}{f', {self.id}' if self.id else ''}>"

    @property
    def id(self) -> str:
        """The operation's id, the same at every gateway for ever; empty where nothing was begun."""
        return self.reply.operation.id if self.reply.operation is not None else ""

    @property
    def position(self) -> int:
        """The position of the log that has the command in it."""
        return self.reply.position

    @property
    def changed(self) -> bool:
        """False: it was so already, and nothing was written."""
        return self.reply.changed

    @property
    def events(self) -> list[ToldEvent]:
        """What the command's own record says; of a dry run what it would say."""
        return self.reply.events

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        return self.reply.notes

    @property
    def token(self) -> str:
        """The token that the command has made. It is shown here and never again."""
        return self.reply.token

    @property
    def secret(self) -> str:
        """The secret of a webhook that the command has made. It is shown here and never again."""
        return self.reply.secret


class Operation(Begun):
    """Of a blocking program."""

    def info(self) -> OperationInfo | None:
        """How far it has come; None where nothing was begun."""
        return finish(look(self._core, self.id)) if self.id else None

    def wait(self, timeout_s: float = WAIT_S, *, on_progress: Progress | None = None) -> OperationInfo | None:
        """Wait for its end, over restarts of gateways; None where nothing was begun.

        `on_progress` is told how it stands whenever that has changed. Raises OperationFailed where it fails or is
        cancelled, WaitTimedOut where it goes on for longer.
        """
        return finish(wait(self._core, self.id, self.reply.name, timeout_s, on_progress))

    def cancel(self, *, dry_run: bool = False, key: str = "") -> Reply | None:
        """Ask for it to be given up; `wait` then tells whether that came about. None where nothing was begun.

        Raises Conflict where it is over, or cannot be cancelled.
        """
        return finish(cancel(self._core, self.id, dry_run, key)) if self.id else None


class AsyncOperation(Begun):
    """Of a program of asyncio."""

    async def info(self) -> OperationInfo | None:
        """How far it has come; None where nothing was begun."""
        return await look(self._core, self.id) if self.id else None

    async def wait(self, timeout_s: float = WAIT_S, *, on_progress: Progress | None = None) -> OperationInfo | None:
        """Wait for its end, over restarts of gateways; None where nothing was begun.

        `on_progress` is told how it stands whenever that has changed. Raises OperationFailed where it fails or is
        cancelled, WaitTimedOut where it goes on for longer.
        """
        return await wait(self._core, self.id, self.reply.name, timeout_s, on_progress)

    async def cancel(self, *, dry_run: bool = False, key: str = "") -> Reply | None:
        """Ask for it to be given up; `wait` then tells whether that came about. None where nothing was begun.

        Raises Conflict where it is over, or cannot be cancelled.
        """
        return await cancel(self._core, self.id, dry_run, key) if self.id else None


async def wait(
    core: Core, operation: str, name: str, timeout_s: float = WAIT_S, on_progress: Progress | None = None
) -> OperationInfo | None:
    """Wait for the end of an operation. Raises OperationFailed, WaitTimedOut, ApiError."""
    if not operation:
        return None

    async def tell(info: OperationInfo) -> None:
        if on_progress is not None:
            on_progress(info)

    async def look_at(wait_s: int, seen: int | None, within_s: float) -> OperationInfo:
        return await look(core, operation, wait_s, seen, within_s)

    info = await until_over(core.io, look_at, _standing, timeout_s, tell)
    if info is None or info.state in OPEN:
        raise timed_out(name, operation, timeout_s)
    if info.state == "succeeded":
        return info
    reason = info.problem.detail if info.problem is not None else info.progress.text
    code = info.problem.code if info.problem is not None else ""
    raise OperationFailed(
        f"{name} {_ENDED.get(info.state, info.state)}: {reason}",
        code=code,
        hint=f"`pvc operation info {operation}` shows more",
        operation=info,
    )


async def look(
    core: Core, operation: str, wait_s: int = 0, seen: int | None = None, within_s: float | None = None
) -> OperationInfo:
    """How an operation stands; with `wait_s`, at its end, or once something has changed after `seen`."""
    query = {"wait": wait_s or None, "seen": seen if wait_s else None}
    answer = await core.query(_path(operation), query, wait_s=wait_s, within_s=within_s)
    try:
        info = msgspec.json.decode(answer.body, type=OperationInfo)
    except msgspec.DecodeError as error:
        raise core.not_a_gateway(answer) from error
    if not info.state:  # of any other object all fields are empty
        raise core.not_a_gateway(answer)
    return info


async def cancel(core: Core, operation: str, dry_run: bool, key: str) -> Reply:
    """Ask for an operation to be given up. Raises ApiError."""
    query = {"dry_run": "true"} if dry_run else {}
    answer = await core.call("POST", f"{_path(operation)}/cancel", query, key=key or new_key())
    try:
        return msgspec.json.decode(answer.body, type=Reply)
    except msgspec.DecodeError as error:
        raise core.not_a_gateway(answer) from error


def _standing(info: OperationInfo) -> Standing:
    return Standing(info.position, info.state not in OPEN, info.progress.total != 1)


def _path(operation: str) -> str:
    return f"/operations/{quote(operation, safe='')}"


_ENDED = {"failed": "has failed", "cancelled": "was cancelled"}
