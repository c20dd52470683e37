"""A coordinator's own ZooKeeper server: configured, kept running, and asked how it is.

Level-triggered like all else: call `ensure_config` and `ensure_running` as often as you like. The server belongs to the
machine and not to the daemon, whose restart never touches it.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum

import msgspec

from pvc.drivers.zookeeper_config import Member, ServerConfig, files_of, member_ids
from pvc.drivers.zookeeper_process import Starter, starter_for
from pvc.errors import DriverError, InvalidInput
from pvc.files import replace_file

__all__ = ["Health", "Member", "Mode", "ServerConfig", "ZookeeperServer"]

HEALTH_TIMEOUT_S = 2.0
"""A server that is well answers within a millisecond; one whose disk hangs does not."""

MAX_SERVER_ID = 255
_REPLY_BYTES_MAX = 65_536


class Mode(StrEnum):
    """What a server is just now."""

    LEADER = "leader"
    FOLLOWER = "follower"
    STANDALONE = "standalone"
    NO_QUORUM = "no_quorum"
    """It runs, and serves nobody: it finds no majority."""
    DOWN = "down"
    """It does not answer."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is. All but `mode` is empty unless it serves."""

    mode: Mode
    zxid: int = 0
    """Its last transaction."""
    latency_avg_ms: float = 0.0
    connections: int = 0
    version: str = ""

    @property
    def epoch(self) -> int:
        """Which leader's reign this is, counted by ZooKeeper."""
        return self.zxid >> 32

    @property
    def serves(self) -> bool:
        """Whether clients are served."""
        return self.mode in (Mode.LEADER, Mode.FOLLOWER, Mode.STANDALONE)


class ZookeeperServer:
    """The server that `config` describes; `starter` is chosen by the machine if not given."""

    def __init__(self, config: ServerConfig, *, starter: Starter | None = None) -> None:
        _check(config)
        self.config = config
        self.starter = starter or starter_for(config)

    def ensure_config(self) -> bool:
        """Write the files that differ. Returns whether any did: a running server learns of it by `restart`.

        Raises DriverError when the members differ from the configured ones by more than one: two new and empty servers
        would be a majority of three, and could begin without all that the old one knows.
        """
        wanted = files_of(self.config)
        differing = [path for path, content in wanted.items() if not path.exists() or path.read_bytes() != content]
        if self.config.zoo_cfg in differing and self.config.zoo_cfg.exists():
            self._check_step(self.config.zoo_cfg.read_text())
        self.config.data.mkdir(parents=True, exist_ok=True, mode=0o750)
        for path in differing:
            replace_file(path, wanted[path], mode=0o600 if path == self.config.identity else 0o644)
        return bool(differing)

    @property
    def held(self) -> bool:
        """Whether somebody wants it not to be started."""
        return self.config.hold.exists()

    async def ensure_running(self) -> bool:
        """Start the server if it is not there and not held. Returns whether it was started; it serves seconds later."""
        if await self.starter.running() or self.held:
            return False
        await self.starter.start()
        return True

    async def stop(self) -> None:
        """End it in good order."""
        await self.starter.stop()

    async def restart(self) -> None:
        """End it and start it with the present configuration, unless it is held."""
        await self.stop()
        await self.ensure_running()

    async def health(self) -> Health:
        """Ask it. Never raises: silence is `down`."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                reply = await _four_letters(*self.config.asked_at, b"srvr")
        except (OSError, TimeoutError):
            return Health(mode=Mode.DOWN)
        return parse_srvr(reply)

    def _check_step(self, before: str) -> None:
        old, new = member_ids(before), {member.id for member in self.config.members}
        if len(old ^ new) > 1:
            raise DriverError(
                f"ZooKeeper's servers cannot change from {sorted(old)} to {sorted(new)} in one step",
                code="zookeeper.members_jump",
                hint="add or remove one server at a time, and wait until all serve",
            )


def parse_srvr(reply: str) -> Health:
    """What the answer to `srvr` means."""
    fields = dict(line.split(": ", 1) for line in reply.splitlines() if ": " in line)
    if "Mode" not in fields:
        return Health(mode=Mode.NO_QUORUM if "not currently serving" in reply else Mode.DOWN)
    try:
        return Health(
            mode=Mode(fields["Mode"]),
            zxid=int(fields["Zxid"], 16),
            latency_avg_ms=float(fields["Latency min/avg/max"].split("/")[1]),
            connections=int(fields["Connections"]),
            version=fields["Zookeeper version"].split("-")[0].split(",")[0],
        )
    except (KeyError, ValueError, IndexError):
        # Another program's answer, or one that was cut off.
        return Health(mode=Mode.DOWN)


async def _four_letters(address: str, port: int, word: bytes) -> str:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(word)
        reply = b""
        while len(reply) < _REPLY_BYTES_MAX and (chunk := await reader.read(4096)):
            reply += chunk
        return reply.decode(errors="replace")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _check(config: ServerConfig) -> None:
    ids = [member.id for member in config.members]
    if config.id not in ids or len(set(ids)) != len(ids) or not all(1 <= one <= MAX_SERVER_ID for one in ids):
        raise InvalidInput(
            f"ZooKeeper server {config.id} is not one of the servers {ids}, numbered 1 to {MAX_SERVER_ID}, each once",
            code="config.invalid",
            hint="mend the list of coordinators",
        )
    if any(char.isspace() or char in "\"'#\\" for char in str(config.home)):
        raise InvalidInput(
            f"ZooKeeper's directory {str(config.home)!r} has a character that Java's files cannot hold",
            code="config.invalid",
            hint="use a plain path",
        )
