"""Webhooks: endpoints that are sent the cluster's events. Decided here is what they are; sending is the primary's.

Secrets are made and sealed by the gateway; here they pass through sealed.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from pvc.commands.access import PrincipalRef, find_principal
from pvc.commands.access_rights import Rights, rights_by_grants
from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, invalid, near_names, quoted, require_cluster
from pvc.commands.vm_ref import NOTHING
from pvc.commands.webhook_settings import check_settings, resolve_subjects
from pvc.errors import NotFound, Rejected
from pvc.events import webhook as e
from pvc.events.types import Description, VmName
from pvc.events.webhook import Ownership, SealedSecret, Signature, WebhookSettings
from pvc.projections.state import ClusterState
from pvc.projections.webhook_state import MAX_REPLAYS, Webhook

MAX_WEBHOOKS = 100
"""Each has a cursor that is written once a second while it moves; more receivers fan out behind one."""

REPLAYS_WINDOW_US = 3_600_000_000
"""No more than MAX_REPLAYS within it, so that none is forgotten before it was taken up."""

MAX_OVERLAP_S = 7 * 86_400
_IDS = uuid.UUID("0d7c6a52-95f4-4b8c-9a55-3f1c1e7f4b02")

HookName = Annotated[VmName, Meta(description="Name of a webhook: a DNS label.", examples=["billing"])]
HookRef = Annotated[
    str, Meta(min_length=1, max_length=63, description="Name or id of the webhook.", examples=["billing"])
]
Url = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=2_000,
        description="Where events are posted to. It stands in the log, so keep secrets out of it.",
        examples=["https://hooks.example.com/pvc"],
    ),
]
Types = Annotated[
    tuple[Annotated[str, Meta(max_length=64, examples=["vm.started"])], ...],
    Meta(max_length=100, description="Send only events of this type, or of this kind with `vm.*`."),
]
Subjects = Annotated[
    tuple[Annotated[str, Meta(max_length=100, examples=["vm/web01"])], ...],
    Meta(max_length=100, description="Send only events about this: vm/NAME, node/NAME, or vm, node, cluster alone."),
]
Tags = Annotated[
    tuple[Annotated[str, Meta(max_length=63, examples=["production"])], ...],
    Meta(max_length=100, description="Send only events about VMs that had this tag then."),
]
Batch = Annotated[int, Meta(ge=1, le=100, description="Events of one request at most; 1 sends each by itself.")]
Rate = Annotated[int, Meta(ge=1, le=1_000, description="Requests of one second at most.")]
Tries = Annotated[int, Meta(ge=1, le=10, description="Tries of one event before it is parked; ten take 75 hours.")]
Signing = Annotated[Signature, Meta(description="hmac: a shared secret. ed25519: the receiver has a public key.")]
Proof = Annotated[
    Ownership,
    Meta(description="What proves that the receiver wants events: challenge: it repeats the ping's challenge."),
]
Allowed = Annotated[
    tuple[Annotated[str, Meta(max_length=60, examples=["10.0.7.5/32:8443"])], ...],
    Meta(max_length=20, description="A private network, CIDR or CIDR:PORT, in which the receiver may be."),
]
Reveal = Annotated[bool, Meta(description="Send the names of people opened, rather than sealed as in the log.")]
Owner = Annotated[
    PrincipalRef | None,
    Meta(description="Whose it is: it is sent what this principal may see. If nothing else is said, who adds it."),
]
Since = Annotated[
    str,
    Meta(
        max_length=40,
        description="Where to begin: now, a position, a time in ISO 8601, or how long ago (30m, 2h, 1d).",
        examples=["1"],
    ),
]


Position = Annotated[int, Meta(description="What a moment is in the log, set by the gateway; 0: now.")]
Sealed = Annotated[str, Meta(description="Of the secret, which the gateway makes and seals.")]


class AddWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Add a webhook: an address that the cluster's events are posted to.

    In order, each at least once. It is sent a ping first, and nothing else before it has proved that it wants events.
    The secret, or the public key, that it verifies the signatures with is shown once.
    """

    name: HookName
    url: Url
    types: Types = ()
    subjects: Subjects = ()
    tags: Tags = ()
    since: Since = "now"
    batch: Batch = 1
    rate: Rate = 20
    tries: Tries = 10
    signature: Signing = Signature.HMAC
    ownership: Proof = Ownership.CHALLENGE
    allow_private: Allowed = ()
    reveal_names: Reveal = False
    owner: Owner = None
    description: Description = ""
    first: Position = 0
    secret_id: Sealed = ""
    secret_box: Sealed = ""
    secret_public: Sealed = ""


class ModifyWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Change a webhook's settings; what is not given stays.

    Its cursor stays too. With another address it has to prove itself again.
    """

    hook: HookRef
    url: Url | None = None
    types: Types | None = None
    subjects: Subjects | None = None
    tags: Tags | None = None
    batch: Batch | None = None
    rate: Rate | None = None
    tries: Tries | None = None
    ownership: Proof | None = None
    allow_private: Allowed | None = None
    reveal_names: Reveal | None = None
    owner: Owner = None
    description: Description | None = None


class RemoveWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Remove a webhook, with its cursor."""

    hook: HookRef


class PauseWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send a webhook nothing until it is resumed; what happens meanwhile is sent then."""

    hook: HookRef
    reason: Description = ""


class ResumeWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Go on sending, after a pause or after it was disabled; what failed is tried again at once."""

    hook: HookRef


class RotateSecret(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sign with a new secret, which is shown once.

    For a while everything is signed with the old one too, so that the receiver can be changed without a gap.
    """

    hook: HookRef
    overlap_s: Annotated[
        int, Meta(ge=0, le=MAX_OVERLAP_S, description="How long the old secret is used as well, in seconds.")
    ] = 86_400
    secret_id: Sealed = ""
    secret_box: Sealed = ""
    secret_public: Sealed = ""


class ReplayWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send a webhook the records of a range again, before what comes next.

    Events keep their ids, so a receiver that remembers them passes over what it has. What is parked in the range is
    tried anew.
    """

    hook: HookRef
    since: Annotated[
        str,
        Meta(max_length=40, description="Where to begin: a position, a time, or how long ago.", examples=["2h"]),
    ]
    until: Annotated[str, Meta(max_length=40, description="Where to end, that included.", examples=["1h"])] = "now"
    first: Position = 0
    last: Position = 0


def find_webhook(state: ClusterState, ref: str) -> Webhook:
    """The webhook with this name or id. Raises NotFound, with near names as a hint."""
    hook = state.webhooks.get(state.webhook_names.get(ref, ref))
    if hook is None:
        near = near_names(ref, state.webhook_names)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pvc webhook list` shows those there are"
        raise NotFound(f"there is no webhook {quoted(ref)}", code="webhook.not_found", hint=hint, field="hook")
    return hook


def owners_sight(state: ClusterState, owner: str) -> Rights:
    """What an endpoint may be sent: what its owner may read, as things stand now. One that root added has no owner."""
    if not owner:
        return Rights(everything=True)
    principal = state.principals.get(owner)
    return rights_by_grants(Action.HISTORY_READ, principal.grants if principal is not None else ())


def add(state: ClusterState, command: AddWebhook, context: Context) -> Decision:
    """A new name, an acceptable address."""
    require_cluster(state)
    if command.name in state.webhook_names:
        raise Rejected(
            f"there is a webhook {command.name} already",
            code="webhook.name_taken",
            hint=f"`pvc webhook modify {command.name}` changes it",
        )
    if len(state.webhooks) >= MAX_WEBHOOKS:
        raise Rejected(
            f"there are {MAX_WEBHOOKS} webhooks already",
            code="webhook.too_many",
            hint="remove one, or let one receiver pass events on to others",
        )
    chosen = {field: getattr(command, field) for field in WebhookSettings.__struct_fields__}
    chosen |= {"subjects": resolve_subjects(state, command.subjects), "owner": command.owner or ""}
    settings = WebhookSettings(**chosen)
    check_settings(settings)
    hook_id = str(uuid.uuid5(_IDS, context.command_id))
    after = command.first - 1 if command.first else state.position
    added = e.WebhookAdded(hook=hook_id, name=command.name, settings=settings, secret=_sealed(command), after=after)
    return Decision(events=(added,), notes=_notes(state, settings))


def modify(state: ClusterState, command: ModifyWebhook, context: Context) -> Decision:
    """Only what differs."""
    hook = find_webhook(state, command.hook)
    changes: dict[str, Any] = {k: v for k, v in asdict(command).items() if k != "hook" and v is not None}
    if command.subjects is not None:
        changes["subjects"] = resolve_subjects(state, command.subjects)
    settings = replace(hook.settings, **changes)
    check_settings(settings)
    if settings == hook.settings:
        return NOTHING
    return Decision(events=(e.WebhookModified(hook=hook.id, settings=settings),), notes=_notes(state, settings))


def remove(state: ClusterState, command: RemoveWebhook, context: Context) -> Decision:
    """One that there is."""
    hook = find_webhook(state, command.hook)
    return Decision(events=(e.WebhookRemoved(hook=hook.id, name=hook.name),))


def pause(state: ClusterState, command: PauseWebhook, context: Context) -> Decision:
    """Said once."""
    hook = find_webhook(state, command.hook)
    return NOTHING if hook.paused else Decision(events=(e.WebhookPaused(hook=hook.id, reason=command.reason),))


def resume(state: ClusterState, command: ResumeWebhook, context: Context) -> Decision:
    """Also where it only waits for a further try: the admin knows that the receiver is back."""
    return Decision(events=(e.WebhookResumed(hook=find_webhook(state, command.hook).id),))


def rotate(state: ClusterState, command: RotateSecret, context: Context) -> Decision:
    """Another secret in the place of the present one."""
    hook = find_webhook(state, command.hook)
    until_us = context.time_us + command.overlap_s * 1_000_000
    rotated = e.WebhookSecretRotated(hook=hook.id, secret=_sealed(command), overlap_until_us=until_us)
    return Decision(events=(rotated,))


def replay(state: ClusterState, command: ReplayWebhook, context: Context) -> Decision:
    """A range of what there is by now."""
    hook = find_webhook(state, command.hook)
    last = min(command.last or state.position, state.position)
    if not 1 <= command.first <= last:
        raise invalid("since", f"there is no record from {command.first} to {last}", "begin before the end")
    lately = [one for one in hook.replays if one.time_us > context.time_us - REPLAYS_WINDOW_US]
    if len(lately) >= MAX_REPLAYS:
        raise Rejected(
            f"{hook.name} was replayed {len(lately)} times within the last hour",
            code="webhook.too_many_replays",
            hint="replay one wide range rather than many narrow ones",
        )
    return Decision(events=(e.WebhookReplayRequested(hook=hook.id, first=command.first, last=last),))


def _sealed(command: AddWebhook | RotateSecret) -> SealedSecret:
    return SealedSecret(id=command.secret_id, box=command.secret_box, public=command.secret_public)


def _notes(state: ClusterState, settings: WebhookSettings) -> tuple[str, ...]:
    notes = []
    if settings.owner:
        sight = owners_sight(state, find_principal(state, settings.owner).name)
        if sight.nothing:
            notes.append("its owner may not read the history: it is sent nothing")
        elif not sight.everything:
            notes.append("its owner may see some VMs only: it is sent what is about these alone")
    if settings.allow_private:
        notes.append(f"its receiver may be in {', '.join(settings.allow_private)}")
    if settings.reveal_names:
        notes.append("it is sent the names of people; erasing somebody does not reach what was sent")
    return tuple(notes)


_SECRET = ("secret_id", "secret_box", "secret_public")
_OF_ONE: dict[str, Any] = {"action": Action.WEBHOOK_MANAGE, "args": ("hook",)}

SPECS = (
    CommandSpec(
        name="webhook.add",
        struct=AddWebhook,
        decide=add,
        action=Action.WEBHOOK_MANAGE,
        path="/webhooks",
        cli=("webhook", "add"),
        args=("name", "url"),
        known=("owner",),
        example={"name": "billing", "url": "https://hooks.example.com/pvc", "types": ["vm.*"]},
        outcomes={e.WebhookVerified.TYPE: True, e.WebhookDisabled.TYPE: False},
        internal=("first", *_SECRET),
    ),
    CommandSpec(
        name="webhook.modify",
        struct=ModifyWebhook,
        decide=modify,
        method="PATCH",
        path="/webhooks/{hook}",
        cli=("webhook", "modify"),
        known=("owner",),
        example={"hook": "billing", "batch": 50},
        **_OF_ONE,
    ),
    CommandSpec(
        name="webhook.remove",
        struct=RemoveWebhook,
        decide=remove,
        method="DELETE",
        path="/webhooks/{hook}",
        cli=("webhook", "remove"),
        example={"hook": "billing"},
        confirm="{hook} will be sent nothing more, and how far it has been sent events is forgotten",
        **_OF_ONE,
    ),
    CommandSpec(
        name="webhook.pause",
        struct=PauseWebhook,
        decide=pause,
        path="/webhooks/{hook}/pause",
        cli=("webhook", "pause"),
        example={"hook": "billing", "reason": "the receiver moves"},
        **_OF_ONE,
    ),
    CommandSpec(
        name="webhook.resume",
        struct=ResumeWebhook,
        decide=resume,
        path="/webhooks/{hook}/resume",
        cli=("webhook", "resume"),
        example={"hook": "billing"},
        **_OF_ONE,
    ),
    CommandSpec(
        name="webhook.rotate_secret",
        struct=RotateSecret,
        decide=rotate,
        path="/webhooks/{hook}/rotate-secret",
        cli=("webhook", "rotate-secret"),
        example={"hook": "billing", "overlap_s": 86_400},
        internal=_SECRET,
        **_OF_ONE,
    ),
    CommandSpec(
        name="webhook.replay",
        struct=ReplayWebhook,
        decide=replay,
        path="/webhooks/{hook}/replay",
        cli=("webhook", "replay"),
        example={"hook": "billing", "since": "2h"},
        internal=("first", "last"),
        **_OF_ONE,
    ),
)
