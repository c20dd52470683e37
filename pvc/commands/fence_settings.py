"""Whether a node's fence settings may enter the log: no secret, no program of their own choice, no pretended fencing.

The options go to a program that runs as root on a coordinator, and into a history that every viewer can read. So what
an option's name says of it decides, and values are held to what devices are addressed with.
"""

from __future__ import annotations

import re
from typing import NoReturn

from pvc.errors import InvalidInput
from pvc.events.fence import FenceSettings
from pvc.events.types import END

MAX_OPTIONS = 32
"""More than any agent needs; keeps one node's record small."""

MIN_TIMEOUT_S = 5
"""Even a quick device is asked several times: the power is cut, and then verified."""

MAX_TIMEOUT_S = 600
"""While it runs no VM of the lost node is recovered."""

_AGENT = re.compile(r"^fence_[a-z0-9_]{1,58}" + END)
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,47}" + END)
_VALUE = re.compile(r"^[A-Za-z0-9._~:/@%+=,()\[\]-]{0,255}" + END)
"""No blanks, quotes or shell characters: several agents paste their options into another program's command line."""
_FILE = re.compile(r"^/etc/pvc/fence[A-Za-z0-9._-]{0,100}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}){0,4}" + END)
"""What is in such a file goes to an address that the same settings name, and a coordinator may read any. So only those
that root has put where fencing looks: the certificates' keys and ZooKeeper's password are beside them, in /etc/pvc."""

_SECRETS = ("pass", "secret", "token", "key", "kg", "community", "credential", "cookie")
_PROGRAMS = ("script", "path", "sudo", "exec", "ssh_options", "runon")
_FILES = ("_file", "kubeconfig", "openrc", "serviceaccount", "cacert", "tlscert", "tlscacert")
_OURS = (
    "action",
    "option",
    "debug",
    "debug_file",
    "logfile",
    "log",
    "verbose",
    "verbose_level",
    "quiet",
    "help",
    "version",
)

_WEAK = {
    "missing_as_off": "a plug that the device does not know would count as off, so a typing error as well",
    "cmd_prompt": "an answer cut short by it has no state in it, which some agents take for off",
    "command_prompt": "an answer cut short by it has no state in it, which some agents take for off",
    "network_fencing": "a machine cut off its network would count as off, and runs on",
}
"""With these "off" is no more what the device says of the power, or not of that machine. They are refused whatever
their value: to an agent some are set as soon as they are named."""

_NO_POWER_SWITCH = {
    "fence_ack_manual": "it takes a person's word; that is `pvc node confirm-fenced`",
    "fence_brocade": "it cuts a node off its storage network and leaves it running",
    "fence_cisco_mds": "it cuts a node off its storage network and leaves it running",
    "fence_compute": "it switches OpenStack services, not power",
    "fence_dummy": "it only pretends",
    "fence_evacuate": "it moves OpenStack instances and cuts no power",
    "fence_heuristics_ping": "it pings, and cuts no power",
    "fence_ifmib": "it cuts a node off its network and leaves it running",
    "fence_kdump": "it waits for a crash dump and cuts no power",
    "fence_mpath": "it cuts a node off its disks and leaves it running",
    "fence_ovh": "it cannot tell whether the power is off",
    "fence_rcd_serial": "it cannot tell whether the power is off",
    "fence_sanbox2": "it cuts a node off its storage network and leaves it running",
    "fence_sbd": "it asks the node to switch itself off and cannot verify it",
    "fence_scsi": "it cuts a node off its disks and leaves it running",
}
"""Agents of Debian 12 that answer "off" about a node whose VMs may still run."""


_FILE_HINT = "such as /etc/pvc/fence-password or /etc/pvc/fence/hv2, the same on every coordinator"


def check_settings(settings: FenceSettings) -> None:
    """Return when the settings are acceptable. Raises InvalidInput naming the field at fault."""
    if not _AGENT.match(settings.agent):
        _refuse("agent", f"{settings.agent!r} is not a fence agent's name", "such as fence_ipmilan or fence_redfish")
    if settings.agent in _NO_POWER_SWITCH:
        why = _NO_POWER_SWITCH[settings.agent]
        _refuse("agent", f"{settings.agent} cannot fence a node: {why}", "use an agent that verifies the power")
    if len(settings.options) > MAX_OPTIONS:
        _refuse("options", f"{len(settings.options)} options are more than {MAX_OPTIONS}", "give what is needed only")
    for name, value in settings.options.items():
        _check_option(name, value)
    if settings.password_file and not _FILE.match(settings.password_file):
        _refuse("password_file", "the path of a password file begins with /etc/pvc/fence", _FILE_HINT)
    if not MIN_TIMEOUT_S <= settings.timeout_s <= MAX_TIMEOUT_S:
        _refuse(
            "timeout_s", f"{settings.timeout_s} s is no time-out for a fencing", f"{MIN_TIMEOUT_S} to {MAX_TIMEOUT_S}"
        )


def _check_option(name: str, value: str) -> None:
    # What agents make of a name: hyphens and underscores are the same to them.
    plain = name.replace("-", "_")
    if not _NAME.match(name):
        _refuse("options", f"{name[:48]!r} is not an option's name", "lower-case letters, digits, - and _")
    if any(word in plain for word in _SECRETS):
        # Neither name nor hint may repeat the value: it may be the secret.
        _refuse(
            "options", f"the option {name} would put a secret into the log", "put it into the file of `password_file`"
        )
    if any(word in plain for word in _PROGRAMS):
        _refuse("options", f"the option {name} chooses what a coordinator runs as root", "leave it out")
    if plain in _WEAK:
        _refuse("options", f"the option {name} would weaken what off means: {_WEAK[plain]}", "leave it out")
    if plain in _OURS:
        _refuse("options", f"the option {name} is PVC's to set", "leave it out")
    if not _VALUE.match(value) or value.startswith("-"):
        _refuse(
            "options", f"the value of the option {name} has characters that are not accepted", "no blanks or quotes"
        )
    names_file = plain.endswith(_FILES) or (value.startswith("/") and not plain.endswith("_uri"))
    if names_file and not _FILE.match(value):
        _refuse("options", f"the option {name} names a file, whose path begins with /etc/pvc/fence", _FILE_HINT)
    if plain == "method" and value != "onoff":
        _refuse("options", f"method {value} may report success before the power is off", "method=onoff, or none")


def _refuse(field: str, message: str, hint: str) -> NoReturn:
    raise InvalidInput(message, field=field, hint=hint)
