"""What the machine and its guests use, in a handful of calls to libvirt whatever the number of guests. Blocking."""

from __future__ import annotations

import os
from typing import Any

import libvirt

from pvc.drivers.hypervisor import GuestUsage, MachineUsage
from pvc.drivers.libvirt_domain import mark_of

_STATS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
_WHICH = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    # A domain that another call holds tells what is known without QEMU, instead of keeping all others waiting.
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)


class UsageReader:
    """Remembers the last reading, because a load is a difference, and which domains are PVC's, to ask that once."""

    def __init__(self) -> None:
        self._busy_and_all = (0, 0)
        self._ours: dict[str, bool] = {}

    def read(self, connection: Any) -> MachineUsage:
        """One reading."""
        memory = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        free_kib = sum(memory.get(key, 0) for key in ("free", "buffers", "cached"))
        stats = connection.getAllDomainStats(_STATS, _WHICH)
        ours = {domain.UUIDString(): domain for domain, _ in stats}
        self._ours = {vm: self._ours[vm] if vm in self._ours else mark_of(ours[vm]) is not None for vm in ours}
        return MachineUsage(
            cpu_per_cent=self._cpu_per_cent(connection.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS)),
            memory_used_mib=(memory["total"] - free_kib) // 1024,
            memory_free_mib=free_kib // 1024,
            load1=os.getloadavg()[0],
            guests=tuple(
                GuestUsage(
                    vm=domain.UUIDString(),
                    cpu_seconds=figures.get("cpu.time", 0) / 1e9,
                    memory_used_mib=(figures.get("balloon.rss") or figures.get("balloon.current", 0)) // 1024,
                    disk_read_bytes=_sum(figures, "block", "rd.bytes"),
                    disk_written_bytes=_sum(figures, "block", "wr.bytes"),
                    received_bytes=_sum(figures, "net", "rx.bytes"),
                    sent_bytes=_sum(figures, "net", "tx.bytes"),
                )
                for domain, figures in stats
                if self._ours[domain.UUIDString()]
            ),
        )

    def _cpu_per_cent(self, stats: dict[str, int]) -> float:
        everything = sum(stats.values())
        busy = everything - stats.get("idle", 0) - stats.get("iowait", 0)
        before_busy, before = self._busy_and_all
        self._busy_and_all = busy, everything
        if everything <= before:
            return 0.0
        return min(100.0, max(0.0, 100.0 * (busy - before_busy) / (everything - before)))


def _sum(figures: dict[str, int], kind: str, what: str) -> int:
    """Of all disks or network cards; one that a busy domain does not tell of counts for nothing."""
    return sum(figures.get(f"{kind}.{index}.{what}", 0) for index in range(figures.get(f"{kind}.count", 0)))
