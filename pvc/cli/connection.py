"""`pvc connection`: the gateways this machine knows, and which one is meant. A token is never an argument."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.session import SOURCE, Session
from pvc.cli.table import Cell, Column, render_facts
from pvc.client import connections as store
from pvc.client.connections import LOCAL, Connection
from pvc.client.errors import ApiError, ClientError, ConfigError, Unreachable

COLUMNS = (Column("CONNECTION", rank=0), Column("URL"), Column("TOKEN", rank=2), Column("IN USE", rank=0))


def show_connections(session: Session) -> None:
    """Those stored, and this machine's own where it is there."""
    known = list(store.load_connections().connections.values())
    if store.local_is_there():
        known.insert(0, store.local_connection())
    chosen = _chosen(session)
    if session.wants_data:
        session.show_data([_as_data(one, in_use=one.name == chosen) for one in known])
        return
    rows: list[list[str | Cell]] = [
        [
            c.name,
            " ".join((c.url, *c.others)),
            _token(c),
            Cell("yes", "green") if c.name == chosen else "",
        ]
        for c in known
    ]
    session.show_table(COLUMNS, rows)
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
    store.load_connections()  # to be told now that they cannot be used, and not after a token was typed
    first, *others = dict.fromkeys(store.check_url(one) for one in url)
    if ca_file and fingerprint:
        raise usage_error("--ca-file and --fingerprint exclude each other", "give one of them")
    made = Connection(store.check_name(name), first, ca_file=_absolute(ca_file), others=tuple(others))
    made = made._replace(fingerprints=_pins(session, made, fingerprint, check=check))
    if not login and (not all(one.is_unix for one in made.each()) or token_file):
        made = made._replace(token=store.check_token(_read_token(token_file)))
    greeting = _greet_each(session, made) if check and not login else "" if login else "It was not tried out."
    store.change_connections(
        lambda known: store.Stored({**known.connections, name: made}, name if use else known.in_use)
    )
    session.say(f"The connection {name} to {' '.join((first, *others))} is stored. {greeting}".strip())
    if any(one.url.startswith("http://") and not _is_loopback(one.url) for one in made.each()):
        session.note("Note: http is not encrypted; use it only in a network that you trust.")
    if login:
        session.note(f"It has no token yet: pvc -c {name} login")
    if use:
        if before := _goes_before(name):
            session.note(_but(before, name))
    elif _chosen(session) != name:
        session.note(f"To use it: pvc -c {name} ..., or from now on: pvc connection use {name}")


def show_connection(session: Session, name: str | None) -> None:
    """One in full, without its token's secret."""
    chosen = store.choose_connection(name or session.connection)
    in_use = chosen.name == _chosen(session)
    if session.wants_data:
        about = {**_as_data(chosen, in_use=in_use), "ca_file": chosen.ca_file, "fingerprints": chosen.fingerprints}
        session.show_data({**about, "file": str(store.connections_file())})
        return
    plain = any(one.url.startswith("http://") and not _is_loopback(one.url) for one in chosen.each())
    facts: list[tuple[str, str | Cell]] = [
        ("Connection", chosen.name),
        ("In use", Cell("yes", "green") if in_use else "no"),
        ("Gateway", chosen.url),
        *[("", other) for other in chosen.others],
        ("Encrypted", Cell("no: use it only in a network that you trust", "yellow") if plain else ""),
        ("Trusts", _trusted(chosen)),
        *[("", fingerprint) for fingerprint in chosen.fingerprints],
        ("Token", _token(chosen)),
        ("Stored in", str(store.connections_file()) if chosen.name in store.load_connections().connections else ""),
    ]
    session.show(render_facts(facts, session.look))
    session.note("Whether it works: pvc doctor" + (f" -c {chosen.name}" if not in_use else ""))


def _trusted(chosen: Connection) -> str:
    if chosen.fingerprints:
        return "certificates with these fingerprints (SHA-256) alone"
    if chosen.ca_file:
        return f"the authority in {chosen.ca_file}"
    return "this system's authorities" if any(one.url.startswith("https://") for one in chosen.each()) else ""


def _token(chosen: Connection) -> str:
    return f"pvc_{chosen.token_id}_…" if chosen.token else "none"


def _as_data(one: Connection, *, in_use: bool) -> dict[str, Any]:
    return {"name": one.name, "url": one.url, "others": one.others, "token_id": one.token_id, "in_use": in_use}


def use_connection(session: Session, name: str) -> None:
    """Choose one for good."""
    store.choose_connection(name)
    store.change_connections(lambda known: known._replace(in_use=name))
    before = _goes_before(name)
    session.say(f"From now on {name} is used{f', where {before} is not set' if before else ''}.")
    if before:
        session.note(_but(before, name))


def _goes_before(name: str) -> str:
    """The variable that is set and has another connection used than the stored one; empty where none is."""
    if os.environ.get("PVC_URL"):
        return "PVC_URL"
    if chosen := os.environ.get("PVC_CONNECTION"):
        return "PVC_CONNECTION" if chosen != name else ""
    return "PVC_SOCKET" if os.environ.get("PVC_SOCKET") and name != LOCAL else ""


def _but(before: str, name: str) -> str:
    return f"{before} is set here and goes before it: unset {before}, or pvc -c {name} ..."


def remove_connection(session: Session, name: str) -> None:
    """Forget one."""
    stored = store.load_connections()
    if name == LOCAL:
        raise ConfigError("the connection 'local' is found by itself and cannot be removed", hint="nothing to do")
    if name not in stored.connections:
        store.choose_connection(name)

    def without(known: store.Stored) -> store.Stored:
        left = {key: value for key, value in known.connections.items() if key != name}
        return store.Stored(left, "" if known.in_use == name else known.in_use)

    store.change_connections(without)
    session.say(f"The connection {name} is forgotten. Its token stays valid at the cluster.")


def _chosen(session: Session) -> str:
    try:
        return store.choose_connection(session.connection).name
    except ClientError:
        return ""


def _read_token(token_file: str | None) -> str:
    if token_file and token_file != "-":  # noqa: S105 - a file name
        return store.read_token_file(Path(token_file))
    if token_file is None and os.environ.get("PVC_TOKEN"):
        return os.environ["PVC_TOKEN"]
    if token_file is None and sys.stdin.isatty():
        token: str = click.prompt("Token", hide_input=True, err=True)
        return token
    return sys.stdin.read(store.MAX_TOKEN_BYTES)


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
    from pvc.client.json_client import JsonClient

    try:
        with JsonClient(made, source=SOURCE, tries=1) as client:
            me = client.whoami()
    except ClientError as error:
        # What is wrong with the token or the certificate is as wrong once it is stored.
        if isinstance(error, ConfigError) or (isinstance(error, ApiError) and error.status in (401, 403)):
            raise
        if secured := _speaks_tls(made.url, error):
            error.hint = f"TLS is spoken there: give {secured}"
            raise
        error.hint = f"{error.hint}; --no-check stores it anyway" if error.hint else "--no-check stores it anyway"
        raise
    return f"There you are {me.get('principal', 'somebody')} ({me.get('role', 'no role')})."


def _speaks_tls(url: str, error: ClientError) -> str:
    """The URL to give instead of one with http, where somebody listens who hangs up on what is not encrypted."""
    from pvc.client.pins import unvouched_fingerprint
    from pvc.client.transport import CONNECT_TIMEOUT_S, Lost

    if not url.startswith("http://") or not isinstance(error.__cause__, Lost):
        return ""
    secured = f"https://{url.removeprefix('http://')}"
    with contextlib.suppress(OSError):
        unvouched_fingerprint(secured, CONNECT_TIMEOUT_S)
        return secured
    return ""


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


list_connections = _command(
    "list", show_connections, [], reads=False, help="List the connections.", example="pvc connection list"
)

add = _command(
    "add",
    add_connection,
    [
        click.Argument(["name"]),
        click.Argument(["url"], nargs=-1, required=True),
        click.Option(
            ["--token-file"],
            metavar="FILE|-",
            shell_complete=complete.files,
            help="Read the token from a file that only you can read, or from standard input; else from PVC_TOKEN, or "
            "it is asked for.",
        ),
        click.Option(
            ["--ca-file"],
            metavar="FILE",
            shell_complete=complete.files,
            help="The authority that signed the gateway's certificate (PEM).",
        ),
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
    "pvc connection add main https://hv1:7370 --token-file - < token\n"
    "pvc connection add main https://hv1:7370 --fingerprint 5f0c…",
)

info = _command(
    "info",
    show_connection,
    [click.Argument(["name"], required=False, shell_complete=complete.connection_names)],
    about={"name": "Name of the connection; without one, that in use."},
    help="Show a connection: its gateways, what it trusts, and which token it has.",
    example="pvc connection info main",
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
