"""Webhooks for a reader: what each is, how far it is, how its last tries went, what is parked; and a test on demand."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_rights import Rights
from pvc.commands.access_table import Action
from pvc.commands.webhook import find_webhook, owners_sight
from pvc.errors import PvcError, Unavailable
from pvc.events.webhook import WebhookSettings
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.lists import ListArguments, ListOf, Next, by_attributes
from pvc.gateway.moments import At, seen_at, told_of_then
from pvc.gateway.queries import NoArguments, OneArguments
from pvc.gateway.records import decode_record, iso_time
from pvc.gateway.services import GatewayServices
from pvc.gateway.webhook_commands import ports_of
from pvc.projections.webhook_state import Webhook
from pvc.webhooks import cursor as c
from pvc.webhooks.signing import in_use, open_secret

Time = Annotated[str, Meta(description="ISO 8601, UTC; empty where there is none.")]


class SecretInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A signing secret; the secret itself is shown when it is made, and never again."""

    id: str
    public: Annotated[str, Meta(description="`whpk_...`: the public key, for ed25519.")]
    since: Time
    until: Annotated[str, Meta(description="When it is used no more; empty for the present one.")]


class WebhookRow(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook in a list."""

    name: str
    id: str
    url: str
    state: Annotated[
        str,
        Meta(
            description="`delivering`, `replaying`, `proving` (not yet sent events), `retrying`, `down` (it failed "
            "often in a row), `paused`, `disabled`, or `unknown` (its cursor cannot be read, or it is of the past).",
        ),
    ]
    reason: Annotated[str, Meta(description="Why it is paused, disabled, retrying or down.")]
    position: Annotated[int | None, Meta(description="The last position that is done; null: not known just now.")]
    lag: Annotated[int | None, Meta(description="Records between that and the head of the log.")]
    lag_s: Annotated[float | None, Meta(description="Age of the first record that is not done, in seconds.")]
    delivered: Annotated[int | None, Meta(description="Events, over all its life.")]
    last: Annotated[str, Meta(description="When the last one was delivered, ISO 8601.")]
    last_us: int
    next: Annotated[str, Meta(description="When it is tried again, where it waits for that.")]
    next_us: int
    tries: Annotated[int, Meta(description="Failed tries of the event that is next.")]
    parked: Annotated[int, Meta(description="Events that were given up, and not replayed since.")]


class WebhookListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which webhooks are listed."""

    state: Annotated[
        tuple[Annotated[str, Meta(max_length=40)], ...], Meta(max_length=20, description="Only those in one of these.")
    ] = ()
    at: At = ""


class WebhookInfo(WebhookRow, frozen=True, kw_only=True):
    """All about a webhook."""

    settings: Annotated[WebhookSettings, Meta(description="Subjects name VMs by their ids.")]
    sees: Annotated[
        str,
        Meta(description="What its owner may see, and so what it is sent: `everything`, `some VMs`, `nothing`."),
    ]
    verified: Annotated[bool, Meta(description="Whether the receiver has proved that it wants events.")]
    secrets: list[SecretInfo]
    trouble: Annotated[str, Meta(description="What keeps this cluster from signing; empty: nothing.")]
    deliverer: Annotated[str, Meta(description="The node that delivers.")]
    replays: Annotated[list[c.Span], Meta(description="What is being sent again, before what comes next.")]
    added: Time


class WebhookList(msgspec.Struct, frozen=True, kw_only=True):
    """All webhooks, by name."""

    position: int
    items: list[WebhookRow]
    next: Next


class DeliveryInfo(c.Try, frozen=True, kw_only=True):
    """A request that was made."""

    time: Annotated[str, Meta(description="ISO 8601, UTC.")]


class DeliveryList(msgspec.Struct, frozen=True, kw_only=True):
    """The last requests, the newest first."""

    position: int
    items: list[DeliveryInfo]
    next: Next


class ParkedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was given up."""

    position: int
    index: int
    event: Annotated[str, Meta(description="Its type.")]
    tries: int
    reason: str
    time: Annotated[str, Meta(description="ISO 8601, UTC.")]
    time_us: int


class ParkedList(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were given up, the oldest first."""

    position: int
    items: list[ParkedInfo]
    next: Next


class TestReply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a ping."""

    delivered: Annotated[bool, Meta(description="Whether the receiver has proved itself by its answer.")]
    status: int
    latency_ms: int
    error: str
    body: Annotated[str, Meta(description="The beginning of the answer.")]


async def _list(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, WebhookListArguments)
    seen = await seen_at(services, arguments.at)
    if seen.moment is None:
        rows = await webhook_rows(services)
    else:
        rows = [_row_of(hook, None) for hook in seen.state.webhooks.values()]
    rows = [row for row in rows if not arguments.state or row.state in arguments.state]
    found, following = WEBHOOK_LIST.page(rows, arguments)
    position = seen.state.position
    page = WebhookList(position=position, items=WEBHOOK_LIST.cut(found, arguments.fields), next=following)
    return json_response(page, position, seen.headers)


async def webhook_rows(services: GatewayServices) -> list[WebhookRow]:
    """All webhooks by name, each with its cursor read."""
    hooks = services.world.state.webhooks
    return [(await _row(services, hook))[0] for hook in sorted(hooks.values(), key=lambda hook: hook.name)]


async def _info(services: GatewayServices, call: Call) -> Response:
    at = arguments_of(call.request, OneArguments).at
    ref = call.request.path_params["hook"]
    seen = await seen_at(services, at)
    with told_of_then(services, seen, ref):
        hook = find_webhook(seen.state, ref)
    row, cursor = await _row(services, hook) if seen.moment is None else (_row_of(hook, None), None)
    secrets = [
        SecretInfo(id=one.sealed.id, public=one.sealed.public, since=iso_time(one.since_us), until=_time(one.until_us))
        for one in in_use(hook, seen.time_us(services.clock))
    ]
    info = WebhookInfo(
        **msgspec.structs.asdict(row),
        settings=hook.settings,
        sees=_sees(owners_sight(seen.state, hook.settings.owner)),
        verified=hook.verified,
        secrets=secrets,
        trouble=await _trouble(services, hook) if seen.moment is None else "",
        deliverer=cursor.owner if cursor is not None else "",
        replays=list(cursor.way[:-1]) if cursor is not None else [],
        added=iso_time(hook.added_us),
    )
    return json_response(info, seen.state.position, seen.headers)


async def _deliveries(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, ListArguments)
    hook = _named(services, call)
    cursor = await _cursor(services, hook)
    tries = cursor.recent[::-1] if cursor is not None else ()
    items = [DeliveryInfo(**msgspec.structs.asdict(one), time=iso_time(one.time_us)) for one in tries]
    found, following = DELIVERIES.page(items, arguments)
    page = DeliveryList(position=services.world.position, items=DELIVERIES.cut(found, arguments.fields), next=following)
    return json_response(page, services.world.position)


async def _parked(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, ListArguments)
    hook = _named(services, call)
    items = [ParkedInfo(**msgspec.structs.asdict(one), time=iso_time(one.time_us)) for one in hook.parked]
    found, following = PARKED.page(items, arguments)
    page = ParkedList(position=services.world.position, items=PARKED.cut(found, arguments.fields), next=following)
    return json_response(page, services.world.position)


async def _test(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    with told_in_access_log("webhook.test", services.clock, call.principal.actor) as line:
        hook = _named(services, call)
        line.about, line.position = hook.name, services.world.position
        cluster = services.world.state.cluster
        assert cluster is not None, "the endpoint needs one"
        sender = ports_of(services).sender
        try:
            answer, _ = await sender.ping(hook, cluster.id)
        finally:
            if cluster.primary not in ("", services.node):  # nobody else here would ever close the connection
                await sender.forget(hook.id)
        reply = TestReply(
            delivered=answer.good,
            status=answer.status,
            latency_ms=answer.latency_ms,
            error=answer.error,
            body=answer.body[:200],
        )
        return json_response(reply, services.world.position)


def _named(services: GatewayServices, call: Call) -> Webhook:
    return find_webhook(services.world.state, call.request.path_params["hook"])


async def _cursor(services: GatewayServices, hook: Webhook) -> c.Cursor | None:
    """The cursor; a new one where nothing was ever delivered. Raises Unavailable."""
    stored = await ports_of(services).store.read(hook.id)
    try:
        return c.decode(stored.data) if stored is not None else c.new_cursor(hook)
    except msgspec.MsgspecError:
        return c.new_cursor(hook)


async def _row(services: GatewayServices, hook: Webhook) -> tuple[WebhookRow, c.Cursor | None]:
    try:
        cursor = await _cursor(services, hook)
    except Unavailable:
        cursor = None
    head = services.world.position
    lag = max(0, head - cursor.tail) if cursor is not None else None
    lag_s: float | None = 0.0 if lag == 0 else None
    if cursor is not None and lag:
        data = await services.history.data(cursor.tail + 1)
        if data is not None:
            lag_s = round(max(0.0, (services.clock.wall_us() - decode_record(data).time_us) / 1e6), 1)
    return _row_of(hook, cursor, lag, lag_s), cursor


def _row_of(hook: Webhook, cursor: c.Cursor | None, lag: int | None = None, lag_s: float | None = None) -> WebhookRow:
    """The row; without a cursor, which there is none of for the past, what the state alone knows."""
    word, reason = _state(hook, cursor)
    waiting = cursor is not None and word in ("retrying", "down", "proving")
    next_us = cursor.course.not_before_us if cursor is not None and waiting else 0
    return WebhookRow(
        name=hook.name,
        id=hook.id,
        url=hook.settings.url,
        state=word,
        reason=reason,
        position=cursor.tail if cursor is not None else None,
        lag=lag,
        lag_s=lag_s,
        delivered=cursor.delivered if cursor is not None else None,
        last=_time(cursor.delivered_us if cursor is not None else 0),
        last_us=cursor.delivered_us if cursor is not None else 0,
        next=_time(next_us),
        next_us=next_us,
        tries=cursor.course.tries if cursor is not None else 0,
        parked=len(hook.parked),
    )


def _state(hook: Webhook, cursor: c.Cursor | None) -> tuple[str, str]:
    if hook.disabled:
        return "disabled", hook.disabled
    if hook.paused:
        return "paused", hook.pause_reason
    if not hook.verified:
        return "proving", cursor.course.error if cursor is not None else ""
    if cursor is None:
        return "unknown", ""
    if cursor.course.open:
        return "down", cursor.course.error
    if cursor.course.failures:
        return "retrying", cursor.course.error
    return "replaying" if len(cursor.way) > 1 else "delivering", ""


def _sees(sight: Rights) -> str:
    if sight.nothing:
        return "nothing"
    return "everything" if sight.everything else "some VMs"


async def _trouble(services: GatewayServices, hook: Webhook) -> str:
    try:
        open_secret(hook, hook.secrets[-1].sealed, await ports_of(services).store.key())
    except PvcError as error:
        return f"{error.message} ({error.hint})"
    return ""


def _time(time_us: int) -> str:
    return iso_time(time_us) if time_us else ""


WEBHOOK_LIST: ListOf[WebhookRow] = ListOf(
    item=WebhookRow,
    sorts=by_attributes("name", "state", "lag", "delivered", "parked"),
    order="name",
    key=lambda row: row.id,
)
DELIVERIES: ListOf[DeliveryInfo] = ListOf(
    item=DeliveryInfo,
    sorts=by_attributes("time_us", "status"),
    order="-time_us",
    key=lambda one: f"{one.id}.{one.number}",
)
PARKED: ListOf[ParkedInfo] = ListOf(
    item=ParkedInfo,
    sorts=by_attributes("position", "time_us", "event", "tries"),
    order="position",
    key=lambda one: f"{one.position:020}.{one.index:06}",
)

WEBHOOKS = (
    Endpoint(
        name="webhook.list",
        action=Action.WEBHOOK_READ,
        method="GET",
        path="/webhooks",
        handle=_list,
        summary="Webhooks by name, and how far each is; at a past moment, what they were.",
        arguments=WebhookListArguments,
        listing=WEBHOOK_LIST,
        reply=WebhookList,
    ),
    Endpoint(
        name="webhook.show",
        action=Action.WEBHOOK_READ,
        method="GET",
        path="/webhooks/{hook}",
        handle=_info,
        summary="All about a webhook, now or at a past moment.",
        help="How far it had come then is not known: positions and figures are null, or empty.",
        arguments=OneArguments,
        reply=WebhookInfo,
    ),
    Endpoint(
        name="webhook.deliveries",
        action=Action.WEBHOOK_INSPECT,
        method="GET",
        path="/webhooks/{hook}/deliveries",
        handle=_deliveries,
        summary="The last requests to a webhook, and what was answered.",
        arguments=ListArguments,
        listing=DELIVERIES,
        reply=DeliveryList,
    ),
    Endpoint(
        name="webhook.parked",
        action=Action.WEBHOOK_READ,
        method="GET",
        path="/webhooks/{hook}/parked",
        handle=_parked,
        summary="The events that a webhook was not given after the last try.",
        help="Replaying their positions tries them anew.",
        arguments=ListArguments,
        listing=PARKED,
        reply=ParkedList,
    ),
    Endpoint(
        name="webhook.test",
        action=Action.WEBHOOK_MANAGE,
        method="POST",
        path="/webhooks/{hook}/test",
        handle=_test,
        summary="Send a webhook a ping now, from this gateway, and show what it answers.",
        help="It changes nothing: what proves a receiver is the ping that the primary sends.",
        arguments=NoArguments,
        reply=TestReply,
    ),
)
