"""Tests on virtual time: waiting costs nothing, and the order is always the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from pvc.sim.loop import run_virtual


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop of its own whose clock leaps to the next timer."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_virtual(test(**arguments))

    return run
