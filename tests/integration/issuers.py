"""Issuers to log in at: a real one in a process of its own, and one that says whatever a test has it say."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration.cli_cluster import free_port

START_S = 30.0

ANNA = {"sub": "u-1", "preferred_username": "anna", "groups": ["shop", "other"]}
OLGA = {"sub": "u-2", "preferred_username": "olga", "groups": ["nobodies"]}
ROOTLIKE = {"sub": "u-3", "preferred_username": "admin", "groups": ["pvc-admins"]}


class RealIssuer:
    """`oidc-provider-mock` as a process. Each start has another key, on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *people: dict[str, Any]) -> None:
        words = [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port), "--require-nonce", "true"]
        for person in people:
            words += ["--user-claims", json.dumps(person)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(words, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/jwks", timeout=5):
                return
            assert self._process.poll() is None, "the issuer has ended"
            time.sleep(0.1)
        raise AssertionError("the issuer does not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def sign_in(url: str, subject: str) -> str:
    """Log in as a person does with a browser; where the browser is then sent to."""
    opener = urllib.request.build_opener(_NoRedirect)
    form = {"sub": subject} if subject else {"action": "deny"}
    try:
        with opener.open(url, data=urlencode(form).encode(), timeout=10) as answer:
            raise AssertionError(f"no redirect: {answer.status}")
    except urllib.error.HTTPError as answer:
        assert answer.code in (302, 303), answer.read()
        return str(answer.headers["Location"])


def fake_browser(subject: str) -> str:
    """A value for BROWSER: a browser with somebody before it, who logs in at once."""
    return f"{sys.executable} -m tests.integration.issuers {subject or '-'} %s"


class LyingIssuer:
    """An issuer whose answers a test chooses; it knows every code, and the device flow."""

    def __init__(self) -> None:
        self.key, self.kid = rsa.generate_private_key(public_exponent=65_537, key_size=2048), "k1"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.claims: dict[str, Any] = {}
        """Go over the right ones; None takes one away."""
        self.make_token: Callable[[dict[str, Any]], str] = self.signed
        self.discovery: dict[str, Any] = {}
        self.pending = 0
        """So often a device is not done yet."""
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        """Path -> what happens there instead."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.nonce = ""
        self.userinfo: dict[str, Any] = {}
        self.id_token_again = True
        """Whether an ID token comes for a refresh token."""

    def signed(self, claims: dict[str, Any], algorithm: str = "RS256", key: Any = None) -> str:
        return jwt.encode(claims, key or self.key, algorithm=algorithm, headers={"kid": self.kid})

    def right_claims(self) -> dict[str, Any]:
        now = int(time.time())
        right = {"iss": self.url, "aud": "pvc", "iat": now, "exp": now + 300, "nonce": self.nonce, **ANNA}
        return {name: value for name, value in {**right, **self.claims}.items() if value is not None}

    def rotate(self) -> None:
        self.key, self.kid = rsa.generate_private_key(public_exponent=65_537, key_size=2048), self.kid + "x"

    def authorize(self, url: str) -> tuple[str, str]:
        """What a browser would bring back: code and state."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.nonce = query["nonce"]
        assert query["code_challenge_method"] == "S256" and len(query["code_challenge"]) == 43
        return "a-code", query["state"]

    def document(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        self.asked.append((path, form))
        if path == "/.well-known/openid-configuration":
            found = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "device_authorization_endpoint": f"{self.url}/device",
            }
            return {**found, **self.discovery}
        if path == "/jwks":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
            return {"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}]}
        if path == "/userinfo":
            return self.userinfo
        if path == "/token" and form.get("refresh_token") and not self.id_token_again:
            return {"access_token": "a", "token_type": "Bearer"}
        if path == "/device":
            return {
                "device_code": "d-1",
                "user_code": "WDJB-MJHT",
                "verification_uri": f"{self.url}/go",
                "expires_in": 60,
                "interval": 1,
            }
        if path == "/token" and form.get("device_code") and self.pending:
            self.pending -= 1
            return {"error": "authorization_pending"}
        if path == "/token":
            return {
                "access_token": "a",
                "token_type": "Bearer",
                "id_token": self.make_token(self.right_claims()),
                "refresh_token": "r-1",
            }
        return {"error": "not_found"}


@contextlib.contextmanager
def lying_issuer() -> Iterator[LyingIssuer]:
    made = LyingIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
            self._answer({name: values[0] for name, values in parse_qs(body).items()})

        def _answer(self, form: dict[str, str]) -> None:
            path = urlsplit(self.path).path
            if path in made.answers:
                made.answers[path](self)
                return
            document = made.document(path, form)
            data = json.dumps(document).encode()
            self.send_response(400 if "error" in document else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", made.port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def unsigned(claims: dict[str, Any]) -> str:
    """A token by `alg: none`."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])


def as_browser(subject: str, url: str) -> None:
    """What `fake_browser` does."""
    back = sign_in(url, subject.strip("-"))
    if "state=" not in back:  # this issuer forgets it in a refusal, against RFC 6749
        back += "&" + urlencode({"state": parse_qs(urlsplit(url).query)["state"][0]})
    assert re.match(r"http://127\.0\.0\.1:\d+/callback\?", back), back
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(back, timeout=10):
        pass


if __name__ == "__main__":
    as_browser(sys.argv[1], sys.argv[2])
