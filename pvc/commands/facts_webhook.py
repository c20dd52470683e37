"""What whoever delivers webhooks reports: that a receiver has proved itself, was given up, or was not given an event.

Only who acts for the cluster now may say it; a deposed primary's view of a receiver is old.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from pvc.commands.base import Context, Decide, Decision
from pvc.commands.facts_log import may_sign
from pvc.commands.vm_ref import NOTHING
from pvc.errors import Rejected
from pvc.events import webhook as e
from pvc.events.types import NodeName
from pvc.projections.state import ClusterState
from pvc.projections.webhook_state import Webhook

MAX_REASON = 300
"""Characters of why something failed: it may quote what a receiver answered."""


class ReportWebhookVerified(Struct, frozen=True, kw_only=True):
    """The receiver at this address has proved itself."""

    primary: NodeName
    epoch: int
    hook: str
    url: str


class ReportWebhookDisabled(Struct, frozen=True, kw_only=True):
    """Nothing is sent any more."""

    primary: NodeName
    epoch: int
    hook: str
    reason: str


class ReportWebhookParked(Struct, frozen=True, kw_only=True):
    """One event was given up after its last try."""

    primary: NodeName
    epoch: int
    hook: str
    position: int
    index: int
    event: str
    tries: int
    reason: str


WebhookReport: TypeAlias = ReportWebhookVerified | ReportWebhookDisabled | ReportWebhookParked


def verified(state: ClusterState, report: ReportWebhookVerified, context: Context) -> Decision:
    """Said once for an address."""
    hook = _of_primary(state, report)
    if hook is None or hook.verified or hook.settings.url != report.url:
        return NOTHING
    return Decision(events=(e.WebhookVerified(hook=hook.id, url=report.url),))


def disabled(state: ClusterState, report: ReportWebhookDisabled, context: Context) -> Decision:
    """Said once."""
    hook = _of_primary(state, report)
    if hook is None or hook.disabled:
        return NOTHING
    return Decision(events=(e.WebhookDisabled(hook=hook.id, reason=report.reason[:MAX_REASON]),))


def parked(state: ClusterState, report: ReportWebhookParked, context: Context) -> Decision:
    """Said once for an event, until it is replayed."""
    hook = _of_primary(state, report)
    if hook is None or any((one.position, one.index) == (report.position, report.index) for one in hook.parked):
        return NOTHING
    event = e.WebhookParked(
        hook=hook.id,
        position=report.position,
        index=report.index,
        event=report.event,
        tries=report.tries,
        reason=report.reason[:MAX_REASON],
    )
    return Decision(events=(event,))


def _of_primary(state: ClusterState, report: WebhookReport) -> Webhook | None:
    if not may_sign(state, report.primary, report.epoch):
        raise Rejected(
            f"{report.primary} with epoch {report.epoch} does not act for the cluster any more",
            code="cluster.stale_primary",
            hint="another coordinator has taken over; nothing needs to be done",
        )
    return state.webhooks.get(report.hook)


WEBHOOK_REPORTS: dict[Any, tuple[str, Decide]] = {
    ReportWebhookVerified: ("webhook.report_verified", verified),
    ReportWebhookDisabled: ("webhook.report_disabled", disabled),
    ReportWebhookParked: ("webhook.report_parked", parked),
}
"""Report -> (its name in records, its decide)."""
