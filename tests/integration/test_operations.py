"""`pvc operation` as somebody types it, with a daemon behind that is killed and starts again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.cli_cluster import Cluster, cli, cluster
from tests.integration.cli_process import Cli
from tests.integration.fake_gateway import FakeGateway, Say

__all__ = ["cli", "cluster"]


def begun(cli: Cli, *words: str) -> str:
    """The operation that a command begins."""
    ran = cli(*words, "-o", "json")
    assert ran.code == 0, ran
    operation: str = json.loads(ran.out)["operation"]["id"]
    return operation


def told(cli: Cli, *words: str) -> Any:
    ran = cli("operation", *words, "-o", "json")
    assert ran.code == 0, ran
    return json.loads(ran.out)


def test_an_operation_is_waited_for_shown_and_listed(cli: Cli) -> None:
    cli("vm", "define", "web01", "--memory", "64")
    started = begun(cli, "vm", "start", "web01")
    waited = cli("operation", "wait", started)
    assert waited.code == 0 and "succeeded" in waited.out, waited
    shown = cli("operation", "info", started)
    assert "vm.start" in shown.out and "running on hv1" in shown.out and "web01" in shown.out, shown
    stopped = begun(cli, "vm", "stop", "web01", "--yes")
    assert told(cli, "wait", stopped)["state"] == "succeeded"
    listed = told(cli, "list", "--subject", "vm/web01")
    assert [one["id"] for one in listed] == [stopped, started]
    table = cli("operation", "list", "--command", "vm.start", "--state", "succeeded").out
    assert table.count("vm.start") == 1 and "web01" in table and "root" in table


def test_what_cannot_be_cancelled_says_so_and_what_is_none_is_not_found(cli: Cli) -> None:
    cli("vm", "define", "db01", "--memory", "64")
    started = begun(cli, "vm", "start", "db01")
    assert told(cli, "wait", started)["state"] == "succeeded"
    late = cli("operation", "cancel", started, "-v")
    assert late.code == 1 and "operation.ended" in late.err, late
    none = cli("operation", "info", "nonsense", "-v")
    assert none.code == 3 and "operation.not_found" in none.err, none


def test_operations_outlive_the_daemon_and_the_loss_of_their_file(cluster: Cluster, cli: Cli) -> None:
    before = told(cli, "list")
    assert before
    cluster.daemon.kill()
    cluster.daemon.start()
    assert told(cli, "list") == before
    cluster.daemon.stop()
    for suffix in ("", "-wal", "-shm"):
        (cluster.daemon.directory / "data" / f"operations.db{suffix}").unlink(missing_ok=True)
    cluster.daemon.start()
    assert told(cli, "list") == before


def test_a_gateway_that_does_not_wait_is_not_asked_as_fast_as_it_answers(tmp_path: Path) -> None:
    progress = {"done": 0, "total": 1, "failed": 0, "text": "starting", "transfer": None}
    goes_on = {"id": "o1", "command": "vm.start", "subjects": [], "state": "running", "position": 11}
    info = Say({**goes_on, "progress": progress, "problem": None, "vms": []})
    with FakeGateway(tmp_path, lambda _: info) as gateway:
        ran = Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)})("operation", "wait", "o1", "--timeout", "3")
    assert ran.code != 0 and "is not over within 3 s" in ran.err, ran
    assert len(gateway.asked) < 20
