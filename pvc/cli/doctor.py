"""`pvc doctor`: one look at everything between this terminal and the cluster, and on a node at the node itself.

Each line is ok, warn or fail, and says what to do. Nothing is changed by it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from pvc.cli import exits
from pvc.cli.base import PvcCommand
from pvc.cli.session import Session
from pvc.cli.text import MIN_WRAP, Look, clean, pad, paint, width_of, wrap
from pvc.client import connections as store
from pvc.client.connections import Connection
from pvc.client.errors import ClientError

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}

NODE_CONFIG = Path("/etc/pvc/pvc.toml")

NODE_TIMEOUT_S = 60.0
"""The node's own look has a deadline for each of its parts; this is for one that hangs all the same."""

MANY_COLUMNS = 80


class Finding(NamedTuple):
    """What one check came to. `status` is ok, warn or fail; `about` is a connection, a gateway or empty."""

    check: str
    status: str
    message: str
    remedy: str = ""
    about: str = ""


def examine(session: Session, node_config: Path) -> int:
    """Look at everything, show it, and fail where something does."""
    findings = [*check_files(), *check_terminal(session)]
    try:
        chosen = _connections(session)
    except ClientError as error:
        findings.append(Finding("connection", "fail", error.message, error.hint))
    else:
        findings += _side_by_side([_checks_of(connection) for connection in chosen])
    if os.geteuid() == 0 and (node_config.exists() or node_config != NODE_CONFIG):
        findings += check_node(node_config)
    failed = sum(finding.status == "fail" for finding in findings)
    if session.wants_data:
        session.show_data([finding._asdict() for finding in findings])
    else:
        session.show(render_findings(findings, session.look))
        warned = sum(finding.status == "warn" for finding in findings)
        warnings = f"{warned or 'no'} {'warning' if warned == 1 else 'warnings'}"
        session.say(f"{len(findings)} checks: {failed or 'none'} failed, {warnings}.")
    return exits.REJECTED if failed else exits.OK


def render_findings(findings: Sequence[Finding], look: Look) -> str:
    """A line for each, with what to do beneath those that are not ok."""
    heads = [f"{finding.check} {finding.about}".rstrip() for finding in findings]
    column = min(max(map(width_of, heads), default=0), (look.width or MANY_COLUMNS) // 3)
    indent = " " * (6 + column + 2)
    room = max(look.width - len(indent), MIN_WRAP) if look.width else 0
    lines = []
    for head, finding in zip(heads, findings, strict=True):
        first, *more = _wrapped(finding.message, room)
        status = paint(f"{finding.status:<4}", STYLES[finding.status], look)
        own = width_of(clean(head)) <= column
        lines.append(f"{status}  {pad(clean(head), column) if own else clean(head)}{f'  {first}' if own else ''}")
        lines += [f"{indent}{part}" for part in (more if own else [first, *more])]
        if finding.remedy and finding.status != "ok":
            told = _wrapped(f"→ {finding.remedy}", room)
            lines += [f"{indent}{paint(part, 'cyan', look)}" for part in told]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def check_files() -> list[Finding]:
    """The file with the connections, the directory it is in, and a token from elsewhere."""
    path = store.connections_file()
    findings = []
    try:
        stored = store.load_connections()
        count = len(stored.connections)
        told = f"{path}: {count} stored, only yours to read" if path.exists() else f"{path}: none stored"
        findings.append(Finding("files", "ok", told))
    except ClientError as error:
        findings.append(Finding("files", "fail", error.message, error.hint))
    if path.parent.is_dir() and path.parent.stat().st_mode & 0o022:
        told = f"others may put files into {path.parent}, and so exchange your connections"
        findings.append(Finding("files", "fail", told, f"chmod 700 {path.parent}"))
    token_file = os.environ.get("PVC_TOKEN_FILE", "")
    if os.environ.get("PVC_TOKEN"):
        told = "the token is that of PVC_TOKEN, which each program that you start can read"
        findings.append(Finding("files", "warn", told, "unset PVC_TOKEN, and use PVC_TOKEN_FILE or a connection"))
    elif token_file:
        try:
            store.read_token_file(Path(token_file))
            findings.append(Finding("files", "ok", f"the token is that of {token_file}, only yours to read"))
        except ClientError as error:
            findings.append(Finding("files", "fail", error.message, error.hint))
    return findings


def check_terminal(session: Session) -> list[Finding]:
    """Whether tables, progress and names of any language can be shown."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        told = f"text is written as {sys.stdout.encoding}; signs of other languages become question marks"
        return [Finding("terminal", "warn", told, "export LC_ALL=C.UTF-8")]
    if not sys.stdout.isatty():
        return [Finding("terminal", "ok", "none: answers go out whole and without colours")]
    look = session.look
    told = f"{os.environ.get('TERM', 'unknown')}, {look.width} columns, {'colours' if look.colour else 'no colours'}"
    if look.width < MANY_COLUMNS:
        return [Finding("terminal", "warn", f"{told}: wide tables lose columns", "a wider window, or -o wide")]
    return [Finding("terminal", "ok", told)]


def check_node(config: Path) -> list[Finding]:
    """What the node's own daemon finds: it knows its configuration and has the libraries."""
    command = [sys.executable, "-m", "pvc.daemon.main", "--config", str(config), "--examine"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NODE_TIMEOUT_S, check=False)  # noqa: S603
        found = json.loads(done.stdout)
        return [
            Finding(one["check"], one["status"], one["message"], one["remedy"], one.get("about", "")) for one in found
        ]
    except subprocess.TimeoutExpired:
        told = f"the look at this node was not done within {NODE_TIMEOUT_S:g} s"
        return [Finding("node", "fail", told, f"look where it hangs: {' '.join(command)}")]
    except (OSError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [Finding("node", "fail", f"this node cannot be looked at: {last}", f"try it: {' '.join(command)}")]


def _connections(session: Session) -> list[Connection]:
    if not session.everywhere:
        return [store.choose_connection(session.connection)]
    known = list(store.load_connections().connections.values())
    return [store.local_connection(), *known] if store.local_is_there() or not known else known


def _checks_of(connection: Connection) -> Callable[[], list[Finding]]:
    def look() -> list[Finding]:
        from pvc.cli.doctor_probe import check_cluster

        return [Finding(*told) for told in check_cluster(connection)]

    return look


def _side_by_side(looks: Sequence[Callable[[], list[Finding]]]) -> list[Finding]:
    found: dict[int, Any] = {}

    def run(i: int) -> None:
        try:
            found[i] = looks[i]()
        except Exception as fault:  # noqa: BLE001 - raised again below
            found[i] = fault

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(looks))]
    for thread in threads:
        thread.start()
    findings: list[Finding] = []
    for i, thread in enumerate(threads):
        thread.join()
        if isinstance(found[i], Exception):
            raise found[i]
        findings += found[i]
    return findings


def _wrapped(text: str, room: int) -> list[str]:
    return wrap(clean(text), room) if room else [clean(text)]


doctor = PvcCommand(
    "doctor",
    examine,
    params=[
        click.Option(
            ["--node-config"],
            type=click.Path(path_type=Path, dir_okay=False),
            default=NODE_CONFIG,
            show_default=True,
            help="On a node, as root: the configuration of its pvcd.",
        )
    ],
    help="Look for what is wrong, from this terminal to the cluster, and say what to do about it.\n\n"
    "It looks at files and tokens, names and addresses, certificates, clocks, versions and each gateway; with -c all "
    "at every cluster. On a node, as root, also at the node: its configuration, libvirt, KVM, ZooKeeper, disks and "
    "time. It changes nothing. The exit code is 1 where a check failed.",
    short_help="Look for what is wrong, and say what to do about it.",
    example="pvc doctor\npvc doctor -c all -o json | jq '.[] | select(.status != \"ok\")'",
)
