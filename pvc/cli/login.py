"""`pvc login` and `pvc logout`: a token from the cluster's issuer, by a browser here, or one anywhere.

The gateway talks to the issuer; here are only the browser's way back, and the place where the token is kept: with the
connection. What renews it stands in a file beside, which is its owner's alone as well.
"""

from __future__ import annotations

import hmac
import http.server
import os
import socketserver
import sys
import threading
import time
import webbrowser
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import click

from pvc.cli.access import granted
from pvc.cli.base import PvcCommand
from pvc.cli.login_file import load_logins, remember_login
from pvc.cli.session import SOURCE, Session, now_us
from pvc.cli.times import when
from pvc.client import connections as store
from pvc.client.connections import Connection
from pvc.client.errors import ApiError, ClientError, ConfigError, NotFound, Unreachable

if TYPE_CHECKING:
    from pvc.client.json_client import JsonClient

PASTE_PORT = 7371
"""In the address that the browser ends at where nobody listens; it is only to be copied."""

MAX_PASTED = 8_192

PAGE = b"""<!doctype html><meta charset=utf-8><title>PVC</title><p>This window can be closed: go on in the terminal."""


def log_in(session: Session, browser: bool, device: bool, again: bool, port: int) -> None:
    """Renew the login where that goes, else log in."""
    chosen = store.choose_connection(session.connection)
    if chosen.is_unix:
        raise ConfigError(
            f"the connection {chosen.name!r} is this machine's socket, where root needs no login",
            hint="`pvc connection add NAME URL --login` adds one that has one",
        )
    made = None if again else _renewed(session, chosen)
    if made is None:
        made = _from_any(session, chosen, browser=browser, device=device, port=port)
    _keep(session, chosen, made)


def log_out(session: Session) -> None:
    """Revoke the token of the login, and forget it."""
    chosen = store.choose_connection(session.connection)
    known = load_logins().get(chosen.name)
    if known is None or not chosen.token or known["token"] != chosen.token_id:
        raise ConfigError(
            f"the connection {chosen.name!r} has no token of a login",
            hint="nobody is logged in there; `pvc access token revoke` revokes a token of another kind",
        )
    try:
        session.client.command("access.revoke_token", {"token": chosen.token_id})
    except ApiError as error:
        if error.status != 401:  # it has expired, or somebody revoked it
            raise
    remember_login(chosen.name, None)
    _save_token(chosen, "")
    session.say("You are logged out.")


def _renewed(session: Session, chosen: Connection) -> dict[str, Any] | None:
    known = load_logins().get(chosen.name)
    if known is None or not known.get("refresh"):
        return None
    body = {"refresh": known["refresh"], "replaces": chosen.token_id}
    try:
        return _post(chosen, "/login/renew", body)
    except ApiError as error:
        if error.status == 429 or error.status >= 500:
            raise  # it may be renewed later; nor would a browser help now
        session.note(f"The login cannot be renewed: {error.message}")
        return None


def _from_any(session: Session, chosen: Connection, *, browser: bool, device: bool, port: int) -> dict[str, Any]:
    """By the first gateway that answers: what begins at one ends there."""
    silent: Unreachable | None = None
    for one in chosen.each():
        try:
            with _client(one._replace(token="")) as client:
                info = client.get("/login")
            if not info["issuer"]:
                raise NotFound(  # as the gateway would say, if it was asked to begin
                    404,
                    "this cluster has no issuer to log in at",
                    code="oidc.not_configured",
                    hint="use a token; an admin makes one: pvc access token create NAME",
                )
            return _logged_in(session, one, browser=browser, device=device, port=port)
        except Unreachable as error:
            silent = silent or error
    assert silent is not None, "a connection has a gateway"
    raise silent


def _logged_in(session: Session, chosen: Connection, *, browser: bool, device: bool, port: int) -> dict[str, Any]:
    if browser and not device and has_browser():
        return _by_browser(session, chosen, port)
    try:
        return _by_device(session, chosen)
    except ApiError as error:
        if device or error.code != "oidc.no_device_flow":
            raise
    return _by_paste(session, chosen, port)


def is_of_login(connection: Connection) -> bool:
    """Whether a connection's token is that of its last login."""
    known = load_logins().get(connection.name)
    return known is not None and known.get("token") == connection.token_id


def has_browser() -> bool:
    """Whether a window can open here."""
    return sys.platform == "darwin" or any(os.environ.get(one) for one in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))


def _by_browser(session: Session, chosen: Connection, port: int) -> dict[str, Any]:
    with _Callback(("127.0.0.1", port)) as callback:
        redirect = f"http://127.0.0.1:{callback.server_address[1]}/callback"
        begun = _post(chosen, "/login/start", {"flow": "browser", "redirect": redirect})
        callback.state = begun["state"]
        parts = urlsplit(begun["url"])
        if parts.scheme not in ("https", "http") or not parts.netloc:
            # A browser may take it for an option, or for a file of this machine.
            raise ConfigError(f"{begun['url'][:200]!r} is no address of an issuer", hint="tell an admin of the cluster")
        session.note("Log in with your browser. If none opens, go to:")
        session.note(f"  {begun['url']}")
        # A thread: a browser in the terminal, or one by BROWSER, may only return when it ends.
        threading.Thread(target=webbrowser.open, args=(begun["url"],), daemon=True).start()
        found = callback.wait(begun["expires_s"])
    return _finished(chosen, begun, found)


def _by_paste(session: Session, chosen: Connection, port: int) -> dict[str, Any]:
    redirect = f"http://127.0.0.1:{port or PASTE_PORT}/callback"
    begun = _post(chosen, "/login/start", {"flow": "browser", "redirect": redirect})
    session.note("Go to this address with any browser, and log in:")
    session.note(f"  {begun['url']}")
    session.note("It ends at a page that cannot be reached. Copy that page's address, paste it here, and press Enter:")
    pasted = sys.stdin.readline(MAX_PASTED).strip()
    found = {name: values[0] for name, values in parse_qs(urlsplit(pasted).query).items()}
    if not hmac.compare_digest(found.get("state", "").encode(), begun["state"].encode()):
        raise ConfigError("this is not the address that this login ends at", hint="copy all of it, and begin again")
    return _finished(chosen, begun, found)


def _by_device(session: Session, chosen: Connection) -> dict[str, Any]:
    begun = _post(chosen, "/login/start", {"flow": "device"})
    session.note("Go to this address with any browser, and log in:")
    session.note(f"  {begun['url']}")
    session.note(f"The code is {begun['user_code']}. Enter it for nobody but yourself.")
    give_up, pause_s = time.monotonic() + begun["expires_s"], begun["interval_s"]
    while time.monotonic() < give_up:
        time.sleep(pause_s)
        reply = _post(chosen, "/login/finish", {"login": begun["login"], "replaces": chosen.token_id})
        if not reply["pending"]:
            return reply
        pause_s = max(pause_s, reply["interval_s"])
    raise _too_late()


def _finished(chosen: Connection, begun: dict[str, Any], found: dict[str, str]) -> dict[str, Any]:
    if "code" not in found:
        why = found.get("error_description") or found.get("error") or "it gave no code"
        raise ConfigError(f"the issuer has refused the login: {why[:200]}", hint="log in again: pvc login")
    body = {"login": begun["login"], "code": found["code"], "replaces": chosen.token_id}
    return _post(chosen, "/login/finish", body)


class _Callback(socketserver.TCPServer):
    """Waits for the browser to bring the code. Whatever else comes to the port is answered with 404."""

    state = ""

    def __init__(self, address: tuple[str, int]) -> None:
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise ConfigError(
                f"the port {address[1]} cannot be used: {error.strerror}", hint="give another one with --port"
            ) from error
        self.found: dict[str, str] | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up early has brought the code all the same."""

    def wait(self, limit_s: float) -> dict[str, str]:
        """What came back with the right `state`. Raises ConfigError when nothing did in time."""
        give_up = time.monotonic() + limit_s
        while self.found is None and (left_s := give_up - time.monotonic()) > 0:
            self.timeout = left_s
            self.handle_request()
        if self.found is None:
            raise _too_late()
        return self.found


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 5
    server: _Callback

    def do_GET(self) -> None:
        """One request of the browser's."""
        parts = urlsplit(self.path)
        found = {name: values[0] for name, values in parse_qs(parts.query).items()}
        right = hmac.compare_digest(found.get("state", "").encode(), self.server.state.encode())
        if parts.path == "/callback" and self.server.state and right:
            self.server.found = found
        self.send_response(200 if self.server.found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(PAGE if self.server.found else b"Not found")

    def log_message(self, *_: object) -> None:
        """A code must not be shown on the terminal."""


def _keep(session: Session, chosen: Connection, made: dict[str, Any]) -> None:
    token = store.check_token(made["token"])
    known = chosen._replace(token=token)
    stored = chosen.name in store.load_connections().connections
    if stored:
        # Before all else, for the one before has ended. And the renewal first: a token without it is only a shorter
        # login.
        remember_login(chosen.name, {"token": known.token_id, "refresh": made["refresh"]})
        _save_token(chosen, token)
    with _client(known) as client:
        client.core.saw(made["position"])
        me = client.whoami()
    if session.wants_data:
        kept = {} if stored else {"token": token}
        session.show_data({"principal": me["principal"], "grants": me["grants"], "expires": me["expires"], **kept})
        return
    until = when(made["expires_us"], now_us())
    session.say(f"You are {me['principal']}, {granted(me['grants'])}, until {until}.")
    if not stored:
        session.note("The connection is not a stored one, so the token is only shown; give it in PVC_TOKEN:")
        session.say(token)


def _post(chosen: Connection, path: str, body: dict[str, str]) -> dict[str, Any]:
    """On a connection of its own: a person takes longer than a gateway keeps an idle one."""
    with _client(chosen._replace(token="")) as client:
        return client.post(path, body=body)


def _client(connection: Connection) -> JsonClient:
    from pvc.client.json_client import JsonClient

    return JsonClient(connection, source=SOURCE, tries=1)


def _save_token(chosen: Connection, token: str) -> None:
    def with_token(stored: store.Stored) -> store.Stored:
        if chosen.name not in stored.connections:
            return stored
        known = stored.connections[chosen.name]._replace(token=token)
        return stored._replace(connections={**stored.connections, chosen.name: known})

    store.change_connections(with_token)


def _too_late() -> ClientError:
    return ConfigError("nobody has logged in in time", hint="begin again: pvc login")


login = PvcCommand(
    "login",
    log_in,
    params=[
        click.Option(
            ["--browser/--no-browser"],
            default=True,
            help="Without a browser here: with one on another machine.",
        ),
        click.Option(["--device"], is_flag=True, help="By a code for another machine, and in no other way."),
        click.Option(["--again"], is_flag=True, help="As somebody else: do not renew the last login."),
        click.Option(
            ["--port"],
            metavar="PORT",
            type=click.IntRange(0, 65_535),
            default=0,
            help="Port of this machine that the browser comes back to; 0: any that is free.",
        ),
    ],
    help="Log in at the cluster's issuer.\n\n"
    "The token is kept with the connection, and opens for some hours. What one may do comes from one's groups at the "
    "issuer, and is read anew each time. Where the issuer allows it, the next login needs no browser.",
    short_help="Log in at the cluster's issuer.",
    example="pvc login\npvc login --no-browser",
)

logout = PvcCommand(
    "logout",
    log_out,
    data=False,
    help="Revoke the token of the last login, and forget it.",
    example="pvc logout",
)
