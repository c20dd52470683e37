"""A machine's BMC for the lab and the tests: OpenIPMI's simulator, which speaks IPMI over LAN to real fencing agents.

What it switches is not a machine but a command: `POWER_COMMAND get` prints `on` or `off`, and `on`, `off` and `reset`
bring that about (a power cycle is `off` and, seconds later, `on`). So a lab's host, or one process in a test, can be
fenced with the tools that fence real machines.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pvc.errors import DriverError
from pvc.files import replace_file
from pvc.lab.shell import start_to_stay

PROGRAM = "ipmi_sim"
_LAN_CONF = """\
name "pvc-lab-bmc"
set_working_mc 0x20
startlan 1
  addr {address} {port}
  guid {guid}
  priv_limit admin
  allowed_auths_callback none md2 md5 straight
  allowed_auths_user none md2 md5 straight
  allowed_auths_operator none md2 md5 straight
  allowed_auths_admin none md2 md5 straight
endlan
chassis_control "{script} 0x20"
user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
_EMULATOR = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
"""
_CHASSIS = """\
#!/bin/sh
# Called by ipmi_sim: MC get ITEM..., or MC set ITEM VALUE. It answers nobody else meanwhile, so what takes long goes on
# by itself, as with a real machine; nothing may keep our output open, for ipmi_sim reads it to its end.
shift
how=$1
power() {{ {command} "$1" </dev/null 2>>{log}; }}
slowly() {{ setsid {command} "$1" </dev/null >>{log} 2>&1 & }}
if [ "$how" = get ]; then
    shift
    for item; do
        case $item in
            power) if [ "$(power get)" = on ]; then echo power:1; else echo power:0; fi ;;
            *) echo "$item:0" ;;
        esac
    done
    exit 0
fi
case $2:$3 in
    power:0 | shutdown:*) slowly off ;;
    power:1) slowly on ;;
    reset:*) slowly reset ;;
esac
"""
_START_TIMEOUT_S = 15.0
"""It takes a tenth of a second; a loaded machine is given more."""
_END_TIMEOUT_S = 10.0
_POLL_S = 0.02
_PASSWORD_BYTES_MAX = 20
"""What IPMI 2.0 has room for."""


class Bmc:
    """A simulated BMC: `start()`, fence at `address:port`, `stop()`. A second instance on its directory adopts it.

    `run_in` goes before the command line, to start it elsewhere: `("ip", "netns", "exec", NAME)`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str,
        port: int,
        user: str,
        password_file: Path,
        power_command: Sequence[str],
        run_in: Sequence[str] = (),
    ) -> None:
        self.directory = directory.resolve()
        self.address = address
        self.port = port
        self.user = user
        self.password_file = password_file
        self._power_command = tuple(power_command)
        self._run_in = tuple(run_in)
        self._lan_conf = self.directory / "lan.conf"

    @property
    def running(self) -> bool:
        """Whether its process is there, whoever started it."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """Its process, found by its configuration file, so that no pid file has to be trusted."""
        ours = os.fsencode(self._lan_conf)
        for entry in Path("/proc").iterdir():
            # A process may end while it is looked at.
            with contextlib.suppress(OSError):
                if entry.name.isdecimal():
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                    if Path(os.fsdecode(argv[0])).name == PROGRAM and ours in argv:
                        return int(entry.name)
        return None

    def start(self) -> None:
        """Start it and wait until it listens; leave one alone that runs. Raises DriverError naming what is missing."""
        if not self.running:
            self._write_files()
            self._spawn()
        self._wait(self._listens, "the BMC's simulator does not listen", _START_TIMEOUT_S)

    def stop(self) -> None:
        """End it; the machine behind it is left as it is."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._wait(lambda: not self.running, "the BMC's simulator does not end", _END_TIMEOUT_S)

    def _write_files(self) -> None:
        if shutil.which(PROGRAM) is None:
            raise DriverError(
                f"there is no {PROGRAM} on this machine", code="lab.no_tool", hint="apt-get install openipmi"
            )
        password = self.password_file.read_text().removesuffix("\n")
        for value in (self.user, password, str(self.directory)):
            if not value or '"' in value or not value.isprintable() or " " in str(self.directory):
                raise DriverError("the BMC's directory, user or password has a character it cannot", code="lab.bad_bmc")
        if len(password.encode()) > _PASSWORD_BYTES_MAX:
            raise DriverError(f"a BMC's password has at most {_PASSWORD_BYTES_MAX} bytes", code="lab.bad_bmc")
        (self.directory / "state").mkdir(parents=True, exist_ok=True)
        script = self.directory / "chassis"
        command, log = shlex.join(self._power_command), shlex.quote(str(self.directory / "power.log"))
        replace_file(script, _CHASSIS.format(command=command, log=log).encode(), mode=0o755)
        replace_file(self.directory / "emulator", _EMULATOR.encode())
        # Without an id of its own the simulator speaks IPMI 1.5 only.
        guid = uuid.uuid5(uuid.NAMESPACE_URL, f"ipmi://{self.address}:{self.port}").hex
        lan = _LAN_CONF.format(
            guid=guid, address=self.address, port=self.port, script=script, user=self.user, password=password
        )
        replace_file(self._lan_conf, lan.encode(), mode=0o600)

    def _spawn(self) -> None:
        command = [*self._run_in, PROGRAM, "-c", str(self._lan_conf), "-f", str(self.directory / "emulator")]
        command += ["-s", str(self.directory / "state"), "-n"]
        start_to_stay(command, self.directory / "bmc.log")

    def _listens(self) -> bool:
        """Read from its own namespace's table of sockets, so that it need not be reachable from here."""
        pid = self.pid
        if pid is None:
            return False
        packed = socket.inet_aton(self.address)
        local = f"{int.from_bytes(packed, 'little'):08X}:{self.port:04X}"
        try:
            table = Path(f"/proc/{pid}/net/udp").read_text()
        except OSError:
            return False
        return any(line.split()[1] == local for line in table.splitlines()[1:])

    def _wait(self, done: Callable[[], bool], otherwise: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise DriverError(f"{otherwise}, see {self.directory / 'bmc.log'}", code="lab.timeout")
            time.sleep(_POLL_S)
