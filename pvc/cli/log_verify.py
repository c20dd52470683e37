"""`pvc log verify`: the whole log hashed anew, by the gateway on its own copy, or here on files and nothing else."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pvc.cli import exits
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.progress import ProgressLine
from pvc.cli.session import Session
from pvc.cli.table import Cell, render_facts
from pvc.cli.text import clean, paint
from pvc.client.errors import ConfigError

if TYPE_CHECKING:
    from pvc.proof.note import PublicKey, SignedCheckpoint
    from pvc.proof.verify import Verification

SHOWN = 20
"""Findings that are written out; -o json has all."""


def verify_log(
    session: Session,
    files: tuple[str, ...],
    checkpoints: tuple[str, ...],
    keys: tuple[str, ...],
    replica_only: bool,
) -> int:
    """Verify; the exit code says whether all is well."""
    if files:
        return _verify_files(session, files, checkpoints, keys)
    if checkpoints or keys:
        raise usage_error(
            "--checkpoint and --key are for --files: online, the gateway itself would be the judge",
            "pvc log export FILE, then pvc log verify --files FILE --checkpoint ... --key ...",
        )
    return _verify_online(session, replica_only)


def _verify_online(session: Session, replica_only: bool) -> int:
    began = time.monotonic()
    first, end, records, compared, checkpoints, newest = 1, 0, 0, 0, 0, 0
    findings: list[dict[str, Any]] = []
    with ProgressLine(sys.stderr, plain=False) as progress:
        while first <= end or not end:
            query = {"first": first, "log": "false" if replica_only else "true"}
            part = session.client.get("/log/verify", query)
            if part["last"] < part["first"]:
                break
            end = end or part["position"]  # what comes meanwhile is for the next time
            records = part["last"]
            compared += part["compared"]
            checkpoints += part["checkpoints"]
            newest = max(newest, part["newest_checkpoint"])
            findings += part["findings"]
            if progress.moving:
                progress.step(f"verified {records:,} of {end:,} records")
            first = part["last"] + 1
    answer = {
        "ok": not findings,
        "records": records,
        "compared_with_log": compared,
        "checkpoints": checkpoints,
        "newest_checkpoint": newest,
        "findings": findings,
        "seconds": round(time.monotonic() - began, 3),
    }
    if session.wants_data:
        session.show_data(answer)
        return _code(findings)
    _show_findings(session, findings, 0)
    facts: list[tuple[str, str | Cell]] = [
        _verdict(findings),
        ("Records", f"{records:,} of this gateway's replica"),
        ("Compared with the log", f"{compared:,}"),
        _vouched(checkpoints, newest, records),
        ("Took", f"{answer['seconds']:.1f} s"),
    ]
    session.show(render_facts(facts, session.look))
    return _code(findings)


def _verify_files(session: Session, files: tuple[str, ...], checkpoints: tuple[str, ...], keys: tuple[str, ...]) -> int:
    import msgspec

    from pvc.proof.files import verify_files
    from pvc.proof.findings import Unproven
    from pvc.proof.verify import Verifier

    began = time.monotonic()
    try:
        given = [signed for name in checkpoints for signed in read_checkpoints(name)]
        verifier = Verifier(keys=[key for word in keys for key in read_keys(word)], checkpoints=given)
        with ProgressLine(sys.stderr, plain=False) as progress:

            def on_progress(last: int) -> None:
                if progress.moving:
                    progress.step(f"verified {last:,} records")

            verify_files([Path(name) for name in files], verifier, progress=on_progress)
        found = verifier.verdict()
    except Unproven as error:
        raise ConfigError(error.message, code=error.code, hint=error.hint) from error
    except OSError as error:
        raise usage_error(f"{error.filename or files[0]} cannot be read: {error.strerror}", "name a file") from error
    took_s = time.monotonic() - began
    findings = msgspec.to_builtins(found.findings)
    if session.wants_data:
        session.show_data({"ok": found.ok, **msgspec.to_builtins(found), "seconds": round(took_s, 3)})
        return _code(findings)
    _show_findings(session, findings, found.more_findings)
    rate = f", {found.records / took_s:,.0f} a second" if took_s > 1 else ""
    facts: list[tuple[str, str | Cell]] = [
        _verdict(findings),
        ("Records", f"{found.first} to {found.last}" if found.records else "none"),
        ("Log", found.origin),
        ("Head", found.head_hash),
        ("Root", found.root or "none: records before or between are missing"),
        _vouched(found.checkpoints, found.newest_checkpoint, found.last),
        ("Not compared", f"{found.unchecked} checkpoints, for want of records" if found.unchecked else ""),
        ("Anchored checkpoints", _anchored(found, len(given))),
        ("Keys", _keys(found)),
        ("Took", f"{took_s:.1f} s{rate}"),
    ]
    session.show(render_facts(facts, session.look))
    return _code(findings)


def read_keys(word: str) -> list[PublicKey]:
    """A key as it stands, or a file with one on each line. Raises Unproven, OSError."""
    from pvc.proof.note import parse_key

    if "+" in word and not Path(word).exists():
        return [parse_key(word)]
    lines = Path(word).read_text().splitlines()
    return [parse_key(line) for line in lines if line.strip() and not line.startswith("#")]


def read_checkpoints(name: str) -> list[SignedCheckpoint]:
    """The checkpoints in a file, as an anchor gathers them. Raises Unproven, OSError."""
    from pvc.proof.verify import parse_checkpoints

    return parse_checkpoints(Path(name).read_text(errors="replace"))


def _verdict(findings: list[Any]) -> tuple[str, Cell]:
    if not findings:
        return "Verdict", Cell("whole: nothing was changed, removed or exchanged, as far as this can tell", "green")
    return "Verdict", Cell(
        f"NOT whole: {len(findings)} {'thing is' if len(findings) == 1 else 'things are'} wrong", "red"
    )


def _vouched(checkpoints: int, newest: int, last: int) -> tuple[str, str | Cell]:
    if not checkpoints:
        return "Checkpoints", Cell("none holds: nobody has vouched for these records", "yellow")
    rest = f"; nobody has vouched yet for the last {last - newest}" if last > newest else ""
    return "Checkpoints", f"{checkpoints:,} hold, the newest for the first {newest:,} records{rest}"


def _anchored(found: Verification, given: int) -> str | Cell:
    if not given:
        return Cell("none given: the log was measured against itself alone", "yellow")
    newest = f", the newest of size {max(found.anchored):,}" if found.anchored else ""
    return f"{len(found.anchored)} of {given} hold{newest}"


def _keys(found: Verification) -> str | Cell:
    if found.given_keys:
        return f"{found.given_keys} given"
    return Cell("as the log itself says; give those you have kept with --key", "yellow")


def _show_findings(session: Session, findings: list[dict[str, Any]], more: int) -> None:
    for finding in findings[:SHOWN]:
        where = f"{finding['position']}" + (f"-{finding['last']}" if finding["last"] > finding["position"] else "")
        kind = paint(f"{finding['kind']:10}", "red", session.look)
        session.show(f"{where:>12}  {kind}  {clean(finding['message'])}\n")
    left = len(findings) + more - SHOWN
    if left > 0:
        session.show(f"{'':12}  and {left:,} more: -o json lists them\n")
    if findings:
        session.show("\n")


def _code(findings: list[Any]) -> int:
    return exits.OUTCOME_FAILED if findings else exits.OK


verify = PvcCommand(
    "verify",
    verify_log,
    params=[
        click.Option(
            ["--files"], metavar="FILE", multiple=True, help="Verify this file here, without a daemon. Can be repeated."
        ),
        click.Option(
            ["--checkpoint", "checkpoints"],
            metavar="FILE",
            multiple=True,
            help="Checkpoints kept outside; with --files. Can be repeated.",
        ),
        click.Option(
            ["--key", "keys"],
            metavar="KEY|FILE",
            multiple=True,
            help="Public keys kept outside: only these count; with --files. Can be repeated.",
        ),
        click.Option(["--replica-only"], is_flag=True, help="Do not compare the gateway's copy with the log's own."),
    ],
    help="Verify the log: every hash of the chain and of the tree, every checkpoint and signature.\n\n"
    "Exit code 0: whole; 6: something is wrong, each thing named by position and kind.",
    short_help="Verify the log: every hash, checkpoint and signature.",
    example="pvc log verify\npvc log verify --files audit.pvclog --key pvc-keys --checkpoint checkpoints",
)
