"""So many consoles at once, in all and of each principal: nobody alone has all of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from pvc.errors import Unavailable

MAX_CONSOLES, MAX_CONSOLES_EACH = 500, 100
"""Open at one gateway, and of one principal. Each looks at a file five times a second, or holds a stream of libvirt."""


class ConsolePlaces:
    """For consoles, and for who follows what a guest writes. Lives in one event loop."""

    def __init__(self, *, most: int = MAX_CONSOLES, each: int = MAX_CONSOLES_EACH) -> None:
        self._most = most
        self._each = each
        self._taken: Counter[str] = Counter()

    def require(self, whose: str) -> None:
        """Raise Unavailable where there is none for them."""
        if self._taken[whose] >= self._each:
            full = f"you have {self._each:,} consoles open at this gateway already"
        elif self._taken.total() >= self._most:
            full = f"this gateway has {self._most:,} consoles open already"
        else:
            return
        raise Unavailable(full, code="vm.too_many_consoles", hint="end those that nobody looks at")

    @contextlib.contextmanager
    def taken(self, whose: str) -> Iterator[None]:
        """A place, within the block. Raises as `require` does."""
        self.require(whose)
        self._taken[whose] += 1
        try:
            yield
        finally:
            self._taken[whose] -= 1
            if not self._taken[whose]:
                del self._taken[whose]
