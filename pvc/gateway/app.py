"""The gateway's app: the list of endpoints as routes, and the border that every request passes.

It starts and stops nothing: what runs in the background is the daemon's. The daemon serves it twice, over TCP as it is
and over the Unix socket through `local_app`.
"""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pvc.commands.access_rights import Asker, Rights, require, require_vm
from pvc.commands.base import require_cluster
from pvc.errors import Forbidden, InvalidInput, PvcError, internal_error
from pvc.gateway.access import ACCESS
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.audit import AUDIT
from pvc.gateway.auth import LOCAL, NO_TOKEN, Doorkeeper, Principal
from pvc.gateway.bodies import control_of
from pvc.gateway.cards import BASE_PATH
from pvc.gateway.commands import command_endpoints
from pvc.gateway.console import CONSOLE, CONSOLE_ACTION, CONSOLE_PATH, serve_console
from pvc.gateway.diff import DIFF
from pvc.gateway.endpoint import Call, Endpoint
from pvc.gateway.events import EVENTS
from pvc.gateway.health import health_response
from pvc.gateway.history import HISTORY
from pvc.gateway.log import LOG
from pvc.gateway.log_care import LOG_CARE
from pvc.gateway.log_parts import LOG_PARTS
from pvc.gateway.log_proofs import PROOFS
from pvc.gateway.login import BY_ISSUER, LOGIN, REFUSED, LoginForbidden
from pvc.gateway.metrics import METRICS, METRICS_PATH
from pvc.gateway.openapi import openapi_endpoint
from pvc.gateway.operations import OPERATIONS
from pvc.gateway.people import PEOPLE
from pvc.gateway.problems import CONTENT_TYPE, NoSuchRoute, TooManyRequests, WrongMethod, problem_response
from pvc.gateway.queries import QUERIES
from pvc.gateway.request_meter import ENDPOINT, REFUSAL, RequestMeter
from pvc.gateway.services import GatewayServices
from pvc.gateway.tags import required_revisions, tag
from pvc.gateway.turns import Turns
from pvc.gateway.undo import UNDO
from pvc.gateway.warden import Warden
from pvc.gateway.webhooks import WEBHOOKS
from pvc.gateway.what_if import WHAT_IF

logger = logging.getLogger(__name__)

DEPRECATED = "pvc.deprecated"
"""In a request's scope: the headers by which each reply says that what was asked is to go."""

REACH_DEADLINE_S = 10.0
"""How long a request waits for the fold to reach its `min_position`."""


def create_app(services: GatewayServices) -> ASGIApp:
    """The app for callers from outside, who need a token."""
    warden, turns = Warden(services), Turns()
    doorkeeper = Doorkeeper(services.clock, warden.login_refused)
    by_path: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in all_endpoints():
        by_path[endpoint.path][endpoint.method] = endpoint
    routes: list[BaseRoute] = [
        Route(BASE_PATH + path, _Methods(services, doorkeeper, warden, turns, endpoints))
        for path, endpoints in by_path.items()
    ]
    routes += [Route(f"{base}/health", _Health(services)) for base in ("", BASE_PATH)]
    routes.append(WebSocketRoute(BASE_PATH + CONSOLE_PATH, functools.partial(_console, services, doorkeeper, warden)))
    routes.append(Route(METRICS_PATH, _Methods(services, doorkeeper, warden, turns, by_path[METRICS_PATH])))
    router = Router(routes, redirect_slashes=False, default=_no_such_route)
    return RequestMeter(services, _Border(services, router))


def local_app(app: ASGIApp) -> ASGIApp:
    """The same app for the Unix socket, whose callers are root."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, LOCAL: True}, receive, send)

    return serve


def all_endpoints() -> Sequence[Endpoint]:
    """Every endpoint there is, in the order of the manual."""
    logs = [*LOG, *PROOFS, *LOG_CARE, *LOG_PARTS]
    described = [
        *QUERIES,
        *HISTORY,
        *EVENTS,
        *OPERATIONS,
        *DIFF,
        *UNDO,
        *WHAT_IF,
        *logs,
        *ACCESS,
        *AUDIT,
        *PEOPLE,
        *WEBHOOKS,
        *CONSOLE,
        *METRICS,
        *LOGIN,
        *command_endpoints(),
    ]
    return [*described, openapi_endpoint(described)]


class _Methods:
    """What is at one path."""

    def __init__(
        self,
        services: GatewayServices,
        doorkeeper: Doorkeeper,
        warden: Warden,
        turns: Turns,
        endpoints: dict[str, Endpoint],
    ) -> None:
        self._services = services
        self._doorkeeper = doorkeeper
        self._warden = warden
        self._turns = turns
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        method = "GET" if request.method == "HEAD" else request.method
        endpoint = self._endpoints.get(method)
        if endpoint is None:
            raise WrongMethod(request.method, request.url.path, sorted(self._endpoints))
        if endpoint.deprecated is not None:
            scope[DEPRECATED] = endpoint.deprecated.headers
        scope[ENDPOINT] = endpoint
        peer = self._peer(endpoint, request)
        response = await (self._answer_peer(endpoint, request, peer) if peer else self._answer(endpoint, request))
        await _make_readable(self._services, response)
        if method == "GET":
            response = tag(request, response)
        await response(scope, receive, send)

    def _peer(self, endpoint: Endpoint, request: Request) -> Principal | None:
        if not endpoint.peers:
            return None  # a node's signature opens nothing else
        return self._doorkeeper.admit_peer(request, self._services.node, self._services.peers.secret)

    async def _answer_peer(self, endpoint: Endpoint, request: Request, peer: Principal) -> Response:
        """Another node has all of it, or may have: there is no role to ask for."""
        if not endpoint.before_init:
            require_cluster(self._services.world.state)
        call = Call(request=request, principal=peer, rights=Rights(everything=True))
        return await endpoint.handle(self._services, call)

    async def _answer_anybody(self, endpoint: Endpoint, request: Request) -> Response:
        """What is for those who have no token yet; what is refused of it is noted all the same."""
        services, warden = self._services, self._warden
        await services.world.until_caught_up(REACH_DEADLINE_S)
        require_cluster(services.world.state)
        somebody = self._doorkeeper.stranger(request)
        try:
            return await endpoint.handle(services, Call(request=request, principal=somebody, rights=Rights()))
        except LoginForbidden as refusal:
            actor = msgspec.structs.replace(somebody.actor, principal=refusal.name, method=BY_ISSUER)
            known = Principal(actor=actor, asker=Asker(token=NO_TOKEN, shown=refusal.name))
            await warden.refused(endpoint.name, endpoint.action, known, refusal, "")
            raise
        except REFUSED as refusal:
            warden.login_refused("", refusal.code, somebody.actor.address)
            self._doorkeeper.count_failure(somebody.actor.address)
            raise

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        if endpoint.open:
            return await self._answer_anybody(endpoint, request)
        services, warden = self._services, self._warden
        await services.world.until_caught_up(REACH_DEADLINE_S)
        principal = self._doorkeeper.admit(request, services.world.state)
        if principal.asker.token:  # root is who would have to help
            await self._turns.take(principal.asker.shown)
        try:
            rights = warden.admit(endpoint.action, principal, writes=endpoint.method != "GET")
            if await _reach(services, request) and principal.asker.token:
                # The answer is of now, and who asks may have lost the token, or the role, in the meantime.
                self._doorkeeper.admit(request, services.world.state)
                rights = require(services.world.state, principal.asker, endpoint.action)
            if not endpoint.before_init:
                require_cluster(services.world.state)
            if endpoint.method != "GET":
                required_revisions(request, endpoint.command)
            response = await endpoint.handle(services, Call(request=request, principal=principal, rights=rights))
        except (Forbidden, TooManyRequests) as refusal:
            ref = request.path_params.get("vm", "")
            await warden.refused(endpoint.name, endpoint.action, principal, refusal, ref)
            raise
        if endpoint.secret:
            await warden.secret_read(endpoint.name, principal)
        return response


class _Health:
    """The one thing that is told without a token."""

    def __init__(self, services: GatewayServices) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ENDPOINT] = "/health"
        request = Request(scope, receive, send)
        if request.method not in ("GET", "HEAD"):
            raise WrongMethod(request.method, request.url.path, ["GET"])
        await health_response(self._services)(scope, receive, send)


class _Border:
    """The outermost layer: every reply has the position, every error is a problem."""

    def __init__(self, services: GatewayServices, app: ASGIApp) -> None:
        self._services = services
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_position(message: Message) -> None:
            nonlocal started
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                started = True
                headers = message.setdefault("headers", [])
                if not any(name == b"pvc-position" for name, _ in headers):
                    headers.append((b"pvc-position", str(self._services.world.position).encode()))
                told: dict[str, str] = scope.get(DEPRECATED, {})
                headers.extend((name.lower().encode(), value.encode()) for name, value in told.items())
            started = started or message["type"] in ("websocket.accept", "websocket.close")
            await send(message)

        try:
            await self._app(scope, receive, send_with_position)
            return
        except PvcError as error:
            problem = error
        except Exception as error:
            # The border is the one place where a defect may not end the connection without an answer.
            logger.exception("gateway: internal error method=%s path=%r", scope.get("method"), scope.get("path"))
            problem = internal_error(error)
        scope[REFUSAL] = problem.code
        if started:
            logger.warning("gateway: reply cut short path=%r code=%s", scope.get("path"), problem.code)
            return
        response = problem_response(problem, self._services.world.position)
        await _make_readable(self._services, response)
        await _refuse(scope, receive, send_with_position, response)


async def _make_readable(services: GatewayServices, response: Response) -> None:
    """Open what is sealed in a reply. The only place where that is done, so that no view can forget it, nor another
    layer come to depend on names. Bytes of the log, and what a guest has written, are nobody's to change."""
    if response.media_type not in ("application/json", CONTENT_TYPE):
        return
    body = await services.people.readable(bytes(response.body))
    if body != response.body:
        response.body = body
        response.headers["content-length"] = str(len(body))


async def _refuse(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


async def _console(services: GatewayServices, doorkeeper: Doorkeeper, warden: Warden, websocket: WebSocket) -> None:
    websocket.scope[ENDPOINT] = CONSOLE_PATH
    await services.world.until_caught_up(REACH_DEADLINE_S)
    principal = doorkeeper.admit(websocket, services.world.state)
    ref = websocket.path_params["vm"]
    with told_in_access_log("vm.console", services.clock, principal.actor) as line:
        line.about = ref
        line.position = services.world.position
        try:
            rights = warden.admit(CONSOLE_ACTION, principal, writes=False)
            require_cluster(services.world.state)
            require_vm(services.world.state, rights, ref)
        except (Forbidden, TooManyRequests) as refusal:
            await warden.refused("vm.console", CONSOLE_ACTION, principal, refusal, ref)
            raise
        with services.console_places.taken(principal.asker.shown):
            await serve_console(services, websocket, principal.asker)


async def _no_such_route(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope.get("path", "")
    hint = f"the API is below {BASE_PATH}; {BASE_PATH}/openapi.json lists what there is"
    raise NoSuchRoute(f"there is nothing at {path[:200]}", hint=hint)


async def _reach(services: GatewayServices, request: Request) -> bool:
    """Wait until the fold has what the client has seen; whether it had to."""
    text = control_of(request, "min_position")
    if not text:
        return False
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput(
            f"`min_position` cannot be {text[:40]!r}",
            hint="it is a position of the log: a whole number",
            field="min_position",
        )
    waits = services.world.position < int(text)
    await services.world.reach(int(text), REACH_DEADLINE_S)
    return waits
