"""One face for both clients, so that a test is written once: the one for asyncio, made to block like the other."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from pvc.client import AsyncClient, AsyncOperation, Client
from pvc.client.calls import AsyncGroup

MadeClient = Callable[..., Any]
"""Takes what `Client` takes."""


class MadeToBlock:
    """Whatever of it has to be awaited is awaited."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return self._wrapped(value)

        def call(*args: Any, **kwargs: Any) -> Any:
            async def called() -> Any:
                result = value(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            return self._wrapped(self._runner.run(called()))

        return call

    def __iter__(self) -> MadeToBlock:
        return self

    def __next__(self) -> Any:
        async def following() -> Any:
            return await self._target.__anext__()

        try:
            return self._runner.run(following())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> MadeToBlock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, AsyncGroup | AsyncOperation | AsyncIterator):
            return MadeToBlock(value, self._runner)
        return value


def clients(kind: str) -> Iterator[MadeClient]:
    """Makes clients of a kind, `blocking` or `asyncio`, which are closed in the end."""
    made: list[Any] = []
    with asyncio.Runner() as runner:

        def make(*args: Any, **kwargs: Any) -> Any:
            if kind == "blocking":
                made.append(Client(*args, **kwargs))
            else:
                made.append(MadeToBlock(AsyncClient(*args, **kwargs), runner))
            return made[-1]

        yield make
        for client in made:
            client.close()


KINDS = ("blocking", "asyncio")
