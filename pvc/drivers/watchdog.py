"""The Watchdog protocol: hardware that resets this machine unless it is petted. Twins: Linux's device, simulated.

It is the last line of a node that fences itself: when the daemon hangs or dies and can no longer end its VMs, the
machine goes down by itself within a known time, and the others may count on that.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pvc.errors import DriverError

DEFAULT_PATH = Path("/dev/watchdog")
MIN_TIMEOUT_S = 2
MAX_TIMEOUT_S = 600

_SETTIMEOUT = 0xC0045706
"""WDIOC_SETTIMEOUT, `_IOWR('W', 6, int)` in linux/watchdog.h."""
_GETTIMEOUT = 0x80045707
"""WDIOC_GETTIMEOUT, `_IOR('W', 7, int)`."""
_PET = b"\0"
_MAGIC_CLOSE = b"V"
"""Written last, it tells the driver that the closing is meant, so that the machine goes on."""


class Watchdog(Protocol):
    """One watchdog. Raises DriverError: `watchdog.unavailable` (there is none, somebody else has it, or it refuses the
    time), `watchdog.not_armed`."""

    def arm(self, timeout_s: int) -> None:
        """From now on the machine is reset when `pet` was not called for `timeout_s`. Armed again, it takes the new
        time. One that refuses that goes on as it was, armed if it was, and can then be petted: VMs may run here, and
        others count on it."""
        ...

    def pet(self) -> None:
        """Everything is well: the time begins anew."""
        ...

    def disarm(self) -> None:
        """Let the machine go on without being petted. Quiet when it is not armed."""
        ...


class LinuxWatchdog:
    """The kernel's watchdog device. A FIFO or a Unix stream socket in its place gets the same bytes, after a line with
    the time-out: see `pvc.lab.watchdog`, for machines that have no such device.

    A process that ends without `disarm` leaves it armed: that is the point.
    """

    def __init__(self, path: Path = DEFAULT_PATH) -> None:
        self._path = path
        self._fd: int | None = None
        self._is_device = False

    def arm(self, timeout_s: int) -> None:
        """Open it, which starts it, and set the time."""
        if not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
            raise _unavailable(self._path, f"{timeout_s} s is not within {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} s")
        try:
            if self._fd is None:
                self._open()
            self._set_timeout(timeout_s)
        except OSError as error:
            # An open device counts down, at the latest since now. To let go of it would be to disarm it, or be reset.
            if not self._is_device or error.errno == errno.ENODEV:
                self._close()
            raise _unavailable(self._path, _reason(error)) from error

    def pet(self) -> None:
        """Write a byte. Never waits."""
        self._write(_PET)

    def disarm(self) -> None:
        """The magic close."""
        if self._fd is not None:
            try:
                self._write(_MAGIC_CLOSE)
            finally:
                self._close()

    def _open(self) -> None:
        mode = self._path.stat().st_mode
        self._is_device = stat.S_ISCHR(mode)
        if stat.S_ISSOCK(mode):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.setblocking(False)
                connection.connect(str(self._path))
                self._fd = connection.detach()
        elif self._is_device or stat.S_ISFIFO(mode):
            # A FIFO that nobody reads is refused at once (ENXIO).
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        else:
            raise OSError(errno.ENODEV, "it is neither a device nor a FIFO nor a socket")

    def _set_timeout(self, timeout_s: int) -> None:
        assert self._fd is not None, "opened before"
        if not self._is_device:
            os.write(self._fd, f"{timeout_s}\n".encode())
            return
        (before,) = struct.unpack("i", fcntl.ioctl(self._fd, _GETTIMEOUT, struct.pack("i", 0)))
        (taken,) = struct.unpack("i", fcntl.ioctl(self._fd, _SETTIMEOUT, struct.pack("i", timeout_s)))
        if taken > timeout_s:
            # The log may still have what an earlier life promised with it.
            fcntl.ioctl(self._fd, _SETTIMEOUT, struct.pack("i", before))
            # Others count on the time that was asked for; a shorter one is safe.
            raise OSError(errno.EINVAL, f"it takes {taken} s where {timeout_s} s were asked for")

    def _write(self, word: bytes) -> None:
        if self._fd is None:
            raise DriverError("the watchdog is not armed", code="watchdog.not_armed", hint="arm it first")
        try:
            os.write(self._fd, word)
        except BlockingIOError:
            pass  # A FIFO that is full has unread pets enough.
        except OSError as error:
            raise _unavailable(self._path, _reason(error)) from error

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class SimulatedWatchdog:
    """Bites on the running event loop's time, so on whatever time there is: `bites` is called once, and the machine is
    then as good as off until armed again. It outlives the daemon that armed it, as hardware does."""

    def __init__(self, bites: Callable[[], None]) -> None:
        self._bites = bites
        self._timeout_s = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def armed(self) -> bool:
        """Whether it would bite."""
        return self._timer is not None

    def arm(self, timeout_s: int) -> None:
        """Start it."""
        if not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
            raise DriverError(f"{timeout_s} s is no time-out for a watchdog", code="watchdog.unavailable")
        self._timeout_s = timeout_s
        self._wind()

    def pet(self) -> None:
        """Begin the time anew."""
        if self._timer is None:
            raise DriverError("the watchdog is not armed", code="watchdog.not_armed", hint="arm it first")
        self._wind()

    def disarm(self) -> None:
        """Stop it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._bite)

    def _bite(self) -> None:
        self._timer = None
        self._bites()


def _reason(error: OSError) -> str:
    return "somebody else holds it" if error.errno == errno.EBUSY else error.strerror or "unknown"


def _unavailable(path: Path, why: str) -> DriverError:
    return DriverError(
        f"the watchdog {path} cannot be used: {why}",
        code="watchdog.unavailable",
        hint="load the driver of the machine's watchdog (or softdog), and let nothing else hold it",
    )
