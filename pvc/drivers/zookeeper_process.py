"""How a ZooKeeper server is kept running: as a process of its own, or as a unit of systemd. It outlives the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Protocol

from pvc.drivers.zookeeper_config import CLASSPATH, ServerConfig
from pvc.errors import DriverError

STOP_TIMEOUT_S = 15.0
"""Asked to end, a server closes its log within a second. After this it is killed, which its log survives too."""

_KILL_TIMEOUT_S = 5.0
_SYSTEMCTL_TIMEOUT_S = 60.0
_POLL_S = 0.05
SYSTEMD_RUNS = Path("/run/systemd/system")
"""sd_booted(3): this directory is there where systemd is the init system."""


class Starter(Protocol):
    """Starts and stops the one server of a machine."""

    async def running(self) -> bool:
        """Whether it is there, whoever started it."""
        ...

    async def start(self) -> None:
        """Start it; nothing happens if it is there. Raises DriverError."""
        ...

    async def stop(self) -> None:
        """End it, by force if need be. Raises DriverError when it does not end."""
        ...


class DetachedStarter:
    """A Java of its own session. Its pid file is locked for as long as it lives, for it inherits the lock: so a stale
    number is never taken for a server, and two starts at once make one server."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._pid_file = config.home / "zookeeper.pid"

    async def running(self) -> bool:
        """Whether somebody holds the lock."""
        return self._locked()

    async def start(self) -> None:
        """Spawn it, and go on at once."""
        self._spawn(_java())

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, _KILL_TIMEOUT_S)):
            if await self._ends(number, patience_s):
                return
        raise DriverError(
            f"ZooKeeper (process {self.pid()}) does not end", code="zookeeper.stop_timeout", hint="look at its disk"
        )

    def pid(self) -> int | None:
        """The server's process, None when there is none."""
        if not self._locked():
            return None
        with contextlib.suppress(OSError, ValueError):
            return int(self._pid_file.read_text())
        return None

    def _spawn(self, java: str) -> None:
        fd = os.open(self._pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            os.ftruncate(fd, 0)
            # The process writes its number itself before it becomes Java: there is no moment at which it is unknown.
            command = ["/bin/sh", "-c", 'echo $$ >"$0"; exec "$@"', str(self._pid_file)]
            command += [java, f"@{self._config.java_options}"]
            with (self._config.home / "java.out").open("ab") as out:
                process = subprocess.Popen(  # noqa: S603 - fixed words and our own paths
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    cwd=self._config.home,
                    start_new_session=True,
                    pass_fds=(fd,),
                )
        finally:
            os.close(fd)
        # Reaps it when it ends while we still run, so that it leaves no zombie.
        threading.Thread(target=process.wait, daemon=True).start()

    async def _ends(self, number: signal.Signals, patience_s: float) -> bool:
        sent = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while self._locked():
                    pid = None if sent else self.pid()
                    if pid is not None:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, number)
                        sent = True
                    await asyncio.sleep(_POLL_S)
                return True
        return False

    def _locked(self) -> bool:
        try:
            fd = os.open(self._pid_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


class SystemdStarter:
    """A unit that runs `java @HOME/java.options`: systemd would end a mere child together with the daemon's unit."""

    def __init__(self, unit: str = "pvc-zookeeper.service", *, systemctl: str = "systemctl") -> None:
        self._unit = unit
        self._systemctl = systemctl

    async def running(self) -> bool:
        """Whether the unit is active, or on its way."""
        code, output = await self._call("show", "--property=ActiveState", "--value")
        return code == 0 and output.strip() in ("active", "activating", "reloading")

    async def start(self) -> None:
        """Start the unit."""
        await self._do("start", "--no-block")

    async def stop(self) -> None:
        """Stop the unit, and wait for its end."""
        await self._do("stop")

    async def _do(self, *words: str) -> None:
        code, output = await self._call(*words)
        if code != 0:
            raise DriverError(
                f"systemctl could not {words[0]} {self._unit}: {output.strip()[-300:]}",
                code="zookeeper.unit_failed",
                hint=f"journalctl -u {self._unit}",
            )

    async def _call(self, *words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            self._systemctl,
            *words,
            self._unit,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_SYSTEMCTL_TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise DriverError(
                f"systemctl {words[0]} {self._unit} took more than {_SYSTEMCTL_TIMEOUT_S:.0f} s",
                code="zookeeper.unit_failed",
                hint=f"journalctl -u {self._unit}",
            ) from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        assert process.returncode is not None, "communicate waits for the end"
        return process.returncode, output.decode(errors="replace")


def starter_for(config: ServerConfig) -> Starter:
    """systemd's where systemd runs the machine, else a process of its own."""
    return SystemdStarter() if SYSTEMD_RUNS.is_dir() else DetachedStarter(config)


def _java() -> str:
    java = shutil.which("java")
    missing = [str(jar) for jar in CLASSPATH if not jar.exists()]
    if java is None or missing:
        raise DriverError(
            f"ZooKeeper needs {', '.join(missing) or 'java'}",
            code="zookeeper.missing",
            hint="apt-get install libzookeeper-java openjdk-17-jre-headless",
        )
    return java
