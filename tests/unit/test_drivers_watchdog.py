"""The kernel's watchdog device and its whims, played by /dev/null and by what its ioctl answers."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvc.drivers.watchdog import LinuxWatchdog
from pvc.errors import DriverError

SETTIMEOUT, GETTIMEOUT = 0xC0045706, 0x80045707


class Device:
    """Counts in whole minutes, and is armed with one by an earlier life of the daemon."""

    def __init__(self) -> None:
        self.timeout_s = 60
        self.step_s = 60
        self.deaf = 0
        """What its ioctl fails with, if anything."""
        self.written: list[bytes] = []

    def ioctl(self, fd: int, request: int, argument: bytes = b"") -> bytes:
        if self.deaf:
            raise OSError(self.deaf, os.strerror(self.deaf))
        if request == SETTIMEOUT:
            (asked,) = struct.unpack("i", argument)
            self.timeout_s = -(-asked // self.step_s) * self.step_s
        else:
            assert request == GETTIMEOUT
        return struct.pack("i", self.timeout_s)

    def write(self, fd: int, data: bytes) -> int:
        self.written.append(data)
        return len(data)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(fcntl, "ioctl", device.ioctl)
    hands = SimpleNamespace(**{**vars(os), "write": device.write})
    monkeypatch.setattr("pvc.drivers.watchdog.os", hands)
    return device


def test_a_time_that_the_device_rounds_up_is_refused_and_the_old_one_stays_armed(device: Device) -> None:
    watchdog = LinuxWatchdog(Path("/dev/null"))
    with pytest.raises(DriverError) as refusal:
        watchdog.arm(70)
    assert "120 s where 70 s" in refusal.value.message
    assert device.timeout_s == 60
    assert b"V" not in device.written, "VMs may run here, and others may count on it"
    watchdog.pet()
    assert device.written == [b"\0"]
    watchdog.arm(60)
    assert device.timeout_s == 60


def test_a_device_that_takes_no_time_at_all_stays_armed_and_is_petted(device: Device) -> None:
    device.deaf = errno.EOPNOTSUPP
    watchdog = LinuxWatchdog(Path("/dev/null"))
    with pytest.raises(DriverError):
        watchdog.arm(60)
    watchdog.pet()
    assert device.written == [b"\0"]


def test_a_device_that_is_gone_is_opened_anew(device: Device) -> None:
    device.deaf = errno.ENODEV
    watchdog = LinuxWatchdog(Path("/dev/null"))
    with pytest.raises(DriverError):
        watchdog.arm(60)
    with pytest.raises(DriverError) as refusal:
        watchdog.pet()
    assert refusal.value.code == "watchdog.not_armed"
    device.deaf = 0
    watchdog.arm(60)
    watchdog.pet()
    assert device.written == [b"\0"]
