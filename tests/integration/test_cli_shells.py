"""The completions that a package installs, in the shells themselves: a person presses Tab."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.cli.manual import main
from tests.integration.cli_cluster import Cluster, cli, cluster
from tests.integration.cli_process import PVC
from tests.integration.terminal_screen import Terminal

__all__ = ["cli", "cluster"]

SHELLS = {
    "bash": (("/bin/bash", "--norc", "--noprofile", "-i"), "source {usr}/share/bash-completion/completions/pvc"),
    "zsh": (
        ("/usr/bin/zsh", "-f"),
        "fpath=({usr}/share/zsh/vendor-completions $fpath); autoload -U compinit; compinit -u -d {usr}/dump",
    ),
    "fish": (
        ("/usr/bin/fish", "--no-config"),
        "set fish_complete_path {usr}/share/fish/vendor_completions.d $fish_complete_path",
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_commands_and_names_from_the_cluster(cluster: Cluster, shell: str, tmp_path: Path) -> None:
    cluster.cli("vm", "define", "unmistakable", "--memory", "64")
    main([str(tmp_path)])
    program = tmp_path / "bin" / "pvc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(PVC)} "$@"\n')
    program.chmod(0o755)
    words, setup = SHELLS[shell]
    env = {**cluster.cli.env, "PATH": f"{program.parent}:{cluster.cli.env['PATH']}", "HOME": str(tmp_path)}
    with Terminal(env, program=words, columns=100) as terminal:
        # Told to say a word that is not in what is typed, so that it is the shell's answer and not the echo.
        terminal.type(f"{setup.format(usr=tmp_path)}; echo rea''dy\n")
        terminal.wait_for("ready")
        terminal.type("pvc vm inf\t")
        terminal.wait_for("pvc vm info")
        terminal.type("unmist")
        terminal.wait_for("pvc vm info unmist")
        terminal.type("\t")
        terminal.wait_for("pvc vm info unmistakable")
