"""Logging in at an issuer: `pvc login` as a person types it, a daemon behind, and a real issuer in a process."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli_cluster import free_port
from tests.integration.cli_process import PVC, Cli
from tests.integration.daemon_process import DaemonProcess
from tests.integration.issuers import ANNA, OLGA, ROOTLIKE, RealIssuer, fake_browser, lying_issuer, sign_in

OIDC = """
[oidc]
issuer = "{issuer}"
client_id = "pvc"
client_secret_file = "{secret}"

[[oidc.roles]]
group = "shop"
grant = "operator,tag=shop"

[[oidc.roles]]
group = "pvc-admins"
grant = "admin"
"""


class Place:
    """A cluster of one node whose people log in at an issuer."""

    def __init__(self, directory: Path) -> None:
        self.issuer = RealIssuer()
        self.issuer.start(ANNA, OLGA, ROOTLIKE)
        self.port = free_port()
        self.daemon = DaemonProcess(
            directory, gateway={"socket": str(directory / "pvc.sock"), "listen": f"127.0.0.1:{self.port}"}
        )
        (directory / "secret").write_text("very-secret-of-the-client\n")
        with self.daemon.config.open("a") as config:
            config.write(OIDC.format(issuer=self.issuer.url, secret=directory / "secret"))
        self.daemon.start()
        self.root = Cli(directory, {"PVC_SOCKET": str(self.daemon.socket)})
        assert self.root("cluster", "init", "lab").code == 0
        self.root("vm", "define", "shop01", "--memory", "64", "--tag", "shop")
        self.root("vm", "define", "bank01", "--memory", "64")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def person(self, home: Path, subject: str) -> Cli:
        """Somebody with a browser, and a connection that has no token yet."""
        cli = Cli(home, {"BROWSER": fake_browser(subject)})
        added = cli("connection", "add", "lab", self.url, "--login", "--use")
        assert added.code == 0 and "pvc -c lab login" in added.err, added
        return cli


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("login"))
    yield made
    made.daemon.stop()
    made.issuer.stop()


def stored_token(home: Path) -> str:
    document = json.loads((home / "config" / "connections.json").read_text())
    token: str = document["connections"][0].get("token", "")
    return token


def test_a_person_logs_in_by_browser_may_what_the_groups_say_renews_and_logs_out(place: Place, tmp_path: Path) -> None:
    anna = place.person(tmp_path, "u-1")
    assert anna("vm", "list").code == 4
    done = anna("login")
    assert done.code == 0 and "You are anna, operator (tag shop), until " in done.out, done
    assert [row["name"] for row in json.loads(anna("vm", "list", "-o", "json").out)] == ["shop01"]
    assert "person, who logs in at the issuer" in place.root("access", "info", "anna").out
    assert anna("vm", "start", "bank01").code == 4
    first = stored_token(tmp_path)
    renewed = anna("login")  # no browser is opened: there is a refresh token
    assert renewed.code == 0 and "Log in with your browser" not in renewed.err, renewed
    second = stored_token(tmp_path)
    assert second != first
    old = anna.with_env(PVC_URL=place.url, PVC_TOKEN=first)("vm", "list", "-v")
    assert old.code == 4 and "access.token_invalid" in old.err, "the one before has ended"
    for file in (tmp_path / "config").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert anna("logout").out == "You are logged out.\n"
    gone = anna.with_env(PVC_URL=place.url, PVC_TOKEN=second)("vm", "list", "-v")
    assert gone.code == 4 and stored_token(tmp_path) == ""
    assert anna("logout").code != 0
    logins = place.root("audit", "login").out
    assert re.search(r"anna +127\.0\.0\.1 +\w+ +hv1 +logged in by browser", logins), logins
    assert re.search(r"anna +127\.0\.0\.1 +\w+ +hv1 +logged in by renewal", logins), logins
    said = place.daemon.log_file.read_text()
    assert "command=access.log_in about=- principal=person-" in said and "anna" not in said
    assert first.split("_")[2] not in said and second.split("_")[2] not in said and "very-secret" not in said


def test_a_connection_that_is_not_stored_is_given_its_token_to_see(place: Place, tmp_path: Path) -> None:
    passing = Cli(tmp_path, {"BROWSER": fake_browser("u-1"), "PVC_URL": place.url})
    told = json.loads(passing("login", "-o", "json").out)
    assert told["principal"] == "anna" and told["grants"] == [{"role": "operator", "tag": "shop"}]
    assert passing.with_env(PVC_TOKEN=told["token"])("vm", "list").code == 0
    assert not (tmp_path / "config").exists(), "nothing is kept"
    local = place.root("login")
    assert local.code != 0 and "root needs no login" in local.err


def test_who_has_no_role_is_refused_by_name_and_on_the_audit(place: Place, tmp_path: Path) -> None:
    olga = place.person(tmp_path, "u-2")
    refused = olga("login", "-v")
    assert refused.code == 4 and "access.login_no_role" in refused.err, refused
    history = place.root("history", "all", "--type", "access.refused", "--actor", "olga", "-o", "json")
    assert "no group of yours has a role here" in history.out and '"method": "oidc"' in history.out
    assert "olga" not in place.root("access", "list").out


def test_a_name_that_is_anothers_opens_nothing(place: Place, tmp_path: Path) -> None:
    """`admin` is who initialised the cluster; whoever calls himself so at the issuer is somebody else."""
    other = place.person(tmp_path, "u-3")
    refused = other("login", "-v")
    assert refused.code == 4 and "access.name_taken" in refused.err, refused
    assert stored_token(tmp_path) == ""


def test_who_says_no_at_the_issuer_is_told_so(place: Place, tmp_path: Path) -> None:
    denied = place.person(tmp_path, "")("login", "--again")
    assert denied.code != 0 and "the issuer has refused the login" in denied.err, denied


def test_a_browser_elsewhere_will_do(place: Place, tmp_path: Path) -> None:
    anna = place.person(tmp_path, "u-1")
    words = [*PVC, "login", "--no-browser", "--again"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=anna.env, stdin=pipe, stdout=pipe, stderr=pipe) as running:
        assert running.stdin is not None and running.stderr is not None and running.stdout is not None
        said = b""
        while b"press Enter" not in said:
            ready, _, _ = select.select([running.stderr], [], [], 30)
            assert ready, said
            said += os.read(running.stderr.fileno(), 65_536)
        url = re.search(rb"http://localhost\S+", said)
        assert url is not None, said
        running.stdin.write(sign_in(url[0].decode(), "u-1").encode() + b"\n")
        running.stdin.close()
        assert b"You are anna" in running.stdout.read()
    assert anna("vm", "list").code == 0


def test_another_key_of_the_issuers_is_learnt_and_an_issuer_that_is_down_stops_nobody_who_is_in(
    place: Place, tmp_path: Path
) -> None:
    anna = place.person(tmp_path, "u-1")
    assert anna("login").code == 0
    place.issuer.stop()
    try:
        down = anna("login", "-v")
        assert down.code == 5 and "oidc.unreachable" in down.err, down
        assert anna("vm", "list").code == 0
    finally:
        place.issuer.start(ANNA, OLGA, ROOTLIKE)
    after = anna("login", "--again")
    assert after.code == 0, after
    lost = anna("login")
    assert lost.code == 0


def test_what_comes_by_an_issuer_goes_by_it(place: Place, tmp_path: Path) -> None:
    anna = place.person(tmp_path, "u-1")
    assert anna("login").code == 0
    looked = {one["check"]: one for one in json.loads(anna("doctor", "-o", "json").out)}
    assert looked["token"]["status"] == "ok" and "anna" in looked["token"]["message"], looked["token"]
    made = place.root("access", "token", "create", "anna", "-v")
    assert made.code == 1 and "access.by_login_only" in made.err, made
    rotated = anna("access", "token", "rotate", stored_token(tmp_path).split("_")[1], "-v")
    assert rotated.code == 1 and "access.by_login_only" in rotated.err, rotated
    for _ in range(11):
        assert anna("login", "--again").code == 0
    tokens = json.loads(place.root("access", "token", "list", "-o", "json").out)
    assert sum(one["principal"] == "anna" for one in tokens) <= 10
    assert place.root("access", "remove", "anna", "--yes").code == 0
    assert anna("vm", "list").code == 4


def test_a_console_without_a_browser_logs_in_by_another_device(tmp_path: Path) -> None:
    with lying_issuer() as issuer:
        port = free_port()
        daemon = DaemonProcess(tmp_path, gateway={"socket": str(tmp_path / "pvc.sock"), "listen": f"127.0.0.1:{port}"})
        (tmp_path / "secret").write_text("s")
        with daemon.config.open("a") as config:
            config.write(OIDC.format(issuer=issuer.url, secret=tmp_path / "secret"))
        daemon.start()
        try:
            assert Cli(tmp_path, {"PVC_SOCKET": str(daemon.socket)})("cluster", "init", "lab").code == 0
            issuer.pending, issuer.claims = 1, {"nonce": None}
            anna = Cli(tmp_path / "anna", {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""})
            url = f"http://127.0.0.1:{port}"
            silent = f"http://127.0.0.1:{free_port()}"
            assert anna("connection", "add", "lab", silent, url, "--login", "--use").code == 0
            done = anna("login")
            assert done.code == 0 and "You are anna" in done.out, done
            assert "The code is WDJB-MJHT" in done.err and f"{issuer.url}/go" in done.err
            assert anna("access", "info").code == 0
            assert anna("login").code == 0, "renewed"
        finally:
            daemon.stop()
