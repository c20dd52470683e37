"""What `pvc` says to do when something is not as one wants it: it must help, in the place where it is said."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from pvc.client.connections import Connection, Stored, save_connections
from tests.integration.cli_process import PVC, Cli
from tests.integration.fake_gateway import Asked, FakeGateway, Say, events, operation, problem, reply


def cli_on(gateway: FakeGateway, tmp_path: Path) -> Cli:
    return Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)})


@pytest.mark.parametrize(
    ("subject", "hint"),
    [
        ("webhook/id1", "Hint: `pvc webhook deliveries bad` shows how it came about"),
        ("vm/id1", "Hint: `pvc history vm bad` shows how it came about"),
        ("node/hv1", "Hint: `pvc history node bad` shows how it came about"),
        ("cluster", ""),
    ],
)
def test_how_a_failure_came_about_is_shown_where_it_can_be_seen(tmp_path: Path, subject: str, hint: str) -> None:
    begun = {"type": "webhook.added", "subject": subject, "summary": "added", "data": {}}

    def answer(asked: Asked) -> Say:
        if asked.method != "GET":
            return reply("webhook.add", outcomes={"webhook.disabled": False}, events=[begun])
        failed = operation("failed", text="disabled: it answered 500", code="webhook.disabled")
        return failed if asked.path.startswith("/operations") else events()

    with FakeGateway(tmp_path, answer) as gateway:
        ran = cli_on(gateway, tmp_path)("webhook", "add", "bad", "https://x.example.com/", "--wait")
    assert ran.code == 6 and "Error: bad: disabled: it answered 500\n" in ran.err
    assert ran.err.partition("answered 500\n")[2].strip() == hint


def test_a_connection_that_something_goes_before_is_not_said_to_be_used(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda _: problem(500, "must not be asked")) as gateway:
        cli, url = cli_on(gateway, tmp_path), f"unix://{gateway.socket}"
        added = cli("connection", "add", "boss", url, "--no-check", "--use")
        used, freely = cli("connection", "use", "boss"), cli.with_env(PVC_SOCKET="")("connection", "use", "boss")
        same = cli.with_env(PVC_SOCKET="", PVC_CONNECTION="boss")("connection", "use", "boss")
        other = cli.with_env(PVC_CONNECTION="boss")("connection", "use", "local")
    but = "PVC_SOCKET is set here and goes before it: unset PVC_SOCKET, or pvc -c boss ...\n"
    assert (
        added.err == but and used.err == but and used.out == "From now on boss is used, where PVC_SOCKET is not set.\n"
    )
    assert (freely.out, freely.err) == (same.out, same.err) == ("From now on boss is used.\n", "")
    assert other.err.startswith("PVC_CONNECTION is set here")


def test_what_goes_wrong_while_watching_has_its_code_too(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda _: problem(409, "it is so", code="test.so", hint="look")) as gateway:
        url, env = f"unix://{gateway.socket}", {"PVC_CONFIG_DIR": str(tmp_path / "config")}
        save_connections(Stored({"main": Connection("main", url)}, "main"), env)
        words = [*PVC, "-c", "all", "vm", "list", "-w", "-o", "json"]
        with subprocess.Popen(words, env=Cli(tmp_path, {}).env, stderr=subprocess.PIPE) as watching:
            assert watching.stderr is not None
            told = json.loads(watching.stderr.readline())
            watching.kill()
    assert told == {"error": {"code": "test.so", "message": "main: it is so", "hint": "look"}}


def test_what_is_told_of_the_log_ends_with_its_line(tmp_path: Path) -> None:
    status = {"kind": "sqlite", "position": 9, "replica_position": 9, "replica_bytes": 4096, "removed_position": 0}
    empty = {name: [] for name in ("segments", "archives", "nodes", "fetched", "damage", "mended")}
    told = Say({**status, **empty, "waits_for": "", "held_by": ""})
    with FakeGateway(tmp_path, lambda _: told) as gateway:
        ran = cli_on(gateway, tmp_path)("log", "status")
    assert ran.code == 0 and ran.out.endswith("9 records, 4 KiB\n")


def test_the_next_try_of_a_webhook_is_not_told_as_if_it_had_been(tmp_path: Path) -> None:
    hook = {
        **dict.fromkeys(("name", "url", "state", "reason", "trouble", "sees", "deliverer"), "billing"),
        **dict.fromkeys(("tries", "position", "lag", "lag_s", "delivered", "last_us", "parked"), 0),
        "settings": {},
        "replays": [],
        "secrets": [],
        "verified": True,
    }
    later = time.time_ns() // 1000 + 3_600_000_000
    with FakeGateway(tmp_path, lambda _: Say({**hook, "next_us": later})) as gateway:
        ran = cli_on(gateway, tmp_path)("webhook", "info", "billing")
    assert re.search(r"Next try +\S*( \S+)? \(in (1 h|\d+ min)( \d+ \S+)?\)\n", ran.out), ran
