"""The files of a lab's host: configurations of libvirt and pvcd, and what its init shall run. Pure text.

They are written once, by `up`; whoever changes one inside a host finds it changed after a reboot, as on a real host.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec

from pvc.lab.libvirt_host import QEMU_CONF
from pvc.lab.plan import BMC_USER, CLUSTER, HostPlan, LabPlan

DATA_DIR = "/var/lib/pvc"
"""pvcd's, as the host sees it."""
BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "pvc-etc": "/etc/pvc",
    "pvc-lib": DATA_DIR,
    "run": "/run",
}
"""Directory of the host -> where it appears inside. `/run` goes last, as it hides what lies beneath it. The first four
and the last are named as `LibvirtHost` names them, so that it can be used on a lab's host too."""
WATCHDOG = "/run/watchdog"
"""Where a host that fences itself has its watchdog."""
FENCE_PASSWORD_FILE = "/etc/pvc/fence-password"  # noqa: S105 - a path
_LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
keepalive_interval = 2
keepalive_count = 3
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
_PVC_TOML = """\
[node]
name = "{name}"
address = "{address}"
{watchdog}
[hypervisor]
accelerator = "tcg" # sure to work on any machine
migration_uri = "qemu+tcp://{{address}}/system" # in the lab nobody listens in

[log]
kind = "zookeeper"
cluster = "{cluster}"
segment_records = 256 # so that a lab sees what other clusters see after days
hot_segments = 2

[gateway]
listen = "{address}:7370"

[zookeeper]
id = {id}
members = [{members}]
heap_mib = 128
"""
_WATCHDOG = """\
watchdog = "{device}"
watchdog_timeout_s = 10
"""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that a host's init keeps running."""

    name: str
    argv: list[str]
    needs: list[str] = []
    """Sockets, by their paths, that are waited for before it is started."""


def units_of(*, bin_dir: Path) -> list[Unit]:
    """What a host runs, in the order of its start; `bin_dir` has PVC's programs. ZooKeeper is started by pvcd."""
    return [
        Unit(name="virtlogd", argv=["virtlogd"]),
        Unit(name="libvirtd", argv=["libvirtd", "--listen"], needs=["/run/libvirt/virtlogd-sock"]),
        Unit(
            name="pvcd",
            argv=[str(bin_dir / "pvcd"), "--config", "/etc/pvc/pvc.toml"],
            needs=["/run/libvirt/libvirt-sock"],
        ),
    ]


def write_host_files(home: Path, plan: LabPlan, host: HostPlan, *, bin_dir: Path, fence_password: str) -> None:
    """Make the host's directories and write its files into them."""
    for name in (*BINDS, "journal"):
        if not (home / name).is_symlink():  # the cache, which all hosts share
            (home / name).mkdir(parents=True, exist_ok=True)
    (home / "etc/libvirtd.conf").write_text(_LIBVIRTD_CONF.format(uuid=uuid.uuid4()))
    (home / "etc/qemu.conf").write_text(QEMU_CONF)
    (home / "pvc-etc/pvc.toml").write_text(pvc_toml(plan, host))
    password = home / "pvc-etc" / Path(FENCE_PASSWORD_FILE).name
    password.touch(mode=0o600)
    password.write_text(fence_password + "\n")
    (home / "units.json").write_bytes(msgspec.json.encode(units_of(bin_dir=bin_dir)))


def pvc_toml(plan: LabPlan, host: HostPlan) -> str:
    """pvcd's configuration."""
    members = ", ".join(f'"{one.number}={one.address}"' for one in plan.hosts if one.coordinator)
    own = host.number if host.coordinator else 0
    watchdog = _WATCHDOG.format(device=WATCHDOG) if host.self_fencing else ""
    return _PVC_TOML.format(
        name=host.name, address=host.address, cluster=CLUSTER, id=own, members=members, watchdog=watchdog
    )


def etc_hosts(plan: LabPlan) -> str:
    """The hosts' names, for all of them: libvirt calls the target of a migration by its name."""
    lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in plan.hosts)]
    lines += [f"{host.bmc_address} {host.name}-bmc" for host in plan.hosts if not host.self_fencing]
    return "\n".join([*lines, ""])


def fence_command(host: HostPlan, action: str) -> list[str]:
    """How another host fences this one. Cipher 3, as the simulator answers no question for others."""
    return [
        *("fence_ipmilan", "--lanplus", "--cipher=3", f"--ip={host.bmc_address}", f"--username={BMC_USER}"),
        *(f"--password-script=cat {FENCE_PASSWORD_FILE}", f"--action={action}"),
    ]
