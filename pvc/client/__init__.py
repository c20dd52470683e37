"""The Python library on the gateway's API; the CLI's only way in.

    from pvc.client import Client, choose_connection

    client = Client(choose_connection())
    reply = client.command("vm.start", {"vm": "web01"})
    outcome = client.wait_for(reply, timeout_s=60)
    for record in client.events(after=reply["position"], types=["vm.*"]):
        print(record["events"][0]["summary"])

It speaks HTTP by the standard library and knows the commands by their cards (`commands.json`), so that it starts fast
and needs nothing else of PVC. Names are loaded when they are first used, for the same reason.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc.client.cards import load_cards
    from pvc.client.client import Client, Outcome
    from pvc.client.connections import Connection, choose_connection
    from pvc.client.errors import ApiError, ClientError, ConfigError, Unreachable, WaitTimedOut

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "ConfigError",
    "Connection",
    "Outcome",
    "Unreachable",
    "WaitTimedOut",
    "choose_connection",
    "load_cards",
]

_HOMES = {
    "Client": "client",
    "Outcome": "client",
    "Connection": "connections",
    "choose_connection": "connections",
    "load_cards": "cards",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
