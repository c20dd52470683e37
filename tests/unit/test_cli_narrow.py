"""On a terminal of 80 columns: instants, ids and results stay whole, and what is cut is told in full elsewhere."""

from __future__ import annotations

import time
from typing import Any

import click
import pytest

from pvc.cli import access, audit, fault, operation, webhook
from pvc.cli.app import cli
from pvc.cli.base import CONTEXT
from pvc.cli.cluster import status_facts
from pvc.cli.table import Laid, lay_out, render_facts
from pvc.cli.text import Look

NARROW = Look(width=80)
REMEDY = (
    "mend the receiver, or give it another owner, then `pvc webhook resume billing`: nothing is lost; or "
    "`pvc webhook remove billing`"
)


class Screen:
    """A session with one answer, whatever is asked, and what it was told to show."""

    def __init__(self, answer: Any) -> None:
        self.client = self
        self.answer = answer
        self.wants_data = False
        self.look = NARROW
        self.laid: list[Laid] = []
        self.told: list[str] = []

    def get(self, *_: Any) -> Any:
        return self.answer

    def faults(self, **_: Any) -> Any:
        return self.answer

    moment = None

    def show_table(self, columns: Any, rows: Any) -> None:
        self.laid.append(lay_out(columns, rows, NARROW))

    def show(self, text: str) -> None:
        self.told.append(text)

    note = say = show

    @property
    def lines(self) -> list[str]:
        lines = [line for laid in self.laid for line in laid.text.splitlines()]
        assert lines and max(map(len, lines)) <= NARROW.width
        return lines


def ago_us(seconds: float) -> int:
    return round((time.time() - seconds) * 1e6)


def refusal(**more: Any) -> dict[str, Any]:
    data = {
        "code": "access.token_expired",
        "network": "192.0.2.0/24",
        "token": "d1d05b68ce81",
        "node": "hv1",
        "unrecorded": 0,
    }
    return {
        "time_us": ago_us(3 * 86_400),
        "actor": {"principal": "node/hv1"},
        "events": [{"type": "access.login_refused", "data": {**data, **more}}],
    }


@pytest.mark.parametrize("more", [{}, {"unrecorded": 17, "network": "2001:db8:0:7::/48"}])
def test_a_login_tells_when_it_was_and_what_came_of_it_before_it_tells_of_the_token(more: dict[str, Any]) -> None:
    screen = Screen({"records": [refusal(**more)], "next_before": None})
    audit.show_logins(screen, None, False, None, 50)  # type: ignore[arg-type]
    line = screen.lines[1]
    assert "refused: access.token_expired" in line and "d1d05b" not in line
    assert len(line.split()[1].split(":")) == 3, "the time, whole, behind the date"
    assert "TOKEN" in screen.laid[0].left_out


def test_last_uses_and_deliveries_are_told_whole() -> None:
    hook = {
        "name": "billing-of-the-shop",
        "state": "delivering",
        "lag": 0,
        "lag_s": 0.0,
        "delivered": 41_041,
        "last_us": ago_us(185),
        "parked": 0,
        "url": "https://hooks.example.com/a/rather/long/path",
    }
    screen = Screen({"items": [hook]})
    webhook.show_webhooks(screen, None)  # type: ignore[arg-type]
    assert "3 min ago" in screen.lines[1]
    token = {
        "id": "d1d05b68ce81",
        "principal": "anna",
        "role": "operator",
        "created_us": ago_us(40 * 86_400),
        "expires_us": ago_us(-50 * 86_400),
        "expired": False,
        "used_us": ago_us(7_300),
        "description": "the laptop at the window",
    }
    screen = Screen({})
    access.show_token_table(screen, [token])  # type: ignore[arg-type]
    assert all(word in screen.lines[1] for word in ("d1d05b68ce81", "40 d ago", "in 49 d", "2 h ago"))


def test_a_fault_is_named_whole_and_its_remedy_has_the_lines_to_itself() -> None:
    message = "the webhook billing is sent nothing any more: it answered 500 for five days"
    disabled = {
        "id": "webhook.disabled/ef2388be-0fe3-5c9f-9e51-6a35dfc0c4f2",
        "since_us": ago_us(200),
        "acknowledged_by": "",
        "message": message,
        "hint": REMEDY,
    }
    screen = Screen([disabled])
    fault.show_faults(screen, False, None)  # type: ignore[arg-type]
    assert disabled["id"] in screen.lines[1], "it is what `pvc fault ack` takes"
    lines = screen.told[-1].splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 6
    assert f"- {message} {REMEDY}" in " ".join(screen.told[-1].split())


def test_a_remedy_that_goes_on_stays_set_in_below_its_reason() -> None:
    reason = "the webhook billing is sent nothing any more: it answered 500"
    info: Any = {
        "health": "degraded",
        "reasons": [reason],
        "hints": {reason: REMEDY},
        "name": "main",
        "id": "a178fc5e",
        "maintenance": False,
        "maintenance_reason": "",
        "primary": "",
        "primary_epoch": 0,
        "nodes": 1,
        "nodes_ready": 1,
        "coordinators": 1,
        "coordinators_ready": 1,
        "zookeeper": {},
        "vms": 0,
        "vms_by_state": {},
        "faults": 1,
        "faults_acknowledged": 0,
        "level": 1,
        "position": 1,
        "state_hash": "94958fa9",
    }
    lines = render_facts(status_facts(info), NARROW).splitlines()
    at = next(i for i, line in enumerate(lines) if "- the webhook" in line)
    dash = lines[at].index("-")
    end = next(i for i, line in enumerate(lines) if line.startswith("Cluster"))
    remedy = lines[at + 1 : end]
    assert len(remedy) >= 2 and all(line.startswith(" " * (dash + 2)) for line in remedy)


def test_the_first_help_fits_and_has_each_groups_text_whole() -> None:
    text = cli.get_help(click.Context(cli, info_name="pvc", terminal_width=80, **CONTEXT))
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.split("Commands:")[1] and "Exit codes: 0 done" in text


def test_a_token_that_an_operation_made_is_told_where_there_is_nothing_else() -> None:
    token = {"subject": "access/d1d05b68ce81", "name": "token d1d05b68ce81"}
    of_both: Any = {"subjects": [{"subject": "cluster", "name": "main"}, token]}
    assert operation.about(of_both) == "main"
    alone: Any = {"subjects": [token]}
    assert operation.about(alone) == "token d1d05b68ce81"
