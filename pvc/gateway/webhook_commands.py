"""Commands about webhooks on their way in: moments become positions, and secrets are made, sealed, and shown once."""

from __future__ import annotations

import re

import msgspec

from pvc.commands.webhook import AddWebhook, ReplayWebhook, RotateSecret
from pvc.errors import NotFound, Unavailable
from pvc.gateway.auth import Principal
from pvc.gateway.erasure import name_in_log
from pvc.gateway.moments import find_moment
from pvc.gateway.services import GatewayServices, WebhookPorts
from pvc.webhooks.signing import NewSecret, make_secret


async def completed(
    services: GatewayServices, principal: Principal, command: msgspec.Struct, *, dry_run: bool
) -> tuple[msgspec.Struct, str]:
    """The command with what only the gateway knows, and the secret to be shown; empty where there is none.

    Raises NotFound (a moment, the owner), InvalidInput (a moment), Unavailable (the key that secrets are sealed with).
    """
    match command:
        case AddWebhook():
            first = await _first(services, command.since)
            owner = command.owner or await _owner(services, principal)
            command = msgspec.structs.replace(command, first=first, owner=owner)
            if dry_run:
                return command, ""
            ports = ports_of(services)
            made = make_secret(command.signature, command.name, await ports.store.key(), services.rng)
            return _with(command, made), made.shown
        case RotateSecret() if not dry_run:
            state = services.world.state
            hook = state.webhooks.get(state.webhook_names.get(command.hook, command.hook))
            if hook is None:
                return command, ""  # which is refused, and on the audit
            key = await ports_of(services).store.key()
            made = make_secret(hook.settings.signature, hook.name, key, services.rng)
            return _with(command, made), made.shown
        case ReplayWebhook():
            first, last = await _first(services, command.since), 0
            if command.until != "now":
                last = (await find_moment(services, command.until, "until")).position
            return msgspec.structs.replace(command, first=first or services.world.position + 1, last=last), ""
    return command, ""


async def _owner(services: GatewayServices, principal: Principal) -> str | None:
    """Whose a webhook is that this principal adds; None for root, who is nobody's name: then it is the cluster's."""
    if principal.actor.method == "socket":
        return None
    token = services.world.state.tokens.get(principal.asker.token)
    return token.principal if token is not None else await name_in_log(services, principal.actor.principal)


def ports_of(services: GatewayServices) -> WebhookPorts:
    """The ports. Raises Unavailable where this gateway has none."""
    if services.webhooks is None:
        raise Unavailable("this gateway delivers no webhooks", code="webhook.no_store", hint="ask another node")
    return services.webhooks


def _with(command: AddWebhook | RotateSecret, made: NewSecret) -> msgspec.Struct:
    sealed = made.sealed
    return msgspec.structs.replace(command, secret_id=sealed.id, secret_box=sealed.box, secret_public=sealed.public)


async def _first(services: GatewayServices, since: str) -> int:
    """The position of the first record at or after a moment; 0: the next one."""
    if since == "now":
        return 0
    try:
        moment = await find_moment(services, since, "since")
    except NotFound as error:
        if error.code != "at.before_cluster":
            raise
        return 1  # two hours ago, of a cluster that is one hour old
    return moment.position if re.fullmatch(r"[0-9]+", since) else moment.position + 1
