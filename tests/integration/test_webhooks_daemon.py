"""Webhooks of a real daemon to a real receiver: proved, delivered, rotated, replayed, over restarts and kills."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as StandardWebhook

from pvc.client.errors import ClientError
from pvc.client.json_client import JsonClient
from tests.integration.cli_cluster import free_port
from tests.integration.cli_process import Cli
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


def add(client: JsonClient, receiver: Receiver, **more: Any) -> str:
    fields = {"name": "billing", "url": receiver.url, "allow_private": receiver.allowed, "rate": 1000, **more}
    return str(client.command("webhook.add", fields)["secret"])  # type: ignore[typeddict-item]


def has_taken(receiver: Receiver, number: int) -> bool:
    return len(receiver.taken) >= number


def state_of(client: JsonClient) -> str:
    return str(client.get("/webhooks/billing")["state"])


def define(client: JsonClient, *names: str, tags: list[str] | None = None) -> None:
    for name in names:
        client.command("vm.define", {"name": name, "memory_mib": 64, "vcpus": 1, "tags": tags or []})


def defined(receiver: Receiver) -> list[str]:
    return [event["data"]["data"]["name"] for event in receiver.taken if event["type"] == "vm.defined"]


def test_events_come_signed_in_order_and_once_while_nothing_fails(daemon: DaemonProcess, receiver: Receiver) -> None:
    with daemon.client() as client:
        secret = add(client, receiver, types=["vm.*"])
        names = [f"web{number:02}" for number in range(20)]
        define(client, *names)
        wait_until(lambda: len(receiver.taken) >= 20, "all events")
        wait_until(lambda: client.get("/webhooks/billing")["lag"] == 0, "no lag")
        row = client.get("/webhooks")["items"][0]
        assert (row["state"], row["lag"], row["lag_s"], row["delivered"]) == ("delivering", 0, 0.0, 20)
    assert defined(receiver) == names
    assert len(set(receiver.ids)) == 20
    positions = [event["data"]["position"] for event in receiver.taken]
    assert positions == sorted(positions)
    for one in receiver.received:
        found = StandardWebhook(secret).verify(one.body, one.headers)
        assert found["id"] == one.headers["webhook-id"]
        assert one.headers["content-type"].startswith("application/cloudevents+json")


def test_nothing_is_sent_to_who_does_not_prove_to_want_it(daemon: DaemonProcess, receiver: Receiver) -> None:
    receiver.rude = True
    with daemon.client() as client:
        add(client, receiver)
        define(client, "web01")
        wait_until(lambda: client.get("/webhooks/billing")["tries"] >= 1, "a ping")
        assert state_of(client) == "proving"
        assert "challenge" in client.get("/webhooks/billing")["reason"]
        assert receiver.taken == []
        receiver.rude = False
        client.command("webhook.resume", {"hook": "billing"})
        wait_until(lambda: "web01" in defined(receiver), "the event")


def test_a_restarted_daemon_goes_on_where_it_was_and_a_paused_webhook_waits(
    daemon: DaemonProcess, receiver: Receiver
) -> None:
    with daemon.client() as client:
        add(client, receiver, types=["vm.defined"])
        define(client, "web01")
        wait_until(lambda: defined(receiver) == ["web01"], "the first")
        client.command("webhook.pause", {"hook": "billing", "reason": "it moves"})
        define(client, "web02")
        assert state_of(client) == "paused"
    daemon.stop()
    daemon.start()
    with daemon.client() as client:
        define(client, "web03")
        assert defined(receiver) == ["web01"]
        client.command("webhook.resume", {"hook": "billing"})
        wait_until(lambda: len(receiver.taken) >= 3, "the rest")
    assert defined(receiver) == ["web01", "web02", "web03"]


def test_a_daemon_that_is_killed_again_and_again_leaves_no_gap(daemon: DaemonProcess, receiver: Receiver) -> None:
    with daemon.client() as client:
        add(client, receiver, types=["vm.defined"], rate=40)
        names = [f"web{number:03}" for number in range(60)]
        define(client, *names)
    for number in (10, 30):
        wait_until(functools.partial(has_taken, receiver, number), "some events")
        daemon.kill()
        daemon.start()
    wait_until(lambda: "web059" in defined(receiver), "the last one")
    assert list(dict.fromkeys(defined(receiver))) == names, "each, and in order when it first came"


def test_a_rotated_secret_overlaps_with_the_one_before(daemon: DaemonProcess, receiver: Receiver) -> None:
    with daemon.client() as client:
        first = add(client, receiver, types=["vm.defined"])
        reply: Any = client.command("webhook.rotate_secret", {"hook": "billing"})
        second = reply["secret"]
        define(client, "web01")
        wait_until(lambda: receiver.taken, "an event")
        both = next(one for one in receiver.received if one.events[0]["type"] == "vm.defined")
        for secret in (first, second):
            assert StandardWebhook(secret).verify(both.body, both.headers)
        reply = client.command("webhook.rotate_secret", {"hook": "billing", "overlap_s": 0})
        third = reply["secret"]
        define(client, "web02")
        wait_until(lambda: len(receiver.taken) == 2, "another event")
        alone = receiver.received[-1]
        assert StandardWebhook(third).verify(alone.body, alone.headers)
        with pytest.raises(Exception, match="No matching signature"):
            StandardWebhook(second).verify(alone.body, alone.headers)
        assert len(client.get("/webhooks/billing")["secrets"]) == 1


def test_secrets_are_nowhere_on_the_disk_and_in_no_reply_but_the_first(
    daemon: DaemonProcess, receiver: Receiver, tmp_path: Path
) -> None:
    fields = {"name": "billing", "url": receiver.url, "allow_private": receiver.allowed}
    with daemon.client() as client:
        shown: Any = client.command("webhook.add", fields, key="k1")
        again: Any = client.command("webhook.add", fields, key="k1")
        assert shown["secret"].startswith("whsec_")
        assert again["repeated"] and "secret" not in again
        secret = shown["secret"].removeprefix("whsec_")
        for path in ("/webhooks", "/webhooks/billing", "/history", "/events"):
            try:
                assert secret not in str(client.get(path))
            except ClientError as error:
                assert getattr(error, "status", 0) == 404
    daemon.stop()
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file
    assert (tmp_path / "data" / "webhooks" / "key").stat().st_mode & 0o777 == 0o600


def test_a_range_is_replayed_with_the_same_ids_and_what_comes_goes_on(
    daemon: DaemonProcess, receiver: Receiver
) -> None:
    with daemon.client() as client:
        add(client, receiver, types=["vm.defined"])
        define(client, "web01", "web02", "web03")
        wait_until(lambda: len(receiver.taken) == 3, "three events")
        positions = [event["data"]["position"] for event in receiver.taken]
        since, until = str(positions[1]), str(positions[2])
        client.command("webhook.replay", {"hook": "billing", "since": since, "until": until})
        wait_until(lambda: len(receiver.taken) == 5, "two of them again")
        define(client, "web04")
        wait_until(lambda: len(receiver.taken) == 6, "what came next")
    assert defined(receiver) == ["web01", "web02", "web03", "web02", "web03", "web04"]
    assert receiver.ids[3:5] == receiver.ids[1:3]


def test_a_webhook_can_begin_in_the_past_and_wants_only_what_its_filter_says(
    daemon: DaemonProcess, receiver: Receiver
) -> None:
    with daemon.client() as client:
        define(client, "web01", tags=["shop"])
        define(client, "db01")
        client.command("vm.add_tag", {"vm": "db01", "tag": "shop"})
        client.command("vm.set_autostart", {"vm": "web01", "autostart": True})
        client.command("vm.set_autostart", {"vm": "db01", "autostart": True})
        client.command("vm.remove_tag", {"vm": "web01", "tag": "shop"})
        client.command("vm.set_autostart", {"vm": "web01", "autostart": False})
        add(client, receiver, tags=["shop"], since="1")
        wait_until(lambda: len(receiver.taken) >= 5, "the past")
        define(client, "other")
        wait_until(lambda: client.get("/webhooks/billing")["lag"] == 0, "no lag")
    assert [event["type"] for event in receiver.taken] == [
        "vm.defined",
        "vm.tag_added",
        "vm.autostart_set",
        "vm.autostart_set",
        "vm.tag_removed",
    ]


def test_the_command_line_shows_it_all(daemon: DaemonProcess, receiver: Receiver, tmp_path: Path) -> None:
    cli = Cli(tmp_path, {"PVC_SOCKET": str(daemon.socket)})
    private = receiver.allowed[0]
    added = cli("webhook", "add", "billing", receiver.url, "--type", "vm.*", "--allow-private", private, "--wait")
    assert added.code == 0, added.err
    assert "whsec_" in added.out and "shown only this once" in added.out
    assert cli("vm", "define", "web01", "--memory", "64", "--vcpus", "1").code == 0
    wait_until(lambda: receiver.taken, "the event")
    listed = cli("webhook", "list")
    assert "billing" in listed.out and "delivering" in listed.out and receiver.url in listed.out
    shown = cli("webhook", "info", "billing")
    assert private in shown.out and "sent sealed" in shown.out
    tested = cli("webhook", "test", "billing")
    assert tested.code == 0 and "answered 200" in tested.out
    wait_until(lambda: "vm.defined" in cli("webhook", "deliveries", "billing").out, "a written cursor")
    assert "Nothing is parked" in cli("webhook", "parked", "billing").err
    rotated = cli("webhook", "rotate-secret", "billing")
    assert "whsec_" in rotated.out
    assert "webhook.secret_rotated" in cli("event", "list").out
    receiver.rude = True
    refused = cli("webhook", "test", "billing")
    assert refused.code != 0 and "challenge" in refused.out
    assert cli("webhook", "remove", "billing", "--yes").code == 0
    assert "There are no webhooks" in cli("webhook", "list").err
    unknown = cli("webhook", "info", "billing")
    assert unknown.code != 0 and "there is no webhook 'billing'" in unknown.err


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": "http://hooks.example.com/"}, "webhook.bad_url"),
        ({"url": "https://user:pw@hooks.example.com/"}, "webhook.bad_url"),
        ({"url": "https://hooks.example.com:22/"}, "webhook.bad_url"),
        ({"url": "ftp://hooks.example.com/"}, "webhook.bad_url"),
        ({"allow_private": ["8.8.8.0/24"]}, "webhook.bad_network"),
        ({"allow_private": ["169.254.0.0/16"]}, "webhook.bad_network"),
        ({"allow_private": ["127.0.0.1/32"]}, "webhook.bad_network"),
        ({"allow_private": ["0.0.0.0/0"]}, "webhook.bad_network"),
        ({"types": ["vm.startd"]}, "event.unknown_type"),
    ],
)
def test_what_makes_no_sense_or_is_not_safe_is_refused(
    daemon: DaemonProcess, fields: dict[str, Any], code: str
) -> None:
    with daemon.client() as client, pytest.raises(ClientError) as refusal:
        client.command("webhook.add", {"name": "billing", "url": "https://hooks.example.com/", **fields})
    assert getattr(refusal.value, "code", "") == code


@pytest.mark.parametrize("mood", ["fail", "busy", "reset", "hang", "drip", "garbage", "redirect", "lie"])
def test_a_receiver_that_comes_back_gets_everything(daemon: DaemonProcess, receiver: Receiver, mood: str) -> None:
    with daemon.client() as client:
        add(client, receiver, types=["vm.defined"])
        define(client, "web01")
        wait_until(lambda: receiver.taken, "the first")
        if mood not in ("hang", "drip"):
            receiver.mood = mood
            define(client, "web02", "web03")
            wait_until(lambda: state_of(client) == "retrying", "a failure")
            shown = client.get("/webhooks/billing")
            assert shown["lag"] > 0 and shown["lag_s"] >= 0
            wait_s = shown["next_us"] / 1e6 - time.time()
            assert wait_s > 3000 if mood == "busy" else wait_s < 10, "an hour where it asked for that"
            receiver.mood = "ok"
            client.command("webhook.resume", {"hook": "billing"})
        else:
            receiver.moods = [mood]
            define(client, "web02")
            client.command("webhook.modify", {"hook": "billing", "batch": 10})
            define(client, "web03")
        wait_until(lambda: len(receiver.taken) >= 3, "the others", 60)
    assert list(dict.fromkeys(defined(receiver))) == ["web01", "web02", "web03"]
    assert receiver.hits == 0, "nothing was led elsewhere"


def test_a_receiver_that_is_gone_disables_its_webhook_and_a_fault_says_so(
    daemon: DaemonProcess, receiver: Receiver
) -> None:
    with daemon.client() as client:
        add(client, receiver, types=["vm.defined"])
        wait_until(lambda: state_of(client) == "delivering", "a proof")
        receiver.mood = "gone"
        define(client, "web01")
        wait_until(lambda: state_of(client) == "disabled", "the end")
        [fault] = client.faults()
        assert fault["code"] == "webhook.disabled" and "pvc webhook resume billing" in fault["hint"]
        receiver.mood = "ok"
        client.command("webhook.resume", {"hook": "billing"})
        wait_until(lambda: defined(receiver) == ["web01"], "what was not lost")
        assert client.faults() == []


def test_a_poisoned_event_is_parked_and_replayed(daemon: DaemonProcess, receiver: Receiver) -> None:
    with daemon.client() as client:
        add(client, receiver, types=["vm.defined"], tries=1)
        wait_until(lambda: state_of(client) == "delivering", "a proof")
        reply: Any = client.command("vm.define", {"name": "bad", "memory_mib": 64, "vcpus": 1}, dry_run=True)
        cluster = client.get("/cluster")["id"]
        receiver.poison = {f"{cluster}-{position}-0" for position in range(reply["position"] + 1, 100)}
        define(client, "web01")
        wait_until(lambda: client.get("/webhooks/billing")["parked"] == 1, "a parked event")
        receiver.poison = set()
        define(client, "web02")
        wait_until(lambda: defined(receiver) == ["web02"], "what came next")
        [parked] = client.get("/webhooks/billing/parked")["items"]
        assert parked["event"] == "vm.defined" and parked["reason"] == "it answered 400"
        at = str(parked["position"])
        client.command("webhook.replay", {"hook": "billing", "since": at, "until": at})
        wait_until(lambda: defined(receiver) == ["web02", "web01"], "the parked one")
        assert client.get("/webhooks/billing/parked")["items"] == []


def test_the_receiver_of_the_manual_works(daemon: DaemonProcess, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "receiver.py").write_text(program)
    port = free_port()
    with daemon.client() as client:
        fields = {"name": "billing", "url": f"http://127.0.0.1:{port}/", "allow_private": [f"127.0.0.1/32:{port}"]}
        reply: Any = client.command("webhook.add", {**fields, "types": ["vm.*"]})
        environment = {**os.environ, "SECRET": reply["secret"], "PORT": str(port)}
        out = tmp_path / "receiver.out"
        with out.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, str(tmp_path / "receiver.py")], env=environment, stdout=file, stderr=subprocess.DEVNULL
            )
        try:
            wait_until(lambda: client.post("/webhooks/billing/test")["delivered"], "a receiver")
            client.command("webhook.resume", {"hook": "billing"})
            define(client, "web01")
            wait_until(lambda: "defined as web01" in out.read_text(), "the event")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=b"{}") as answer:
                raise AssertionError(f"it took what nobody signed: {answer.status}")
        except urllib.error.HTTPError as error:
            assert error.code == 401
        finally:
            process.kill()
            process.wait()
