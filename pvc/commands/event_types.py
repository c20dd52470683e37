"""Whether a pattern of event types means any type that there is: a misspelt one would match nothing, for ever."""

from __future__ import annotations

import re
from collections.abc import Collection

from pvc.commands.base import near_names
from pvc.errors import InvalidInput
from pvc.events.registry import BY_TYPE
from pvc.events.types import END

__all__ = ["check_type", "is_known"]

_KIND = re.compile(r"^[a-z_]+\.\*" + END)


def check_type(pattern: str, *, field: str, occurring: Collection[str] = ()) -> None:
    """Return when `pattern` is a type, `KIND.*` for all types of a kind that has any, or `*` for all.

    Types are those that this version knows and those `occurring` in the log, which may be from a later one. Raises
    InvalidInput (`event.unknown_type`).
    """
    if is_known(pattern) or _means_any(pattern, occurring):
        return
    near = near_names(pattern, BY_TYPE)
    hint = f"did you mean {' or '.join(near)}?" if near else "such as vm.started, or vm.* for all of a kind"
    message = f"there is no event type {pattern[:60]!r}"
    raise InvalidInput(message, code="event.unknown_type", hint=hint, field=field)


def is_known(pattern: str) -> bool:
    """Whether it means any type that this version knows."""
    return pattern == "*" or _means_any(pattern, BY_TYPE)


def _means_any(pattern: str, types: Collection[str]) -> bool:
    return pattern in types or bool(_KIND.match(pattern) and any(name.startswith(pattern[:-1]) for name in types))
