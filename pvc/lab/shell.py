"""Runs the machine's own tools for the lab, and says what is missing before anything is begun."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from pvc.errors import DriverError

TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon",
    "qemu-system-x86_64": "qemu-system-x86",
    "java": "openjdk-17-jre-headless",
    "ipmi_sim": "openipmi",
    "ipmitool": "ipmitool",
    "fence_ipmilan": "fence-agents",
}
"""Each with Debian's package."""
ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")
COMMAND_TIMEOUT_S = 30.0
"""They take milliseconds; on a machine that is overloaded, seconds."""
_SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check_machine() -> None:
    """Raises DriverError: not root, or what is missing, with its package."""
    check_root()
    missing = {tool: package for tool, package in TOOLS.items() if shutil.which(tool, path=_SBIN) is None}
    if not ZOOKEEPER_JAR.exists():
        missing["ZooKeeper"] = "libzookeeper-java"
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise DriverError(
            f"there is no {' and no '.join(missing)} on this machine",
            code="lab.no_tool",
            hint=f"./dev lab installs what it needs, or: apt-get install {packages}",
        )


def check_root() -> None:
    """Raises DriverError for anybody but root."""
    if os.geteuid() != 0:
        raise DriverError("a lab needs root, for its namespaces", code="lab.not_root", hint="run it with sudo")


def run(*command: str, stdin: str = "", check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """What the command writes; with `check`, raises DriverError with its last words when it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and names that the plan has made
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=clean_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise DriverError(
            f"{' '.join(command)} took longer than {timeout_s:g} s", code="lab.command_timeout"
        ) from error
    except OSError as error:
        raise DriverError(f"{command[0]}: {error.strerror}", code="lab.command_failed") from error
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DriverError(f"{' '.join(command)}: {said[-1] if said else 'failed'}", code="lab.command_failed")
    return done.stdout


def start_to_stay(command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
    """Start what outlives us; all that it says is appended to `log`. `env` None is our own environment."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own programs, fixed words and the lab's paths
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/", env=env
        )
    # Reaps it when it ends while we still run, so that it leaves no zombie.
    threading.Thread(target=process.wait, daemon=True).start()


def clean_environment(extra: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """An environment that owes nothing to the person's, as a host at boot has none of it."""
    return {"PATH": _SBIN, "HOME": "/root", "LANG": "C.UTF-8", **dict(extra)}
