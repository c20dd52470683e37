"""One line in the node's log for every command and console: who, what, from where, what came of it. Never a token."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from pvc.clock import Clock
from pvc.errors import PvcError
from pvc.events.record import Actor
from pvc.events.sealed import shortened

logger = logging.getLogger("pvc.gateway.access")


@dataclass
class AccessLine:
    """What is told of a command, filled in as it becomes known."""

    about: str = ""
    position: int = 0
    record: str = ""


@contextlib.contextmanager
def told_in_access_log(command: str, clock: Clock, actor: Actor) -> Iterator[AccessLine]:
    """Write the line when the block ends, however it ends."""
    line = AccessLine()
    began = clock.monotonic()
    result = "ok"
    try:
        yield line
    except PvcError as error:
        result = error.code
        raise
    except BaseException as error:
        result = type(error).__name__
        raise
    finally:
        logger.info(
            "command=%s about=%s principal=%s method=%s address=%s source=%s result=%s record=%s position=%d ms=%.1f",
            command,
            _word(line.about),
            _word(shortened(actor.principal)),
            actor.method,
            actor.address or "-",
            _word(actor.source),
            result,
            line.record or "-",
            line.position,
            (clock.monotonic() - began) * 1000,
        )


def _word(text: str) -> str:
    """A value that cannot break out of its place in the line."""
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\')
    return (text if plain and text else json.dumps(text) if text else "-")[:100]
