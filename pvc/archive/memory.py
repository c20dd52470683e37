"""An archive in memory, for tests and simulations: it can be damaged and made unreachable at will."""

from __future__ import annotations

from pvc.archive.base import DAMAGED_SUFFIX, check_put, closed, damaged, is_content_of, not_found, parse_blob_name
from pvc.errors import PvcError


class MemoryArchive:
    """Blobs in a dictionary."""

    def __init__(self, title: str = "memory") -> None:
        self.title = title
        self.blobs: dict[str, bytes] = {}
        """All that is kept; a test may change it under the archive's feet."""
        self.failure: PvcError | None = None
        """Raised by every call, while it is set."""
        self._closed = False

    async def put(self, name: str, data: bytes) -> None:
        """Keep the blob."""
        check_put(name, data)
        self._enter()
        if self.blobs.setdefault(name, data) != data:
            raise damaged(self.title, name, "other bytes are kept under this name")

    async def get(self, name: str) -> bytes:
        """The blob."""
        self._enter()
        data = self.blobs.get(name) if parse_blob_name(name) is not None else None
        if data is None:
            raise not_found(self.title, name)
        if not is_content_of(name, data):
            raise damaged(self.title, name, "its bytes are not the ones that its name says")
        return data

    async def names(self) -> list[str]:
        """All names."""
        self._enter()
        return sorted(name for name in self.blobs if parse_blob_name(name) is not None)

    async def remove(self, name: str) -> None:
        """Take a damaged copy away."""
        self._enter()
        if parse_blob_name(name) is not None and name in self.blobs:
            self.blobs[f"{name}{DAMAGED_SUFFIX}"] = self.blobs.pop(name)

    async def close(self) -> None:
        """Forget nothing, but answer no more."""
        self._closed = True

    def _enter(self) -> None:
        if self._closed:
            raise closed(self.title)
        if self.failure is not None:
            raise self.failure
