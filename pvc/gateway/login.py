"""Logging in at the configured issuer: how it begins, how it ends with a token, and how it is renewed.

Nobody is known yet who asks here, so a request may cost little: a beginning takes no memory, and each network has a
budget of tries. Tokens that there are open as ever meanwhile. What the issuer gives never comes into the log, nor does
the token made here: only its hash.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_login import LogIn, LoseRoles, lose_roles
from pvc.commands.access_login import log_in as decide_log_in
from pvc.commands.access_table import Action
from pvc.errors import Forbidden, InvalidInput, NotFound, Unauthenticated, Unavailable
from pvc.events.record import Actor
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.auth import make_token
from pvc.gateway.bodies import read_struct
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.login_parts import BEGUN_S, Begun, LoginParts
from pvc.gateway.problems import TooManyLogins
from pvc.gateway.queries import NoArguments
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices
from pvc.gateway.warden import network_of
from pvc.oidc.issuer import Issued
from pvc.oidc.people import Person, person_of
from pvc.runtime.appender import Request as Submission

BY_ISSUER = "oidc"
"""How a person proves who they are here, in records of logins."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Where a browser may bring a code to: a program on the person's own machine (RFC 8252)."""

_SECRET_TEXT = Meta(min_length=1, max_length=16_384)

_HINT = "docs/login.md shows what is sent"


class LoginForbidden(Forbidden):
    """Somebody has proven who they are, and may not come in all the same."""

    def __init__(self, name: str, message: str, *, code: str, hint: str) -> None:
        super().__init__(message, code=code, hint=hint)
        self.name = name


class LoginInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How one logs in to this cluster."""

    position: int
    issuer: Annotated[str, Meta(description="Empty: by a token of an admin's making alone.")]
    flows: Annotated[list[str], Meta(description="`browser`, `device`.")]


class LoginStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one wants to log in."""

    flow: Annotated[Literal["browser", "device"], Meta(description="`device`: by another machine with a browser.")] = (
        "browser"
    )
    redirect: Annotated[
        str,
        Meta(
            max_length=200,
            description="Where the browser brings the code to: http://127.0.0.1:PORT/PATH, of one's own machine.",
        ),
    ] = ""


class LoginBegun(msgspec.Struct, frozen=True, kw_only=True):
    """A login that has begun at this gateway, and is to be finished there."""

    position: int
    login: Annotated[str, Meta(description="Give it back to finish. Only the gateway that made it can read it.")]
    url: Annotated[str, Meta(description="Where a person's browser is to go.")]
    state: Annotated[str, Meta(description="Must come back with the code; a code with another one is not yours.")]
    user_code: Annotated[str, Meta(description="With `device`: what the person types there, or compares.")]
    interval_s: Annotated[int, Meta(description="With `device`: ask no more often.")]
    expires_s: int


class LoginFinish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of it."""

    login: Annotated[str, _SECRET_TEXT]
    code: Annotated[str, Meta(max_length=4_096, description="What the browser has brought; none with `device`.")] = ""
    replaces: Annotated[str, Meta(max_length=32, description="Id of a token of yours that is to end with this.")] = ""


class LoginRenew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another token, without a browser, as long as the issuer says so."""

    refresh: Annotated[str, _SECRET_TEXT]
    replaces: Annotated[str, Meta(max_length=32, description="Id of a token of yours that is to end with this.")] = ""


class LoginReply(msgspec.Struct, frozen=True, kw_only=True):
    """A token, or that it is not decided yet."""

    position: int
    pending: Annotated[bool, Meta(description="With `device`: the person is not done. Ask again after `interval_s`.")]
    interval_s: int = 0
    principal: str = ""
    token: Annotated[str, Meta(description="Shown here and never again.")] = ""
    expires: Annotated[str, Meta(description="ISO 8601, UTC.")] = ""
    expires_us: int = 0
    refresh: Annotated[str, Meta(description="For `login.renew`, where the issuer gave one. As secret as a token.")] = (
        ""
    )


async def _info(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    parts, position = services.login, services.world.position
    flows = [] if parts is None else ["browser", *(["device"] if parts.device else [])]
    info = LoginInfo(position=position, issuer=parts.issuer.url if parts else "", flows=flows)
    return json_response(info, position)


async def _start(services: GatewayServices, call: Call) -> Response:
    parts = _parts(services, call)
    wanted = await read_struct(call.request, LoginStart, hint=_HINT)
    position = services.world.position
    begun = Begun(id=_random(services))
    if wanted.flow == "device":
        if not parts.device:
            raise InvalidInput(
                "login by another device is switched off here",
                code="oidc.no_device_flow",
                hint="`pvc login --no-browser` shows an address for a browser anywhere, and asks for where it ends",
            )
        device = await parts.issuer.begin_device()
        begun = msgspec.structs.replace(begun, device_code=device.device_code)
        reply = LoginBegun(
            position=position,
            login=parts.seal(begun),
            url=device.verification_uri_complete or device.verification_uri,
            state="",
            user_code=device.user_code,
            interval_s=min(max(device.interval, 1), 60),
            expires_s=min(device.expires_in, BEGUN_S),
        )
        return json_response(reply, position)
    _check_redirect(wanted.redirect)
    begun = msgspec.structs.replace(
        begun, redirect=wanted.redirect, nonce=_random(services), verifier=_random(services)
    )
    url = await parts.issuer.sign_in_url(
        redirect=begun.redirect, state=begun.id, nonce=begun.nonce, verifier=begun.verifier
    )
    reply = LoginBegun(
        position=position,
        login=parts.seal(begun),
        url=url,
        state=begun.id,
        user_code="",
        interval_s=0,
        expires_s=BEGUN_S,
    )
    return json_response(reply, position)


async def _finish(services: GatewayServices, call: Call) -> Response:
    parts = _parts(services, call)
    given = await read_struct(call.request, LoginFinish, hint=_HINT)
    begun = parts.open(given.login)
    if begun.device_code:
        answer = await parts.issuer.poll_device(begun.device_code)
        if isinstance(answer, str):
            position = services.world.position
            wait_s = 10 if answer == "slow_down" else 5
            return json_response(LoginReply(position=position, pending=True, interval_s=wait_s), position)
        parts.finish(begun)
        return await _let_in(services, parts, call, answer, "device", given.replaces)
    if not given.code:
        raise InvalidInput("`code` is missing", code="input.missing", hint="what the browser has brought", field="code")
    parts.finish(begun)  # before the issuer is asked: of two at once, one is too late
    try:
        issued = await parts.issuer.redeem(
            given.code, redirect=begun.redirect, verifier=begun.verifier, nonce=begun.nonce
        )
    except Unavailable:
        parts.forget(begun)
        raise
    return await _let_in(services, parts, call, issued, "browser", given.replaces)


async def _renew(services: GatewayServices, call: Call) -> Response:
    parts = _parts(services, call)
    given = await read_struct(call.request, LoginRenew, hint=_HINT)
    issued = await parts.issuer.renew(given.refresh)
    return await _let_in(services, parts, call, issued, "renewal", given.replaces)


async def _let_in(
    services: GatewayServices, parts: LoginParts, call: Call, issued: Issued, how: str, replaces: str
) -> Response:
    person = person_of(issued.claims, name_claim=parts.name_claim, groups_claim=parts.groups_claim, roles=parts.roles)
    arrived = call.principal.actor
    actor = Actor(principal=person.name, method=BY_ISSUER, address=arrived.address, source=arrived.source)
    sealed = await services.people.seal_actor(actor)
    told = msgspec.structs.replace(actor, principal=sealed.principal)  # the node's journal knows nobody by name
    with told_in_access_log("access.log_in", services.clock, told) as line:
        about = await services.people.keyed_hash(person.name, f"{parts.issuer.url}\0{person.subject}")
        if not person.grants:
            await _shut_out(services, person, sealed, about)
        token = make_token(services.rng)
        command = LogIn(
            principal=sealed.principal,
            identity=about,
            grants=person.grants,
            lifetime_s=parts.lifetime_s,
            token_id=token.id,
            token_sha256=token.sha256,
            node=services.node,
            issuer=parts.issuer.url,
            how=how,
            replaces=replaces,
        )
        try:
            outcome = await services.appender.submit(
                Submission(name="access.log_in", command=command, decide=decide_log_in, actor=sealed)
            )
        except Forbidden as refusal:
            message = refusal.message.replace(sealed.principal, person.name)  # nobody else opens it for a stranger
            raise LoginForbidden(person.name, message, code=refusal.code, hint=refusal.hint) from refusal
        line.position = outcome.position
        entry = outcome.entry
        assert entry is not None, "a login always makes a token"
        expires_us = entry.record.time_us + parts.lifetime_s * 1_000_000
        reply = LoginReply(
            position=outcome.position,
            pending=False,
            principal=person.name,
            token=token.shown,
            expires=iso_time(expires_us),
            expires_us=expires_us,
            refresh=issued.refresh_token,
        )
        return json_response(reply, outcome.position, {"Cache-Control": "no-store"})


async def _shut_out(services: GatewayServices, person: Person, sealed: Actor, identity: str) -> None:
    """Whom no group gives a role loses what they had, at once. Raises LoginForbidden."""
    command = LoseRoles(principal=sealed.principal, identity=identity)
    if sealed.principal in services.world.state.principals:
        await services.appender.submit(
            Submission(name="access.lose_roles", command=command, decide=lose_roles, actor=sealed)
        )
    raise LoginForbidden(
        person.name,
        "the issuer knows you, but no group of yours has a role here",
        code="access.login_no_role",
        hint="an admin adds one of your groups to [[oidc.roles]] in pvc.toml, or you to a group at the issuer",
    )


def _parts(services: GatewayServices, call: Call) -> LoginParts:
    """Raises NotFound where there is no issuer, TooManyLogins."""
    parts = services.login
    if parts is None:
        raise NotFound(
            "this cluster has no issuer to log in at",
            code="oidc.not_configured",
            hint="use a token: pvc access token create NAME; or set [oidc] in pvc.toml",
        )
    network = network_of(call.principal.actor.address)
    if parts.tries.take(network) is None:
        raise TooManyLogins(parts.tries.wait_s(network))
    return parts


def _check_redirect(url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme == "http" and parts.hostname in LOOPBACK and bool(parts.port) and not parts.username
    except ValueError:
        right = False
    if not right or parts.query or parts.fragment:
        raise InvalidInput(
            "`redirect` is not on your own machine",
            hint="http://127.0.0.1:PORT/PATH, where your program listens",
            field="redirect",
        )


def _random(services: GatewayServices) -> str:
    """43 characters of 256 random bits: enough for PKCE's verifier (RFC 7636), too."""
    return base64.urlsafe_b64encode(services.rng.randbytes(32)).rstrip(b"=").decode()


_REPLY_EXAMPLE = {
    "position": 118,
    "pending": False,
    "interval_s": 0,
    "principal": "anna",
    "token": "pvc_3f2a91c0d4e5_...",
    "expires": "2026-11-22T02:10:00.000000Z",
    "expires_us": 1_795_313_400_000_000,
    "refresh": "",
}

LOGIN = (
    Endpoint(
        name="login.info",
        action=Action.SELF_LOGIN,
        open=True,
        method="GET",
        path="/login",
        handle=_info,
        summary="How one logs in to this cluster.",
        arguments=NoArguments,
        reply=LoginInfo,
    ),
    Endpoint(
        name="login.start",
        action=Action.SELF_LOGIN,
        open=True,
        method="POST",
        path="/login/start",
        handle=_start,
        summary="Begin to log in at the issuer.",
        help="The browser comes back to `redirect` with `code` and `state`. Finish at the same gateway.",
        body=LoginStart,
        body_example={"flow": "browser", "redirect": "http://127.0.0.1:49152/callback"},
        reply=LoginBegun,
    ),
    Endpoint(
        name="login.finish",
        action=Action.SELF_LOGIN,
        open=True,
        method="POST",
        path="/login/finish",
        handle=_finish,
        summary="Finish a login: a token for a code.",
        body=LoginFinish,
        body_example={"login": "gAAAAAB...", "code": "SplxlOBeZQQYbYS6WxSbIA"},
        reply=LoginReply,
        reply_example=_REPLY_EXAMPLE,
    ),
    Endpoint(
        name="login.renew",
        action=Action.SELF_LOGIN,
        open=True,
        method="POST",
        path="/login/renew",
        handle=_renew,
        summary="Another token, without a browser.",
        help="Groups are read anew, and so are roles. The issuer may have ended it.",
        body=LoginRenew,
        body_example={"refresh": "tGzv3JOkF0XG5Qx2TlKWIA"},
        reply=LoginReply,
        reply_example=_REPLY_EXAMPLE,
    ),
)

REFUSED = (Unauthenticated, Forbidden)
"""What of a login that failed is noted."""
