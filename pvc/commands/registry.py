"""The one list of commands, in the order in which the manual shows them."""

from __future__ import annotations

from pvc.commands import (
    access,
    audit,
    cluster,
    log,
    node,
    rebalance,
    vm_define,
    vm_move,
    vm_power,
    vm_settings,
    webhook,
)
from pvc.commands.base import CommandSpec

COMMANDS: tuple[CommandSpec, ...] = (
    *cluster.SPECS,
    *vm_define.SPECS,
    *vm_power.SPECS,
    *vm_settings.SPECS,
    *vm_move.SPECS,
    *node.SPECS,
    *rebalance.SPECS,
    *log.SPECS,
    *access.SPECS,
    *audit.SPECS,
    *webhook.SPECS,
)

BY_NAME: dict[str, CommandSpec] = {spec.name: spec for spec in COMMANDS}
