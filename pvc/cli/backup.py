"""`pvc cluster backup` and `pvc cluster restore`: the whole log in one file, and back into an empty cluster.

The log is all there is: members, VMs, networks and tokens follow from it. The file is a tar archive of the exported log
and a page about it. What it does not have: the disks of VMs, each node's own configuration, and private keys.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import click

from pvc import __version__
from pvc.cli import complete
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.log import fetch_trust, write_records, written
from pvc.cli.progress import ProgressLine
from pvc.cli.run import confirm
from pvc.cli.session import Session
from pvc.client.errors import ApiError, ClientError, Unreachable

FORMAT = 1
LOG, ABOUT = "log.pvclog", "about.json"

PART_BYTES = 400_000
"""Records of one request of a restore: a body has 1 MiB, and Base64 is a third more."""

PART_RECORDS = 1_000

MAX_ABOUT_BYTES = 1024 * 1024
"""Keys and a checkpoint have some kilobytes."""

MAX_WORD = 100
"""Of the cluster's name and the time in it: both become part of what is recorded."""

SETTLE_S = 120.0
"""How long the node may take to fold what was restored; it starts over for that."""


def backup_cluster(session: Session, file: str) -> None:
    """Write the file, and verify it."""
    trust = fetch_trust(session)
    cluster = session.client.get("/cluster")
    last = trust["position"]
    target = written(file)
    with (
        target as out,
        tempfile.TemporaryFile(dir=_directory_of(file) if target.can_be_read else None) as log,
        ProgressLine(sys.stderr, plain=False) as progress,
    ):

        def tell(position: int) -> None:
            progress.step(f"backed up {position:,} of {last:,} records")

        position = write_records(session, log, 1, last, tell=tell)
        about = {
            "format": FORMAT,
            "cluster": cluster["name"],
            "version": __version__,
            "records": position,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "origin": trust["origin"],
            "keys": [key["key"] for key in trust["keys"]],
            "checkpoint": trust["checkpoint"],
        }
        with tarfile.open(fileobj=out, mode="w|") as tar:
            _add(tar, ABOUT, io.BytesIO(json.dumps(about, indent=1).encode()))
            _add(tar, LOG, log)
    if target.can_be_read:
        with _opened(file) as (_, packed):
            count = sum(len(part) for part in _verified(packed, file))
        if count != position:
            raise ClientError(f"{file} has {count} records, not {position}", code="client.bad_backup")
    if session.wants_data and not target.is_stdout:
        session.show_data({"file": file, "records": position, "cluster": cluster["name"]})
    else:
        session.note(f"Backed up {position:,} records of cluster {cluster['name']} into {file}.")


def restore_cluster(session: Session, file: str, dry_run: bool, yes: bool) -> None:
    """Verify the file, ask, and append its records."""
    with _opened(file) as (about, log):
        count = sum(len(part) for part in _verified(log, file))
    if dry_run:
        _say_what_would_be(session, about, count)
        return
    if not yes:
        confirm(f"Restore {count:,} records of cluster {about['cluster']}, backed up {about['made']}, on this node?")
    with ProgressLine(sys.stderr) as progress:
        position = session.client.post("/cluster/restore", body={"records": []})["reached"]
        # The last record that is there is sent again: only so the node sees whether it is this backup that was begun.
        first = max(1, min(position, count))
        with _opened(file) as (_, log):
            at = 0
            for records in _verified(log, file):
                for part in _parts(records[max(0, first - 1 - at) :]):
                    body = {"records": [base64.b64encode(each).decode() for each in part]}
                    reached = session.client.post("/cluster/restore", body=body)["reached"]
                    progress.step(f"restored {reached:,} of {count:,} records")
                at += len(records)
        source = f"a backup of {about['made']}"
        session.client.post("/cluster/restore", body={"records": [], "end": source})
        progress.step("the node folds what was restored")
        _await_fold(session, count)
    told = {"cluster": about["cluster"], "records": count}
    if session.wants_data:
        session.show_data(told)
        return
    session.note(f"Restored {count:,} records of cluster {about['cluster']}.")
    session.note("No VM is started before every node of it has come, or is confirmed to be off: `pvc fault list`.")


def _say_what_would_be(session: Session, about: dict[str, Any], count: int) -> None:
    status = session.client.get("/log/status")
    if status["position"] and not status["held_by"]:
        raise ClientError(
            "the log is not empty: this node belongs to a cluster already",
            code="client.not_empty",
            hint="a backup is restored where there is nothing: on a new node, with an empty ensemble",
        )
    if session.wants_data:
        session.show_data({"dry_run": True, "cluster": about["cluster"], "records": count, "made": about["made"]})
    else:
        session.note(f"Would restore {count:,} records of cluster {about['cluster']}, backed up {about['made']}.")


def _await_fold(session: Session, count: int) -> None:
    until = time.monotonic() + SETTLE_S
    while True:
        try:
            if session.client.get("/cluster")["position"] > count:
                return
        except (Unreachable, ApiError):
            pass
        if time.monotonic() > until:
            raise ClientError(
                f"the records are restored, but the node has not folded them within {SETTLE_S:g} s",
                code="client.slow_restore",
                hint="see its log: `journalctl -u pvcd`",
            )
        time.sleep(0.5)


@contextmanager
def _opened(file: str) -> Iterator[tuple[dict[str, Any], IO[bytes]]]:
    """What the backup says of itself, and its log."""
    try:
        with tarfile.open(file, mode="r:") as tar:
            about, log = _part(tar, ABOUT), _part(tar, LOG)
            yield _checked(json.loads(about.read(MAX_ABOUT_BYTES)), file), log
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror}", "give the path of a backup") from error
    except (tarfile.TarError, KeyError, ValueError, RecursionError, OverflowError) as error:
        raise _no_backup(file, str(error)[:200]) from error


def _part(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """A plain file of the archive: a link could lead to itself, and holes pretend to any size. Raises KeyError."""
    entry = tar.getmember(name)
    part = tar.extractfile(entry) if entry.isreg() and not entry.issparse() else None
    if part is None:
        raise KeyError(f"{name} is no file")
    return part


def _checked(told: Any, file: str) -> dict[str, Any]:
    """The page, with what is made use of. It is somebody's word, and may be anything."""
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        is_of = told.get("format") if isinstance(told, dict) else "none"
        raise _no_backup(file, f"its format is {str(is_of)[:20]}, not {FORMAT}")
    for name in ("cluster", "made"):
        if not isinstance(told.get(name), str) or not 0 < len(told[name]) <= MAX_WORD:
            raise _no_backup(file, f"its {ABOUT} has no {name!r}")
    return told


def _verified(log: IO[bytes], file: str) -> Iterator[list[bytes]]:
    """The records in blocks, each seen to continue the one before."""
    from pvc.proof.frames import Block, Damaged, read_file, records_of
    from pvc.proof.scan import scan

    first, before = 1, bytes(32)
    try:
        for part in read_file(cast("BinaryIO", log)):
            if not isinstance(part, Block):
                return
            records = records_of(part)
            found = scan(first, records)
            if part.first != first or found.before != before or found.findings:
                raise _no_backup(file, f"its records do not continue behind {first - 1}")
            first, before = first + len(records), found.head
            yield records
    except Damaged as error:
        raise _no_backup(file, error.message) from error


def _parts(records: list[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size_bytes = 0
    for record in records:
        if part and (size_bytes + len(record) > PART_BYTES or len(part) == PART_RECORDS):
            yield part
            part, size_bytes = [], 0
        part.append(record)
        size_bytes += len(record)
    if part:
        yield part


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, os.SEEK_END)
    entry.mtime = int(time.time())
    entry.mode = 0o600
    content.seek(0)
    tar.addfile(entry, content)


def _directory_of(file: str) -> str:
    return str(Path(os.path.realpath(file)).parent)


def _no_backup(file: str, why: str) -> ClientError:
    return ClientError(
        f"{file} is no backup that can be used: {why}",
        code="client.bad_backup",
        hint="give a file that `pvc cluster backup` wrote, whole and unchanged; an older one may do",
    )


backup = PvcCommand(
    "backup",
    backup_cluster,
    params=[click.Argument(["file"], shell_complete=complete.files)],
    about={"file": "The file to write; - is standard output."},
    help="Write everything that the cluster knows into one file: its whole log.\n\nNot in it: the disks of VMs,"
    " each node's own configuration, and the keys of people's names (pvc audit export-keys).",
    example="pvc cluster backup /backup/main-$(date +%F).pvc",
)

restore = PvcCommand(
    "restore",
    restore_cluster,
    params=[
        click.Argument(["file"], shell_complete=complete.files),
        click.Option(["--dry-run"], is_flag=True, help="Verify the file and say what would be restored, no more."),
        click.Option(["--yes", "-y"], is_flag=True, help="Do not ask."),
    ],
    about={"file": "A file written by pvc cluster backup."},
    help="Restore a backup on a node without a cluster, whose ensemble is empty.\n\nNo VM is started before every node"
    " of the restored cluster has come, or is confirmed to be off. Broken off, it goes on when run again.",
    example="pvc cluster restore /backup/main-2026-11-20.pvc",
)
