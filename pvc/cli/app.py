"""The tree of commands: those derived from the command cards, and those written by hand where a person deserves better.

Nothing of a command is imported or built before it is called for.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import click

from pvc import __version__
from pvc.cli import exits
from pvc.cli.base import PvcGroup
from pvc.cli.complete import connection_names
from pvc.cli.session import pass_session
from pvc.client.cards import Card, load_cards

Path = tuple[str, ...]

GROUPS: dict[Path, str] = {
    ("cluster",): "The cluster as a whole.",
    ("node",): "The machines that run VMs.",
    ("fault",): "What is wrong with the cluster.",
    ("vm",): "Virtual machines.",
    ("vm", "tag"): "Tags of VMs.",
    ("history",): "Who did what, when, from where and why, and what came of it.",
    ("operation",): "What commands have begun, how far it is, and how it ended.",
    ("log",): "The log itself: whether it is whole, and the proof of it.",
    ("access",): "Who may do what.",
    ("access", "token"): "Tokens, by which people and services prove who they are.",
    ("audit",): "What the history may say of whom.",
    ("webhook",): "Addresses that the cluster's events are posted to.",
    ("event",): "Everything that happens, one event a line.",
    ("connection",): "Which cluster this command talks to.",
    ("completion",): "Completion of commands and names by the shell's Tab key.",
}

VIEWS: dict[Path, str] = {
    ("cluster", "status"): "cluster:status",
    ("cluster", "health"): "cluster:health",
    ("cluster", "init"): "cluster:init",
    ("cluster", "backup"): "backup:backup",
    ("cluster", "restore"): "backup:restore",
    ("node", "list"): "node:list_nodes",
    ("node", "info"): "node:info",
    ("fault", "list"): "fault:list_faults",
    ("vm", "list"): "vm:list_vms",
    ("vm", "info"): "vm:info",
    ("vm", "log"): "vm_serial:log",
    ("vm", "console"): "vm_serial:console",
    ("vm", "tag", "list"): "vm:list_tags",
    ("diff",): "diff:diff",
    ("undo",): "undo:undo",
    ("whatif",): "whatif:whatif",
    ("history", "vm"): "history:of_vm",
    ("history", "node"): "history:of_node",
    ("history", "cluster"): "history:of_cluster",
    ("history", "all"): "history:of_all",
    ("event", "list"): "event:list_events",
    ("event", "follow"): "event:follow",
    ("operation", "list"): "operation:list_operations",
    ("operation", "info"): "operation:info",
    ("operation", "cancel"): "operation:cancel_operation",
    ("operation", "wait"): "operation:wait_for",
    ("log", "verify"): "log_verify:verify",
    ("log", "export"): "log:export",
    ("log", "status"): "log_status:status",
    ("log", "repair"): "log_repair:repair",
    ("log", "keys"): "log:keys",
    ("log", "checkpoint"): "log:checkpoint",
    ("log", "prove"): "log_prove:prove",
    ("log", "verify-proof"): "log_prove:verify_proof",
    ("log", "consistency"): "log_prove:consistency",
    ("access", "list"): "access:list_principals",
    ("access", "info"): "access:info",
    ("access", "token", "list"): "access:list_tokens",
    ("audit", "who"): "audit:who",
    ("audit", "login"): "audit:login",
    ("audit", "people"): "audit:people",
    ("audit", "export-keys"): "audit:export",
    ("audit", "import-keys"): "audit:restore",
    ("doctor",): "doctor:doctor",
    ("webhook", "list"): "webhook:list_webhooks",
    ("webhook", "info"): "webhook:info",
    ("webhook", "deliveries"): "webhook:deliveries",
    ("webhook", "parked"): "webhook:parked",
    ("webhook", "test"): "webhook:test",
    ("login",): "login:login",
    ("logout",): "login:logout",
    ("connection", "list"): "connection:list_connections",
    ("connection", "add"): "connection:add",
    ("connection", "info"): "connection:info",
    ("connection", "use"): "connection:use",
    ("connection", "remove"): "connection:remove",
    ("completion", "bash"): "completion:bash",
    ("completion", "zsh"): "completion:zsh",
    ("completion", "fish"): "completion:fish",
}
"""Commands written by hand: their words, and the module of `pvc.cli` and the name in it."""

EXTENSIONS: dict[str, str] = {"lab": "pvc.lab.cli:lab"}
"""Groups of other packages, which may not be installed: their name, and module and name of the group in it.

They know nothing of this package, nor this package of them but for these words, so that neither's imports reach the
other: a lab needs what no client needs, and the client's start-up must not pay for it.
"""


_FIRST_WORDS: list[Path] = [*GROUPS, *(path for path in VIEWS if len(path) == 1)]


class Tree(PvcGroup):
    """A group whose commands are found by their path."""

    def __init__(self, path: Path, **attributes: Any) -> None:
        super().__init__(name=path[-1] if path else "pvc", **attributes)
        self._path = path

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The next words below this group: views first, then what changes something, in the manual's order."""
        depth = len(self._path)
        known = [*VIEWS, *(tuple(card["cli"]) for card in load_cards().values())] if depth else _FIRST_WORDS
        if not depth:
            known += [(name,) for name in EXTENSIONS if _is_installed(name)]
        return list(dict.fromkeys(path[depth] for path in known if path[:depth] == self._path and len(path) > depth))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command or group of this name; None where there is none."""
        path = (*self._path, cmd_name)
        if path in GROUPS:
            return Tree(path, help=GROUPS[path])
        if path in VIEWS:
            module, name = VIEWS[path].split(":")
            command: click.Command = getattr(importlib.import_module(f"pvc.cli.{module}"), name)
            return command
        if not self._path and cmd_name in EXTENSIONS and _is_installed(cmd_name):
            module, name = EXTENSIONS[cmd_name].split(":")
            group: click.Command = getattr(importlib.import_module(module), name)
            return group
        card = _card_at(path)
        if card is None:
            return None
        from pvc.cli.derive import command_from_card  # only where one is called for

        return command_from_card(card)


def _is_installed(extension: str) -> bool:
    package = EXTENSIONS[extension].split(":")[0].rpartition(".")[0]
    return importlib.util.find_spec(package) is not None


def _card_at(path: Path) -> Card | None:
    return next((card for card in load_cards().values() if tuple(card["cli"]) == path), None)


@click.pass_context
def _begin(ctx: click.Context, connection: str | None) -> None:
    session = pass_session(ctx)
    session.connection = connection or session.connection


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"pvc {__version__}")
        ctx.exit()


cli = Tree(
    (),
    callback=_begin,
    help="PVC, the Parallel Virtual Cluster.",
    epilog=f"Exit codes: {exits.TEXT}",
    params=[
        click.Option(
            ["-c", "--connection"],
            metavar="NAME",
            shell_complete=connection_names,
            help="The connection to use (`pvc connection list`); all: ask every cluster, where nothing is changed.",
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ],
)
