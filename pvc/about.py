"""What the work under way is about: whoever writes a line meanwhile says so, without being told it by their caller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

REQUEST: ContextVar[str] = ContextVar("request", default="")
"""Id of the request that is being answered."""

RECORD: ContextVar[str] = ContextVar("record", default="")
"""Id of the record that is being carried out."""


@contextlib.contextmanager
def about(which: ContextVar[str], value: str) -> Iterator[None]:
    """Within the block, and in tasks begun there."""
    token = which.set(value)
    try:
        yield
    finally:
        which.reset(token)
