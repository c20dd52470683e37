"""Where cursors are, and the key that signing secrets are sealed with: beside the log, and not in it.

A cursor is written by compare-and-set. Who takes an endpoint over writes its cursor first, so whoever delivered before
cannot write it any more, and stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pvc.clock import Rng
from pvc.errors import Conflict, Unavailable
from pvc.files import flush_directory, replace_file
from pvc.webhooks.signing import KEY_BYTES

DEADLINE_S = 10.0
"""How long any call may take."""

ABSENT = -1
"""The version of what is not there."""

T = TypeVar("T")


class Taken(Conflict):
    """Somebody else has written the cursor since it was read. Nothing was written."""

    default_code = "webhook.cursor_taken"


class Stored(NamedTuple):
    """A cursor as it is stored."""

    data: bytes
    version: int


class WebhookStore(Protocol):
    """Every method may raise Unavailable (`webhook.store_unreachable`)."""

    async def key(self) -> bytes:
        """The cluster's key, made when it is first asked for; the same for all nodes."""
        ...

    async def read(self, hook: str) -> Stored | None:
        """The cursor as it is now, not as it was a moment ago."""
        ...

    async def write(self, hook: str, data: bytes, version: int) -> int:
        """Replace the cursor of this version (ABSENT: there is none yet); its new version. Raises Taken."""
        ...

    async def hooks(self) -> list[str]:
        """The webhooks that have a cursor."""
        ...

    async def remove(self, hook: str) -> None:
        """Have no such cursor any more; nothing if there is none."""
        ...

    async def close(self) -> None:
        """Let go of what is open."""
        ...


class MemoryStore:
    """In memory: for tests, and for a daemon whose log is in memory too."""

    def __init__(self, rng: Rng, shared: MemoryStore | None = None) -> None:
        self._key: bytes = shared._key if shared is not None else rng.randbytes(KEY_BYTES)
        self._cursors: dict[str, Stored] = shared._cursors if shared is not None else {}

    async def key(self) -> bytes:
        """The key."""
        return self._key

    async def read(self, hook: str) -> Stored | None:
        """The cursor."""
        return self._cursors.get(hook)

    async def write(self, hook: str, data: bytes, version: int) -> int:
        """Replace it."""
        present = self._cursors.get(hook)
        if (present.version if present else ABSENT) != version:
            raise taken(hook)
        self._cursors[hook] = Stored(data, version + 1)
        return version + 1

    async def hooks(self) -> list[str]:
        """Those that have one."""
        return list(self._cursors)

    async def remove(self, hook: str) -> None:
        """Have none."""
        self._cursors.pop(hook, None)

    async def close(self) -> None:
        """Nothing is open."""


class FileStore:
    """Private files in a single node's data directory; there is only one daemon on it, so nobody else writes them."""

    def __init__(self, folder: Path, rng: Rng) -> None:
        self._folder = folder
        self._rng = rng

    async def key(self) -> bytes:
        """The key."""
        return await self._in_time(self._load_key)

    async def read(self, hook: str) -> Stored | None:
        """The cursor."""
        return await self._in_time(lambda: self._load(hook))

    async def write(self, hook: str, data: bytes, version: int) -> int:
        """Replace it."""

        def write() -> int:
            present = self._load(hook)
            if (present.version if present else ABSENT) != version:
                raise taken(hook)
            replace_file(self._made() / f"{hook}.cursor", b"%d\n%s" % (version + 1, data), mode=0o600)
            return version + 1

        return await self._in_time(write)

    async def hooks(self) -> list[str]:
        """Those that have one."""
        return await self._in_time(lambda: [file.stem for file in self._folder.glob("*.cursor")])

    async def remove(self, hook: str) -> None:
        """Have none."""
        await self._in_time(lambda: (self._folder / f"{hook}.cursor").unlink(missing_ok=True))

    async def close(self) -> None:
        """Nothing is open."""

    def _load(self, hook: str) -> Stored | None:
        try:
            version, _, data = (self._folder / f"{hook}.cursor").read_bytes().partition(b"\n")
            return Stored(data, int(version))
        except FileNotFoundError:
            return None
        except ValueError:  # cut short by a broken disk: what was done is in nobody's memory
            return Stored(b"", 0)

    def _load_key(self) -> bytes:
        file = self._made() / "key"
        if not file.exists():
            replace_file(file, self._rng.randbytes(KEY_BYTES), mode=0o600)
            # A power cut must not take it back: secrets sealed with it may be in the log already.
            flush_directory(self._folder)
        key = file.read_bytes()
        if len(key) != KEY_BYTES:
            raise unreachable(str(file), "it is no key")
        return key

    def _made(self) -> Path:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder

    async def _in_time(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await asyncio.to_thread(work)
        except TimeoutError:
            raise unreachable(str(self._folder), f"the disk did not answer within {DEADLINE_S:g} s") from None
        except OSError as error:
            raise unreachable(str(self._folder), error.strerror or type(error).__name__) from error


def taken(hook: str) -> Taken:
    """What a call gets that comes too late."""
    return Taken(f"the cursor of webhook {hook} was written by another deliverer", hint="nothing needs to be done")


def unreachable(where: str, reason: str) -> Unavailable:
    """What a call gets when cursors and key cannot be had."""
    return Unavailable(
        f"the cursors of webhooks at {where} cannot be had: {reason}",
        code="webhook.store_unreachable",
        hint="nothing is sent meanwhile, and nothing is lost; mend it and try again",
    )
