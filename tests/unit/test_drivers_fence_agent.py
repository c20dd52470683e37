"""How fence agents are run: by a script in an agent's place that notes all it is given."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from pvc.drivers.fence_agent import FenceAgents
from pvc.errors import DriverError
from pvc.events.fence import FenceSettings
from tests.support.waiting import wait_until

PASSWORD = 'pa$$ "word"'
AGENT = """\
#!/bin/sh
# $STATE holds the power; `behaviour` is what a test adds.
home={home}
cat >$home/input
tr '\\0' '\\n' </proc/$$/cmdline >>$home/argv
tr '\\0' '\\n' </proc/$$/environ >>$home/environ
action=$(sed -n 's/^action=//p' $home/input)
echo $action >>$home/actions
. $home/behaviour
case $action in
    status)
        if [ "$(cat $home/power)" = on ]; then echo "Status: ON"; exit 0; else echo "Status: OFF"; exit 2; fi ;;
    on | off) echo $action >$home/power; echo "Success: Powered $action" ;;
esac
"""


class Device:
    """A power switch that is a file."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.behave("")
        (home / "power").write_text("on")
        (home / "password").write_text(PASSWORD + "\n")
        (home / "password").chmod(0o600)
        agent = home / "fence_test"
        agent.write_text(AGENT.format(home=home))
        agent.chmod(0o755)
        self.fence = FenceAgents(search_path=f"{home}:/usr/bin:/bin", pause_s=0.01)

    @property
    def power(self) -> str:
        return self.read("power").strip()

    @property
    def actions(self) -> list[str]:
        return self.read("actions").split()

    def behave(self, script: str) -> None:
        (self.home / "behaviour").write_text(script)

    def read(self, name: str) -> str:
        return (self.home / name).read_text()

    def settings(self, *, agent: str = "fence_test", timeout_s: int = 20) -> FenceSettings:
        return FenceSettings(
            agent=agent,
            options={"ip": "192.0.2.7", "ipport": "623", "username": "pvc"},
            password_file=str(self.home / "password"),
            timeout_s=timeout_s,
        )


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


async def test_a_node_is_off_only_after_the_device_says_so(device: Device) -> None:
    evidence = await device.fence.off("hv1", device.settings())
    assert evidence == "fence_test at 192.0.2.7:623: status OFF"
    assert device.power == "off"
    assert device.actions == ["off", "status"]


async def test_options_and_password_go_to_the_agent_by_standard_input_alone(device: Device) -> None:
    await device.fence.off("hv1", device.settings())
    lines = device.read("input").splitlines()
    assert {"ip=192.0.2.7", "ipport=623", "username=pvc", "action=status", f"password={PASSWORD}"} == set(lines)
    assert "192.0.2.7" not in device.read("argv") + device.read("environ")
    assert "pa$$" not in device.read("argv") + device.read("environ")


async def test_a_password_that_an_agent_would_trim_is_quoted(device: Device) -> None:
    (device.home / "password").write_text('"quoted" \n')
    await device.fence.off("hv1", device.settings())
    assert 'password=""quoted" "' in device.read("input").splitlines()


async def test_the_agent_gets_none_of_the_daemons_environment(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVC_TEST_SECRET", "abc")
    await device.fence.is_on("hv1", device.settings())
    assert "PVC_TEST_SECRET" not in device.read("environ")


async def test_an_agent_that_succeeds_without_effect_is_not_believed(device: Device) -> None:
    device.behave('[ $action = status ] || { echo "Success: Powered OFF"; exit 0; }')
    with pytest.raises(DriverError, match="Status: ON") as failure:
        await device.fence.off("hv1", device.settings())
    assert failure.value.code == "fence.failed"


@pytest.mark.parametrize("words", ["", "usage: fence_test", "Status: UNKNOWN"])
async def test_the_exit_code_of_off_without_the_word_proves_nothing(device: Device, words: str) -> None:
    # fence agents end with 2 for "off" and for wrong options alike.
    device.behave(f'[ $action = status ] && {{ echo "{words}"; exit 2; }}')
    for call in (device.fence.off, device.fence.is_on):
        with pytest.raises(DriverError) as failure:
            await call("hv1", device.settings())
        assert failure.value.code == "fence.failed"


async def test_a_passing_failure_is_tried_once_more(device: Device) -> None:
    device.behave("[ -e $home/failed ] || { touch $home/failed; echo 'Connection lost' >&2; exit 4; }")
    await device.fence.off("hv1", device.settings())
    assert device.actions == ["off", "off", "status"]


async def test_a_lasting_failure_is_told_in_the_agents_words_after_two_attempts(device: Device) -> None:
    device.behave("echo 'Unable to connect/login to fencing device' >&2; exit 3")
    with pytest.raises(
        DriverError, match=r"192\.0\.2\.7:623 could not .* Unable to connect/login.*exit code 3"
    ) as failure:
        await device.fence.off("hv1", device.settings())
    assert failure.value.code == "fence.failed"
    assert device.actions == ["off", "off"]


async def test_a_failure_that_lasts_is_told_in_the_same_words_each_time(device: Device) -> None:
    # The agents' complaints begin with the time: `2026-05-01 10:15:07,123 ERROR: ...`.
    device.behave(
        "echo \"$(date '+%F %T,%N' | cut -c1-23) ERROR: Unable to connect at 192.0.2.7:22 (12:34)\" >&2; exit 1"
    )
    told = []
    for _ in range(2):
        with pytest.raises(DriverError) as failure:
            await device.fence.off("hv1", device.settings())
        told.append(failure.value.message)
    assert told[0] == told[1]
    assert told[0].endswith("node hv1: ERROR: Unable to connect at 192.0.2.7:22 (12:34) (exit code 1)")


async def test_the_agents_words_are_told_without_the_password(device: Device) -> None:
    device.behave("printf 'unknown option: ' >&2; grep password $home/input >&2; printf '\\033[2J' >&2; exit 1")
    with pytest.raises(DriverError, match=r"unknown option: password=\*\*\*") as failure:
        await device.fence.off("hv1", device.settings())
    assert "word" not in failure.value.message.replace("password=", "")
    assert failure.value.message.isprintable()


async def test_an_agent_that_hangs_is_ended_in_time_with_all_that_it_called(device: Device) -> None:
    device.behave("echo $$ >$home/pids; sleep 600 & echo $! >>$home/pids; wait")
    began = time.monotonic()
    with pytest.raises(DriverError, match="within 1 s") as failure:
        await device.fence.off("hv1", device.settings(timeout_s=1))
    assert failure.value.code == "fence.timeout"
    assert time.monotonic() - began < 10
    _wait_for_their_end(device)


async def test_an_agent_whose_caller_gives_up_is_ended_too(device: Device) -> None:
    device.behave("echo $$ >$home/pids; sleep 600 & echo $! >>$home/pids; touch $home/there; wait")
    fencing = asyncio.create_task(device.fence.off("hv1", device.settings()))
    async with asyncio.timeout(20):
        while not (device.home / "there").exists():
            await asyncio.sleep(0.01)
    fencing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fencing
    _wait_for_their_end(device)


async def test_a_missing_agent_is_named_with_its_package(device: Device) -> None:
    with pytest.raises(DriverError, match="no fence_nowhere") as failure:
        await device.fence.off("hv1", device.settings(agent="fence_nowhere"))
    assert failure.value.code == "fence.agent_missing"
    assert "fence-agents" in failure.value.hint


async def test_an_agent_that_cannot_be_run_is_a_failure_of_the_fence_like_any_other(device: Device) -> None:
    (device.home / "fence_test").write_bytes(b"\x7fELF, and not more of it")
    with pytest.raises(DriverError, match="fence_test cannot be run: Exec format error") as failure:
        await device.fence.off("hv1", device.settings())
    assert failure.value.code == "fence.failed"


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0, "No such file"),
        (b"", 0o600, "not one line"),
        (b"two\nlines\n", 0o600, "not one line"),
        (b"x" * 2000, 0o600, "not one line"),
        (b"\xff\xfe", 0o600, "UTF-8"),
        (b"secret", 0o644, "everybody"),
    ],
)
async def test_a_password_file_that_cannot_be_used_is_named_without_its_content(
    device: Device, content: bytes | None, mode: int, why: str
) -> None:
    path = device.home / "password"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(DriverError, match=why) as failure:
        await device.fence.off("hv1", device.settings())
    assert failure.value.code == "fence.password_unreadable"
    assert str(path) in failure.value.message
    assert "secret" not in failure.value.message
    assert device.power == "on"


async def test_an_agent_that_reads_nothing_fails_like_any_other(device: Device) -> None:
    (device.home / "fence_test").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(DriverError, match="it said nothing") as failure:
        await device.fence.off("hv1", device.settings())
    assert failure.value.code == "fence.failed"


def _wait_for_their_end(device: Device) -> None:
    for pid in map(int, device.read("pids").split()):
        wait_until(lambda pid=pid: not _alive(pid), f"process {pid} is still there")  # type: ignore[misc]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
