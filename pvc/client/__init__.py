"""The Python library on the gateway's API; the CLI's only way in.

    from pvc.client import Client

    with Client("https://hv1:7370", token="pvc_...") as client:
        client.vms.start("web01").wait()
        for vm in client.vms.list(state=["running"]):
            print(vm.name, vm.node)
        for record in client.events(types=["vm.*"]):
            print(record.events[0].summary)

`AsyncClient` has the same methods for asyncio. docs/client.md tells all of it. It needs nothing else of PVC, and names
are loaded when they are first used, so that what is not used costs no time at the start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc.client.cards import load_cards
    from pvc.client.client import AsyncClient, Client
    from pvc.client.connections import Connection, choose_connection
    from pvc.client.errors import (
        ApiError,
        ClientError,
        ConfigError,
        Conflict,
        Forbidden,
        InvalidInput,
        NotFound,
        OperationFailed,
        OutcomeUnknown,
        PreconditionFailed,
        ReplyTooLarge,
        TooManyRequests,
        Unauthenticated,
        Unavailable,
        Unreachable,
        WaitTimedOut,
    )
    from pvc.client.json_client import JsonClient
    from pvc.client.operations import AsyncOperation, Operation
    from pvc.client.streams import AsyncEvents, Events

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncEvents",
    "AsyncOperation",
    "Client",
    "ClientError",
    "ConfigError",
    "Conflict",
    "Connection",
    "Events",
    "Forbidden",
    "InvalidInput",
    "JsonClient",
    "NotFound",
    "Operation",
    "OperationFailed",
    "OutcomeUnknown",
    "PreconditionFailed",
    "ReplyTooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "WaitTimedOut",
    "choose_connection",
    "load_cards",
]

_HOMES = {
    "Client": "client",
    "AsyncClient": "client",
    "Operation": "operations",
    "AsyncOperation": "operations",
    "Events": "streams",
    "AsyncEvents": "streams",
    "JsonClient": "json_client",
    "Connection": "connections",
    "choose_connection": "connections",
    "load_cards": "cards",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
