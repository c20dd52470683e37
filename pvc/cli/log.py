"""`pvc log export`, `keys` and `checkpoint`: what an auditor takes along, to be able to do without the cluster."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.progress import ProgressLine
from pvc.cli.session import Session, now_us
from pvc.cli.table import Cell, Column
from pvc.cli.text import clean, is_harmless
from pvc.cli.times import when
from pvc.client.errors import ClientError

PORTION = 4_096
"""Records of one request, and of one block of the file."""

COLUMNS = (
    Column("KEY", rank=0),
    Column("NODE", rank=0),
    Column("SINCE"),
    Column("UNTIL"),
    Column("PUBLIC KEY"),
)


def fetch_trust(session: Session) -> dict[str, Any]:
    """All keys there ever were, the newest checkpoint, and the first line of all checkpoints."""
    answer = session.client.get("/log/keys")
    following = answer.pop("next", None)
    while following is not None:
        page = session.client.get("/log/keys", {"after": following})
        answer["keys"] += page["keys"]
        following = page["next"]
    return answer


def show_keys(session: Session) -> None:
    """All keys, the newest last."""
    answer = fetch_trust(session)
    if session.wants_data:
        session.show_data(answer)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = []
    for key in answer["keys"]:
        until = "in use" if not key["retired_at"] else f"{key['retired_at']} ({when(key['retired_us'], at_us)})"
        until = "to be replaced" if key["rotating"] else until
        since = f"{key['added_at']} ({when(key['added_us'], at_us)})"
        rows.append([key["id"], key["node"], since, Cell(until, "dim" if key["retired_at"] else "green"), key["key"]])
    session.show_table(COLUMNS, rows)
    if not rows:
        session.note("No coordinator has announced a key yet.")
        return
    session.note("Keep the public keys outside of the cluster: a verification is worth as much as the way they came.")


def show_checkpoint(session: Session) -> None:
    """The newest signed note, as it is."""
    answer = session.client.get("/log/keys")["checkpoint"]
    if answer is None:
        raise ClientError(
            "no checkpoint of the log has been signed yet",
            code="client.no_checkpoint",
            hint="the first comes within a minute after a coordinator is ready",
        )
    if session.wants_data:
        session.show_data(answer)
    else:
        session.show(answer["note"] if is_harmless(answer["note"]) else f"{clean(answer['note'])}\n")


def export_log(session: Session, file: str, first: int, last: int | None, plain: bool) -> None:
    """All records into a file that can be verified without a daemon."""
    end = last or session.client.get("/log/keys")["position"]
    if first > end:
        raise usage_error(f"there are no records {first} to {end}", "leave --first and --last out for all of them")
    target = written(file)
    with target as out, ProgressLine(sys.stderr, plain=False) as progress:

        def tell(position: int) -> None:
            if progress.moving:
                progress.step(f"exported {position:,} of {end:,} records")

        position = write_records(session, out, first, end, compress=not plain, tell=tell)
    told = {"file": file, "first": first, "last": position, "records": position - first + 1}
    if session.wants_data and not target.is_stdout:
        session.show_data(told)
    else:
        verify = f" To verify them: pvc log verify --files {file}" if target.can_be_read else ""
        session.note(f"Exported the records {first} to {position}.{verify}")


def write_records(
    session: Session, out: IO[bytes], first: int, last: int, *, compress: bool = True, tell: Callable[[int], None]
) -> int:
    """Write the records as a whole file of blocks, telling how far that is; returns the last position."""
    from pvc.proof.frames import MAGIC, encode_block, encode_end

    position, newest = first - 1, b""
    out.write(MAGIC)
    for records in portions(session, first, last):
        out.write(encode_block(position + 1, records, compress=compress))
        position, newest = position + len(records), records[-1]
        tell(position)
    out.write(encode_end(position, newest))
    return position


def portions(session: Session, first: int, last: int) -> Iterator[list[bytes]]:
    """The records `first` to `last`, as the gateway gives them."""
    while first <= last:
        limit = min(PORTION, last - first + 1)
        answer = session.client.get("/log/records", {"first": first, "limit": limit})
        records = [base64.b64decode(each) for each in answer["records"]]
        if not records:
            raise ClientError(
                f"the gateway has no record {first}", code="client.short_log", hint=f"give --last {first - 1}"
            )
        yield records
        first += len(records)


class written:  # noqa: N801 - used as a function
    """The file to write; what is not finished is not left behind under its name.

    It is written beside its place and then put there, and a link is followed to that place. What is no file but a
    device or a pipe is written to as it is.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._path = Path(os.path.realpath(name))
        self._scratch = Path(f"{self._path}.part")
        self._out: IO[bytes] | None = None
        self.is_stdout = name == "-"
        """Whether it goes where answers go, which then have no place there."""
        self.can_be_read = not self.is_stdout
        """Whether it is a file that has it all afterwards."""

    def __enter__(self) -> IO[bytes]:
        try:
            self._look()
            if self.is_stdout:
                return sys.stdout.buffer
            if not self.can_be_read:
                self._out = os.fdopen(os.open(self._name, os.O_WRONLY | os.O_NOCTTY), "wb")
                return self._out
            # Records name people and addresses, so the file is its owner's alone; one that lies there already may be
            # open to somebody, or lead elsewhere.
            self._scratch.unlink(missing_ok=True)
            self._out = os.fdopen(os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as error:
            raise self._unwritable(error) from error
        return self._out

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if self._out is None:
            sys.stdout.buffer.flush()
            return
        try:
            if kind is None:
                self._finish(self._out)
        except OSError as failed:
            raise self._unwritable(failed) from failed
        finally:
            with contextlib.suppress(OSError):  # which is told already, or comes after something worse
                self._out.close()
            if self.can_be_read:
                self._scratch.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._unwritable(error) from error

    def _look(self) -> None:
        """See what is there. Raises OSError, a usage error."""
        try:
            seen = Path(self._name).stat()
        except FileNotFoundError:
            return
        if stat.S_ISDIR(seen.st_mode):
            raise usage_error(f"{self._name} is a directory", f"name a file: {Path(self._name) / 'FILE'}")
        if sys.stdout is not None:
            with contextlib.suppress(OSError):  # it may be closed
                # /dev/stdout by whatever name: opened anew it would begin at its start, and replaced it would be gone.
                self.is_stdout |= os.path.samestat(seen, os.fstat(sys.stdout.fileno()))
        self.can_be_read = stat.S_ISREG(seen.st_mode) and not self.is_stdout

    def _finish(self, out: IO[bytes]) -> None:
        out.flush()
        if self.can_be_read:
            os.fsync(out.fileno())
            self._scratch.replace(self._path)
        elif stat.S_ISBLK(os.fstat(out.fileno()).st_mode):
            os.fsync(out.fileno())

    def _unwritable(self, error: OSError) -> click.UsageError:
        name = self._scratch if self.can_be_read else self._name
        return usage_error(f"{name} cannot be written: {error.strerror or error}", "give another FILE")


export = PvcCommand(
    "export",
    export_log,
    params=[
        click.Argument(["file"], shell_complete=complete.files),
        click.Option(["--first"], type=click.IntRange(min=1), default=1, show_default=True, metavar="POSITION"),
        click.Option(["--last"], type=click.IntRange(min=1), metavar="POSITION", help="Default: the newest record."),
        click.Option(["--plain"], is_flag=True, help="Do not compress: larger, and damage names a single record."),
    ],
    about={"file": "The file to write; - is standard output."},
    help="Write the log's records into a file, byte for byte.\n\nThe file can be verified and kept anywhere.",
    example="pvc log export audit.pvclog\npvc log verify --files audit.pvclog",
)

keys = PvcCommand(
    "keys",
    show_keys,
    reads=True,
    help="List the keys that sign the log's checkpoints, also the retired ones.",
    example="pvc log keys -o json | jq -r '.keys[].key' > pvc-keys",
)

checkpoint = PvcCommand(
    "checkpoint",
    show_checkpoint,
    help="Show the newest signed checkpoint, to be kept outside of the cluster.",
    example="pvc log checkpoint >> checkpoints",
)
