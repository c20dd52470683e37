"""A gateway whose every word holds commands for the terminal: none of them reaches it, whatever is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_cluster import Cluster, cli, cluster
from tests.integration.cli_process import Cli
from tests.integration.fake_gateway import Asked, Drop, FakeGateway, Say

__all__ = ["cli", "cluster"]

POISON = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202e\u200b\x7f"

UNTOUCHED = frozenset({"id", "type", "subject", "time", "expires", "method", "health", "key", "note", "checkpoint"})
"""Words that decide what is done, so that it is still the same that is shown."""

COMMANDS = [
    "cluster status",
    "node list",
    "node info hv1",
    "vm list",
    "vm info poisoned",
    "vm tag list",
    "vm tag list poisoned",
    "fault list",
    "history vm poisoned",
    "history all",
    "event list",
    "access list",
    "access info admin",
    "access token list",
    "audit who vm/poisoned",
    "audit login",
    "audit people",
    "webhook list",
    "log status",
    "log keys",
    "diff 1 now",
    "doctor",
]


def poisoned(value: Any, key: str = "") -> Any:
    """The same, with poison behind each text."""
    if isinstance(value, dict):
        return {name: poisoned(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one, key) for one in value]
    return value + POISON if isinstance(value, str) and key not in UNTOUCHED else value


@pytest.fixture(scope="module")
def poisoner(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """`pvc` at a gateway that stands before the real one."""
    cluster.cli("vm", "define", "poisoned", "--memory", "64", "--tag", "shop", "--description", "a text")
    cluster.cli("vm", "start", "poisoned", "--wait")
    cluster.cli("access", "add", "anna", "--grant", "operator,tag=shop")
    real = cluster.daemon.client()

    def answer(asked: Asked) -> Say | Drop:
        return Say(poisoned(real.get(asked.path, asked.query)))

    directory = tmp_path_factory.mktemp("poison")
    with FakeGateway(directory, answer) as gateway:
        yield Cli(directory, {"PVC_SOCKET": str(gateway.socket)})


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_to_the_terminal_comes_through(poisoner: Cli, command: str, output: str) -> None:
    ran = poisoner.with_env(CLICOLOR_FORCE="1")(*command.split(), "-o", output)
    assert "pvc itself has failed" not in ran.err, ran.err
    told = re.sub(r"\x1b\[[0-9]*m", "", ran.out + ran.err)  # our own colours
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u200b]", told) == []
    assert "owned" in told or command in ("fault list", "webhook list", "audit login", "log status"), told


def test_a_refusal_is_made_harmless_too(tmp_path: Path) -> None:
    problem = {"type": "about:blank", "status": 409, "code": "a.b", "detail": POISON, "hint": POISON, "position": 1}
    answer = Say({**problem, "field": POISON}, 409, "application/problem+json")
    with FakeGateway(tmp_path, lambda asked: answer) as gateway:
        pvc = Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)})
        for output in ("table", "json"):
            ran = pvc("vm", "list", "-v", "-o", output)
            assert ran.code == 1
            assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u200b]", ran.out + ran.err) == []
