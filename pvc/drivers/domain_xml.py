"""VmSpec -> libvirt domain XML, and PVC's own mark in it. Pure; everything a user typed passes through an XML writer.

The mark is one element in libvirt's `<metadata>`: it makes a domain PVC's, and remembers what must survive both
daemons: the epoch, whether the guest was ever let run, the last reset done, and that it has moved away.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, register_namespace, tostring

import msgspec
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pvc.errors import DriverError
from pvc.events.vm import Disk, Nic, VmSpec

NAMESPACE = "https://parallelvirtualcluster.org/xmlns/vm/1"
PREFIX = "pvc"
_TAG = f"{{{NAMESPACE}}}vm"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, not even escaped (https://www.w3.org/TR/xml/#charsets)."""

register_namespace(PREFIX, NAMESPACE)
# So that a definition of the user's keeps the prefixes that libvirt's own documentation uses.
register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
register_namespace("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0")


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """PVC's mark in a domain."""

    name: str
    """The VM's name when it was defined; libvirt's own name may have a suffix when that one was taken."""
    epoch: int
    started: bool = False
    """Set just before the guest's first instruction, so without it the domain certainly never ran."""
    settled: bool = False
    """Set once the guest runs; a paused domain without it is a start that was cut off half-way."""
    reset: str = ""
    """The mark of the last reset done."""
    moved: bool = False
    """Set in the definition that a migration has left behind."""


def build_domain_xml(vm: str, mark: Mark, spec: VmSpec, *, accelerator: str, console_log: Path, name: str = "") -> str:
    """The whole domain. `accelerator` is `kvm` or `tcg`; `name` is libvirt's name if not the VM's.

    Raises DriverError `hypervisor.bad_definition` when `spec.xml` is no domain or a text cannot stand in XML.
    """
    domain = _parse(spec.xml) if spec.xml else _new_domain(vm, spec, accelerator)
    domain.attrib.pop("id", None)
    domain.set("type", "kvm" if accelerator == "kvm" else "qemu")
    _replace(domain, "name", name or mark.name)
    _replace(domain, "uuid", vm)
    _replace(domain, "memory", str(spec.memory_mib), unit="MiB")
    _replace(domain, "currentMemory", str(spec.memory_mib), unit="MiB")
    _fit_cpu(domain, spec.vcpus, accelerator)
    _replace(domain, "on_poweroff", "destroy")
    _replace(domain, "on_reboot", "restart")
    _replace(domain, "on_crash", "destroy")
    for label in [label for label in domain.findall("seclabel") if label.get("type") == "dynamic"]:
        # libvirt fills it in at each start, and refuses it on a node with another security driver.
        domain.remove(label)
    _put_mark(domain, mark)
    _put_console(_child(domain, "devices"), console_log)
    for element in domain.iter():
        for text in (element.text or "", element.tail or "", *element.attrib.values()):
            _check_text(text)
    return tostring(domain, encoding="unicode")


def mark_xml(mark: Mark) -> str:
    """The mark's element as libvirt's `setMetadata` takes it: without its namespace, which libvirt puts on."""
    return tostring(_mark_element(mark, "vm"), encoding="unicode")


def read_mark(text: str) -> Mark:
    """The mark from its element, as libvirt's `metadata` gives it. Raises ValueError when it is not one."""
    try:
        element = fromstring(text)
    except (ParseError, DefusedXmlException) as error:
        raise ValueError(f"no XML: {error}") from error
    # libvirt hands the element out without its namespace.
    if element.tag not in (_TAG, "vm") or not element.get("epoch", "").isdecimal():
        raise ValueError("not a mark of PVC")
    return Mark(
        name=element.get("name", ""),
        epoch=int(element.get("epoch", "")),
        started=element.get("started") == "yes",
        settled=element.get("settled") == "yes",
        reset=element.get("reset", ""),
        moved=element.get("moved") == "yes",
    )


def nic_mac(vm: str, index: int) -> str:
    """The MAC address of a VM's nth interface: the same at every start and on every node, in QEMU's 52:54:00."""
    tail = uuid.uuid5(uuid.UUID(vm), f"nic/{index}").bytes[:3]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def _parse(text: str) -> Element:
    try:
        # A declaration of an encoding contradicts text that is decoded already.
        domain: Element = fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", text, flags=re.DOTALL))
    except (ParseError, DefusedXmlException) as error:
        raise _bad(f"the domain XML cannot be read: {error}") from error
    if domain.tag != "domain":
        raise _bad(f"the XML describes a <{domain.tag}>, not a <domain>")
    return domain


def _new_domain(vm: str, spec: VmSpec, accelerator: str) -> Element:
    domain = Element("domain")
    for tag in ("name", "uuid", "metadata", "memory", "currentMemory", "vcpu"):
        SubElement(domain, tag)
    system = SubElement(domain, "os")
    SubElement(system, "type", arch="x86_64", machine="q35").text = "hvm"
    if spec.kernel is not None:
        SubElement(system, "kernel").text = spec.kernel
        if spec.initrd is not None:
            SubElement(system, "initrd").text = spec.initrd
        if spec.cmdline:
            SubElement(system, "cmdline").text = spec.cmdline
    else:
        SubElement(system, "boot", dev="hd")
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    SubElement(domain, "cpu", mode="host-passthrough" if accelerator == "kvm" else "maximum")
    SubElement(domain, "clock", offset="utc")
    devices = SubElement(domain, "devices")
    for index, disk in enumerate(spec.disks):
        _add_disk(devices, disk, index, [other.bus for other in spec.disks[:index]].count(disk.bus))
    if any(disk.bus == "scsi" for disk in spec.disks):
        SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    for index, nic in enumerate(spec.nics):
        _add_nic(devices, nic, nic.mac or nic_mac(vm, index))
    # Without it a guest's panic looks like a guest that is busy for ever.
    SubElement(devices, "panic", model="isa")
    rng = SubElement(devices, "rng", model="virtio")
    SubElement(rng, "backend", model="random").text = "/dev/urandom"
    SubElement(devices, "memballoon", model="virtio")
    return domain


def _add_disk(devices: Element, disk: Disk, index: int, index_on_bus: int) -> None:
    element = SubElement(devices, "disk", type="block" if disk.path.startswith("/dev/") else "file", device="disk")
    SubElement(element, "driver", name="qemu", type=disk.format, cache="none", discard="unmap")
    SubElement(element, "source", {"dev" if disk.path.startswith("/dev/") else "file": disk.path})
    # scsi and sata disks share the `sd` letters; a virtio disk counts its own.
    prefix, number = ("vd", index_on_bus) if disk.bus == "virtio" else ("sd", index)
    SubElement(element, "target", dev=prefix + _letters(number), bus=disk.bus)
    if disk.read_only:
        SubElement(element, "readonly")


def _letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa: the kernel's names of disks."""
    text = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        text = chr(ord("a") + letter) + text
    return text


def _add_nic(devices: Element, nic: Nic, mac: str) -> None:
    element = SubElement(devices, "interface", type="bridge")
    SubElement(element, "mac", address=mac)
    SubElement(element, "source", bridge=nic.bridge)
    SubElement(element, "model", type=nic.model)


def _fit_cpu(domain: Element, vcpus: int, accelerator: str) -> None:
    """Set the number of vCPUs and take away what would contradict it; pinning stays."""
    count = _child(domain, "vcpu")
    count.text = str(vcpus)
    count.attrib.pop("current", None)
    for states in domain.findall("vcpus"):
        domain.remove(states)
    cpu = domain.find("cpu")
    if cpu is None:
        return
    if accelerator != "kvm" and cpu.get("mode") in ("host-passthrough", "host-model"):
        # There is no host CPU to hand through when every instruction is emulated.
        domain.remove(cpu)
        SubElement(domain, "cpu", mode="maximum")
        return
    topology = cpu.find("topology")
    if topology is not None:
        product = 1
        for level in ("sockets", "dies", "clusters", "cores", "threads"):
            value = topology.get(level, "1")
            product *= int(value) if value.isdecimal() else 0
        if product != vcpus:
            cpu.remove(topology)


def _put_mark(domain: Element, mark: Mark) -> None:
    metadata = _child(domain, "metadata")
    for old in metadata.findall(_TAG):
        metadata.remove(old)
    metadata.append(_mark_element(mark))


def _mark_element(mark: Mark, tag: str = _TAG) -> Element:
    element = Element(tag, name=mark.name, epoch=str(mark.epoch))
    if mark.started:
        element.set("started", "yes")
    if mark.settled:
        element.set("settled", "yes")
    if mark.reset:
        element.set("reset", mark.reset)
    if mark.moved:
        element.set("moved", "yes")
    return element


def _put_console(devices: Element, console_log: Path) -> None:
    """See to a first serial port that is a pty and is logged; its target and other ports stay as they are."""
    serial = next((port for port in devices.findall("serial") if _port(port) == "0"), None)
    if serial is None:
        serial = SubElement(devices, "serial")
        SubElement(serial, "target", port="0")
    serial.set("type", "pty")
    for tag in ("source", "log", "protocol"):
        for old in serial.findall(tag):
            serial.remove(old)
    serial.insert(0, Element("log", file=str(console_log), append="on"))
    # libvirt mirrors the first serial port as the first console; a contradicting one would win over it.
    for console in devices.findall("console"):
        target = console.find("target")
        if target is None or target.get("type", "serial") == "serial":
            devices.remove(console)
    console = SubElement(devices, "console", type="pty")
    SubElement(console, "target", type="serial", port="0")


def _port(serial: Element) -> str:
    target = serial.find("target")
    return target.get("port", "0") if target is not None else "0"


def _child(parent: Element, tag: str) -> Element:
    found = parent.find(tag)
    return SubElement(parent, tag) if found is None else found


def _replace(domain: Element, tag: str, text: str, **attributes: str) -> None:
    for old in domain.findall(tag)[1:]:
        domain.remove(old)
    element = _child(domain, tag)
    element.clear()
    element.text = text
    element.attrib.update(attributes)


def _check_text(text: str) -> None:
    if found := _NOT_XML.search(text):
        raise _bad(f"the definition holds the character {found[0]!r}, which XML cannot carry")


def _bad(message: str) -> DriverError:
    return DriverError(
        message, code="hypervisor.bad_definition", hint="correct the VM's definition with `pvc vm modify`"
    )
