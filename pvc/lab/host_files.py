"""The files of a lab's host: configurations of libvirt, ZooKeeper and pvcd, and what its init shall run. Pure text.

They are written once, by `up`; whoever changes one inside a host finds it changed after a reboot, as on a real host.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec

from pvc.lab.plan import BMC_USER, CLUSTER, ZOOKEEPER_PORT, HostPlan, LabPlan

BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "pvc-etc": "/etc/pvc",
    "pvc-lib": "/var/lib/pvc",
    "run": "/run",
}
"""Directory of the host -> where it appears inside. `/run` goes last, as it hides what lies beneath it. The first four
and the last are named as `LibvirtHost` names them, so that it can be used on a lab's host too."""
FENCE_PASSWORD_FILE = "/etc/pvc/fence-password"  # noqa: S105 - a path
_ZOOKEEPER_DIR = "/var/lib/pvc/zookeeper"
_ZOOKEEPER_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_JARS = ("/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar")
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
_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
namespaces = []
cgroup_controllers = []
remember_owner = 0
keepalive_interval = 2
keepalive_count = 3
"""
_ZOO_CFG = """\
tickTime=1000
initLimit=5
syncLimit=5
dataDir={data}
clientPort={port}
admin.enableServer=false
4lw.commands.whitelist=*
maxClientCnxns=0
autopurge.purgeInterval=1
"""
"""Debian's ZooKeeper loses its way in some elections (ZOOKEEPER-4685) and begins anew only after `initLimit` ticks,
in which it serves nobody; 5 s are plenty for the few MB that a server has to learn."""
_PVC_TOML = """\
[node]
name = "{name}"
address = "{address}"

[hypervisor]
accelerator = "tcg" # sure to work on any machine
migration_uri = "qemu+tcp://{{address}}/system" # in the lab nobody listens in

[log]
kind = "zookeeper"
hosts = "{zookeeper}"
cluster = "{cluster}"
"""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that a host's init keeps running."""

    name: str
    argv: list[str]
    needs: list[str] = []
    """Waited for before it is started: paths of sockets, or HOST:PORT."""


def units_of(plan: LabPlan, host: HostPlan, *, bin_dir: Path) -> list[Unit]:
    """What the host runs, in the order of its start; `bin_dir` has PVC's programs."""
    java = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java += ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"]
    java += ["-cp", ":".join(_JARS)]
    zookeeper = Unit(name="zookeeper", argv=[*java, _ZOOKEEPER_MAIN, "/etc/pvc/zoo.cfg"])
    # A daemon that finds no ensemble ends and is started again, which costs more than to wait for one to listen.
    ensemble = f"{host.address if host.coordinator else plan.hosts[0].address}:{ZOOKEEPER_PORT}"
    return [
        *([zookeeper] if host.coordinator else []),
        Unit(name="virtlogd", argv=["virtlogd"]),
        Unit(name="libvirtd", argv=["libvirtd", "--listen"], needs=["/run/libvirt/virtlogd-sock"]),
        Unit(
            name="pvcd",
            argv=[str(bin_dir / "pvcd"), "--config", "/etc/pvc/pvc.toml"],
            needs=["/run/libvirt/libvirt-sock", ensemble],
        ),
    ]


def write_host_files(home: Path, plan: LabPlan, host: HostPlan, *, bin_dir: Path, fence_password: str) -> None:
    """Make the host's directories and write its files into them."""
    for name in (*BINDS, "journal"):
        if not (home / name).is_symlink():  # the cache, which all hosts share
            (home / name).mkdir(parents=True, exist_ok=True)
    (home / "etc/libvirtd.conf").write_text(_LIBVIRTD_CONF.format(uuid=uuid.uuid4()))
    (home / "etc/qemu.conf").write_text(_QEMU_CONF)
    (home / "pvc-etc/pvc.toml").write_text(pvc_toml(plan, host))
    if host.coordinator:
        (home / "pvc-etc/zoo.cfg").write_text(zoo_cfg(plan))
        (home / "pvc-lib/zookeeper").mkdir(mode=0o700, exist_ok=True)
        (home / "pvc-lib/zookeeper/myid").write_text(f"{host.number}\n")
    password = home / "pvc-etc" / Path(FENCE_PASSWORD_FILE).name
    password.touch(mode=0o600)
    password.write_text(fence_password + "\n")
    (home / "units.json").write_bytes(msgspec.json.encode(units_of(plan, host, bin_dir=bin_dir)))


def pvc_toml(plan: LabPlan, host: HostPlan) -> str:
    """pvcd's configuration."""
    return _PVC_TOML.format(name=host.name, address=host.address, zookeeper=plan.zookeeper_hosts, cluster=CLUSTER)


def zoo_cfg(plan: LabPlan) -> str:
    """ZooKeeper's configuration, the same on all coordinators."""
    members = [host for host in plan.hosts if host.coordinator]
    servers = [f"server.{host.number}={host.address}:2888:3888" for host in members] if len(members) > 1 else []
    return "\n".join([_ZOO_CFG.format(data=_ZOOKEEPER_DIR, port=ZOOKEEPER_PORT).rstrip(), *servers, ""])


def etc_hosts(plan: LabPlan) -> str:
    """The hosts' names, for all of them: libvirt calls the target of a migration by its name."""
    lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in plan.hosts)]
    lines += [f"{host.bmc_address} {host.name}-bmc" for host in plan.hosts]
    return "\n".join([*lines, ""])


def fence_command(host: HostPlan, action: str) -> list[str]:
    """How another host fences this one. Cipher 3, as the simulator answers no question for others."""
    return [
        *("fence_ipmilan", "--lanplus", "--cipher=3", f"--ip={host.bmc_address}", f"--username={BMC_USER}"),
        *(f"--password-script=cat {FENCE_PASSWORD_FILE}", f"--action={action}"),
    ]
