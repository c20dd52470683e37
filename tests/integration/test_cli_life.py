"""`pvc` as a process on a real daemon with the simulated hypervisor: what a person types, and what the screen shows."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.cli_cluster import Cluster, cli, cluster
from tests.integration.cli_process import Cli

__all__ = ["cli", "cluster"]


def masked(text: str) -> str:
    """The text with clock times and durations made the same."""
    text = re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", text)
    return re.sub(r"\+\d+(\.\d)? m?s", "+t", text)


def test_before_there_is_a_cluster_the_way_to_one_is_told(cluster: Cluster) -> None:
    assert cluster.before.code == 1
    assert "Hint: `pvc cluster init NAME`" in cluster.before.err


def test_init_shows_the_token_once_says_what_to_do_with_it_and_waits_for_the_node(cluster: Cluster) -> None:
    assert cluster.init.code == 0
    assert cluster.init.out.startswith("The cluster lab is initialised.\n")
    assert "shown only this once" in cluster.init.out
    assert "pvc connection add lab https://" in cluster.init.out
    assert cluster.init.out.splitlines()[-1].startswith("Node hv1 ready (")
    again = cluster.cli("cluster", "init", "lab")
    assert again.code == 1
    assert "initialised already" in again.err
    assert cluster.token not in cluster.cli("event", "list", "-o", "json").out


def test_a_life_from_definition_to_removal(cli: Cli) -> None:
    assert cli("vm", "define", "web01", "--memory", "128", "--vcpus", "1").out == (
        "Defined as web01: 128 MiB, 1 vCPU, on hv1\n"
    )
    assert masked(cli("vm", "start", "web01", "--wait").out) == "web01: running on hv1 (+t)\n"
    assert cli("vm", "tag", "add", "web01", "demo").out == "web01: tag demo added\n"
    assert masked(cli("vm", "shutdown", "web01", "--wait").out) == "web01: the guest powered off (+t)\n"
    assert cli("vm", "start", "web01").out == "web01: start requested on hv1\n"
    assert masked(cli("vm", "stop", "web01", "--yes", "--wait").out).endswith("off (+t)\n")
    refused = cli("vm", "stop", "web01", "--yes")
    assert (refused.code, refused.err) == (1, "Error: web01 is not running\nHint: there is nothing to stop\n")
    assert cli("vm", "list", "--name", "web01").out == (
        "VM     STATE    NODE   MEMORY  VCPUS  AUTOSTART  TAGS\nweb01  stopped  hv1   128 MiB      1  off        demo\n"
    )
    story = masked(cli("history", "vm", "web01").out)
    assert story == (
        "WHEN      WHO       FROM                     WHAT                                         RESULT\n"
        "hh:mm:ss  root      local socket, cli/0.1.0  defined as web01: 128 MiB, 1 vCPU, on hv1    ok\n"
        "hh:mm:ss  root      local socket, cli/0.1.0  start requested on hv1\n"
        "hh:mm:ss  node/hv1                           └─ running on hv1                            ok +t\n"
        "hh:mm:ss  root      local socket, cli/0.1.0  tag demo added                               ok\n"
        "hh:mm:ss  root      local socket, cli/0.1.0  shutdown requested, within 90 s, then force\n"
        "hh:mm:ss  node/hv1                           └─ the guest powered off                     ok +t\n"
        "hh:mm:ss  root      local socket, cli/0.1.0  start requested on hv1\n"
        "hh:mm:ss  node/hv1                           └─ running on hv1                            ok +t\n"
        "hh:mm:ss  root      local socket, cli/0.1.0  forced stop requested\n"
        "hh:mm:ss  node/hv1                           └─ forced off                                ok +t\n"
        "hh:mm:ss  root      local socket, cli/0.1.0  vm stop: web01 is not running                refused\n"
    )
    assert cli("vm", "rename", "web01", "web02").out == "Renamed from web01 to web02\n"
    assert cli("vm", "remove", "web02", "--yes").out == "web02 removed\n"
    assert cli("vm", "info", "web02").code == 3
    after = cli("history", "vm", "web01", "--limit", "2").out
    assert "renamed from web01 to web02" in after
    assert "web02 removed" in after


def test_an_unknown_vm_is_answered_with_one_that_is_near(cli: Cli) -> None:
    cli("vm", "define", "database", "--memory", "64")
    ran = cli("vm", "start", "datebase")
    assert (ran.code, ran.err) == (3, "Error: there is no VM 'datebase'\nHint: did you mean database?\n")
    assert cli("history", "vm", "datebase").code == 3


def test_a_dry_run_says_what_would_happen_and_changes_nothing(cli: Cli) -> None:
    cli("vm", "define", "dry", "--memory", "64")
    before = json.loads(cli("cluster", "status", "-o", "json").out)["position"]
    ran = cli("vm", "start", "dry", "--dry-run")
    assert (ran.code, ran.out) == (0, "dry: start requested on hv1\n")
    assert ran.err == "Note: this was a dry run; nothing was changed.\n"
    assert cli("vm", "remove", "dry", "--dry-run").code == 0
    assert json.loads(cli("cluster", "status", "-o", "json").out)["position"] == before


def test_what_is_so_already_is_said_and_is_no_failure(cli: Cli) -> None:
    cli("vm", "define", "same", "--memory", "64", "--autostart")
    ran = cli("vm", "autostart", "same", "on")
    assert (ran.code, ran.out) == (0, "Nothing to change about same: it is so already.\n")


def test_a_definition_from_options_shows_all_of_it(cli: Cli) -> None:
    ran = cli(
        "vm", "define", "full", "--memory", "1G", "--vcpus", "2", "--disk", "path=/srv/a.qcow2,format=qcow2",
        "--disk", "/srv/b.raw,read-only", "--nic", "br0", "--tag", "prod", "--tag", "web", "--description", "shop",
        "--on-poweroff", "restart", "--node-limit", "hv1",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    shown = cli("vm", "info", "full").out
    for line in (
        "Memory        1 GiB",
        "Disk          /srv/a.qcow2, format qcow2",
        "              /srv/b.raw, read-only",
        "NIC           br0",
        "Tags          prod, web",
        "When it ends  powers itself off: restart; crashes: restart",
        "Placement     selector mem, nodes hv1",
    ):
        assert f"{line}\n" in shown
    assert cli("vm", "modify", "full", "--no-disks", "--memory", "2G").code == 0
    spec = json.loads(cli("vm", "info", "full", "-o", "json").out)["spec"]
    assert spec["memory_mib"] == 2048
    assert not spec.get("disks")


def test_a_definition_from_xml_comes_from_a_file_or_standard_input(cli: Cli, tmp_path: Path) -> None:
    xml = "<domain type='kvm'><name>{}</name><memory unit='MiB'>64</memory></domain>"
    (tmp_path / "vm.xml").write_text(xml.format("fromfile"))
    assert cli("vm", "define", "--xml", str(tmp_path / "vm.xml")).out == "Defined as fromfile: 64 MiB, 1 vCPU, on hv1\n"
    assert cli("vm", "define", "--xml", "-", text=xml.format("frompipe")).code == 0
    bad = cli("vm", "define", "--xml", "-", text="<domain><name>")
    assert bad.code == 2
    assert "not well-formed at line 1" in bad.err
    both = cli("vm", "define", "--xml", str(tmp_path / "vm.xml"), "--disk", "/x")
    assert both.err.startswith("Error: --disk cannot be given together with --xml\n")
    assert both.code == 2


def test_a_change_that_waits_for_a_restart_says_so_everywhere(cli: Cli) -> None:
    cli("vm", "define", "grow", "--memory", "64")
    cli("vm", "start", "grow", "--wait")
    changed = cli("vm", "modify", "grow", "--memory", "128")
    assert "pvc vm restart grow" in changed.err
    listed = cli("vm", "list", "--name", "grow")
    assert "running*" in listed.out
    assert "pvc vm restart NAME" in listed.err
    assert "To apply" in cli("vm", "info", "grow").out
    assert cli("vm", "restart", "grow", "--wait").code == 0
    assert "running*" not in cli("vm", "list", "--name", "grow").out


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["vm", "define", "Big_One", "--memory", "64"], 2, "Big_One", "DNS label"),
        (["vm", "define", "x"], 2, "a new VM needs its memory size", "1024"),
        (["vm", "define", "x", "--memory", "900G", "--node", "hv1"], 2, "more than node hv1 has", "less memory"),
        (
            ["vm", "define", "x", "--memory", "64", "--disk", "relative"],
            2,
            '--disk path cannot be "relative"',
            "Absolute",
        ),
        (["vm", "define", "x", "--memory", "64", "--initrd", "/i"], 2, "--initrd needs a --kernel", "leave it out"),
        (["vm", "define", "x", "--memory", "64", "--node", "hv2"], 3, "there is no node 'hv2'", "did you mean hv1?"),
        (["node", "info", "hv9"], 3, "there is no node 'hv9'", "did you mean hv1?"),
    ],
)
def test_bad_values_are_answered_with_what_is_wrong_and_what_to_do(
    cli: Cli, words: list[str], code: int, message: str, hint: str
) -> None:
    ran = cli(*words)
    assert ran.code == code
    error, told = ran.err.splitlines()
    assert message in error
    assert hint in told


def test_answers_for_programs_are_whole_documents(cli: Cli) -> None:
    cli("vm", "define", "data", "--memory", "64", "--tag", "t1")
    rows = json.loads(cli("vm", "list", "--tag", "t1", "-o", "json").out)
    assert [row["name"] for row in rows] == ["data"]
    assert yaml.safe_load(cli("vm", "list", "--tag", "t1", "-o", "yaml").out) == rows
    told = json.loads(cli("vm", "start", "data", "--wait", "-o", "json").out)
    assert told["outcome"]["success"] is True
    assert told["outcome"]["record"]["events"][0]["type"] == "vm.started"
    records = json.loads(cli("history", "vm", "data", "-o", "json").out)
    assert [record["events"][0]["type"] for record in records] == ["vm.defined", "vm.start_requested", "vm.started"]
    lines = cli("event", "list", "--subject", "vm/data", "-o", "json").out.splitlines()
    assert [json.loads(line)["position"] for line in lines] == [record["position"] for record in records]


def test_the_history_can_be_narrowed(cli: Cli) -> None:
    cli("vm", "define", "narrow", "--memory", "64")
    cli("vm", "start", "narrow", "--wait")

    def types(*options: str) -> list[str]:
        records = json.loads(cli("history", "vm", "narrow", "-o", "json", *options).out)
        return [record["events"][0]["type"] for record in records]

    assert types("--actor", "root") == ["vm.defined", "vm.start_requested"]
    assert types("--type", "vm.started", "--type", "vm.defined") == ["vm.defined", "vm.started"]
    assert types("--limit", "1") == ["vm.started"]
    assert types("--since", "1h") == ["vm.defined", "vm.start_requested", "vm.started"]
    assert types("--until", "1h") == []
    nothing = cli("history", "vm", "narrow", "--until", "1h")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err == "Nothing is known of narrow with these filters.\n"


def test_the_story_of_everything_names_its_subjects(cli: Cli) -> None:
    cli("vm", "define", "named", "--memory", "64")
    cli("vm", "start", "named", "--wait")
    story = cli("history", "all", "--limit", "3").out
    assert "named: start requested on hv1" in story
    assert "└─ named: running on hv1" in story
    assert "cluster lab initialised" in cli("history", "cluster").out
    assert "node hv1 ready" in cli("history", "node", "hv1").out


def test_events_are_followed_as_they_come(cli: Cli) -> None:
    cli("vm", "define", "followed", "--memory", "64")
    screen = cli.on_terminal(
        "event", "follow", "--after", "0", "--subject", "vm/followed", typing=[("defined as", "\x03")]
    )
    assert screen.code == 130
    assert "followed" in screen.out


def test_names_are_completed_from_the_gateway_and_a_dead_one_is_silent(cli: Cli) -> None:
    cli("vm", "define", "tab-one", "--memory", "64", "--tag", "tabtag")
    cli("vm", "define", "tab-two", "--memory", "64")

    def complete(line: str, **env: str) -> list[str]:
        words = len(line.split()) - (0 if line.endswith(" ") else 1)
        asking = cli.with_env(COMP_WORDS=line, COMP_CWORD=str(words), _PVC_COMPLETE="bash_complete", **env)
        ran = asking()
        assert (ran.code, ran.err) == (0, "")
        return [word.removeprefix("plain,") for word in ran.out.split()]

    assert complete("pvc vm start tab-") == ["tab-one", "tab-two"]
    assert complete("pvc vm tag remove tab-one ") == ["tabtag"]
    assert complete("pvc node info ") == ["hv1"]
    assert complete("pvc vm define --sel") == ["--selector"]
    assert complete("pvc hist") == ["history"]
    began = time.monotonic()
    assert complete("pvc vm start tab-", PVC_SOCKET="/nowhere.sock") == []
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_every_shell_asks_pvc(cli: Cli, shell: str) -> None:
    ran = cli("completion", shell)
    assert ran.code == 0
    assert f"_PVC_COMPLETE={shell}_complete" in ran.out
