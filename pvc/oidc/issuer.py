"""The configured issuer: found by its discovery document, its keys kept for a while, its answers checked.

Nothing is asked before somebody logs in, so an issuer that is down keeps nobody from working with a token they have.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from pvc.clock import Clock
from pvc.errors import DriverError, InvalidInput, PvcError, Unauthenticated, Unavailable
from pvc.oidc.id_token import UnknownKey, check_fresh, keys_of, verify
from pvc.oidc.web import Reply, Web, check_url

KEPT_S = 600.0
"""So long discovery and keys are taken as they were. A key that was withdrawn is believed for no longer."""

KEYS_AGAIN_S = 5.0
"""A token with an unknown key has them read anew, but not for each one that comes."""

OK, UNAUTHORIZED = 200, 401

T = TypeVar("T")

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """Of the discovery document what is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str = ""
    userinfo_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """What the issuer gave for a code or a refresh token: verified claims, and how to ask again."""

    claims: dict[str, Any]
    refresh_token: str


class DeviceStart(msgspec.Struct, frozen=True, kw_only=True):
    """How a person logs in on another machine (RFC 8628)."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str = ""
    expires_in: int = 600
    interval: int = 5


class _TokenReply(msgspec.Struct, frozen=True, kw_only=True):
    id_token: str = ""
    access_token: str = ""
    refresh_token: str = ""


class _TokenError(msgspec.Struct, frozen=True, kw_only=True):
    error: str
    error_description: str = ""


class Issuer:
    """One issuer, and this cluster as its client. Lives in one event loop."""

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        client_secret: str,
        scopes: Sequence[str],
        needed: Sequence[str],
        web: Web,
        clock: Clock,
    ) -> None:
        """`needed`: the claims that are looked up at the issuer where an ID token does not have them."""
        self.url = url
        self._client_id = client_id
        self._secret = client_secret
        self._scopes = " ".join(scopes)
        self._needed = needed
        self._web = web
        self._clock = clock
        self._discovery: tuple[Discovery, float] | None = None
        self._keys: tuple[list[dict[str, Any]], float] | None = None
        self._reading = asyncio.Lock()
        self._failures = 0
        self._failure: PvcError | None = None

    async def sign_in_url(self, *, redirect: str, state: str, nonce: str, verifier: str) -> str:
        """Where a person's browser goes to. Raises Unavailable, DriverError."""
        found = await self._discovered()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect,
            "scope": self._scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        glue = "&" if "?" in found.authorization_endpoint else "?"
        return f"{found.authorization_endpoint}{glue}{urlencode(query)}"

    async def redeem(self, code: str, *, redirect: str, verifier: str, nonce: str) -> Issued:
        """What a code is good for. Raises Unauthenticated, Unavailable, DriverError."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        return await self._issued(await self._ask_for_token(form), nonce)

    async def renew(self, refresh_token: str) -> Issued:
        """Who they are now, without a browser. Raises as `redeem`."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        reply = await self._ask_for_token(form)
        given = self._decoded(reply, _TokenReply)
        if given.id_token:
            issued = await self._issued(reply, None)
        else:  # it need not be given again (OpenID Connect Core 12.2); the access token is ours as well
            issued = Issued(claims=await self._looked_up(given.access_token), refresh_token=given.refresh_token)
        return issued if issued.refresh_token else msgspec.structs.replace(issued, refresh_token=refresh_token)

    async def begin_device(self) -> DeviceStart:
        """A code for a person to type elsewhere. Raises Unavailable, DriverError, InvalidInput."""
        found = await self._discovered()
        if not found.device_authorization_endpoint:
            raise InvalidInput(
                "the issuer knows no login by another device",
                code="oidc.no_device_flow",
                hint="`pvc login --no-browser` shows an address for a browser anywhere, and asks for where it ends",
            )
        form = {"scope": self._scopes, **self._client_in_form()}
        reply = await self._web.post(found.device_authorization_endpoint, form, self._client_in_header(found))
        if reply.status != OK:
            raise self._refused(reply)
        return self._decoded(reply, DeviceStart)

    async def poll_device(self, device_code: str) -> Issued | Literal["pending", "slow_down"]:
        """What came of it so far. Raises as `redeem`."""
        reply = await self._ask_for_token({"grant_type": DEVICE_GRANT, "device_code": device_code}, final=False)
        if reply.status != OK:
            said = _error_of(reply).error
            if said == "authorization_pending":
                return "pending"
            if said == "slow_down":
                return "slow_down"
            raise self._refused(reply)
        return await self._issued(reply, None)

    async def _ask_for_token(self, form: Mapping[str, str], *, final: bool = True) -> Reply:
        found = await self._discovered()
        given = {**form, **self._client_in_form()}
        reply = await self._web.post(found.token_endpoint, given, self._client_in_header(found))
        if final and reply.status != OK:
            raise self._refused(reply)
        return reply

    async def _issued(self, reply: Reply, nonce: str | None) -> Issued:
        given = self._decoded(reply, _TokenReply)
        if not given.id_token:
            raise self._strange("it gives no ID token")
        try:
            claims = self._verified(given.id_token, await self._current_keys(KEPT_S), nonce)
        except UnknownKey:
            claims = self._verified(given.id_token, await self._current_keys(KEYS_AGAIN_S), nonce)
        check_fresh(claims, self._clock.wall_us() / 1_000_000)
        if any(name not in claims and name.split(".")[0] not in claims for name in self._needed):
            more = await self._looked_up(given.access_token) if await self._has_more() else {}
            if more and more["sub"] != claims["sub"]:
                raise self._strange("it tells of somebody else than it has vouched for")
            claims = {**more, **claims}
        return Issued(claims=claims, refresh_token=given.refresh_token)

    async def _has_more(self) -> bool:
        return bool((await self._discovered()).userinfo_endpoint)

    async def _looked_up(self, access_token: str) -> dict[str, Any]:
        """What the issuer tells of whom an access token is for."""
        found = await self._discovered()
        if not found.userinfo_endpoint or not access_token:
            raise self._strange("it gives no ID token, and has no userinfo_endpoint")
        if not access_token.isascii() or not access_token.isprintable():
            raise self._strange("its access token cannot be used")
        reply = await self._web.get(found.userinfo_endpoint, {"Authorization": f"Bearer {access_token}"})
        if reply.status != OK:
            raise self._refused(reply)
        claims = self._decoded(reply, dict[str, Any])
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise self._strange("it does not say whom an access token is for")
        return claims

    def _verified(self, token: str, keys: Sequence[Mapping[str, Any]], nonce: str | None) -> dict[str, Any]:
        return verify(token, keys, issuer=self.url, client_id=self._client_id, nonce=nonce)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One reads at a time. Who has waited for one that failed is answered by that: each by a deadline of their own,
        the last of many would wait for minutes."""
        before = self._failures
        async with self._reading:
            if self._failure is not None and self._failures != before:
                raise self._failure
            try:
                yield
            except PvcError as error:
                self._failures, self._failure = self._failures + 1, error
                raise

    async def _discovered(self) -> Discovery:
        async with self._turn():
            if self._discovery is not None and self._clock.monotonic() - self._discovery[1] < KEPT_S:
                return self._discovery[0]
            reply = await self._web.get(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
            if reply.status != OK:
                raise self._strange(f"its discovery document is answered with {reply.status}")
            found = self._decoded(reply, Discovery)
            if found.issuer != self.url:
                raise self._strange(f"it says that it is {found.issuer[:200]!r}")
            for one in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                self._check(one)
            for one in filter(None, (found.device_authorization_endpoint, found.userinfo_endpoint)):
                self._check(one)
            self._discovery = (found, self._clock.monotonic())
            return found

    async def _current_keys(self, kept_s: float) -> list[dict[str, Any]]:
        found = await self._discovered()
        async with self._turn():
            if self._keys is not None and self._clock.monotonic() - self._keys[1] < kept_s:
                return self._keys[0]
            reply = await self._web.get(found.jwks_uri)
            try:
                keys = keys_of(reply.body) if reply.status == OK else []
            except (msgspec.MsgspecError, ValueError) as error:
                raise self._strange(f"its keys cannot be read: {error}") from None
            if not keys:
                raise self._strange(f"it shows no keys (HTTP {reply.status})")
            self._keys = (keys, self._clock.monotonic())
            return keys

    def _client_in_form(self) -> dict[str, str]:
        """A public client says who it is, one with a secret too where it may not say so in the header."""
        basic = self._basic()
        return {"client_id": self._client_id, **({"client_secret": self._secret} if self._secret and not basic else {})}

    def _client_in_header(self, found: Discovery) -> dict[str, str]:
        if not self._secret or not self._basic():
            return {}
        # RFC 6749, 2.3.1: both parts are form-encoded first.
        pair = f"{quote(self._client_id, safe='')}:{quote(self._secret, safe='')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def _basic(self) -> bool:
        methods = self._discovery[0].token_endpoint_auth_methods_supported if self._discovery else ()
        return "client_secret_basic" in methods or "client_secret_post" not in methods

    def _check(self, url: str) -> None:
        try:
            check_url(url)
        except InvalidInput:
            raise self._strange(f"it names {url[:200]!r}, which is not https") from None

    def _decoded(self, reply: Reply, struct: type[T]) -> T:
        try:
            return msgspec.json.decode(reply.body, type=struct)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise self._strange(f"its answer cannot be read: {str(error)[:100]}") from None

    def _strange(self, why: str) -> PvcError:
        return DriverError(
            f"the issuer {self.url} cannot be used: {why}",
            code="oidc.bad_answer",
            hint="compare oidc.issuer in pvc.toml with the issuer's own documents; tokens open as before",
        )

    def _refused(self, reply: Reply) -> PvcError:
        """Why there is no token: the person's affair, or ours."""
        said = _error_of(reply)
        if said.error in ("invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"):
            return DriverError(
                f"the issuer {self.url} does not take this cluster for its client: {said.error}",
                code="oidc.client_refused",
                hint="an admin compares oidc.client_id and oidc.client_secret_file with what is registered there",
            )
        if reply.status >= 500 or not said.error:
            return Unavailable(
                f"the issuer {self.url} answers {reply.status}",
                code="oidc.unreachable",
                hint="tokens open as before; see that the issuer is up",
            )
        return Unauthenticated(
            f"the issuer refuses the login: {said.error[:60]}",
            code="access.login_denied",
            hint="log in again: pvc login",
        )


def _error_of(reply: Reply) -> _TokenError:
    try:
        return msgspec.json.decode(reply.body, type=_TokenError)
    except (msgspec.MsgspecError, RecursionError):
        return _TokenError(error="")
