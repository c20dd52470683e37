"""`pvc login` where the gateway is not to be trusted, or goes away at the last moment."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pvc.cli import login
from pvc.cli.session import Session
from pvc.client.connections import Connection, Stored, load_connections, save_connections
from pvc.client.errors import ConfigError, Unreachable

LAB = Connection("lab", "http://127.0.0.1:1")
TOKEN = "pvc_0123456789ab_secret"


class Quiet:
    """As much of a session as a login talks to."""

    wants_data = False

    def note(self, text: str) -> None:
        pass

    say = note


SESSION = cast("Session", Quiet())


@pytest.mark.parametrize("url", ["--new-window", "file:///etc/passwd", "javascript:alert(1)", "https://", ""])
def test_nothing_but_an_address_of_the_web_is_given_to_a_browser(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    begun = {"url": url, "state": "s", "login": "l", "expires_s": 0}
    monkeypatch.setattr(login, "_post", lambda *_: begun)
    with pytest.raises(ConfigError, match="no address of an issuer"):
        login._by_browser(SESSION, LAB, 0)
    assert not opened


def test_a_token_is_kept_though_the_gateway_goes_away_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        core = SimpleNamespace(saw=int)

        def __enter__(self) -> Gone:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def whoami(self) -> dict[str, Any]:
            raise Unreachable("it has gone")

    monkeypatch.setenv("PVC_CONFIG_DIR", str(tmp_path / "config"))
    save_connections(Stored({"lab": LAB}, "lab"))
    monkeypatch.setattr(login, "_client", lambda _: Gone())
    with pytest.raises(Unreachable):
        login._keep(SESSION, LAB, {"token": TOKEN, "refresh": "r-1", "position": 7, "expires_us": 1})
    assert load_connections().connections["lab"].token == TOKEN, "the one before is revoked already"
    kept = json.loads((tmp_path / "config" / "logins.json").read_text())["logins"]
    assert kept == {"lab": {"token": "0123456789ab", "refresh": "r-1"}}
