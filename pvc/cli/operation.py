"""`pvc operation`: what commands have begun, how far it has come, waiting for it, and giving it up."""

from __future__ import annotations

import sys
from typing import Any, cast
from urllib.parse import quote

import click

from pvc.cli import exits
from pvc.cli.base import PvcCommand
from pvc.cli.progress import ProgressLine
from pvc.cli.run import show_reply
from pvc.cli.session import Session, now_us, write_error
from pvc.cli.table import WHOLE, Cell, Column, render_facts, render_table
from pvc.cli.text import Look
from pvc.cli.times import ago, as_time, took, when
from pvc.cli.values import Amount
from pvc.cli.watch import transfer
from pvc.client.api_types import Operation, OperationInfo, Reply
from pvc.client.errors import WaitTimedOut
from pvc.client.waiting import OPEN

COLUMNS = (
    Column("OPERATION", rank=0, least=WHOLE),  # it is what the other commands take
    Column("COMMAND", rank=0),
    Column("ABOUT", rank=0),
    Column("STATE", rank=0),
    Column("DONE", right=True, optional=True),
    Column("STARTED", rank=2, least=8),
    Column("TOOK", right=True, rank=3),
    Column("BY", rank=2),
    Column("WHAT", rank=3),
)
VMS = (Column("VM"), Column("STATE"), Column("TOOK", right=True), Column("WHAT"))

STYLES = {"pending": "cyan", "running": "cyan", "succeeded": "", "failed": "red", "cancelled": "yellow"}

STATES = tuple(STYLES)

LIMIT = 50

DEFAULT_WAIT_S = 600


def list_all(
    session: Session, state: tuple[str, ...], subject: str | None, command: str | None, actor: str | None, limit: int
) -> None:
    """Operations, the newest first."""
    query = {"state": ",".join(state), "subject": subject, "command": command, "actor": actor}
    operations: list[Operation] = []
    after: str | None = None
    while len(operations) < limit:
        page = session.client.get(
            "/operations", {**query, "limit": min(limit - len(operations), 1_000), "after": after}
        )
        operations += page["items"]
        after = page["next"]
        if after is None:
            break
    if session.wants_data:
        session.show_data(operations)
    elif not operations:
        session.say("There is no such operation.")
    else:
        at_us = now_us()
        session.show_table(COLUMNS, [_row(operation, at_us) for operation in operations])


def _row(operation: Operation, at_us: int) -> list[str | Cell]:
    progress = operation["progress"]
    ended_us = operation["ended_us"]
    return [
        operation["id"],
        operation["command"],
        about(operation),
        Cell(operation["state"], STYLES[operation["state"]]),
        f"{progress['done']}/{progress['total']}" if progress["total"] != 1 else "",
        when(operation["started_us"], at_us),
        took(ended_us - operation["started_us"]) if ended_us is not None else "",
        operation["actor"],
        progress["text"],
    ]


def about(operation: Operation) -> str:
    """The names of what it is about: the first few."""
    named = [one for one in operation["subjects"] if one["name"]]
    # The token that was made on the way says less than what it is for.
    told = [one for one in named if not one["subject"].startswith("access/")] or named
    names = [one["name"] for one in told]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def show(session: Session, operation: str) -> None:
    """All about one."""
    info = fetch(session, operation)
    if session.wants_data:
        session.show_data(info)
        return
    session.show(render_facts(facts(info, now_us()), session.look))
    if info["vms"]:
        session.show(f"\n{render_vms(info, session.look)}")


def facts(info: OperationInfo, at_us: int) -> list[tuple[str, str | Cell]]:
    """What is told of one operation."""
    progress, problem = info["progress"], info["problem"]
    done = _counted(info)
    moved = transfer(progress["transfer"]) if progress["transfer"] is not None else ""
    rows: list[tuple[str, str | Cell]] = [
        ("Operation", info["id"]),
        ("Command", info["command"]),
        ("About", about(info)),
        ("State", Cell(info["state"], STYLES[info["state"]])),
        ("Progress", ", ".join(part for part in (done, moved) if part)),
        ("Last", progress["text"]),
        ("Problem", f"{problem['detail']} ({problem['code']})" if problem is not None else ""),
        ("Started", f"{ago(info['started_us'], at_us)} by {info['actor']}"),
        ("Took", took(info["ended_us"] - info["started_us"]) if info["ended_us"] is not None else ""),
        ("Can be cancelled", "yes" if info["cancellable"] else "no"),
    ]
    return [(name, value) for name, value in rows if value]


def render_vms(info: OperationInfo, look: Look) -> str:
    """A line for each VM of an operation that is about many."""
    rows: list[list[str | Cell]] = [
        [
            vm["name"],
            Cell(vm["state"], STYLES[vm["state"]]),
            took(vm["took_us"]) if vm["took_us"] is not None else "",
            vm["text"],
        ]
        for vm in info["vms"]
    ]
    return render_table(VMS, rows, look)


def cancel(session: Session, operation: str, dry_run: bool) -> None:
    """Ask for it to be given up."""
    path = f"/operations/{quote(operation, safe='')}/cancel"
    made = session.client.post(path, key="" if dry_run else new_key(), dry_run="true" if dry_run else "")
    show_reply(session, cast("Reply", made), "")


def new_key() -> str:
    """A key under which a command may be sent again."""
    import os

    return os.urandom(16).hex()


def wait(session: Session, operation: str, timeout: int) -> int:
    """Follow one to its end."""
    with ProgressLine(sys.stderr, plain=not session.wants_data) as progress:

        def on_change(info: OperationInfo) -> None:
            if info["state"] in OPEN:
                progress.step(_step(info))

        info = session.client.follow_operation(operation, timeout_s=timeout, on_change=on_change)
    if info is None or info["state"] in OPEN:
        command = f" ({info['command']})" if info is not None else ""
        raise WaitTimedOut(
            f"operation {operation}{command} is not over within {timeout} s",
            hint=f"it goes on; `pvc operation info {operation}` shows how far it has come",
        )
    session.ends_with = exits.OK if info["state"] == "succeeded" else exits.OUTCOME_FAILED
    if session.wants_data:
        session.show_data(info)
    else:
        session.show(render_facts(facts(info, now_us()), session.look))
        if info["vms"]:
            session.show(f"\n{render_vms(info, session.look)}")
    if info["state"] == "succeeded":
        return exits.OK
    code = info["problem"]["code"] if info["problem"] is not None else ""
    write_error(session, f"{info['command']} {_ENDED[info['state']]}: {info['progress']['text']}", code=code)
    return exits.OUTCOME_FAILED


_ENDED = {"failed": "has failed", "cancelled": "was cancelled"}


def fetch(session: Session, operation: str) -> OperationInfo:
    """One operation as it stands. Raises ApiError, Unreachable."""
    return cast("OperationInfo", session.client.get(f"/operations/{quote(operation, safe='')}"))


def _step(info: OperationInfo) -> str:
    counted = _counted(info)
    return f"{about(info) or info['command']}: {counted}{'; ' if counted else ''}{info['progress']['text']}"


def _counted(info: OperationInfo) -> str:
    """How far it has come, where it is about many: `2 of 3 VMs`."""
    progress = info["progress"]
    if progress["total"] == 1:
        return ""
    # What is about the cluster itself is done by its nodes.
    what = "nodes" if [one["subject"] for one in info["subjects"]] == ["cluster"] else "VMs"
    return f"{progress['done']} of {progress['total']} {what}"


def _operation_argument() -> Any:
    return click.Argument(["operation"])


_ABOUT = {"operation": "The id, as pvc operation list shows it, and the reply of the command with -o json."}

list_operations = PvcCommand(
    "list",
    list_all,
    params=[
        click.Option(
            ["--state"],
            type=click.Choice(STATES),
            multiple=True,
            metavar="STATE",
            help=f"Only those in this state: {', '.join(STATES)}. Can be repeated.",
        ),
        click.Option(["--subject"], metavar="SUBJECT", help="Only those about vm/NAME, node/NAME or cluster."),
        click.Option(["--command"], metavar="NAME", help="Only those of this command: vm.migrate, or vm.*."),
        click.Option(["--actor"], metavar="NAME", help="Only those that this principal began."),
        click.Option(
            ["-n", "--limit"],
            metavar="NUMBER",
            type=click.IntRange(1, 100_000),
            default=LIMIT,
            show_default=True,
            help="How many, the newest.",
        ),
    ],
    help="List what commands have begun, the newest first.\n\nEvery command that takes time begins an operation, "
    "whoever gave it and through which gateway; all of them are here, as far back as the log goes.",
    short_help="List what commands have begun.",
    example="pvc operation list --state running --state pending",
)

info = PvcCommand(
    "info",
    show,
    reads=True,
    params=[_operation_argument()],
    about=_ABOUT,
    help="Show how far an operation has come, or how it ended.",
    example="pvc operation info 01JJXW6S00VTW2Z7Q4C9RTAH3N",
)

cancel_operation = PvcCommand(
    "cancel",
    cancel,
    params=[
        _operation_argument(),
        click.Option(["--dry-run"], is_flag=True, help="Say what would be done; change nothing."),
    ],
    about=_ABOUT,
    help="Give an operation up, where that can be done: a migration that has not left yet, or a flush, whose VMs then "
    "come home.",
    short_help="Give an operation up.",
    example="pvc operation cancel 01JJXW6S00VTW2Z7Q4C9RTAH3N",
)

wait_for = PvcCommand(
    "wait",
    wait,
    params=[
        _operation_argument(),
        click.Option(
            ["--timeout"],
            metavar="TIME",
            type=Amount({"name": "timeout_s", "type": "integer", "description": "", "minimum": 1, "maximum": 86_400}),
            default=DEFAULT_WAIT_S,
            help=f"How long it waits at most.  [default: {as_time(DEFAULT_WAIT_S)}]",
        ),
    ],
    about=_ABOUT,
    help="Wait for the end of an operation.\n\nThe exit code is 0 where it succeeded, 6 where it failed or was "
    "cancelled, 7 where it goes on after that time.",
    short_help="Wait for the end of an operation.",
    example="pvc operation wait 01JJXW6S00VTW2Z7Q4C9RTAH3N --timeout 60",
)
