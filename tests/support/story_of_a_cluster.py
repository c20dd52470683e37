"""A cluster's ordinary life, in which everything that can happen does, told by commands and reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pvc.commands.access_login import LogIn, log_in
from pvc.commands.audit import ErasePerson, ReportPersonErased
from pvc.commands.base import Context
from pvc.commands.facts import RESTART_LIMIT, Ending
from pvc.commands.facts_webhook import ReportWebhookDisabled, ReportWebhookParked, ReportWebhookVerified
from pvc.errors import Rejected
from pvc.events.access import AccessRefused, Grant, LoginRefused, SecretRead, TokenUsed
from pvc.events.cluster import CommandRejected, LogRestored
from pvc.events.sealed import Sealed, write_sealed
from pvc.events.types import Role
from pvc.events.webhook import WebhookAdded
from tests.support.core import ADMIN, TinyCluster

XML = "<domain><name>xml01</name><memory unit='MiB'>256</memory><vcpu>1</vcpu></domain>"


def live(cluster: TinyCluster) -> Iterator[None]:
    """Go on by one step at each `next`."""
    chapters = (
        _begin,
        _power,
        _trouble,
        _change,
        _boot,
        _grow,
        _prove,
        _forget,
        _admit,
        _tell,
        _wander,
        _service,
        _loss,
        _restore,
        _end,
    )
    for chapter in chapters:
        yield from chapter(cluster)


def _begin(cluster: TinyCluster) -> Iterator[None]:
    cluster.do("cluster.init", name="main", token_id="abcdefgh", token_sha256="5f" * 32)
    yield
    cluster.says_ready()
    yield
    for name in ("web01", "web02", "db01"):
        cluster.do("vm.define", name=name, memory_mib=512, disks=[{"path": f"/images/{name}.raw"}], tags=["shop"])
        yield
    cluster.do("vm.define", xml=XML, autostart=True)
    yield


def _power(cluster: TinyCluster) -> Iterator[None]:
    cluster.do("vm.start", vm="web01")
    yield
    cluster.says_running()
    yield
    for command, answer in (
        ("vm.reset", cluster.says_reset),
        ("vm.restart", cluster.says_ended),
        ("", cluster.says_running),
        ("vm.restart", cluster.says_timed_out),
        ("", cluster.says_ended),
        ("", cluster.says_running),
        ("vm.shutdown", cluster.says_timed_out),
        ("", cluster.says_ended),
    ):
        if command:
            cluster.do(command, vm="web01")
            yield
        answer()
        yield
    cluster.do("vm.start", vm="web01")
    yield
    cluster.says_running()
    yield
    cluster.do("vm.shutdown", vm="web01", timeout_s=5, on_timeout="leave")
    yield
    cluster.says_timed_out()
    yield
    cluster.do("vm.stop", vm="web01")
    yield
    cluster.says_ended(Ending.DESTROYED)
    yield


def _trouble(cluster: TinyCluster) -> Iterator[None]:
    cluster.do("vm.start", vm="web02")
    yield
    cluster.says_start_failed("web02")
    yield
    cluster.do("vm.start", vm="web02")
    yield
    for ending in (Ending.CRASHED, Ending.DESTROYED, Ending.LOST, Ending.UNKNOWN)[: RESTART_LIMIT + 1]:
        cluster.says_running("web02")
        yield
        cluster.says_ended(ending, "web02")
        yield
    try:
        cluster.do("vm.reset", vm="web02")
    except Rejected as refusal:
        cluster.record(CommandRejected(code=refusal.code, message=refusal.message, vm=cluster.vm("web02").id))
    yield


def _change(cluster: TinyCluster) -> Iterator[None]:
    for name, fields in (
        ("vm.modify", {"memory_mib": 1024, "nics": [{"bridge": "br0"}], "on_poweroff": "restart"}),
        ("vm.set_selector", {"selector": "load"}),
        ("vm.set_node_limits", {"node_limits": ["hv1"]}),
        ("vm.set_migration_method", {"migration_method": "shutdown"}),
        ("vm.add_tag", {"tag": "keep", "protected": True}),
        ("vm.remove_tag", {"tag": "shop"}),
        ("vm.rename", {"name": "store"}),
    ):
        cluster.do(name, vm="db01", **fields)
        yield


def _boot(cluster: TinyCluster) -> Iterator[None]:
    cluster.says_ready(boot="boot-2", hypervisor="simulated 2")
    yield
    cluster.says_running("xml01")
    yield
    cluster.says_ended(Ending.GUEST, "xml01")
    yield
    cluster.do("vm.set_autostart", vm="xml01", autostart=False)
    yield


def _grow(cluster: TinyCluster) -> Iterator[None]:
    cluster.elect()
    yield
    for node in ("hv2", "hv3"):
        cluster.do("node.add", node=node, coordinator=node == "hv2")
        yield
        cluster.says_ready(node, level=2)
        yield
    cluster.says_ready(level=2, boot="boot-2")
    yield
    cluster.level_step()
    yield
    options = ["ip=10.0.1.2", "lanplus=1"]
    cluster.do("node.set_fence", node="hv2", agent="fence_ipmilan", option=options, password_file="/etc/pvc/fence")
    yield
    cluster.do("cluster.set_maintenance", maintenance=True, reason="new switches")
    yield
    cluster.do("cluster.set_maintenance", maintenance=False)
    yield
    for name, fields in (
        ("vm.set_max_downtime", {"max_downtime_ms": 100}),
        ("vm.set_priority", {"priority": 90}),
        ("vm.set_affinity", {"affinity": ["shop"]}),
        ("vm.set_anti_affinity", {"anti_affinity": ["keep"]}),
    ):
        cluster.do(name, vm="web01", **fields)
        yield


def _prove(cluster: TinyCluster) -> Iterator[None]:
    key = cluster.says_key("hv1", "first")
    yield
    cluster.says_checkpoint(key)
    yield
    cluster.do("log.rotate_key", node="hv1")
    yield
    key = cluster.says_key("hv1", "second")
    yield
    cluster.says_checkpoint(key, anchored={"webhook": 1})
    yield
    for message in ("no answer", ""):
        cluster.says_anchor("webhook", message)
        yield
    cluster.says_log_differs("hv3")
    yield
    cluster.says_key("hv2", "of hv2")
    yield


def _forget(cluster: TinyCluster) -> Iterator[None]:
    """By the sealed name, which is all that the core is ever given."""
    sealed = write_sealed(Sealed("person", "3f2a91c0", bytes(48)))
    cluster.decide_and_record(msgspec.structs.replace(ErasePerson(principal="anna"), principal=sealed))
    yield
    cluster.report(ReportPersonErased(node="hv1", key="3f2a91c0"))
    yield


def _tell(cluster: TinyCluster) -> Iterator[None]:
    url = "https://hooks.example.com/pvc"
    [added] = cluster.do("webhook.add", name="billing", url=url, types=("vm.*",), subjects=("vm/web01",))
    yield
    assert isinstance(added, WebhookAdded)
    said: dict[str, Any] = {**cluster.primary, "hook": added.hook}
    cluster.report(ReportWebhookVerified(**said, url=url))
    yield
    cluster.do("webhook.pause", hook="billing", reason="the receiver moves")
    yield
    cluster.do("webhook.modify", hook="billing", url="https://hooks2.example.com/pvc", batch=50)
    yield
    cluster.do("webhook.resume", hook="billing")
    yield
    cluster.do("webhook.rotate_secret", hook="billing")
    yield
    parked = ReportWebhookParked(**said, position=1, index=0, event="cluster.initialised", tries=10, reason="500")
    cluster.report(parked)
    yield
    cluster.report(ReportWebhookDisabled(**said, reason="it answered 410"))
    yield
    cluster.do("webhook.replay", hook="billing", since="1", first=1)
    yield
    cluster.do("webhook.add", name="spare", url=url)
    yield
    cluster.do("webhook.remove", hook="spare")
    yield


def _admit(cluster: TinyCluster) -> Iterator[None]:
    """Principals come, get tokens, change and go; what is noted of them is for the history alone."""
    shop = [{"role": "operator", "tag": "shop"}, {"role": "viewer"}]
    for name, fields in (
        ("access.add", {"principal": "bert", "grants": shop}),
        ("access.create_token", {"principal": "bert", "token_id": "bertbert", "token_sha256": "5e" * 32}),
        ("access.rotate_token", {"token": "bertbert", "token_id": "bertnext", "token_sha256": "5d" * 32}),
        ("access.modify", {"principal": "bert", "grants": [{"role": "auditor"}], "kind": "service"}),
    ):
        cluster.do(name, **fields)
        yield
    for event in (
        TokenUsed(token="bertnext", node="hv1"),
        LoginRefused(node="hv1", code="access.token_invalid", network="192.0.2.0/24"),
        AccessRefused(action="vm.run", code="access.forbidden", message="bert may not do this"),
        SecretRead(what="log.snapshot"),
    ):
        cluster.record(event)
        yield
    cluster.do("access.revoke_token", token="bertbert")
    yield
    cluster.do("access.add", principal="carl", grants=[{"role": "viewer", "name": "web*"}])
    yield
    cluster.do("access.remove", principal="carl")
    yield
    for number, role in enumerate((Role.VIEWER, Role.OPERATOR)):
        login = LogIn(
            principal="dora",
            identity="7a" * 32,
            grants=(Grant(role=role),),
            lifetime_s=3600,
            token_id=f"dora000{number}",
            token_sha256="5c" * 32,
            node="hv1",
            issuer="https://id.example.org",
            how="browser",
        )
        context = Context(command_id=f"login-{number}", time_us=cluster.time_us, actor=ADMIN)
        cluster.record(*log_in(cluster.state, login, context).events, name="access.log_in")
        yield


def _wander(cluster: TinyCluster) -> Iterator[None]:
    cluster.do("vm.start", vm="web01")
    yield
    cluster.says_running()
    yield
    for command, fields, answers in (
        (
            "vm.migrate",
            {"node": "hv2"},
            (cluster.says_prepared, lambda: cluster.says_ended(Ending.MIGRATED), cluster.says_arrived),
        ),
        ("vm.unmigrate", {"force_live": True}, (cluster.says_not_moved,)),
        ("vm.set_migration_method", {"migration_method": "shutdown"}, ()),
        (
            "vm.unmigrate",
            {},
            (cluster.says_prepared, cluster.says_timed_out, cluster.says_ended, cluster.says_running),
        ),
        ("vm.set_migration_method", {"migration_method": "live"}, ()),
        ("vm.move", {"node": "hv3"}, ()),
        ("vm.cancel_migration", {}, (cluster.says_not_moved,)),
    ):
        cluster.do(command, vm="web01", **fields)
        yield
        for answer in answers:
            answer()
            yield
    cluster.do("vm.move", vm="web02", node="hv2")
    yield


def _service(cluster: TinyCluster) -> Iterator[None]:
    cluster.do("node.flush", node="hv1")
    yield
    cluster.flush_step("hv1")
    yield
    for answer in (cluster.says_prepared, lambda: cluster.says_ended(Ending.MIGRATED), cluster.says_arrived):
        answer()
        yield
    cluster.flush_step("hv1")
    yield
    cluster.do("node.ready", node="hv1")
    yield
    cluster.flush_step("hv1")
    yield
    for answer in (cluster.says_prepared, lambda: cluster.says_ended(Ending.MIGRATED), cluster.says_arrived):
        answer()
        yield
    cluster.flush_step("hv1")
    yield
    cluster.do("vm.set_migration_method", vm="web01", migration_method="none")
    yield
    cluster.do("node.flush", node="hv1")
    yield
    cluster.flush_step("hv1")
    yield
    cluster.do("node.ready", node="hv1")
    yield


def _loss(cluster: TinyCluster) -> Iterator[None]:
    cluster.do("vm.start", vm="web02")
    yield
    cluster.says_running("web02")
    yield
    cluster.do("vm.set_node_limits", vm="web02", node_limits=["hv2"])
    yield
    cluster.says_lost("hv2")
    yield
    cluster.do("fault.acknowledge", fault="node.lost/hv2")
    yield
    cluster.says_unfenced("hv2")
    yield
    cluster.do("node.confirm_fenced", node="hv2")
    yield
    cluster.recover("hv2")
    yield
    cluster.says_diverged("hv2")
    yield
    cluster.says_ready("hv2", boot="boot-2")
    yield
    cluster.says_running("web02")
    yield
    cluster.do("vm.set_node_limits", vm="web02")
    yield
    cluster.lose("hv2")
    yield
    cluster.says_running("web02")
    yield
    cluster.do("vm.stop", vm="web02")
    yield
    cluster.says_ended(Ending.DESTROYED, "web02")
    yield
    cluster.do("vm.move", vm="web02", node=cluster.vm("web02").node)
    yield
    cluster.do("node.remove", node="hv2")
    yield
    cluster.do("vm.stop", vm="web01")
    yield
    cluster.says_ended(Ending.DESTROYED)
    yield


def _restore(cluster: TinyCluster) -> Iterator[None]:
    cluster.add_node("hv9")
    yield
    restored = LogRestored(position=cluster.state.position, node="hv1", source="a backup of 2026-11-20T01:00:00Z")
    cluster.record(restored, name="log.restore")
    yield
    cluster.says_ready()
    yield
    cluster.elect()
    yield
    cluster.do("node.confirm_fenced", node="hv9")
    yield
    cluster.do("node.remove", node="hv9")
    yield


def _end(cluster: TinyCluster) -> Iterator[None]:
    cluster.do("vm.disable", vm="web01")
    yield
    cluster.do("vm.enable", vm="web01")
    yield
    cluster.do("vm.disable", vm="xml01")
    yield
    cluster.do("vm.remove", vm="web02")
    yield
    cluster.do("vm.define", name="web02", memory_mib=64)
    yield
