"""How webhooks follow from events."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pvc.events import webhook as e
from pvc.events.record import Record
from pvc.projections.state import ClusterState, Fault
from pvc.projections.webhook_state import MAX_PARKED, MAX_REPLAYS, Parked, Replay, Secret, Webhook

DISABLED = "webhook.disabled"


def added(state: ClusterState, event: e.WebhookAdded, record: Record) -> None:
    """There is one more."""
    state.put_webhook(
        Webhook(
            id=event.hook,
            name=event.name,
            settings=event.settings,
            secrets=(Secret(sealed=event.secret, since_us=record.time_us),),
            after=event.after,
            added_us=record.time_us,
            resumed_at=record.position,
            cause=record.id,
            position=record.position,
        )
    )


def modified(state: ClusterState, event: e.WebhookModified, record: Record) -> None:
    """Another address is another receiver, which has not proved anything yet."""
    hook = state.webhooks.get(event.hook)
    if hook is None:
        return
    same = hook.settings.url == event.settings.url
    _change(
        state,
        hook,
        record,
        settings=event.settings,
        verified=hook.verified and same,
        resumed_at=record.position,
        cause=record.id,
    )


def removed(state: ClusterState, event: e.WebhookRemoved, record: Record) -> None:
    """And nothing is wrong with it any more."""
    if event.hook in state.webhooks:
        state.drop_webhook(event.hook)
        state.drop_fault(fault_id(event.hook))


def paused(state: ClusterState, event: e.WebhookPaused, record: Record) -> None:
    """Its cursor stays."""
    hook = state.webhooks.get(event.hook)
    if hook is not None:
        _change(state, hook, record, paused=True, pause_reason=event.reason)


def resumed(state: ClusterState, event: e.WebhookResumed, record: Record) -> None:
    """What waited for a further try is tried at once."""
    hook = state.webhooks.get(event.hook)
    if hook is not None:
        state.drop_fault(fault_id(event.hook))
        changes: dict[str, Any] = {"paused": False, "pause_reason": "", "disabled": ""}
        _change(state, hook, record, **changes, resumed_at=record.position, cause=record.id)


def secret_rotated(state: ClusterState, event: e.WebhookSecretRotated, record: Record) -> None:
    """Those before go on for a while; those whose while is over are forgotten."""
    hook = state.webhooks.get(event.hook)
    if hook is None:
        return
    until_us = event.overlap_until_us
    ending = [
        replace(old, until_us=min(old.until_us or until_us, until_us))
        for old in hook.secrets
        if not old.until_us or old.until_us > record.time_us
    ]
    kept = tuple(old for old in ending if old.until_us > record.time_us)
    _change(state, hook, record, secrets=(*kept, Secret(sealed=event.secret, since_us=record.time_us)))


def replay_requested(state: ClusterState, event: e.WebhookReplayRequested, record: Record) -> None:
    """What is parked in the range is tried anew."""
    hook = state.webhooks.get(event.hook)
    if hook is None:
        return
    replay = Replay(at=record.position, first=event.first, last=event.last, time_us=record.time_us)
    left = tuple(one for one in hook.parked if not event.first <= one.position <= event.last)
    _change(state, hook, record, parked=left, replays=(*hook.replays, replay)[-MAX_REPLAYS:])


def verified(state: ClusterState, event: e.WebhookVerified, record: Record) -> None:
    """It may be sent events."""
    hook = state.webhooks.get(event.hook)
    if hook is not None and hook.settings.url == event.url:
        _change(state, hook, record, verified=True)


def disabled(state: ClusterState, event: e.WebhookDisabled, record: Record) -> None:
    """An admin has to look at it."""
    hook = state.webhooks.get(event.hook)
    if hook is None:
        return
    _change(state, hook, record, disabled=event.reason)
    state.put_fault(
        Fault(
            id=fault_id(event.hook),
            code=DISABLED,
            subject=f"webhook/{event.hook}",
            message=f"the webhook {hook.name} is sent nothing any more: {event.reason}",
            since_us=record.time_us,
        )
    )


def parked(state: ClusterState, event: e.WebhookParked, record: Record) -> None:
    """It is passed over until it is replayed."""
    hook = state.webhooks.get(event.hook)
    if hook is None or any((one.position, one.index) == (event.position, event.index) for one in hook.parked):
        return
    one = Parked(
        position=event.position,
        index=event.index,
        event=event.event,
        tries=event.tries,
        reason=event.reason,
        time_us=record.time_us,
    )
    _change(state, hook, record, parked=(*hook.parked, one)[-MAX_PARKED:])


def fault_id(hook: str) -> str:
    """The id of the fault about a webhook that is disabled."""
    return f"{DISABLED}/{hook}"


def _change(state: ClusterState, hook: Webhook, record: Record, **changes: Any) -> None:
    state.put_webhook(replace(hook, position=record.position, **changes))
