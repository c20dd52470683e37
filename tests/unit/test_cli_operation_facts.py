"""What `pvc operation info` tells of how far an operation has come."""

from __future__ import annotations

from typing import cast

import pytest

from pvc.cli.operation import facts
from pvc.client.api_types import OperationInfo


def info(subject: str, total: int) -> OperationInfo:
    told = {
        "id": "r10",
        "command": "some.command",
        "subjects": [{"subject": subject, "name": subject}],
        "actor": "root",
        "state": "running",
        "progress": {"done": 1, "total": total, "failed": 0, "text": "so it goes", "transfer": None},
        "problem": None,
        "cancellable": False,
        "position": 11,
        "started": "2025-01-31T12:00:00Z",
        "started_us": 1_738_324_800_000_000,
        "ended": None,
        "ended_us": None,
        "vms": [],
    }
    return cast("OperationInfo", told)


@pytest.mark.parametrize(
    ("subject", "total", "progress"),
    [("node/hv1", 3, "1 of 3 VMs"), ("cluster", 3, "1 of 3 nodes"), ("cluster", 1, ""), ("vm/web01", 1, "")],
)
def test_the_progress_names_what_is_counted(subject: str, total: int, progress: str) -> None:
    rows = dict(facts(info(subject, total), 1_738_324_801_000_000))
    assert rows.get("Progress", "") == progress
