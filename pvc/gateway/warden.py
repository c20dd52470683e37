"""The one place where it is decided whether a request goes on: rights, rates, and what of it stands in the log.

Every endpoint names its action, and comes through `admit`; a command asks once more when it is decided (`guarded`).
Refusals of who is known, reads of secrets and the use of tokens are records, but few of each: whoever has a token, or
has none, must not be able to fill the log with them. What is left out is counted, and the next record says how many.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable

import msgspec

from pvc.commands.access_rights import Rights, require
from pvc.commands.access_table import Action
from pvc.commands.base import Decision
from pvc.errors import PvcError
from pvc.events.access import AccessRefused, LoginRefused, SecretRead, TokenUsed
from pvc.events.record import Actor
from pvc.events.registry import Event
from pvc.events.sealed import shortened
from pvc.gateway.auth import Principal
from pvc.gateway.budget import Budget
from pvc.gateway.problems import TooManyRequests
from pvc.gateway.services import GatewayServices
from pvc.runtime.appender import MAX_REFUSAL
from pvc.runtime.appender import Request as Submission

logger = logging.getLogger(__name__)

REQUESTS_AT_ONCE, REQUESTS_A_SECOND = 2_000, 200.0
"""Of one principal at one gateway: far more than people and monitoring need, and a part of what a gateway can do, so
that one client that has gone astray leaves something to the others."""

COMMANDS_AT_ONCE, COMMANDS_A_SECOND = 500, 50.0
"""The same for what may write: each is a record for ever."""

REFUSALS_AT_ONCE, REFUSAL_EVERY_S = 20, 300.0
"""Of one principal: at most some 300 a day, of some 400 bytes."""

LOGINS_AT_ONCE, LOGIN_EVERY_S = 10, 600.0
"""Refused logins with a token that is not known, of everybody together, and with each one that is: 150 a day."""

SECRETS_AT_ONCE, SECRET_EVERY_S = 20, 60.0
"""Reads of secrets, for each reader."""

USED_AGAIN_S = 86_400.0
"""A token's use is recorded once a day for each address."""

ADDRESSES_A_DAY = 20
"""Of one token; who has more comes through a network that gives each request another."""

RECORD_S = 5.0
"""So long a refusal waits for its record; a log that does not answer must not make it look like something else."""


class _Noted(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded is no command."""

    node: str


class Warden:
    """Admits, and has recorded what the audit wants to know. Lives in one event loop."""

    def __init__(self, services: GatewayServices) -> None:
        self._services = services
        clock = services.clock
        self._requests = Budget(clock, burst=REQUESTS_AT_ONCE, every_s=1 / REQUESTS_A_SECOND)
        self._commands = Budget(clock, burst=COMMANDS_AT_ONCE, every_s=1 / COMMANDS_A_SECOND)
        self._refusals = Budget(clock, burst=REFUSALS_AT_ONCE, every_s=REFUSAL_EVERY_S)
        self._logins = Budget(clock, burst=LOGINS_AT_ONCE, every_s=LOGIN_EVERY_S)
        self._secrets = Budget(clock, burst=SECRETS_AT_ONCE, every_s=SECRET_EVERY_S)
        self._uses = Budget(clock, burst=1, every_s=USED_AGAIN_S)
        self._addresses = Budget(clock, burst=ADDRESSES_A_DAY, every_s=USED_AGAIN_S / ADDRESSES_A_DAY)
        self._under_way: set[asyncio.Task[None]] = set()

    def admit(self, action: Action, principal: Principal, *, writes: bool) -> Rights:
        """What of the action is allowed. Raises Forbidden, or TooManyRequests."""
        asker = principal.asker
        if asker.token:  # root on a node is not slowed down: it is who would have to help
            for budget in (self._requests, self._commands) if writes else (self._requests,):
                if budget.take(asker.shown) is None:
                    raise TooManyRequests(budget.wait_s(asker.shown))
            self._note_use(principal)  # also of what is then refused: somebody has the token
        return require(self._services.world.state, asker, action)

    async def refused(self, name: str, action: Action, principal: Principal, refusal: PvcError, ref: str) -> None:
        """Have the refusal of a known principal recorded; `ref` is the VM that it was about, if it was about one."""
        unrecorded = self._refusals.take(principal.asker.shown)
        if unrecorded is None:
            return
        state = self._services.world.state
        vm_id = state.vm_names.get(ref, ref)
        actor = await self._sealed(principal.actor)
        if actor is None:
            return
        # The name of who was made before names were sealed must not stand in an event either.
        message = refusal.message.replace(principal.asker.shown, actor.principal)
        event = AccessRefused(
            action=action,
            code=refusal.code,
            message=message[:MAX_REFUSAL],
            token=principal.asker.token,
            vm=vm_id if vm_id in state.vms else "",
            unrecorded=unrecorded,
        )
        await self._waited_for(self._record(name, event, actor))

    async def secret_read(self, name: str, principal: Principal) -> None:
        """Have it recorded that somebody is about to be given a secret."""
        unrecorded = self._secrets.take(principal.asker.token)
        actor = await self._sealed(principal.actor) if unrecorded is not None else None
        if unrecorded is not None and actor is not None:
            event = SecretRead(what=name, token=principal.asker.token, unrecorded=unrecorded)
            await self._waited_for(self._record(name, event, actor))

    def login_refused(self, token: str, code: str, address: str) -> None:
        """Have it recorded, by and by, that somebody came with a token that opens nothing; `token` is empty where
        there is none of that id."""
        unrecorded = self._logins.take(token)
        if unrecorded is not None:
            node = self._services.node
            event = LoginRefused(node=node, code=code, network=network_of(address), token=token, unrecorded=unrecorded)
            self._spawn(self._record("access.login", event, Actor(principal=f"node/{node}", method="node")))

    def _note_use(self, principal: Principal) -> None:
        token, address = principal.asker.token, principal.actor.address
        if self._uses.take(f"{token} {address}") is not None and self._addresses.take(token) is not None:
            self._spawn(self._record_use(principal))

    async def _record_use(self, principal: Principal) -> None:
        actor = await self._sealed(principal.actor)
        if actor is not None:
            event = TokenUsed(token=principal.asker.token, node=self._services.node)
            await self._record("access.login", event, actor)

    async def _sealed(self, actor: Actor) -> Actor | None:
        try:
            return await self._services.people.seal_actor(actor)
        except PvcError as error:
            logger.warning("access: not recorded principal=%s code=%s", shortened(actor.principal), error.code)
            return None

    async def _record(self, name: str, event: Event, actor: Actor) -> None:
        services = self._services
        if services.world.state.cluster is None or services.world.fault is not None:
            return
        submission = Submission(
            name=name,
            command=_Noted(node=services.node),
            decide=lambda *_: Decision(events=(event,)),
            actor=actor,
        )
        try:
            await services.appender.submit(submission)
        except PvcError as error:
            logger.warning("access: not recorded event=%s code=%s", event.TYPE, error.code)

    async def _waited_for(self, recording: Awaitable[None]) -> None:
        await asyncio.wait({self._spawn(recording)}, timeout=RECORD_S)

    def _spawn(self, recording: Awaitable[None]) -> asyncio.Task[None]:
        """A task of its own: a caller that hangs up must not keep it from the log."""
        task = asyncio.ensure_future(recording)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


def network_of(address: str) -> str:
    """The /24 of an IPv4 address, the /48 of an IPv6 one; empty for what is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(ipaddress.ip_network(f"{mapped}/{24 if mapped.version == 4 else 48}", strict=False))
