"""`pvc log prove`, `consistency` and `verify-proof`: a proof is a small file that the key alone verifies."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from pvc.cli import complete, exits
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.log_verify import read_keys
from pvc.cli.session import Session, now_us
from pvc.cli.table import Cell, render_facts
from pvc.cli.text import clean
from pvc.cli.times import when
from pvc.client.errors import ConfigError

MAX_PROOF_BYTES = 1024 * 1024


def prove_record(session: Session, position: int, size: int | None) -> None:
    """The proof, as JSON."""
    answer = session.client.get("/log/proof", {"position": position, "size": size or 0})
    _show_proof(session, answer)


def prove_consistency(session: Session, old: int, new: int | None) -> None:
    """The proof, as JSON."""
    answer = session.client.get("/log/consistency", {"old": old, "new": new or 0})
    _show_proof(session, answer)


def check_proof(session: Session, file: str, keys: tuple[str, ...]) -> int:
    """Verify a proof; the exit code says whether it is one."""
    from pvc.proof.findings import Unproven
    from pvc.proof.proofs import read_proof

    try:
        known = [key for word in keys for key in read_keys(word)]
        data = sys.stdin.buffer.read(MAX_PROOF_BYTES) if file == "-" else _read(file)
    except Unproven as error:
        raise ConfigError(error.message, code=error.code, hint=error.hint) from error
    except OSError as error:
        raise usage_error(f"{error.filename or file} cannot be read: {error.strerror}", "name a file") from error
    try:
        told = read_proof(data).check(known)
    except Unproven as error:
        if session.wants_data:
            session.show_data({"ok": False, "code": error.code, "message": error.message})
            return exits.OUTCOME_FAILED
        session.show(f"NOT proved: {clean(error.message)}\n")
        if error.hint:
            session.note(error.hint)
        return exits.OUTCOME_FAILED
    if session.wants_data:
        session.show_data({"ok": True, **told})
        return exits.OK
    session.show(render_facts(_facts(told), session.look))
    return exits.OK


def _who(principal: str) -> str:
    """A sealed name by its key, as only the cluster's gateways can read it."""
    return re.sub(r"person~([0-9a-f]{8})~.*", r"person-\1", principal)


def _facts(told: dict[str, Any]) -> list[tuple[str, str | Cell]]:
    facts: list[tuple[str, str | Cell]] = [("Verdict", Cell(f"proved: {told['statement']}", "green"))]
    record = told.get("record")
    if record is not None:
        facts += [
            ("Position", str(record["position"])),
            ("When", when(record["time_us"], now_us())),
            ("Who", f"{_who(record['actor']['principal'])} ({record['actor']['method']})"),
            ("Command", record["command"]["name"]),
            ("Events", ", ".join(f"{event['type']} {json.dumps(event['data'])}" for event in record["events"])),
        ]
    return [*facts, ("Log", told["origin"]), ("Signed with", told["key"])]


def _show_proof(session: Session, answer: dict[str, Any]) -> None:
    if session.output == "yaml":
        session.show_data(answer)
        return
    if not answer.get("checkpoint", answer.get("new_checkpoint")):
        session.note("Note: no checkpoint of that size was signed, so the proof can only be compared with your own.")
    session.show(json.dumps(answer, indent=2) + "\n")


def _read(file: str) -> bytes:
    with Path(file).open("rb") as opened:
        data = opened.read(MAX_PROOF_BYTES + 1)
    if len(data) > MAX_PROOF_BYTES:
        raise usage_error(f"{file} is too large for a proof", "name the file that `pvc log prove` made")
    return data


prove = PvcCommand(
    "prove",
    prove_record,
    params=[
        click.Argument(["position"], type=click.IntRange(min=1)),
        click.Option(
            ["--checkpoint", "size"],
            type=click.IntRange(min=1),
            metavar="SIZE",
            help="In the log of this size.  [default: the newest checkpoint]",
        ),
    ],
    about={"position": "Position of the record."},
    help="Prove that a record is in the log that was vouched for.\n\n"
    "The proof is JSON, some 2 kB however long the log, and has the record itself in it.",
    short_help="Prove that a record is in the log that was vouched for.",
    example="pvc log prove 4711 > proof.json\npvc log verify-proof proof.json --key pvc-keys",
)

consistency = PvcCommand(
    "consistency",
    prove_consistency,
    params=[
        click.Argument(["old"], type=click.IntRange(min=1)),
        click.Argument(["new"], type=click.IntRange(min=1), required=False),
    ],
    about={
        "old": "Size of the older log, as in a checkpoint of it.",
        "new": "Size of the newer one.  [default: the newest checkpoint]",
    },
    help="Prove that an older log is the beginning of a newer one: that nothing in it was changed since.",
    short_help="Prove that nothing was changed since an older checkpoint.",
    example="pvc log consistency 4711 > proof.json",
)

verify_proof = PvcCommand(
    "verify-proof",
    check_proof,
    params=[
        click.Argument(["file"], shell_complete=complete.files),
        click.Option(
            ["--key", "keys"],
            metavar="KEY|FILE",
            multiple=True,
            required=True,
            help="Public keys of the log, kept outside. Can be repeated.",
        ),
    ],
    about={"file": "The proof; - is standard input."},
    help="Verify a proof, without a daemon.\n\nExit code 0: proved; 6: it is no proof.",
    short_help="Verify a proof, without a daemon.",
    example="pvc log verify-proof proof.json --key pvc-keys",
)
