"""What takes back the commands about access and webhooks, and why nothing does. Pure.

Secrets are shown once and kept nowhere: what would need one again has no inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict

from pvc.commands.access import tokens_of
from pvc.commands.undoing import ChangedSince, Find, Inverse, Undoing, no_inverse
from pvc.projections.state import ClusterState


def _add_principal(undoing: Undoing) -> Inverse:
    _, after, now = undoing.principal()
    undoing.unchanged(f"the access of {now.name}", after, now)
    if tokens := tokens_of(undoing.now, now.name):
        newest = max(tokens, key=lambda token: token.created_us)
        raise ChangedSince(f"what {now.name} has of tokens", f"access/{newest.id}", ("access.token_created",))
    return undoing.inverse("access.remove", principal=now.name)


def _modify_principal(undoing: Undoing) -> Inverse:
    before, after, now = undoing.principal()
    assert before is not None, "it was changed"
    changed = [field for field in _OF_PRINCIPALS if getattr(before, field) != getattr(after, field)]
    for field in changed:
        undoing.unchanged(f"the access of {now.name}", getattr(after, field), getattr(now, field))
    if "grants" in changed and not before.grants:
        raise no_inverse(undoing.name, "there was no role before; to take all away: pvc access remove")
    fields: dict[str, Any] = {field: getattr(before, field) for field in changed}
    return undoing.inverse("access.modify", principal=now.name, **fields)


_OF_PRINCIPALS = ("kind", "grants", "description")


def _create_token(undoing: Undoing) -> Inverse:
    token_id: str = getattr(undoing.events[0], "token", "")
    now = undoing.now.tokens.get(token_id)
    if now is None or now.replaced_by:
        types = ("access.token_rotated" if now is not None else "access.token_revoked",)
        raise ChangedSince(f"the token {token_id}", f"access/{token_id}", types)
    return undoing.inverse("access.revoke_token", token=token_id)


def _add_hook(undoing: Undoing) -> Inverse:
    _, after, now = undoing.hook()
    undoing.unchanged(f"webhook {now.name}", (after.settings, after.paused), (now.settings, now.paused))
    return undoing.inverse("webhook.remove", "what it was sent is not taken back", hook=now.name)


def _modify_hook(undoing: Undoing) -> Inverse:
    before, after, now = undoing.hook()
    assert before is not None, "it was changed"
    was, wanted, given = asdict(after.settings), asdict(before.settings), asdict(now.settings)
    changed = [field for field in wanted if wanted[field] != was[field]]
    for field in changed:
        undoing.unchanged(f"{field} of webhook {now.name}", was[field], given[field])
    if "owner" in changed and not before.settings.owner:
        raise no_inverse(undoing.name, "it was the cluster's own, and no command takes an owner away")
    notes = ("with another address it has to prove itself again",) if "url" in changed else ()
    fields = {field: wanted[field] for field in changed}
    inverse = undoing.inverse("webhook.modify", *notes, hook=now.name, **fields)
    return undoing.exactly(inverse, lambda state: [getattr(state.webhooks[now.id].settings, one) for one in changed])


def _pause_hook(undoing: Undoing) -> Inverse:
    return _switched(undoing, "webhook.resume")


def _resume_hook(undoing: Undoing) -> Inverse:
    before, _, _ = undoing.hook()
    if before is None or not before.paused or before.disabled:
        raise no_inverse(undoing.name, "it was not paused before; `pvc webhook pause` has it sent nothing")
    return _switched(undoing, "webhook.pause", reason=before.pause_reason)


def _switched(undoing: Undoing, name: str, **fields: str) -> Inverse:
    """Paused or not, as it was before: with what had gone wrong before that, or not at all."""
    _, _, now = undoing.hook()

    def look(state: ClusterState) -> object:
        hook = state.webhooks[now.id]
        return hook.paused, hook.pause_reason, hook.disabled

    undoing.unchanged(f"the pause of webhook {now.name}", look(undoing.after), look(undoing.now))
    return undoing.exactly(undoing.inverse(name, hook=now.name, **fields), look)


INVERSES: Mapping[str, Find] = {
    "access.add": _add_principal,
    "access.modify": _modify_principal,
    "access.create_token": _create_token,
    "webhook.add": _add_hook,
    "webhook.modify": _modify_hook,
    "webhook.pause": _pause_hook,
    "webhook.resume": _resume_hook,
}
"""Command -> how its inverse is found."""

NO_INVERSE: Mapping[str, str] = {
    "access.remove": "its tokens are gone for good; add it anew: pvc access add",
    "access.rotate_token": "the new one may be in use by now; to end either: pvc access token revoke",
    "access.revoke_token": "the log has but its hash, and that is gone too; make another: pvc access token create",
    "webhook.remove": "its secret and how far it had come are forgotten; add it anew: pvc webhook add",
    "webhook.rotate_secret": "secrets are shown once; make another: pvc webhook rotate-secret",
    "webhook.replay": "what was sent again is not taken back",
}
"""Command -> why there is no inverse."""
