"""Webhooks of a real daemon: whose names they are sent, what of an owner's sight, and what of them is on the audit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client.cards import load_cards
from pvc.client.client import Client
from pvc.client.connections import Connection
from pvc.client.errors import ClientError
from tests.integration.cli_cluster import free_port
from tests.integration.daemon_process import DaemonProcess
from tests.support.receiver import Receiver, a_receiver
from tests.support.waiting import wait_until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    daemon.start()
    with daemon.client() as client:
        client.command("cluster.init", {"name": "main"})
        wait_until(lambda: client.get("/nodes")["items"], "a node")
    yield daemon
    daemon.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with a_receiver() as receiver:
        yield receiver


def add(client: Client, receiver: Receiver, **more: Any) -> None:
    fields = {"name": "billing", "url": receiver.url, "allow_private": receiver.allowed, "rate": 1000, **more}
    client.command("webhook.add", fields)


def define(client: Client, *names: str, tags: list[str] | None = None) -> None:
    for name in names:
        client.command("vm.define", {"name": name, "memory_mib": 64, "vcpus": 1, "tags": tags or []})


@pytest.mark.parametrize("reveal", [False, True])
def test_names_of_people_are_sent_sealed_unless_the_endpoint_says_otherwise(
    tmp_path: Path, receiver: Receiver, reveal: bool
) -> None:
    port = free_port()
    daemon = DaemonProcess(tmp_path, gateway={"socket": str(tmp_path / "pvc.sock"), "listen": f"127.0.0.1:{port}"})
    daemon.start()
    try:
        with daemon.client() as root:
            token: Any = root.command("cluster.init", {"name": "main", "admin": "anna.kowalska"})
            wait_until(lambda: root.get("/nodes")["items"], "a node")
            add(root, receiver, types=["vm.*"], reveal_names=reveal)
            anna = Client(Connection(name="anna", url=f"http://127.0.0.1:{port}", token=token["token"]))
            define(anna, "web01")
            wait_until(lambda: receiver.taken, "the event")
            actor = receiver.taken[0]["data"]["actor"]
            if reveal:
                assert actor["principal"] == "anna.kowalska" and actor["address"] == "127.0.0.1"
                summary = root.get("/history")["records"]
                assert any("names of people revealed" in event["summary"] for one in summary for event in one["events"])
            else:
                assert actor["principal"].startswith("person~") and actor["address"].startswith("address~")
                assert all(b"kowalska" not in one.body for one in receiver.received)
    finally:
        daemon.stop()


def test_a_services_webhook_is_sent_what_the_service_may_see(daemon: DaemonProcess, receiver: Receiver) -> None:
    with daemon.client() as client:
        client.command("access.add", {"principal": "shop", "grants": [{"role": "viewer", "tag": "shop"}]})
        add(client, receiver, owner="shop")
        define(client, "bank01")
        define(client, "shop01", tags=["shop"])
        client.command("vm.set_autostart", {"vm": "bank01", "autostart": True})
        client.command("vm.set_autostart", {"vm": "shop01", "autostart": True})
        wait_until(lambda: len(receiver.taken) >= 2, "the shop's")
        assert [event["type"] for event in receiver.taken] == ["vm.defined", "vm.autostart_set"]
        assert all(b"bank01" not in one.body and b"hv1 joined" not in one.body for one in receiver.received)
        client.command("access.remove", {"principal": "shop"})
        client.command("vm.set_autostart", {"vm": "shop01", "autostart": False})
        wait_until(lambda: client.get("/webhooks/billing")["state"] == "disabled", "the end")
        [fault] = client.faults()
        assert "its owner may not read the history any more" in fault["message"] and len(receiver.taken) == 2


def test_what_a_webhook_is_allowed_and_by_whom_is_on_the_audit(daemon: DaemonProcess, receiver: Receiver) -> None:
    private = receiver.allowed[0]
    with daemon.client() as client:
        add(client, receiver)
        client.command("webhook.modify", {"hook": "billing", "allow_private": [private, "10.0.7.0/24"]})
        [one] = client.get("/history", {"type": "webhook.added"})["records"]
        [two] = client.get("/history", {"type": "webhook.modified"})["records"]
        assert one["actor"]["principal"] == two["actor"]["principal"] == "root"
        added, modified = one["events"][0], two["events"][0]
        assert f"private addresses allowed: {private}" in added["summary"]
        assert f"private addresses allowed: {private}, 10.0.7.0/24" in modified["summary"]


def test_only_admins_add_webhooks_and_a_refusal_is_on_the_audit(daemon: DaemonProcess, receiver: Receiver) -> None:
    with daemon.client() as client:
        add(client, receiver)
        with pytest.raises(ClientError) as refusal:
            add(client, receiver)
        assert getattr(refusal.value, "code", "") == "webhook.name_taken"
        told = [event["type"] for record in client.get("/history")["records"] for event in record["events"]]
        assert "command.rejected" in told
    roles = {card["role"] for name, card in load_cards().items() if name.startswith("webhook.")}
    assert roles == {"admin"}
