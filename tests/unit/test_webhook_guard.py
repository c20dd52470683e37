"""Where a webhook may connect to: a table of addresses, in all their disguises."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pvc.commands.webhook_settings import parse_allowed
from pvc.webhooks.guard import Guard, Own, Refused, is_local, resolve_by_system, special

NAME = "hooks.example.com"

SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2606:4700::5efe:a00:1",
    "2606:4700::200:5efe:a00:1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "4000::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "::ffff:8.8.8.8", "2606:4700::1111"]


def a_guard(*addresses: str, own: Sequence[Own] = (), local: Sequence[str] = ()) -> Guard:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses if host == NAME else [host]

    return Guard(lambda: own, resolve=resolve, is_local=lambda address: str(address) in local)


@pytest.mark.parametrize("address", SPECIAL)
async def test_no_special_address_is_connected_to(address: str) -> None:
    with pytest.raises(Refused):
        await a_guard(address).addresses(NAME, 443, [], tls=True)


@pytest.mark.parametrize("address", PUBLIC)
async def test_a_public_address_is(address: str) -> None:
    [found] = await a_guard(address).addresses(NAME, 443, [], tls=True)
    assert found == address.removeprefix("::ffff:")


@pytest.mark.parametrize("bad", ["10.0.0.1", "::1", "169.254.169.254"])
async def test_one_bad_address_among_good_ones_spoils_the_name(bad: str) -> None:
    with pytest.raises(Refused, match="may not be connected to"):
        await a_guard("8.8.8.8", bad, "1.1.1.1").addresses(NAME, 443, [], tls=True)


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "017700000001", "0x7f000001", "0", "localhost"]
)
async def test_a_spelling_that_the_system_understands_is_checked_as_what_it_means(host: str) -> None:
    guard = Guard(list, resolve=resolve_by_system, is_local=lambda _: False)
    with pytest.raises((Refused, OSError)):
        await guard.addresses(host, 443, [], tls=True)


@pytest.mark.parametrize(
    ("address", "port", "allow"),
    [
        ("10.0.7.5", 8443, "10.0.7.0/24"),
        ("10.0.7.5", 8443, "10.0.7.5/32:8443"),
        ("10.0.7.5", 8443, "10.0.7.5"),
        ("192.168.3.4", 443, "192.168.0.0/16"),
        ("::ffff:10.0.7.5", 443, "10.0.7.0/24"),
        ("fd00:7::5", 8443, "[fd00:7::/64]:8443"),
        ("fd00:7::5", 443, "fd00:7::/64"),
        ("127.0.0.1", 9000, "127.0.0.1/32:9000"),
    ],
)
async def test_what_is_allowed_is_connected_to_even_without_tls(address: str, port: int, allow: str) -> None:
    parsed = [parse_allowed(allow)]
    assert await a_guard(address).addresses(NAME, port, parsed, tls=False)


@pytest.mark.parametrize(
    ("address", "port", "allow"),
    [
        ("10.0.8.5", 8443, "10.0.7.0/24"),
        ("10.0.7.5", 22, "10.0.7.5/32:8443"),
        ("10.0.7.6", 8443, "10.0.7.5/32:8443"),
        ("127.0.0.1", 9001, "127.0.0.1/32:9000"),
        ("169.254.169.254", 80, "10.0.0.0/8"),
        ("100.100.100.200", 80, "100.64.0.0/10"),
        ("fd00:ec2::254", 80, "fd00:ec2::/32"),
    ],
)
async def test_what_is_beside_it_is_not(address: str, port: int, allow: str) -> None:
    with pytest.raises(Refused):
        await a_guard(address).addresses(NAME, port, [parse_allowed(allow)], tls=True)


@pytest.mark.parametrize(
    ("address", "port", "own"),
    [
        ("10.0.7.5", 443, Own("10.0.7.5", what="the node hv1")),
        ("10.0.7.5", 443, Own("::ffff:10.0.7.5", what="the node hv1")),
        ("10.0.7.5", 9999, Own("10.0.7.5", 2181, "a ZooKeeper server")),
        ("127.0.0.1", 2181, Own("127.0.0.1", 2181, "ZooKeeper")),
        ("127.9.9.9", 2181, Own("127.0.0.1", 2181, "ZooKeeper")),
        ("::1", 2181, Own("127.0.0.1", 2181, "ZooKeeper")),
        ("8.8.8.8", 443, Own("8.8.8.8", what="the node hv1")),
    ],
)
async def test_the_clusters_own_is_never_connected_to_whatever_is_allowed(address: str, port: int, own: Own) -> None:
    everything = [parse_allowed(text) for text in ("10.0.0.0/8", f"127.0.0.0/8:{port}", f"[::1/128]:{port}")]
    with pytest.raises(Refused, match=own.what):
        await a_guard(address, own=[own]).addresses(NAME, port, everything, tls=True)


async def test_a_node_that_is_known_by_name_is_known_by_its_addresses() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return {"hv1": ["10.0.7.1"], NAME: ["10.0.7.1"]}[host]

    guard = Guard(lambda: [Own("hv1", what="the node hv1")], resolve=resolve, is_local=lambda _: False)
    with pytest.raises(Refused, match="the node hv1"):
        await guard.addresses(NAME, 443, [parse_allowed("10.0.0.0/8")], tls=True)


async def test_this_nodes_other_addresses_are_its_own_too() -> None:
    assert is_local(parse_allowed("127.0.0.1/32:1")[0].network_address)
    with pytest.raises(Refused, match="this node's own"):
        await a_guard("10.0.7.5", local=["10.0.7.5"]).addresses(NAME, 443, [parse_allowed("10.0.0.0/8")], tls=True)


async def test_without_tls_nothing_public_is_connected_to() -> None:
    with pytest.raises(Refused, match="without TLS"):
        await a_guard("8.8.8.8").addresses(NAME, 80, [parse_allowed("10.0.0.0/8")], tls=False)


async def test_a_name_with_no_address_or_too_many_is_no_receiver() -> None:
    with pytest.raises(OSError, match="no address"):
        await a_guard().addresses(NAME, 443, [], tls=True)
    with pytest.raises(Refused, match="more than 16"):
        await a_guard(*[f"8.8.8.{n}" for n in range(20)]).addresses(NAME, 443, [], tls=True)


def test_every_special_address_says_what_it_is() -> None:
    import ipaddress

    assert all(special(ipaddress.ip_address(text)) for text in SPECIAL)
    assert not any(special(ipaddress.ip_address(text)) for text in PUBLIC)


async def test_the_clusters_own_stay_shunned_while_nobody_can_look_them_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, list[str]] = {"hv2.lan": ["10.0.7.9"], NAME: ["10.0.7.9"]}

    async def resolve(host: str, port: int) -> list[str]:
        if host not in answers:
            raise OSError("no answer")
        return answers[host]

    guard = Guard(lambda: [Own("hv2.lan", what="the node hv2")], resolve=resolve, is_local=lambda _: False)
    allowed = [parse_allowed("10.0.0.0/8")]
    with pytest.raises(Refused, match="the node hv2"):
        await guard.addresses(NAME, 443, allowed, tls=True)
    del answers["hv2.lan"]
    monkeypatch.setattr("pvc.webhooks.guard.KNOWN_S", 0.0)
    for known in guard._known:
        guard._known[known] = (0.0, guard._known[known][1])
    with pytest.raises(Refused, match="the node hv2"):
        await guard.addresses(NAME, 443, allowed, tls=True)


async def test_a_resolver_that_hangs_takes_no_thread_from_what_else_there_is_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_go = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: let_go.wait(60) and [])
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    asking = [asyncio.create_task(resolve_by_system(f"n{i}.example.com", 443)) for i in range(3)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(3):
            assert await asyncio.to_thread(lambda: "done") == "done"
    finally:
        let_go.set()
        await asyncio.gather(*asking, return_exceptions=True)
