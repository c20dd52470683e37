"""The inverses of commands about access and webhooks: what they bring back, and where there is none, why."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts_webhook import ReportWebhookDisabled
from pvc.commands.undo_access import NO_INVERSE
from pvc.commands.undoing import ChangedSince
from pvc.errors import Rejected
from tests.support.core import TinyCluster, a_cluster
from tests.unit.test_undo import differences, inverse, undo

URL = "https://hooks.example.com/pvc"
VIEWER, OPERATOR = [{"role": "viewer"}], [{"role": "operator", "tag": "shop"}]


def a_cluster_with_hook(**settings: Any) -> TinyCluster:
    cluster = a_cluster()
    cluster.do("webhook.add", name="billing", url=URL, **settings)
    return cluster


def anna_has(cluster: TinyCluster, token: str = "a" * 12) -> None:
    cluster.do("access.create_token", principal="anna", token_id=token, token_sha256="0" * 64)


def test_who_was_added_is_removed_again_as_long_as_nothing_was_made_of_it() -> None:
    cluster = a_cluster()
    before = cluster.state.fork()
    cluster.do("access.add", principal="anna", grants=VIEWER)
    added = cluster.state.position
    anna_has(cluster)
    with pytest.raises(ChangedSince, match="anna has of tokens was changed since") as refused:
        inverse(cluster, added)
    assert (refused.value.subject, refused.value.types) == (f"access/{'a' * 12}", ("access.token_created",))
    assert undo(cluster).spec.name == "access.revoke_token"
    assert undo(cluster, added).spec.name == "access.remove"
    assert differences(before, cluster.state) == []
    with pytest.raises(ChangedSince):
        inverse(cluster, added)


def test_somebody_of_the_same_name_is_not_taken_for_who_was_added() -> None:
    cluster = a_cluster()
    cluster.do("access.add", principal="anna", grants=VIEWER)
    added = cluster.state.position
    cluster.do("access.remove", principal="anna")
    cluster.do("access.add", principal="anna", grants=VIEWER)
    with pytest.raises(ChangedSince) as refused:
        inverse(cluster, added)
    assert refused.value.types == ("access.principal_removed",)


def test_roles_are_given_back_exactly() -> None:
    cluster = a_cluster()
    cluster.do("access.add", principal="anna", grants=VIEWER, description="x")
    before = cluster.state.fork()
    cluster.do("access.modify", principal="anna", grants=OPERATOR, description="")
    changed, done = cluster.state.position, cluster.state.fork()
    undo(cluster)
    assert differences(before, cluster.state) == []
    undo(cluster)
    assert differences(done, cluster.state) == []
    cluster.do("access.modify", principal="anna", grants=[{"role": "admin"}])
    with pytest.raises(ChangedSince, match="access of anna was changed since"):
        inverse(cluster, changed)


def test_a_token_that_was_rotated_since_is_left_alone() -> None:
    cluster = a_cluster()
    cluster.do("access.add", principal="anna", grants=VIEWER)
    anna_has(cluster)
    made = cluster.state.position
    cluster.do("access.rotate_token", token="a" * 12, token_id="b" * 12, token_sha256="1" * 64)
    with pytest.raises(ChangedSince) as refused:
        inverse(cluster, made)
    assert refused.value.types == ("access.token_rotated",)


def test_a_pause_and_its_end_take_each_other_back() -> None:
    cluster = a_cluster_with_hook()
    before = cluster.state.fork()
    cluster.do("webhook.pause", hook="billing", reason="the receiver moves")
    paused, asleep = cluster.state.position, cluster.state.fork()
    assert undo(cluster).spec.name == "webhook.resume"
    assert {name for name in differences(before, cluster.state) if name != "billing.resumed_at"} == set()
    with pytest.raises(ChangedSince):
        inverse(cluster, paused)
    assert undo(cluster).spec.name == "webhook.pause"
    assert {name for name in differences(asleep, cluster.state) if name != "billing.resumed_at"} == set()


def test_an_undo_neither_disables_a_webhook_nor_has_a_disabled_one_tried_again() -> None:
    cluster = a_cluster_with_hook()
    (hook,) = cluster.state.webhooks.values()
    cluster.elect()
    assert cluster.state.cluster is not None
    primary, epoch = cluster.state.cluster.primary, cluster.state.cluster.primary_epoch
    cluster.report(ReportWebhookDisabled(primary=primary, epoch=epoch, hook=hook.id, reason="it answered 500"))
    cluster.do("webhook.pause", hook="billing")
    with pytest.raises(Rejected, match="brings back exactly") as refused:
        inverse(cluster)
    assert refused.value.code == "undo.no_inverse"
    cluster.do("webhook.resume", hook="billing")
    with pytest.raises(Rejected, match="not paused before"):
        inverse(cluster)


def test_a_webhooks_settings_are_set_back_and_another_address_proves_itself_again() -> None:
    cluster = a_cluster_with_hook(types=["vm.*"], batch=5)
    before = cluster.state.fork()
    cluster.do("webhook.modify", hook="billing", types=[], batch=1)
    undo(cluster)
    assert {name for name in differences(before, cluster.state) if name != "billing.resumed_at"} == set()
    cluster.do("webhook.modify", hook="billing", url="https://other.example.com/")
    assert "prove itself" in undo(cluster).notes[0]
    (hook,) = cluster.state.webhooks.values()
    assert hook.settings.url == URL


def test_an_owner_that_was_given_stays() -> None:
    cluster = a_cluster_with_hook()
    cluster.do("access.add", principal="anna", grants=VIEWER)
    cluster.do("webhook.modify", hook="billing", owner="anna")
    with pytest.raises(Rejected, match="takes an owner away"):
        inverse(cluster)


def test_an_added_webhook_is_removed_unless_it_was_changed_since() -> None:
    cluster = a_cluster_with_hook()
    added = cluster.state.position
    cluster.do("webhook.modify", hook="billing", batch=7)
    with pytest.raises(ChangedSince, match="webhook billing was changed since"):
        inverse(cluster, added)
    undo(cluster)
    assert undo(cluster, added).spec.name == "webhook.remove"
    assert cluster.state.webhooks == {}
    with pytest.raises(ChangedSince) as refused:
        inverse(cluster, added)
    assert refused.value.types == ("webhook.removed",)


@pytest.mark.parametrize("name", sorted(NO_INVERSE))
def test_what_has_no_inverse_says_why_and_what_does_instead(name: str) -> None:
    cluster = a_cluster_with_hook()
    cluster.do("access.add", principal="anna", grants=VIEWER)
    anna_has(cluster)
    fields: dict[str, dict[str, Any]] = {
        "access.remove": {"principal": "anna"},
        "access.rotate_token": {"token": "a" * 12, "token_id": "b" * 12, "token_sha256": "1" * 64},
        "access.revoke_token": {"token": "a" * 12},
        "webhook.replay": {"hook": "billing", "since": "1", "first": 1},
    }
    cluster.do(name, **fields.get(name, {"hook": "billing"}))
    with pytest.raises(Rejected, match="cannot be undone: ") as refused:
        inverse(cluster)
    assert refused.value.message.endswith(NO_INVERSE[name])
