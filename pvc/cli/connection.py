"""`pvc connection`: the gateways this machine knows, and which one is meant. A token is never an argument."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.session import SOURCE, Session
from pvc.cli.table import Cell, Column, render_table
from pvc.client import connections as store
from pvc.client.connections import LOCAL, Connection
from pvc.client.errors import ApiError, ClientError, ConfigError, Unreachable

COLUMNS = (Column("CONNECTION"), Column("URL"), Column("TOKEN"), Column("IN USE"))

MAX_TOKEN_BYTES = 4096


def show_connections(session: Session) -> None:
    """Those stored, and this machine's own where it is there."""
    known = list(store.load_connections().connections.values())
    if store.local_is_there():
        known.insert(0, store.local_connection())
    chosen = _chosen(session)
    if session.wants_data:
        session.show_data(
            [
                {"name": c.name, "url": c.url, "others": c.others, "token_id": c.token_id, "in_use": c.name == chosen}
                for c in known
            ]
        )
        return
    rows: list[list[str | Cell]] = [
        [
            c.name,
            " ".join((c.url, *c.others)),
            f"pvc_{c.token_id}_…" if c.token else "none",
            Cell("yes", "green") if c.name == chosen else "",
        ]
        for c in known
    ]
    session.show(render_table(COLUMNS, rows, session.look))
    if not known:
        session.note("There are none yet. Add one: pvc connection add NAME URL...")


def add_connection(
    session: Session,
    name: str,
    url: tuple[str, ...],
    token_file: str | None,
    ca_file: str | None,
    fingerprint: tuple[str, ...],
    use: bool,
    check: bool,
    login: bool,
) -> None:
    """Store one, after a look whether it works; or with a login that is yet to come."""
    stored = store.load_connections()
    first, *others = dict.fromkeys(store.check_url(one) for one in url)
    if ca_file and fingerprint:
        raise usage_error("--ca-file and --fingerprint exclude each other", "give one of them")
    made = Connection(store.check_name(name), first, ca_file=_absolute(ca_file), others=tuple(others))
    made = made._replace(fingerprints=_pins(session, made, fingerprint, check=check))
    if not login and (not all(one.is_unix for one in made.each()) or token_file):
        made = made._replace(token=store.check_token(_read_token(token_file)))
    greeting = _greet_each(session, made) if check and not login else "" if login else "It was not tried out."
    in_use = name if use else stored.in_use
    store.save_connections(store.Stored({**stored.connections, name: made}, in_use))
    session.say(f"The connection {name} to {' '.join((first, *others))} is stored. {greeting}".strip())
    if any(one.url.startswith("http://") and not _is_loopback(one.url) for one in made.each()):
        session.note("Note: http is not encrypted; use it only in a network that you trust.")
    if login:
        session.note(f"It has no token yet: pvc -c {name} login")
    if _chosen(session) != name:
        session.note(f"To use it: pvc -c {name} ..., or from now on: pvc connection use {name}")


def use_connection(session: Session, name: str) -> None:
    """Choose one for good."""
    stored = store.load_connections()
    store.choose_connection(name)
    store.save_connections(stored._replace(in_use=name))
    session.say(f"From now on {name} is used.")


def remove_connection(session: Session, name: str) -> None:
    """Forget one."""
    stored = store.load_connections()
    if name == LOCAL:
        raise ConfigError("the connection 'local' is found by itself and cannot be removed", hint="nothing to do")
    if name not in stored.connections:
        store.choose_connection(name)
    left = {key: value for key, value in stored.connections.items() if key != name}
    store.save_connections(store.Stored(left, "" if stored.in_use == name else stored.in_use))
    session.say(f"The connection {name} is forgotten. Its token stays valid at the cluster.")


def _chosen(session: Session) -> str:
    try:
        return store.choose_connection(session.connection).name
    except ClientError:
        return ""


def _read_token(token_file: str | None) -> str:
    if token_file and token_file != "-":  # noqa: S105 - a file name
        try:
            return Path(token_file).read_text(encoding="utf-8")[:MAX_TOKEN_BYTES]
        except (OSError, UnicodeDecodeError) as error:
            raise usage_error(f"the token file {token_file!r} cannot be read: {error}", "give another file") from error
    if token_file is None and sys.stdin.isatty():
        token: str = click.prompt("Token", hide_input=True, err=True)
        return token
    return sys.stdin.read(MAX_TOKEN_BYTES)


def _pins(session: Session, made: Connection, given: tuple[str, ...], *, check: bool) -> tuple[str, ...]:
    """The fingerprints to know the gateways by: those given, or those that a person confirms on first sight."""
    from pvc.client.pins import check_fingerprint, unvouched_fingerprint
    from pvc.client.transport import CONNECT_TIMEOUT_S

    pins = [check_fingerprint(text) for text in given]
    if pins or made.ca_file or not check:
        return tuple(dict.fromkeys(pins))
    for one in made.each():
        if not one.url.startswith("https://"):
            continue
        try:
            seen = unvouched_fingerprint(one.url, CONNECT_TIMEOUT_S)
        except OSError:
            continue  # it does not answer yet, which is told below
        if seen and seen not in pins:
            _confirm(one.url, seen)
            pins.append(seen)
    if pins:
        session.note("From now on nobody else is taken for them.")
    return tuple(pins)


def _confirm(url: str, seen: str) -> None:
    """Ask whether this is the right gateway. Raises ConfigError where there is nobody to ask, or it is not."""
    hint = f"compare it with `pvcd --fingerprint` on the node; then give --fingerprint {seen}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            f"no authority known here vouches for the certificate of {url}; its fingerprint is {seen}",
            code="client.unknown_certificate",
            hint=hint,
        )
    click.echo(f"No authority known here vouches for the certificate of {url}.", err=True)
    click.echo(f"Its fingerprint (`pvcd --fingerprint` on the node shows the true one) is\n  {seen}", err=True)
    if not click.confirm("Is that the right one?", default=False, err=True):
        raise ConfigError(f"{url} is not trusted", code="client.unknown_certificate", hint=hint)


def _greet_each(session: Session, made: Connection) -> str:
    """Try out every gateway; one that does not answer now may do so later, when it is needed."""
    greeting, silent = "", []
    for one in made.each():
        try:
            greeting = _greet(one)
        except Unreachable as error:
            silent.append((one, error))
    if not greeting:
        raise silent[0][1]
    for one, why in silent:
        session.note(f"Note: {one.url} does not answer yet: {why.message}")
    return greeting


def _greet(made: Connection) -> str:
    from pvc.client.client import Client

    try:
        with Client(made, source=SOURCE, tries=1) as client:
            me = client.whoami()
    except ClientError as error:
        if isinstance(error, ApiError) and error.status in (401, 403):
            raise
        error.hint = f"{error.hint}; --no-check stores it anyway" if error.hint else "--no-check stores it anyway"
        raise
    return f"There you are {me.get('principal', 'somebody')} ({me.get('role', 'no role')})."


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _absolute(path: str | None) -> str:
    return str(Path(path).absolute()) if path else ""


def _name_argument() -> click.Argument:
    return click.Argument(["name"], shell_complete=complete.connection_names)


def _command(name: str, run: Any, params: list[click.Parameter], **texts: Any) -> PvcCommand:
    return PvcCommand(name, run, params=params, **texts)


list_connections = _command("list", show_connections, [], help="List the connections.", example="pvc connection list")

add = _command(
    "add",
    add_connection,
    [
        click.Argument(["name"]),
        click.Argument(["url"], nargs=-1, required=True),
        click.Option(
            ["--token-file"],
            metavar="FILE|-",
            help="Read the token from a file or standard input; else it is asked for.",
        ),
        click.Option(["--ca-file"], metavar="FILE", help="The authority that signed the gateway's certificate (PEM)."),
        click.Option(
            ["--fingerprint"],
            multiple=True,
            metavar="SHA256",
            help="Trust a gateway with this certificate, and none with another. Can be repeated.",
        ),
        click.Option(["--use"], is_flag=True, help="Use it from now on."),
        click.Option(["--check/--no-check"], default=True, help="Try it out before storing it."),
        click.Option(["--login"], is_flag=True, help="Without a token: pvc login gets one from an issuer."),
    ],
    data=False,
    about={
        "name": "A name of your choice.",
        "url": "http(s)://HOST:7370, or unix:///PATH; several nodes of one cluster.",
    },
    help="Store a connection to a cluster.\n\n"
    "The token is asked for; it is never an argument, where others could see it. "
    "Of several nodes the first that answers is used, so name all coordinators.\n\n"
    "Where no authority vouches for a gateway's certificate, you are shown its fingerprint and asked; from then on it "
    "is known by that. Without a terminal, give it with --fingerprint: pvcd --fingerprint on the node shows it.",
    short_help="Store a connection to a cluster.",
    example="pvc connection add main https://hv1:7370 https://hv2:7370 https://hv3:7370\n"
    "pvc connection add main http://hv1:7370 --token-file - < token\n"
    "pvc connection add main https://hv1:7370 --fingerprint 5f0c…",
)

use = _command(
    "use",
    use_connection,
    [_name_argument()],
    data=False,
    about={"name": "Name of the connection."},
    help="Use a connection from now on, where no other is named.",
    example="pvc connection use main",
)

remove = _command(
    "remove",
    remove_connection,
    [_name_argument()],
    data=False,
    about={"name": "Name of the connection."},
    help="Forget a connection and its token.",
    example="pvc connection remove main",
)
