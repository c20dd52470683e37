"""Fencing by Debian's fence agents: one small program for each kind of device, from IPMI to power strips.

An agent gets its options and the password on standard input, so that neither shows in a list of processes or in an
environment. What it says is believed only in part: "off" is a second question that must be answered in so many words.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from pvc.errors import DriverError
from pvc.events.fence import FenceSettings

SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where agents are, and the programs that they call. A daemon's own PATH may lack sbin."""

RETRY_PAUSE_S = 1.0
"""Between the two attempts: a BMC that drops a packet or has another session open is ready again by then."""

_ATTEMPTS = 2
_KILL_TIMEOUT_S = 5.0
"""A killed agent is gone at once, unless the kernel holds it; then it is left."""
_PASSWORD_BYTES_MAX = 1024
_ANSWER_CHARS_MAX = 300
"""Of what an agent says, so much goes into messages and the log."""
_TIME = re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?\b")
"""Before what an agent complains of. It is left out: a failure that lasts is to be told once, not at each try."""
_OFF = 2
_STATUS_CODES = {"on": 0, "off": _OFF}
"""A status action's exit codes. 2 also means wrong options, so the words must agree."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    code: int
    output: str
    """What it printed, without the password."""
    said: str
    """Its output and complaints on one line, without the password and the time."""


class FenceAgents:
    """Runs the agents found on `search_path`; `pause_s` lies between two attempts."""

    def __init__(self, *, search_path: str = SEARCH_PATH, pause_s: float = RETRY_PAUSE_S) -> None:
        self._search_path = search_path
        self._pause_s = pause_s

    async def off(self, node: str, settings: FenceSettings) -> str:
        """Cut the power, then ask the device whether it is off."""
        await self._switch(node, settings, "off")
        return f"{settings.agent} at {_address(settings)}: status OFF"

    async def on(self, node: str, settings: FenceSettings) -> None:
        """Give power, then ask the device whether it is on."""
        await self._switch(node, settings, "on")

    async def is_on(self, node: str, settings: FenceSettings) -> bool:
        """Ask the device."""
        password = _read_password(settings)
        async with self._in_time(node, settings, "status"):
            for left in reversed(range(_ATTEMPTS)):
                answer = await self._ask(settings, "status", password)
                for state in ("on", "off"):
                    if _says(answer, state):
                        return state == "on"
                if left:
                    await asyncio.sleep(self._pause_s)
        raise _failed(node, settings, "status", answer)

    async def _switch(self, node: str, settings: FenceSettings, state: str) -> None:
        password = _read_password(settings)
        async with self._in_time(node, settings, state):
            for left in reversed(range(_ATTEMPTS)):
                answer = await self._ask(settings, state, password)
                if answer.code == 0:
                    answer = await self._ask(settings, "status", password)
                    if _says(answer, state):
                        return
                if left:
                    await asyncio.sleep(self._pause_s)
        raise _failed(node, settings, state, answer)

    @contextlib.asynccontextmanager
    async def _in_time(self, node: str, settings: FenceSettings, action: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(settings.timeout_s):
                yield
        except TimeoutError as error:
            raise DriverError(
                f"{settings.agent} did not finish `{action}` for node {node} within {settings.timeout_s} s"
                f" (device {_address(settings)})",
                code="fence.timeout",
                hint="is the device reachable? An IPMI device that is slow with lanplus wants cipher=3 or 17",
            ) from error

    async def _ask(self, settings: FenceSettings, action: str, password: str) -> _Answer:
        """Run the agent once. When it is cut short, its whole process group is ended."""
        program = shutil.which(settings.agent, path=self._search_path)
        if program is None:
            raise DriverError(
                f"there is no {settings.agent} on this machine",
                code="fence.agent_missing",
                hint="apt-get install fence-agents, on every coordinator",
            )
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # Not the daemon's environment, and no warnings of old Python code among the answers.
                env={"PATH": self._search_path, "LC_ALL": "C", "PYTHONWARNINGS": "ignore"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise DriverError(
                f"{settings.agent} cannot be run: {error.strerror or type(error).__name__}",
                code="fence.failed",
                hint="has this machine run out of memory, processes or open files? Is the agent's program whole?",
            ) from error
        try:
            output, complaints = await process.communicate(_input(settings, action, password))
        except BaseException:
            await _kill_group(process)
            raise
        assert process.returncode is not None, "communicate waits for the end"
        texts = [_clean(text.decode(errors="replace"), password) for text in (output, complaints)]
        said = " ".join(_TIME.sub("", " ".join(texts)).split())[:_ANSWER_CHARS_MAX]
        return _Answer(code=process.returncode, output=texts[0], said=said)


def _input(settings: FenceSettings, action: str, password: str) -> bytes:
    lines = {**settings.options, "action": action}
    if password:
        # Agents trim values and take off one pair of quotes; this keeps a password that such a thing would change.
        lines["password"] = f'"{password}"' if password != password.strip() or password.startswith('"') else password
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()


def _read_password(settings: FenceSettings) -> str:
    """The one line of the password file; "" where none is set. Raises DriverError without a word of its content."""
    if not settings.password_file:
        return ""
    path = Path(settings.password_file)
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            raise _unreadable(path, "everybody on the machine may read it", f"chmod 600 {path}")
        with path.open("rb") as file:
            content = file.read(_PASSWORD_BYTES_MAX + 1).decode()
    except OSError as error:
        raise _unreadable(path, error.strerror or "unknown", "it must be there on every coordinator") from error
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not UTF-8 text", "write the password into it again") from None
    password = content.removesuffix("\n").removesuffix("\r")
    if not password or len(content) > _PASSWORD_BYTES_MAX or not password.isprintable():
        raise _unreadable(path, "it is not one line with a password", "the password alone, in one line")
    return password


def _unreadable(path: Path, why: str, hint: str) -> DriverError:
    return DriverError(f"the password file {path} cannot be used: {why}", code="fence.password_unreadable", hint=hint)


def _says(answer: _Answer, state: str) -> bool:
    return answer.code == _STATUS_CODES[state] and f"status: {state}" in answer.output.lower()


def _failed(node: str, settings: FenceSettings, action: str, answer: _Answer) -> DriverError:
    return DriverError(
        f"{settings.agent} at {_address(settings)} could not do `{action}` for node {node}:"
        f" {answer.said or 'it said nothing'} (exit code {answer.code})",
        code="fence.failed",
        hint="check address, user and password by hand with the agent's `status` action",
    )


def _address(settings: FenceSettings) -> str:
    """The device, as far as the options name one."""
    options = settings.options
    host = options.get("ip") or options.get("ipaddr") or "its device"
    port, plug = options.get("ipport"), options.get("plug") or options.get("port")
    return host + (f":{port}" if port else "") + (f" plug {plug}" if plug else "")


def _clean(text: str, password: str) -> str:
    """Without the password, as it is or quoted for a shell, and without characters that would command a terminal."""
    for secret in {password, shlex.quote(password), repr(password)} if password else ():
        text = text.replace(secret, "***")
    return "".join(char if char.isprintable() else " " for char in text)


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """The agent and what it called: something of it is still there, for it holds our pipes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILL_TIMEOUT_S):
            await process.wait()
