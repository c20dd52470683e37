"""Which gateway to talk to: the connections an admin has stored, and the choice of one.

They stand in one JSON file, readable by its owner alone since it holds tokens. The gateway of this very machine is a
connection called `local` that nobody has to store: it is there when its socket is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pvc.client.errors import ConfigError
from pvc.files import replace_file

LOCAL = "local"
ALL = "all"
"""What the command line calls all of them; no connection's own name."""

MAX_TOKEN_BYTES = 4096
DEFAULT_SOCKET = "/run/pvc/pvc.sock"
DEFAULT_PORT = 7370
UNIX_SCHEME = "unix://"

_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_TOKEN = re.compile(r"^pvc_[0-9A-Za-z]+_[0-9A-Za-z_-]+$")


class Connection(NamedTuple):
    """A way to a gateway. `url` is `http(s)://host:port` or `unix:///path`."""

    name: str
    url: str
    token: str = ""
    ca_file: str = ""
    """A PEM file with the authority that signed an https gateway's certificate; empty means the system's."""
    others: tuple[str, ...] = ()
    """Other gateways of the same cluster, to be asked where that one does not answer."""
    fingerprints: tuple[str, ...] = ()
    """SHA-256 of their certificates, in hex: where some are given, these are trusted and no others."""

    def each(self) -> tuple[Connection, ...]:
        """A connection to each of the gateways alone, in order."""
        return tuple(self._replace(url=url, others=()) for url in (self.url, *self.others))

    @property
    def is_unix(self) -> bool:
        """Whether it leads to a socket on this machine."""
        return self.url.startswith(UNIX_SCHEME)

    @property
    def token_id(self) -> str:
        """The part of the token that is not secret."""
        return self.token.split("_")[1] if self.token else ""


_TUPLES = ("others", "fingerprints")


class Stored(NamedTuple):
    """What the file holds: connections by name, and the name of the one in use."""

    connections: dict[str, Connection]
    in_use: str = ""


def choose_connection(name: str = "", env: Mapping[str, str] | None = None) -> Connection:
    """The connection of this name, or the one that environment, file and machine make the obvious one.

    What is said for this one call goes before what is stored: `name`, PVC_URL, PVC_CONNECTION, PVC_SOCKET; then the
    stored connection in use, the local socket, the only stored one. PVC_TOKEN, or what is in the file PVC_TOKEN_FILE,
    replaces a token; PVC_URL may be several, with commas between. Raises ConfigError.
    """
    env = os.environ if env is None else env
    chosen = _choose(name, env)
    if env.get("PVC_TOKEN"):
        return chosen._replace(token=check_token(env["PVC_TOKEN"]))
    if env.get("PVC_TOKEN_FILE"):
        return chosen._replace(token=read_token_file(Path(env["PVC_TOKEN_FILE"])))
    return chosen


def read_token_file(path: Path) -> str:
    """The token in a file that nobody else can read. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            seen = os.fstat(file.fileno())
            data = file.read(MAX_TOKEN_BYTES)
    except OSError as error:
        raise ConfigError(
            f"the token file {path} cannot be read: {error.strerror}", hint=f"look at: ls -l {path}"
        ) from error
    if stat.S_ISREG(seen.st_mode):
        refuse_exposed(path, seen, "holds a token", code="client.token_exposed")
    return check_token(data.decode(errors="replace"))


def load_connections(env: Mapping[str, str] | None = None) -> Stored:
    """What is stored; nothing, when there is no file. Raises ConfigError."""
    path = connections_file(env)
    try:
        with path.open("rb") as file:
            seen = os.fstat(file.fileno())
            data = file.read()
    except FileNotFoundError:
        return Stored({})
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint=f"look at: ls -l {path}") from error
    refuse_exposed(path, seen, "holds tokens", code="client.config_exposed")
    return _decode(data, path)


def save_connections(stored: Stored, env: Mapping[str, str] | None = None) -> None:
    """Replace the file at once, readable by its owner alone. Raises ConfigError."""
    path = connections_file(env)
    entries = [
        {key: value for key, value in connection._asdict().items() if value}
        for connection in stored.connections.values()
    ]
    text = json.dumps({"version": 1, "in_use": stored.in_use, "connections": entries}, indent=2) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, text.encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", hint="PVC_CONFIG_DIR names another place"
        ) from error


def change_connections(change: Callable[[Stored], Stored], env: Mapping[str, str] | None = None) -> Stored:
    """Replace what is stored by what `change` makes of it; two at once do not undo each other. Raises ConfigError."""
    with locked(env):
        changed = change(load_connections(env))
        save_connections(changed, env)
        return changed


@contextlib.contextmanager
def locked(env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Nobody else changes what is stored within the block, which is to read and write a file, and no more.

    Raises ConfigError.
    """
    path = connections_file(env)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", hint="PVC_CONFIG_DIR names another place"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def connections_file(env: Mapping[str, str] | None = None) -> Path:
    """Where connections are stored: in PVC_CONFIG_DIR, or the user's configuration directory."""
    env = os.environ if env is None else env
    if env.get("PVC_CONFIG_DIR"):
        return Path(env["PVC_CONFIG_DIR"]) / "connections.json"
    base = Path(env["XDG_CONFIG_HOME"]) if env.get("XDG_CONFIG_HOME") else Path.home() / ".config"
    return base / "pvc" / "connections.json"


def local_connection(env: Mapping[str, str] | None = None) -> Connection:
    """The gateway of this machine, whether it is there or not."""
    env = os.environ if env is None else env
    path = Path(env.get("PVC_SOCKET") or DEFAULT_SOCKET).absolute()
    return Connection(LOCAL, f"{UNIX_SCHEME}{path}")


def local_is_there(env: Mapping[str, str] | None = None) -> bool:
    """Whether this machine's gateway has a socket that we may use."""
    return os.access(local_connection(env).url.removeprefix(UNIX_SCHEME), os.R_OK | os.W_OK)


def check_name(name: str) -> str:
    """The name of a connection to store. Raises ConfigError."""
    if name == LOCAL:
        raise ConfigError("the connection 'local' is found by itself", hint="choose another name")
    if name == ALL:
        raise ConfigError("'all' stands for all connections", hint="choose another name")
    if not _NAME.match(name):
        raise ConfigError(
            f"{name!r} is no name for a connection",
            hint="use a-z, 0-9 and . _ - inside, at most 63 characters",
        )
    return name


def refuse_exposed(path: Path, seen: os.stat_result, what: str, *, code: str) -> None:
    """Raise ConfigError where others may read or change the file, or it is somebody else's than ours or root's."""
    if seen.st_mode & 0o077:
        raise ConfigError(
            f"{path} {what}, and others than its owner may read or change it",
            code=code,
            hint=f"chmod 600 {path}; if somebody may have read it, have new tokens made",
        )
    if seen.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{path} {what}, and belongs to another user (uid {seen.st_uid})",
            code=code,
            hint=f"if it is yours: chown {os.geteuid()} {path}; else keep one of your own",
        )


def check_url(url: str) -> str:
    """The URL of a gateway in full: a bare host gets the scheme and the port. Raises ConfigError."""
    from urllib.parse import urlsplit

    if url.startswith(UNIX_SCHEME):
        path = url.removeprefix(UNIX_SCHEME)
        if not path.startswith("/"):
            raise _bad_url(url, "a Unix socket has an absolute path: unix:///run/pvc/pvc.sock")
        return url
    with_scheme = url if "://" in url else f"https://{url}"  # other machines are served by TLS alone
    try:
        parts = urlsplit(with_scheme)
        port = parts.port
    except ValueError as error:
        raise _bad_url(url, f"{error}".lower()) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise _bad_url(url, f"write https://HOST:{DEFAULT_PORT}, http://127.0.0.1:{DEFAULT_PORT} or unix:///PATH")
    if re.search(r"[\x00-\x20\x7f]", url):
        raise _bad_url(url, "leave out the white space")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or DEFAULT_PORT}{parts.path.rstrip('/')}"


def check_token(token: str) -> str:
    """A token without the white space around it. Raises ConfigError, without showing it."""
    token = token.strip()
    if not _TOKEN.match(token):
        raise ConfigError(
            "this is not a token of PVC",
            code="client.token_malformed",
            hint="a token reads pvc_<id>_<secret>; copy all of it",
        )
    return token


def _choose(name: str, env: Mapping[str, str]) -> Connection:
    if name:
        return _named(name, env)
    if env.get("PVC_URL"):
        url, *others = (check_url(url) for url in env["PVC_URL"].split(","))
        return Connection("PVC_URL", url, others=tuple(others))
    if env.get("PVC_CONNECTION"):
        return _named(env["PVC_CONNECTION"], env)
    if env.get("PVC_SOCKET"):
        return local_connection(env)
    stored = load_connections(env)
    if stored.in_use:
        return _named(stored.in_use, env, stored)
    if local_is_there(env):
        return local_connection(env)
    if len(stored.connections) == 1:
        return next(iter(stored.connections.values()))
    if stored.connections:
        raise ConfigError(
            f"it is not said which connection to use: {', '.join(stored.connections)}",
            code="client.connection_ambiguous",
            hint="choose one with `-c NAME`, or for good with `pvc connection use NAME`",
        )
    raise ConfigError(
        "there is no cluster to talk to",
        code="client.no_connection",
        hint=f"on a node, be root and see that pvcd runs (it makes {DEFAULT_SOCKET}); "
        f"elsewhere: pvc connection add NAME https://HOST:{DEFAULT_PORT}",
    )


def _named(name: str, env: Mapping[str, str], stored: Stored | None = None) -> Connection:
    if name == LOCAL:
        return local_connection(env)
    stored = stored or load_connections(env)
    if name not in stored.connections:
        import difflib

        near = difflib.get_close_matches(name, [*stored.connections, LOCAL], n=1)
        hint = f"did you mean {near[0]}?" if near else "`pvc connection list` shows those there are"
        raise ConfigError(f"there is no connection {name!r}", code="client.connection_not_found", hint=hint)
    return stored.connections[name]


def _decode(data: bytes, path: Path) -> Stored:
    try:
        document = json.loads(data)
        connections = {
            entry["name"]: Connection(**{**entry, **{field: tuple(entry.get(field, ())) for field in _TUPLES}})
            for entry in document["connections"]
        }
        return Stored(connections, str(document.get("in_use", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {error}", hint="move it away and add the connections again") from error


def _bad_url(url: str, hint: str) -> ConfigError:
    return ConfigError(f"{url!r} is not the URL of a gateway", code="client.url_invalid", hint=hint)
