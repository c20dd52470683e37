"""A ZooKeeper server's configuration and the reading of its answers, without any server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pvc.drivers.zookeeper_process import SystemdStarter
from pvc.drivers.zookeeper_server import Health, Member, Mode, ServerConfig, ZookeeperServer, parse_srvr
from pvc.errors import DriverError, InvalidInput

SRVR = """\
Zookeeper version: 3.8.0-11+deb12u2, built on 2024-06-16 10:40 UTC
Latency min/avg/max: 0/1.75/12
Received: 40
Sent: 39
Connections: 3
Outstanding: 0
Zxid: 0x200000007
Mode: follower
Node count: 9
"""


def members(*ids: int) -> tuple[Member, ...]:
    return tuple(Member(id=one, address=f"192.0.2.{one}") for one in ids)


def server(home: Path, *ids: int, own: int = 1, **changes: int) -> ZookeeperServer:
    return ZookeeperServer(ServerConfig(home=home, id=own, members=members(*ids), **changes))


def test_the_configuration_is_written_once_and_the_same_again(tmp_path: Path) -> None:
    assert server(tmp_path, 1, 2, 3).ensure_config()
    assert not server(tmp_path, 3, 2, 1).ensure_config()
    assert server(tmp_path, 1, 2, 3, heap_mib=512).ensure_config()
    assert "-Xmx512m" in (tmp_path / "java.options").read_text()


def test_the_configuration_names_all_servers_and_its_own_number(tmp_path: Path) -> None:
    server(tmp_path, 1, 2, 3, own=2).ensure_config()
    lines = (tmp_path / "zoo.cfg").read_text().splitlines()
    assert "server.3=192.0.2.3:2888:3888;192.0.2.3:2181" in lines
    assert "quorumListenOnAllIPs=false" in lines and "admin.enableServer=false" in lines
    assert (tmp_path / "data/myid").read_text() == "2\n"


def test_a_log_file_that_is_only_preallocated_is_not_long_enough_for_a_snapshot(tmp_path: Path) -> None:
    server(tmp_path, 1).ensure_config()
    lines = dict(line.split("=", 1) for line in (tmp_path / "zoo.cfg").read_text().splitlines() if "=" in line)
    # ZooKeeper draws the limit of each snapshot between half of it and all.
    assert int(lines["preAllocSize"]) * 2 < int(lines["snapSizeLimitInKb"])


def test_a_file_that_somebody_changed_is_put_right(tmp_path: Path) -> None:
    one = server(tmp_path, 1)
    one.ensure_config()
    (tmp_path / "data/myid").write_text("7\n")
    assert one.ensure_config()
    assert (tmp_path / "data/myid").read_text() == "1\n"


async def test_a_server_is_not_started_while_somebody_holds_it(tmp_path: Path) -> None:
    starts: list[str] = []

    class Absent:
        async def running(self) -> bool:
            return False

        async def start(self) -> None:
            starts.append("start")

        async def stop(self) -> None:
            starts.append("stop")

    config = ServerConfig(home=tmp_path, id=1, members=members(1))
    one = ZookeeperServer(config, starter=Absent())
    config.hold.touch()
    assert one.held
    assert not await one.ensure_running()
    await one.restart()
    assert starts == ["stop"]
    config.hold.unlink()
    assert not one.held
    assert await one.ensure_running()
    assert starts == ["stop", "start"]


def test_an_address_of_ipv6_is_put_in_brackets(tmp_path: Path) -> None:
    config = ServerConfig(home=tmp_path, id=1, members=(Member(id=1, address="2001:db8::1"),))
    ZookeeperServer(config).ensure_config()
    assert "server.1=[2001:db8::1]:2888:3888;[2001:db8::1]:2181" in (tmp_path / "zoo.cfg").read_text()


@pytest.mark.parametrize("ids", [(1, 2, 3), (2, 1, 4), (2,)])
def test_servers_come_and_go_one_at_a_time(tmp_path: Path, ids: tuple[int, ...]) -> None:
    server(tmp_path, 1).ensure_config()
    before = (tmp_path / "zoo.cfg").read_text()
    with pytest.raises(DriverError) as failure:
        server(tmp_path, *ids, own=ids[0]).ensure_config()
    assert failure.value.code == "zookeeper.members_jump"
    assert (tmp_path / "zoo.cfg").read_text() == before


def test_an_ensemble_grows_and_shrinks_step_by_step(tmp_path: Path) -> None:
    for ids in ((1,), (1, 2), (1, 2, 3), (1, 3), (1,)):
        assert server(tmp_path, *ids).ensure_config()


@pytest.mark.parametrize(("own", "ids"), [(4, (1, 2, 3)), (1, (1, 1)), (0, (0,)), (256, (256,))])
def test_a_server_that_is_not_among_the_servers_is_refused(tmp_path: Path, own: int, ids: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        server(tmp_path, *ids, own=own)


def test_a_directory_that_java_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        server(tmp_path / "a b", 1)


def test_a_servers_answer_is_understood() -> None:
    health = parse_srvr(SRVR)
    assert health == Health(mode=Mode.FOLLOWER, zxid=0x200000007, latency_avg_ms=1.75, connections=3, version="3.8.0")
    assert health.epoch == 2
    assert health.serves


@pytest.mark.parametrize(
    ("reply", "mode"),
    [
        ("This ZooKeeper instance is not currently serving requests\n", Mode.NO_QUORUM),
        ("", Mode.DOWN),
        ("HTTP/1.1 400 Bad Request\r\n", Mode.DOWN),
        (SRVR.replace("0x200000007", "x"), Mode.DOWN),
        (SRVR.replace("follower", "dancing"), Mode.DOWN),
        (SRVR[SRVR.index("Received") :], Mode.DOWN),
    ],
)
def test_an_answer_that_tells_of_no_service_is_no_service(reply: str, mode: Mode) -> None:
    health = parse_srvr(reply)
    assert health == Health(mode=mode)
    assert not health.serves


async def test_a_server_that_accepts_and_is_silent_is_down_after_two_seconds(tmp_path: Path) -> None:
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    config = ServerConfig(home=tmp_path, id=1, members=(Member(id=1, address="127.0.0.1", client_port=port),))
    began = asyncio.get_running_loop().time()
    assert (await ZookeeperServer(config).health()).mode is Mode.DOWN
    assert asyncio.get_running_loop().time() - began < 10
    silent.close()
    for writer in held:
        writer.close()


async def test_on_a_machine_with_systemd_the_unit_is_started_and_stopped(tmp_path: Path) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"""#!/bin/sh
        case $1 in
            show) cat {tmp_path}/state ;;
            start) [ "$2 $3" = "--no-block pvc-zookeeper.service" ] && echo active >{tmp_path}/state ;;
            stop) echo "Failed to stop" >&2; exit 1 ;;
        esac
        """
    )
    systemctl.chmod(0o755)
    (tmp_path / "state").write_text("inactive\n")
    starter = SystemdStarter(systemctl=str(systemctl))
    assert not await starter.running()
    await starter.start()
    assert await starter.running()
    with pytest.raises(DriverError, match="Failed to stop") as failure:
        await starter.stop()
    assert failure.value.code == "zookeeper.unit_failed"
