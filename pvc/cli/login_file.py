"""The logins of this machine's user, in a file beside the connections: what renews each, and which token it led to."""

from __future__ import annotations

import json
import os
from typing import TypeAlias

from pvc.client import connections as store
from pvc.client.errors import ConfigError
from pvc.files import replace_file

__all__ = ["Login", "load_logins", "remember_login"]

Login: TypeAlias = dict[str, str]
"""`token`: the id of the token; `refresh`: what renews it, empty where nothing does."""


def load_logins() -> dict[str, Login]:
    """Connection -> its last login. Raises ConfigError."""
    path = store.connections_file().with_name("logins.json")
    try:
        with path.open("rb") as file:
            store.refuse_exposed(path, os.fstat(file.fileno()), "holds tokens", code="client.config_exposed")
            found: dict[str, Login] = json.loads(file.read())["logins"]
            return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint=f"rm {path}, and log in again") from error


def remember_login(connection: str, login: Login | None) -> None:
    """Keep a connection's login, or (None) have none of it; two at once do not undo each other. Raises ConfigError."""
    path = store.connections_file().with_name("logins.json")
    with store.locked():
        logins = {name: known for name, known in load_logins().items() if name != connection}
        if login is not None:
            logins[connection] = login
        try:
            replace_file(path, json.dumps({"version": 1, "logins": logins}, indent=2).encode() + b"\n", mode=0o600)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="look at the directory") from error
