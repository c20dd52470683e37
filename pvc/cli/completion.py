"""`pvc completion bash|zsh|fish`: prints the script that teaches a shell to complete `pvc`."""

from __future__ import annotations

from click.shell_completion import get_completion_class

from pvc.cli.base import PvcCommand
from pvc.cli.session import Session

_HOW = {
    "bash": 'pvc completion bash > /etc/bash_completion.d/pvc\neval "$(pvc completion bash)"',
    "zsh": 'eval "$(pvc completion zsh)"',
    "fish": "pvc completion fish > ~/.config/fish/completions/pvc.fish",
}


_ZSH_END = """
if [[ ${funcstack[1]} == _pvc ]]; then
    # Found in a directory of $fpath, where this file is the function.
    _pvc_completion "$@"
else
    # Read by eval or source.
    compdef _pvc_completion pvc
fi
"""
"""In place of Click's own end, which completes from a file in $fpath the first time, and then not the next time."""

SHELLS = tuple(_HOW)


def completion_script(shell: str) -> str:
    """What teaches a shell to complete `pvc`."""
    from pvc.cli.app import cli

    found = get_completion_class(shell)
    assert found is not None, "Click knows these three"
    complete = found(cli, {}, "pvc", "_PVC_COMPLETE")
    script = complete.source_template % complete.source_vars() + "\n"
    return script if shell != "zsh" else script[: script.rindex("\n}\n") + 3] + _ZSH_END


def _command(shell: str) -> PvcCommand:
    def run(session: Session) -> None:
        session.show(completion_script(shell))

    return PvcCommand(
        shell,
        run,
        data=False,
        help=f"Print the completion script for {shell}: commands, options, and the names of VMs, nodes and tags.",
        short_help=f"Print the completion script for {shell}.",
        example=_HOW[shell],
    )


bash = _command("bash")
zsh = _command("zsh")
fish = _command("fish")
