"""Which fence settings may enter the log."""

from __future__ import annotations

import pytest

from pvc.commands.fence_settings import MAX_OPTIONS, check_settings
from pvc.commands.node import SetNodeFence
from pvc.errors import InvalidInput
from pvc.events.fence import FenceSettings
from pvc.gateway.fields import Fields

IPMI = {"ip": "192.0.2.7", "ipport": "623", "username": "pvc", "lanplus": "1", "cipher": "17", "method": "onoff"}


def settings(agent: str = "fence_ipmilan", **options: str) -> FenceSettings:
    return FenceSettings(agent=agent, options=options)


@pytest.mark.parametrize(
    "good",
    [
        settings(**IPMI),
        settings("fence_redfish", ip="bmc1.example.org", systems_uri="/redfish/v1/Systems/1", ssl_insecure="1"),
        settings("fence_apc", ip="2001:db8::7", plug="3", **{"power-timeout": "20"}),
        FenceSettings(agent="fence_virsh", options={"plug": "hv1"}, password_file="/etc/pvc/fence/hv1", timeout_s=600),
    ],
)
def test_what_devices_need_is_accepted(good: FenceSettings) -> None:
    check_settings(good)


@pytest.mark.parametrize(
    "name",
    [
        *("passwd", "password", "password-script", "passwd_script", "snmp_priv_passwd", "community"),
        *("hexadecimal_kg", "api_key", "apikey", "secret-key", "token", "access_token", "cookie_file"),
    ],
)
def test_an_option_that_would_carry_a_secret_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(InvalidInput, match="secret into the log") as refusal:
        check_settings(settings(**{name: "hunter2"}))
    assert refusal.value.field == "options"
    assert "hunter2" not in str(refusal.value)
    assert "password_file" in refusal.value.hint


@pytest.mark.parametrize(
    "name",
    ["ipmitool_path", "ipmitool-path", "sudo", "use_sudo", "ssh_path", "exec", "ssh-options", "runonfail", "runonwarn"],
)
def test_an_option_that_chooses_a_program_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="runs as root"):
        check_settings(settings(**{name: "/tmp/mine"}))


@pytest.mark.parametrize("name", ["action", "option", "verbose", "debug-file", "quiet", "version"])
def test_an_option_that_would_change_what_is_asked_or_told_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="PVC's to set"):
        check_settings(settings(**{name: "on"}))


@pytest.mark.parametrize("name", ["", "IP", "ip\naction", "a=b", "x" * 49, "-v"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="not an option's name"):
        check_settings(settings(**{name: "1"}))


@pytest.mark.parametrize(
    "value", ["1\naction=metadata", "h -f /etc/shadow", "-f", "$(reboot)", 'a"b', "a'b", "x" * 257]
)
def test_a_value_that_could_be_more_than_a_value_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="characters that are not accepted"):
        check_settings(settings(ip=value))


@pytest.mark.parametrize(
    "agent", ["fence_ack_manual", "fence_dummy", "fence_scsi", "fence_kdump", "fence_sbd", "fence_ovh"]
)
def test_an_agent_whose_off_does_not_mean_that_nothing_runs_is_refused(agent: str) -> None:
    with pytest.raises(InvalidInput, match="cannot fence a node") as refusal:
        check_settings(settings(agent))
    assert refusal.value.field == "agent"


@pytest.mark.parametrize("agent", ["ipmilan", "fence_", "fence_../sh", "fence_ipmilan\n", "/usr/sbin/fence_ipmilan"])
def test_an_agent_that_is_none_is_refused(agent: str) -> None:
    with pytest.raises(InvalidInput, match="not a fence agent's name"):
        check_settings(settings(agent))


def test_a_method_that_may_succeed_before_the_power_is_off_is_refused() -> None:
    with pytest.raises(InvalidInput, match="before the power is off"):
        check_settings(settings(method="cycle"))


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        *(("fence_virsh", name) for name in ("missing_as_off", "missing-as-off", "cmd_prompt", "command-prompt")),
        *(("fence_azure_arm", name) for name in ("network_fencing", "network-fencing")),
    ],
)
@pytest.mark.parametrize("value", ["1", "0", ""])
def test_an_option_by_which_off_means_less_than_off_is_refused_with_its_reason(
    agent: str, name: str, value: str
) -> None:
    # An agent takes it as given, whatever its value.
    with pytest.raises(InvalidInput, match=f"the option {name} would weaken") as refusal:
        check_settings(settings(agent, plug="hv1", **{name: value}))
    assert (refusal.value.field, refusal.value.hint) == ("options", "leave it out")


def test_a_secret_belongs_into_the_file_and_an_option_has_a_value() -> None:
    with pytest.raises(InvalidInput, match="would put a secret into the log") as refusal:
        check_settings(settings(password="x"))
    assert refusal.value.hint == "put it into the file of `password_file`"
    with pytest.raises(InvalidInput, match='cannot be "ip"') as refusal:
        Fields(SetNodeFence).decode(SetNodeFence, {"node": "hv1", "agent": "fence_ipmilan", "option": ["ip"]})
    assert "NAME=VALUE, such as ip=10.0.1.2" in refusal.value.hint


FILES = ("identity_file", "identity-file", "kubeconfig", "openrc", "serviceaccount", "cacert", "tlscert", "tlscacert")


@pytest.mark.parametrize("name", [*FILES, "anything"])
@pytest.mark.parametrize("path", ["/root/.ssh/id_rsa", "/etc/pvc/fence/../../shadow", "/etc/pvc/tls/cert.pem"])
def test_an_option_that_names_a_file_may_only_name_one_that_is_for_fencing(name: str, path: str) -> None:
    with pytest.raises(InvalidInput, match=rf"option {name} .*/etc/pvc/fence") as refusal:
        check_settings(settings(**{name: path}))
    assert refusal.value.field == "options"
    check_settings(settings(**{name: "/etc/pvc/fence/hv1.pem"}))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("path", ["root/.ssh/id_rsa", "~/.ssh/id_rsa", "file:///etc/shadow"])
def test_an_option_that_is_a_file_names_it_by_its_whole_path(name: str, path: str) -> None:
    with pytest.raises(InvalidInput, match="/etc/pvc/fence"):
        check_settings(settings(**{name: path}))


@pytest.mark.parametrize("timeout_s", [0, 4, 601])
def test_a_time_without_sense_is_refused(timeout_s: int) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_settings(FenceSettings(agent="fence_ipmilan", timeout_s=timeout_s))
    assert refusal.value.field == "timeout_s"


@pytest.mark.parametrize(
    "path",
    [
        *("etc/password", "/root/.zookeeper-password", "/etc/pvc/log-password", "/etc/pvc/fence/../log-password"),
        *("/etc/pvc/fence/", "/etc/pvc/fence\n", "/etc/pvc/fence//hv1", "/etc/pvc/fence/./hv1", "/etc/pvcfence"),
    ],
)
def test_a_password_file_is_one_that_is_for_fencing_whoever_asks_for_another(path: str) -> None:
    # What is in it is sent to an address that the same person chooses.
    with pytest.raises(InvalidInput, match="/etc/pvc/fence") as refusal:
        check_settings(FenceSettings(agent="fence_ipmilan", password_file=path))
    assert refusal.value.field == "password_file"


@pytest.mark.parametrize("path", ["", "/etc/pvc/fence", "/etc/pvc/fence-password", "/etc/pvc/fence/hv1.example.org"])
def test_a_password_file_for_fencing_is_accepted(path: str) -> None:
    check_settings(FenceSettings(agent="fence_ipmilan", password_file=path))


def test_a_heap_of_options_is_refused() -> None:
    with pytest.raises(InvalidInput, match="options are more"):
        check_settings(settings(**{f"o{n}": "1" for n in range(MAX_OPTIONS + 1)}))
