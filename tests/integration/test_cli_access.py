"""`pvc access` and `pvc audit` as somebody types them, with a daemon behind."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from tests.integration.cli_cluster import Cluster, cli, cluster
from tests.integration.cli_process import Cli

__all__ = ["cli", "cluster"]

TOKEN = re.compile(r"^pvc_([0-9a-z]+)_[0-9a-f]{64}$", re.M)


def as_(cluster: Cluster, home: Path, token: str) -> Cli:
    """Somebody elsewhere with this token."""
    return Cli(home, {"PVC_URL": cluster.url, "PVC_TOKEN": token})


def made(cli: Cli, *words: str) -> str:
    """The token that a command shows, on a line of its own on standard output."""
    ran = cli(*words)
    assert ran.code == 0, ran
    found = TOKEN.search(ran.out)
    assert found is not None, ran
    return found[0]


def test_a_person_is_added_acts_within_the_scope_and_goes(cluster: Cluster, cli: Cli, tmp_path: Path) -> None:
    cli("vm", "define", "shop01", "--memory", "64", "--tag", "shop")
    cli("vm", "define", "bank01", "--memory", "64")
    added = cli("access", "add", "anna", "--grant", "operator,tag=shop", "--grant", "viewer,name=shop-*")
    assert added.out == "Person anna added: operator on VMs with tag shop; viewer on VMs named shop-*\n", added
    anna = as_(cluster, tmp_path, made(cli, "access", "token", "create", "anna", "--lifetime", "90d"))
    assert [row["name"] for row in json.loads(anna("vm", "list", "-o", "json").out)] == ["shop01"]
    assert anna("vm", "start", "shop01", "--wait").code == 0
    refused = anna("vm", "start", "bank01", "-v")
    assert refused.code == 4 and "access.out_of_scope" in refused.err
    story = anna("history", "all")
    assert story.code == 0 and "shop01" in story.out and "bank01" not in story.out
    assert "operator (tag shop), viewer (name shop-*)" in anna("access", "info").out
    changed = cli("access", "modify", "anna", "--grant", "viewer")
    assert changed.out == "Access of anna changed: viewer\n"
    assert anna("vm", "stop", "shop01", "--yes").code == 4
    assert cli("access", "remove", "anna", "--yes").out == "anna removed, with all tokens\n"
    gone = anna("vm", "list", "-v")
    assert gone.code == 4 and "access.token_invalid" in gone.err


def test_a_service_rotates_its_own_token_and_sees_what_is_its_own(cluster: Cluster, cli: Cli, tmp_path: Path) -> None:
    cli("access", "add", "backup", "--grant", "viewer", "--kind", "service")
    first = made(cli, "access", "token", "create", "backup", "--description", "nightly")
    second = made(as_(cluster, tmp_path, first), "access", "token", "rotate", first.split("_")[1], "--overlap", "2h")
    backup = as_(cluster, tmp_path, second)
    tokens = json.loads(backup("access", "token", "list", "-o", "json").out)
    assert [(one["principal"], one["description"]) for one in tokens] == [("backup", "nightly")] * 2
    table = backup("access", "token", "list").out
    assert "in 1 h" in table and "in 364 d" in table
    assert backup("access", "token", "revoke", first.split("_")[1], "--yes").code == 0
    assert as_(cluster, tmp_path, first)("vm", "list").code == 4
    assert [one["name"] for one in json.loads(backup("access", "list", "-o", "json").out)] == ["backup"]
    others = json.loads(cli("access", "token", "list", "-o", "json").out)[0]["id"]
    refused = backup("access", "token", "revoke", others, "--yes", "-v")
    assert refused.code == 4 and "access.not_own" in refused.err


def test_the_audit_tells_who_came_who_was_refused_and_who_may(cluster: Cluster, cli: Cli, tmp_path: Path) -> None:
    cli("vm", "define", "audited", "--memory", "64")
    cli("access", "add", "olga", "--grant", "auditor")
    token = made(cli, "access", "token", "create", "olga")
    olga = as_(cluster, tmp_path, token)
    assert as_(cluster, tmp_path, token + "00")("vm", "list").code == 4
    assert olga("vm", "start", "audited").code == 4
    deadline = time.monotonic() + 20
    while "olga" not in (logins := olga("audit", "login").out) and time.monotonic() < deadline:
        pass  # her first use is recorded beside the request
    assert re.search(r"olga +127\.0\.0\.1 +\w+ +hv1 +ok", logins), logins
    assert re.search(r"\? +127\.0\.0\.0/24 +\w+ +hv1 +refused: access\.token_invalid", logins), logins
    assert "olga" not in olga("audit", "login", "--refused").out
    who = olga("audit", "who", "vm/audited").out
    touched, may = who.split("\n\n")
    assert re.search(r"olga +1 +.*vm\.start", touched) and re.search(r"root +1 +.*vm\.define", touched), who
    assert re.search(r"olga +auditor +1 +vm\.read", may), who
    refusals = cli("history", "all", "--type", "access.refused", "--actor", "olga")
    assert "vm start: olga (auditor) may not do this" in refusals.out and "refused" in refusals.out


def test_what_is_not_meant_is_said_near_the_word(cli: Cli) -> None:
    king = cli("access", "add", "x", "--grant", "king")
    assert king.code == 2 and "'viewer', 'operator', 'admin', 'auditor'" in king.err
    assert cli("access", "info", "nobody").code == 3
    assert cli("access", "add", "y").code == 2
    dry = cli("access", "add", "zoe", "--grant", "viewer", "--dry-run")
    assert "zoe added" in dry.out and cli("access", "info", "zoe").code == 3
    assert json.loads(cli("access", "info", "-o", "json").out)["principal"] == "root"
