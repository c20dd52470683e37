"""JSON from outside, which can mean one thing only: no name twice, no NaN, no half characters, no endless depth."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pvc.errors import InvalidInput

MAX_WHOLE = 1 << 53
"""Below it each whole number is a float of its own."""


class BadJson(ValueError):
    """Why it is no JSON that is taken here, in words."""


def read_json(text: str) -> Any:
    """The value. Raises BadJson; InvalidInput where a name stands twice in an object."""
    try:
        value = json.loads(
            text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_float=_number
        )
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg[:1].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}") from None
    except UnicodeEncodeError:
        raise BadJson("it has an escape that is no character") from None
    except RecursionError:
        raise BadJson("it is nested too deeply") from None
    except ValueError as error:
        raise BadJson(str(error)[:80]) from None
    return value


def _without_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidInput(
                f"`{name[:80]}` stands twice in the JSON", code="input.conflict", hint="give it once", field=name[:80]
            )
        found[name] = value
    return found


def _number(text: str) -> int | float:
    """`17.0` and `1e3` are whole numbers, as JSON Schema has it: some languages write them so."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < MAX_WHOLE else number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
