"""The daemon's configuration file: what it says, and how each mistake is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pvc.daemon.archives import make_archives
from pvc.daemon.config import Config, load_config, serves_others, split_listen
from pvc.errors import InvalidInput


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "hv1.example.org")


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "pvc.toml"
    path.write_text(text)
    return load_config(path)


def test_an_empty_file_is_a_whole_configuration(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config == Config()
    assert config.gateway.listen == "127.0.0.1:7370"
    assert config.data_dir == Path("/var/lib/pvc")


def test_every_part_can_be_set(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        [node]
        name = "hv1"
        data_dir = "/srv/pvc"
        [hypervisor]
        kind = "simulated"
        accelerator = "tcg"
        [log]
        kind = "zookeeper"
        hosts = "10.0.0.1:2181,10.0.0.2:2181"
        [gateway]
        listen = "0.0.0.0:7370"
        tls_cert = "/etc/pvc/cert.pem"
        tls_key = "/etc/pvc/key.pem"
        """,
    )
    assert (config.node_name, config.hypervisor.kind, config.log.kind) == ("hv1", "simulated", "zookeeper")


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("false", False), ('"auto"', "auto")])
def test_whether_migrations_are_encrypted_can_be_said_or_left_to_the_uri(
    tmp_path: Path, written: str, meant: bool | str
) -> None:
    config = load(tmp_path, f"[hypervisor]\nmigration_tls = {written}")
    assert config.hypervisor.migration_tls == meant
    assert Config().hypervisor.migration_tls == "auto"


def test_without_a_name_the_node_is_called_by_its_short_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "HV7.example.org")
    assert Config().node_name == "hv7"


def test_a_host_name_that_is_no_node_name_is_refused_before_it_gets_into_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my_box")
    with pytest.raises(InvalidInput) as failure:
        _ = Config().node_name
    assert failure.value.code == "config.invalid"
    assert "'my_box'" in failure.value.message
    assert "node.name" in failure.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[node", "is not TOML"),
        ("[node]\nname = 'My Node'", "$.node.name"),
        ("[node]\nnmae = 'hv1'", "nmae"),
        ("[nodes]", "nodes"),
        ("[hypervisor]\nkind = 'xen'", "$.hypervisor.kind"),
        ("[hypervisor]\naccelerator = 'fast'", "$.hypervisor.accelerator"),
        ("[hypervisor]\nmigration_tls = 'yes'", "$.hypervisor.migration_tls"),
        ("[log]\nkind = 3", "$.log.kind"),
        ("[gateway]\nlisten = '7370'", "$.gateway.listen"),
        ("[gateway]\nlisten = '127.0.0.1:99999'", "65535"),
        ("[gateway]\ntls_cert = '/c.pem'", "only one of"),
        ("[gateway]\ntls_key = '/k.pem'", "only one of"),
    ],
)
def test_a_mistake_is_told_with_file_place_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as failure:
        load(tmp_path, text)
    assert failure.value.code == "config.invalid"
    assert said in failure.value.message
    assert str(tmp_path / "pvc.toml") in failure.value.message
    assert failure.value.hint


@pytest.mark.parametrize(
    ("listen", "others"),
    [
        ("127.0.0.1:7370", False),
        ("localhost:0", False),
        ("[::1]:7370", False),
        ("127.8.8.8:65535", False),
        ("", False),
        ("0.0.0.0:7370", True),
        ("[::]:7370", True),
        ("10.0.0.1:7370", True),
        ("hv1.example.org:7370", True),
        ("localhost.example.org:7370", True),
    ],
)
def test_other_machines_are_served_where_it_does_not_listen_on_a_loopback_address(
    tmp_path: Path, listen: str, others: bool
) -> None:
    assert serves_others(load(tmp_path, f"[gateway]\nlisten = '{listen}'").gateway.listen) is others


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(InvalidInput, match="Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin1.toml").write_bytes(b"[node]\nname = '\xe9'\n")
    with pytest.raises(InvalidInput, match="is not TOML"):
        load_config(tmp_path / "latin1.toml")


@pytest.mark.parametrize(
    ("listen", "parts"),
    [("127.0.0.1:7370", ("127.0.0.1", 7370)), ("[::1]:80", ("::1", 80)), ("hv1:0", ("hv1", 0))],
)
def test_an_address_is_split_at_its_last_colon(listen: str, parts: tuple[str, int]) -> None:
    assert split_listen(listen) == parts


def test_the_archive_is_in_the_data_directory_unless_it_is_put_elsewhere(tmp_path: Path) -> None:
    assert load(tmp_path, '[node]\ndata_dir = "/srv/pvc"').archive_dir == Path("/srv/pvc/archive")
    assert load(tmp_path, '[archive]\ndir = "/mnt/log"').archive_dir == Path("/mnt/log")


def test_a_pool_of_ceph_comes_besides_the_directory(tmp_path: Path) -> None:
    alone = make_archives(load(tmp_path, '[node]\ndata_dir = "/srv/pvc"'))
    assert [archive.title for archive in alone] == ["directory /srv/pvc/archive"]
    both = make_archives(load(tmp_path, '[archive]\ndir = "/a"\nrados_pool = "pvc-log"\nrados_namespace = "main"'))
    assert [archive.title for archive in both] == ["directory /a", "RADOS pool pvc-log/main"]


@pytest.mark.parametrize(
    ("text", "said"), [('dir = "archive"', "archive.dir 'archive'"), ('rados_user = "pvc"', "no archive.rados_pool")]
)
def test_an_archive_that_nobody_would_find_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as failure:
        load(tmp_path, f"[archive]\n{text}")
    assert failure.value.code == "config.invalid"
    assert said in failure.value.message


def test_a_quota_that_the_hot_segments_would_use_up_is_refused_with_one_that_would_do(tmp_path: Path) -> None:
    assert load(tmp_path, "[log]\nhot_segments = 20\nsegment_records = 1000\nquota_records = 40000").log.quota_mib == 64
    with pytest.raises(InvalidInput) as failure:
        load(tmp_path, "[log]\nhot_segments = 100")
    assert failure.value.code == "config.invalid"
    assert "log.quota_records to 819200 and log.quota_mib to 300" in failure.value.hint
