"""What goes on while one waits: how far a migration has come, how many VMs a flush has still to move.

Read by a thread of its own, which asks a gateway beside the one that the waiting hangs on: about once a second where
somebody looks at a terminal, and now and then where lines go to a file. What it cannot learn it does not show.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pvc.cli.session import SOURCE
from pvc.cli.times import size
from pvc.client.api_types import MigrationProgress
from pvc.client.connections import Connection
from pvc.client.errors import ClientError

if TYPE_CHECKING:
    from pvc.cli.progress import ProgressLine
    from pvc.cli.session import Session
    from pvc.client.json_client import JsonClient

LOOK_S = 1.0
"""As often as a node publishes how far its migrations have come."""

LINE_S = 10.0
"""Between two lines where there is no terminal; what is over sooner writes none."""

TIMEOUT_S = 5.0

BAR = 20
"""Characters of a progress bar."""

MAX_LOOKED_AT = 4
"""VMs that are asked for one by one: as many as a node sends at a time."""


class Seen(NamedTuple):
    """How far it has come: in words, and as a bar where there is one thing to measure."""

    text: str = ""
    bar: str = ""


Look = Callable[["JsonClient", str], Seen]


class Watcher:
    """Shows what it sees until the block ends, first after `first_s` and then every `every_s`."""

    def __init__(
        self,
        connection: Connection,
        look: Look,
        about: str,
        show: Callable[[Seen], None],
        *,
        first_s: float,
        every_s: float,
    ) -> None:
        self._first_s = first_s
        self._every_s = every_s
        self._connection = connection
        self._look = look
        self._about = about
        self._show = show
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()  # not joined: it may hang on a gateway, and only ever shows something

    def _run(self) -> None:
        from pvc.client.json_client import JsonClient

        with JsonClient(self._connection, source=SOURCE, tries=1, timeout_s=TIMEOUT_S) as client:
            pause_s = self._first_s
            while not self._done.wait(pause_s):
                pause_s = self._every_s
                try:
                    seen = self._look(client, self._about)
                except (ClientError, OSError):
                    seen = Seen()
                if not self._done.is_set():
                    self._show(seen)


def look_for(command: str) -> Look | None:
    """How to see what a command is doing; None where there is nothing to see."""
    return _LOOKS.get(command)


def watching(session: Session, command: str, about: str, progress: ProgressLine) -> AbstractContextManager[Any]:
    """Show in `progress` how far a command has come; nothing where there is nothing to see."""
    look = look_for(command)
    if look is None or not (progress.moving or progress.plain):
        return nullcontext()
    connection = session.client.connection

    def draw(seen: Seen) -> None:
        progress.detail(" ".join(part for part in seen[::-1] if part))

    def tell(seen: Seen) -> None:
        if seen.text:
            progress.line(f"{about}: {seen.text}" if about else seen.text)

    if progress.moving:
        return Watcher(connection, look, about, draw, first_s=0.0, every_s=LOOK_S)
    return Watcher(connection, look, about, tell, first_s=LINE_S, every_s=LINE_S)


def transfer(progress: MigrationProgress) -> str:
    """A migration's progress as a bar, with per cent and bytes."""
    return f"{_bar(progress)} {_sent(progress)}"


def _bar(progress: MigrationProgress) -> str:
    filled = round(_per_cent(progress) / 100 * BAR)
    return f"[{'#' * filled}{'-' * (BAR - filled)}]"


def _sent(progress: MigrationProgress) -> str:
    total, left = progress["total_bytes"], progress["remaining_bytes"]
    sent = f", {size(max(total - left, 0))} of {size(total)}" if total else ""
    return f"{_per_cent(progress):.0f} %{sent}"


def _per_cent(progress: MigrationProgress) -> float:
    return min(max(progress["per_cent"], 0.0), 100.0)


def _migration(client: JsonClient, vm: str) -> Seen:
    move = client.vm(vm)["migration"]
    if move is None:
        return Seen()
    if move["progress"] is not None:
        return Seen(_sent(move["progress"]), _bar(move["progress"]))
    return Seen("" if move["live"] else "by shutdown and start")


def _flush(client: JsonClient, node: str) -> Seen:
    moving = [vm["name"] for vm in client.vms(state="migrating", node=node)]
    return _together(_left(client.node(node)["vms_running"], "still on it"), _of_each(client, moving))


def _return(client: JsonClient, node: str) -> Seen:
    moving = [vm["name"] for vm in client.vms(state="migrating") if vm["target"] == node]
    return _together(_left(client.node(node)["vms_away"], "still away"), _of_each(client, moving))


def _everywhere(client: JsonClient, _: str) -> Seen:
    moving = [vm["name"] for vm in client.vms(state="migrating")]
    return _together(_left(len(moving), "on their way"), _of_each(client, moving))


def _left(count: int, where: str) -> str:
    return f"{count} {'VM' if count == 1 else 'VMs'} {where}" if count else ""


def _of_each(client: JsonClient, vms: Sequence[str]) -> str:
    """How far each of the first few has come."""
    found = []
    for vm in vms[:MAX_LOOKED_AT]:
        move = client.vm(vm)["migration"]
        if move is not None and move["progress"] is not None:
            found.append(f"{vm} {_sent(move['progress'])}")
    return "; ".join(found)


def _together(*parts: str) -> Seen:
    return Seen("; ".join(part for part in parts if part))


_LOOKS: dict[str, Look] = {
    "vm.migrate": _migration,
    "vm.move": _migration,
    "vm.unmigrate": _migration,
    "vm.cancel_migration": _migration,
    "node.flush": _flush,
    "node.ready": _return,
    "cluster.rebalance": _everywhere,
}
