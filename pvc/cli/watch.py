"""What goes on while one waits: how far a migration has come, how many VMs a flush has still to move.

Read about once a second by a thread of its own, which asks a gateway beside the one that the waiting hangs on, and only
where somebody looks at a terminal. What it cannot learn it does not show.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from pvc.cli.session import SOURCE
from pvc.cli.times import size
from pvc.client.api_types import MigrationProgress
from pvc.client.connections import Connection
from pvc.client.errors import ClientError

if TYPE_CHECKING:
    from pvc.client.client import Client

LOOK_S = 1.0
"""As often as a node publishes how far its migrations have come."""

TIMEOUT_S = 5.0

BAR = 20
"""Characters of a progress bar."""

Look = Callable[["Client", str], str]


class Watcher:
    """Shows what it sees until the block ends."""

    def __init__(self, connection: Connection, look: Look, about: str, show: Callable[[str], None]) -> None:
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
        from pvc.client.client import Client

        with Client(self._connection, source=SOURCE, tries=1, timeout_s=TIMEOUT_S) as client:
            while not self._done.is_set():
                try:
                    seen = self._look(client, self._about)
                except (ClientError, OSError):
                    seen = ""
                if not self._done.is_set():
                    self._show(seen)
                self._done.wait(LOOK_S)


def look_for(command: str) -> Look | None:
    """How to see what a command is doing; None where there is nothing to see."""
    return _LOOKS.get(command)


def transfer(progress: MigrationProgress) -> str:
    """A migration's progress as a bar, with per cent and bytes."""
    part = min(max(progress["per_cent"], 0.0), 100.0)
    filled = round(part / 100 * BAR)
    bar = "#" * filled + "-" * (BAR - filled)
    total, left = progress["total_bytes"], progress["remaining_bytes"]
    sent = f", {size(max(total - left, 0))} of {size(total)}" if total else ""
    return f"[{bar}] {part:.0f} %{sent}"


def _migration(client: Client, vm: str) -> str:
    move = client.vm(vm)["migration"]
    if move is None:
        return ""
    if move["progress"] is not None:
        return transfer(move["progress"])
    return "" if move["live"] else "by shutdown and start"


def _flush(client: Client, node: str) -> str:
    return _left(client.node(node)["vms_running"], "still on it")


def _return(client: Client, node: str) -> str:
    return _left(client.node(node)["vms_away"], "still away")


def _left(count: int, where: str) -> str:
    return f"{count} {'VM' if count == 1 else 'VMs'} {where}" if count else ""


_LOOKS: dict[str, Any] = {
    "vm.migrate": _migration,
    "vm.move": _migration,
    "vm.unmigrate": _migration,
    "vm.cancel_migration": _migration,
    "node.flush": _flush,
    "node.ready": _return,
}
