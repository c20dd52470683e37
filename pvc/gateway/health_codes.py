"""Every reason why a cluster's health may not be `ok`: its code, what it means, what to do, how long until it alerts.

docs/reference/health.md and the alert rules in deploy/monitoring are made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pvc.projections.cluster_views import Health, HealthProblem
from pvc.projections.evolve_log import ANCHOR_FAILING
from pvc.projections.evolve_node import DIVERGED, FLUSH_INCOMPLETE, LOG_DIFFERS, LOST, UNFENCED, UNHEARD
from pvc.projections.evolve_vm import FAILED
from pvc.projections.evolve_webhook import DISABLED as WEBHOOK_DISABLED

AT_ONCE, SOON, LATER, A_DAY = "0s", "1m", "10m", "1d"
"""How long it is so before somebody is called: what mends itself within a minute is nobody's business."""


class HealthCode(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of reason."""

    meaning: str
    remedy: str
    """With `{name}` for the node or VM that it is about."""
    health: tuple[Health, ...]
    """How bad it can be."""
    alert_after: str
    """As Prometheus writes times."""


_CRITICAL, _DEGRADED, _EITHER = (Health.CRITICAL,), (Health.DEGRADED,), (Health.CRITICAL, Health.DEGRADED)


def _code(health: tuple[Health, ...], alert_after: str, meaning: str, remedy: str) -> HealthCode:
    return HealthCode(meaning=meaning, remedy=remedy, health=health, alert_after=alert_after)


CODES: Mapping[str, HealthCode] = {
    "fold.stopped": _code(
        _CRITICAL,
        AT_ONCE,
        "The node that answers has stopped folding the log: what it shows is old, and it takes no commands.",
        "ask another node meanwhile; docs/errors.md says what the code at the end means; update PVC on this node, or "
        "see `pvc log repair --help`",
    ),
    "node.fold_stopped": _code(
        _CRITICAL,
        AT_ONCE,
        "A node has stopped folding the log: its VMs go on, and nothing else is done there.",
        "`journalctl -u pvcd` on {name} has the record that it cannot fold; update PVC there, or see "
        "`pvc log repair --help`",
    ),
    "zookeeper.silent": _code(
        _CRITICAL,
        SOON,
        "ZooKeeper does not answer the node that was asked: nothing can be changed, VMs go on.",
        "see that most coordinators are up and reach each other (ports 2181, 2888, 3888), and that their ZooKeeper "
        "runs: `systemctl status pvc-zookeeper`",
    ),
    "node.states_differ": _code(
        _CRITICAL,
        SOON,
        "At one position of the log, nodes have different states, as they say just now.",
        "restart pvcd on the smaller side: it folds anew; if it comes back, report it with the logs of both",
    ),
    LOST: _code(
        _EITHER,
        AT_ONCE,
        "A node's session has ended. Degraded once it is fenced: its VMs are recovered then.",
        "look at the machine: `pvc node info {name}`",
    ),
    UNFENCED: _code(
        _CRITICAL,
        AT_ONCE,
        "A lost node could not be fenced, so its VMs are not recovered.",
        "mend its fence agent or bring it back; or cut its power by hand, and once you are sure that it is off: "
        "`pvc node confirm-fenced {name}`",
    ),
    UNHEARD: _code(
        _EITHER,
        SOON,
        "The log was restored, and a node has not been heard of since: no VM is started anywhere.",
        "start pvcd on {name}; or, once you are sure that the machine is off: `pvc node confirm-fenced {name}`",
    ),
    FLUSH_INCOMPLETE: _code(
        _EITHER,
        LATER,
        "A flush left VMs on the node.",
        "shut them down, make room or lift node limits; then again: `pvc node flush {name} --wait`",
    ),
    DIVERGED: _code(
        _CRITICAL,
        AT_ONCE,
        "A node was found to have another state than the others: a defect, or a damaged disk.",
        "restart pvcd on {name}; it folds anew. If it comes back, report it with both logs",
    ),
    LOG_DIFFERS: _code(
        _CRITICAL,
        AT_ONCE,
        "A signed checkpoint vouches for other records than the node's copy of the log has.",
        "change nothing on {name} before there are copies: `pvc log export FILE` there and on another node",
    ),
    ANCHOR_FAILING: _code(
        _EITHER,
        LATER,
        "Checkpoints of the log cannot be delivered to a place outside.",
        "mend the place, or take it out of [anchor] in pvc.toml; what it missed is delivered then",
    ),
    WEBHOOK_DISABLED: _code(
        _EITHER,
        LATER,
        "A webhook's receiver took nothing for days, or its owner may see nothing: it is sent nothing any more.",
        "mend the receiver, then `pvc webhook resume {name}`: nothing is lost",
    ),
    "fault": _code(
        _EITHER,
        LATER,
        "Another fault that nobody has acknowledged.",
        "`pvc fault list` says what to do; `pvc fault ack ID` once you know of it",
    ),
    FAILED: _code(
        _DEGRADED,
        LATER,
        "VMs do not run, though somebody wanted them to.",
        "`pvc vm info {name}` has the reason; mend it, then `pvc vm start {name}`",
    ),
    "vm.not_recovered": _code(
        _CRITICAL,
        SOON,
        "VMs of a fenced node do not run elsewhere yet.",
        "it takes seconds; if it stays so, no node can take them: make room, bring a node back, or lift node limits "
        "(`pvc fault list` has the reason for each)",
    ),
    "cluster.no_coordinator": _code(
        _CRITICAL, SOON, "No node is a coordinator.", "make one: `pvc node add NAME --coordinator`"
    ),
    "cluster.even_coordinators": _code(
        _DEGRADED,
        A_DAY,
        "An even number of coordinators stands no more losses than one less.",
        "have 1, 3 or 5: add one or remove one (docs/cluster.md)",
    ),
    "cluster.no_majority": _code(
        _CRITICAL,
        AT_ONCE,
        "Fewer than half of the coordinators are ready.",
        "bring coordinators back: `pvc node list` shows which are not ready",
    ),
    "cluster.bare_majority": _code(
        _DEGRADED,
        LATER,
        "With the loss of one more coordinator nothing could be changed.",
        "bring the missing coordinator back, or replace it (docs/cluster.md): `pvc node list` shows which it is",
    ),
    "cluster.no_primary": _code(
        _CRITICAL,
        SOON,
        "No node acts for the cluster: lost nodes are neither fenced nor recovered.",
        "one is elected within seconds of a coordinator being ready; see `journalctl -u pvcd` on the coordinators",
    ),
    "zookeeper.down": _code(
        _EITHER,
        SOON,
        "ZooKeeper does not serve on some coordinators; critical from half of them on.",
        "on {name}: `systemctl status pvc-zookeeper`, and whether the others reach its ports 2888 and 3888",
    ),
    "node.joining": _code(
        _DEGRADED,
        LATER,
        "A node was added and has not been heard of.",
        "start pvcd on {name}; `pvc node remove {name}` if it is not to come",
    ),
    "node.flushed": _code(
        _DEGRADED,
        A_DAY,
        "A node takes no VMs.",
        "when the work on it is done: `pvc node ready {name}`",
    ),
    "node.no_session": _code(
        _DEGRADED,
        SOON,
        "A node that is ready has no session: it may be about to be declared lost.",
        "see whether {name} is up, and reaches ZooKeeper: `journalctl -u pvcd` there",
    ),
    "node.silent": _code(
        _DEGRADED,
        LATER,
        "A node is there and tells no figures.",
        "`journalctl -u pvcd` on {name}: its hypervisor may not answer (`systemctl status libvirtd`)",
    ),
    "fence.missing": _code(
        _DEGRADED,
        A_DAY,
        "A node has neither fence agent nor watchdog: were it lost, its VMs would wait for a person.",
        "`pvc node fence {name} --agent ...`, or node.watchdog in its pvc.toml (docs/ha.md)",
    ),
    "fence.trouble": _code(
        _DEGRADED,
        LATER,
        "A node's fence agent does not answer as it should.",
        "try it by hand; set it anew with `pvc node fence {name} --agent ...`",
    ),
    "cluster.versions_differ": _code(
        _DEGRADED,
        A_DAY,
        "Nodes run different versions of PVC.",
        "finish the upgrade on {name} (docs/cluster.md)",
    ),
    "cluster.level_held": _code(
        _DEGRADED,
        A_DAY,
        "A node does not know a feature level that others know.",
        "upgrade {name}, or remove it if it does not come back",
    ),
    "cluster.no_spare_room": _code(
        _DEGRADED,
        LATER,
        "Were the fullest node lost, some of its VMs would find no room.",
        "add memory or a node, stop VMs, or spread them: `pvc cluster rebalance`",
    ),
    "cluster.maintenance": _code(
        _DEGRADED,
        A_DAY,
        "The cluster is in maintenance: no lost node is fenced.",
        "when the work is done: `pvc cluster maintenance off`",
    ),
}


def known(fault: str) -> str:
    """The code of a reason that is a fault."""
    return fault if fault in CODES else "fault"


def problem(health: Health, kind: str, message: str, name: str = "") -> HealthProblem:
    """A reason with its remedy; a code that the table does not have is a defect."""
    return HealthProblem(
        code=kind, health=health, message=message, hint=CODES[kind].remedy.replace("{name}", name or "it")
    )
