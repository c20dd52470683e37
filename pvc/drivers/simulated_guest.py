"""The guest inside a simulated domain: beats on its console, echoes what is typed, ends as its behaviour says.

Time is the running loop's `call_later` alone, so a loop with virtual time makes every run the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from pvc.drivers.hypervisor import OffReason

HEARTBEAT_S = 1.0
MAX_UNREAD_BYTES = 64 * 1024
"""What an attached console may leave unread before its oldest bytes are dropped, as a real terminal's would be."""


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest does. Looked up again at every step, so tests can change it under a running guest."""

    obeys_acpi_after_s: float | None = 0.5
    """Seconds from the power button to power off; None ignores the button."""
    powers_off_after_s: float | None = None
    """Powers itself off this long after (re)boot."""
    crashes_after_s: float | None = None
    """Panics this long after (re)boot."""
    refuses_define: str = ""
    """The hypervisor refuses the definition, with this message."""
    refuses_start: str = ""
    """The hypervisor cannot start it, with this message."""
    refuses_migration: str = ""
    """The hypervisor cannot migrate it, with this message."""
    restless: bool = False
    """Changes its memory faster than it can be sent: it is migrated by force only."""
    cpu_load: float = 0.02
    """The part of its CPUs that it uses."""
    heartbeat: bool = True
    """Writes a line a second to the console (and so keeps a timer running)."""


class SimulatedGuest:
    """One run of a guest, from power-on to `stop`."""

    def __init__(
        self,
        *,
        name: str,
        behaviour: Callable[[], Behaviour],
        ended: Callable[[OffReason], None],
        log: Path | None,
        beats: int = 0,
        uptime_s: float = 0.0,
        paused: bool = False,
    ) -> None:
        self.beats = beats
        self._name = name
        self._behaviour = behaviour
        self._ended = ended
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._booted_at = self._loop.time() - uptime_s
        self._timers: list[asyncio.TimerHandle] = []
        self._consoles: set[SimulatedConsole] = set()
        self._typed = b""
        self._paused_at: float | None = uptime_s if paused else None
        if not paused:
            self._boot()

    @property
    def uptime_s(self) -> float:
        """Seconds since (re)boot in which it ran."""
        return self._loop.time() - self._booted_at if self._paused_at is None else self._paused_at

    def pause(self) -> None:
        """Its CPUs stand still."""
        if self._paused_at is None:
            self._paused_at = self.uptime_s
            self._cancel()

    def run_on(self) -> None:
        """Its CPUs go on, as if no time had passed."""
        if self._paused_at is not None:
            self._booted_at = self._loop.time() - self._paused_at
            self._paused_at = None
            self._boot()

    def reboot(self) -> None:
        """The reset button: everything from the beginning, consoles stay attached."""
        self._cancel()
        self.beats = 0
        self._booted_at = self._loop.time()
        self._typed = b""
        if self._paused_at is not None:
            self._paused_at = 0.0
            return
        self._boot()

    def press_power_button(self) -> None:
        """The guest powers off in its time, or not at all."""
        after = self._behaviour().obeys_acpi_after_s
        if after is not None and self._paused_at is None:
            self._later(after, self._power_off)

    def attach(self) -> SimulatedConsole:
        """A new console that sees everything from now on."""
        console = SimulatedConsole(typed=self._type, detached=self._consoles.discard)
        self._consoles.add(console)
        return console

    def detach_all(self) -> None:
        """Every console reads its end."""
        for console in list(self._consoles):
            console.hang_up()

    def stop(self) -> None:
        """Power is gone."""
        self._cancel()
        self.detach_all()

    def _boot(self) -> None:
        behaviour = self._behaviour()
        if behaviour.powers_off_after_s is not None:
            self._later(behaviour.powers_off_after_s - self.uptime_s, self._power_off)
        if behaviour.crashes_after_s is not None:
            self._later(behaviour.crashes_after_s - self.uptime_s, self._crash)
        if behaviour.heartbeat:
            self._later(HEARTBEAT_S, self._beat)

    def _beat(self) -> None:
        self.beats += 1
        self._write(f"{self._name} heartbeat {self.beats} up {self.uptime_s:.0f}s\n".encode())
        self._timers = [timer for timer in self._timers if timer.when() > self._loop.time()]
        self._later(HEARTBEAT_S, self._beat)

    def _power_off(self) -> None:
        self._write(f"{self._name} powers off\n".encode())
        self._ended(OffReason.GUEST)

    def _crash(self) -> None:
        self._write(b"Kernel panic - not syncing\n")
        self._ended(OffReason.CRASHED)

    def _type(self, data: bytes) -> None:
        """Echo what is typed, and obey `poweroff`, `crash` and `reboot` on a line of their own."""
        if self._paused_at is not None:
            return
        self._write(data)
        *lines, self._typed = (self._typed + data.replace(b"\r", b"\n")).split(b"\n")
        commands = {b"poweroff": self._power_off, b"crash": self._crash, b"reboot": self.reboot}
        for line in lines:
            if command := commands.get(line.strip()):
                command()
                return

    def _write(self, data: bytes) -> None:
        for console in self._consoles:
            console.show(data)
        if self._log is not None:
            # On a full disk the log loses what it cannot hold, and the guest goes on, as a real one does.
            with contextlib.suppress(OSError):
                self._log.parent.mkdir(parents=True, exist_ok=True)
                with self._log.open("ab") as log:
                    log.write(data)

    def _later(self, delay_s: float, do: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(delay_s, do))

    def _cancel(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


class SimulatedConsole:
    """One attached console."""

    def __init__(self, *, typed: Callable[[bytes], None], detached: Callable[[SimulatedConsole], None]) -> None:
        self._typed = typed
        self._detached = detached
        self._unread = bytearray()
        self._gone = False
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes; empty when the console is gone."""
        while not self._unread and not self._gone:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._unread)
        self._unread.clear()
        return data

    async def write(self, data: bytes) -> None:
        """Type; into the void when the console is gone."""
        await asyncio.sleep(0)
        if not self._gone:
            self._typed(data)

    async def close(self) -> None:
        """Detach."""
        await asyncio.sleep(0)
        self.hang_up()

    def show(self, data: bytes) -> None:
        """The guest wrote `data`."""
        self._unread += data
        del self._unread[:-MAX_UNREAD_BYTES]
        self._changed.set()

    def hang_up(self) -> None:
        """The console is gone; what was written can still be read."""
        self._gone = True
        self._detached(self)
        self._changed.set()
