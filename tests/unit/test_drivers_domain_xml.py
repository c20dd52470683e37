"""What a VmSpec becomes in libvirt's words, and that nothing a user types escapes from its place there."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from pvc.drivers.domain_xml import NAMESPACE, Mark, build_domain_xml, mark_xml, nic_mac, read_mark
from pvc.errors import DriverError
from pvc.events.vm import Disk, Nic, VmSpec

VM = "5f0c4b0e-8a53-4b7e-9d0e-3a5d6a3f0001"
MARK = Mark(name="web01", epoch=7)
PLAIN = VmSpec(memory_mib=512, vcpus=2)
GOLDEN = """\
<domain xmlns:pvc="https://parallelvirtualcluster.org/xmlns/vm/1" type="qemu">
<name>web01</name>
<uuid>5f0c4b0e-8a53-4b7e-9d0e-3a5d6a3f0001</uuid>
<metadata><pvc:vm name="web01" epoch="7" /></metadata>
<memory unit="MiB">512</memory>
<currentMemory unit="MiB">512</currentMemory>
<vcpu>2</vcpu>
<os><type arch="x86_64" machine="q35">hvm</type><kernel>/boot/k</kernel><initrd>/boot/i</initrd>\
<cmdline>console=ttyS0</cmdline></os>
<features><acpi /><apic /></features>
<cpu mode="maximum" />
<clock offset="utc" />
<devices>
<disk type="file" device="disk"><driver name="qemu" type="qcow2" cache="none" discard="unmap" />\
<source file="/var/a.qcow2" /><target dev="vda" bus="virtio" /></disk>
<interface type="bridge"><mac address="52:54:00:00:00:01" /><source bridge="br0" /><model type="virtio" /></interface>
<panic model="isa" />
<rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
<memballoon model="virtio" />
<serial type="pty"><log file="/c/web01.log" append="on" /><target port="0" /></serial>
<console type="pty"><target type="serial" port="0" /></console>
</devices>
<on_poweroff>destroy</on_poweroff>
<on_reboot>restart</on_reboot>
<on_crash>destroy</on_crash>
</domain>"""


def build(spec: VmSpec, *, mark: Mark = MARK, accelerator: str = "tcg", name: str = "") -> Element:
    return fromstring(text_of(spec, mark=mark, accelerator=accelerator, name=name))


def text_of(spec: VmSpec, *, mark: Mark = MARK, accelerator: str = "tcg", name: str = "") -> str:
    return build_domain_xml(VM, mark, spec, accelerator=accelerator, console_log=Path("/c/web01.log"), name=name)


def test_a_vm_with_everything_becomes_just_this() -> None:
    spec = VmSpec(
        memory_mib=512,
        vcpus=2,
        kernel="/boot/k",
        initrd="/boot/i",
        cmdline="console=ttyS0",
        disks=(Disk(path="/var/a.qcow2", format="qcow2"),),
        nics=(Nic(bridge="br0", mac="52:54:00:00:00:01"),),
    )
    assert text_of(spec) == GOLDEN.replace("\n", "")


def test_the_accelerator_decides_the_type_and_the_cpu() -> None:
    tcg, kvm = build(PLAIN), build(PLAIN, accelerator="kvm")
    assert (tcg.get("type"), tcg.find("cpu").get("mode")) == ("qemu", "maximum")
    assert (kvm.get("type"), kvm.find("cpu").get("mode")) == ("kvm", "host-passthrough")


def test_without_a_kernel_it_boots_from_its_disk() -> None:
    assert build(PLAIN).find("os/boot").get("dev") == "hd"
    assert build(PLAIN).find("os/kernel") is None


@pytest.mark.parametrize("hostile", ["</cmdline><evil/>", "a & b", "\"'<>", "]]>", "-append 'x'", "ä漢\U0001f600"])
def test_what_a_user_types_stays_text(hostile: str) -> None:
    spec = VmSpec(memory_mib=512, vcpus=1, kernel="/k", cmdline=hostile, disks=(Disk(path=f"/images/{hostile}"),))
    domain = build(spec, mark=Mark(name=hostile, epoch=1, reset=hostile))
    assert domain.findtext("os/cmdline") == hostile
    assert domain.find("devices/disk/source").get("file") == f"/images/{hostile}"
    assert domain.findtext("name") == hostile
    assert domain.find(f"metadata/{{{NAMESPACE}}}vm").get("reset") == hostile
    assert domain.find(".//evil") is None


@pytest.mark.parametrize("control", ["\0", "\x1b[2J", "\ud800"])
def test_what_xml_cannot_carry_is_refused_and_named(control: str) -> None:
    with pytest.raises(DriverError, match="XML cannot carry") as refusal:
        text_of(VmSpec(memory_mib=512, vcpus=1, kernel="/k", cmdline=f"quiet {control}"))
    assert refusal.value.code == "hypervisor.bad_definition"


def test_disks_get_the_names_of_their_bus_in_order() -> None:
    buses = ("virtio", "scsi", "virtio", "sata", "scsi")
    domain = build(VmSpec(memory_mib=512, vcpus=1, disks=tuple(Disk(path=f"/{i}", bus=b) for i, b in enumerate(buses))))
    names = [target.get("dev") for target in domain.findall("devices/disk/target")]
    assert names == ["vda", "sdb", "vdb", "sdd", "sde"]
    assert domain.find("devices/controller").get("model") == "virtio-scsi"


def test_the_27th_disk_is_called_as_the_kernel_calls_it() -> None:
    domain = build(VmSpec(memory_mib=512, vcpus=1, disks=tuple(Disk(path=f"/{i}") for i in range(28))))
    names = [target.get("dev") for target in domain.findall("devices/disk/target")]
    assert names[25:] == ["vdz", "vdaa", "vdab"]


def test_a_device_is_a_block_disk_and_a_read_only_one_says_so() -> None:
    disk = build(VmSpec(memory_mib=512, vcpus=1, disks=(Disk(path="/dev/vg/web", read_only=True),))).find(
        "devices/disk"
    )
    assert disk.get("type") == "block"
    assert disk.find("source").get("dev") == "/dev/vg/web"
    assert disk.find("readonly") is not None


def test_a_mac_is_the_vms_own_for_ever() -> None:
    spec = VmSpec(memory_mib=512, vcpus=1, nics=(Nic(bridge="br0"), Nic(bridge="br0")))
    macs = [mac.get("address") for mac in build(spec).findall("devices/interface/mac")]
    assert macs == [nic_mac(VM, 0), nic_mac(VM, 1)] == ["52:54:00:c5:4f:7b", "52:54:00:a2:17:f6"]


def test_a_definition_of_ones_own_keeps_what_pvc_has_no_word_for() -> None:
    own = """<?xml version="1.0" encoding="UTF-8"?>
    <domain type='xen' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <name>old</name><uuid>00000000-0000-0000-0000-000000000000</uuid><title>Shop</title>
      <metadata><other:thing xmlns:other="urn:x">kept</other:thing>
        <pvc:vm xmlns:pvc="NAMESPACE" name="stale" epoch="1" started="yes"/></metadata>
      <memory unit='KiB'>1</memory><currentMemory>1</currentMemory>
      <vcpu placement='static' cpuset='0-1' current='1'>8</vcpu>
      <cpu mode='host-passthrough'><topology sockets='1' cores='8' threads='1'/></cpu>
      <on_poweroff>preserve</on_poweroff><on_crash>preserve</on_crash>
      <devices>
        <serial type='file'><source path='/tmp/x'/><target port='1'/></serial>
        <serial type='tcp'><source mode='bind' host='0' service='1'/><protocol type='raw'/>
          <target type='isa-serial' port='0'/></serial>
        <console type='tcp'><target type='serial' port='0'/></console>
        <console type='pty'><target type='virtio' port='1'/></console>
        <watchdog model='i6300esb'/>
      </devices>
      <qemu:commandline><qemu:arg value='-S'/></qemu:commandline>
    </domain>""".replace("NAMESPACE", NAMESPACE)
    domain = build(VmSpec(memory_mib=256, vcpus=2, xml=own))
    assert (domain.get("type"), domain.get("id")) == ("qemu", None)
    assert (domain.findtext("name"), domain.findtext("uuid")) == ("web01", VM)
    assert domain.findtext("title") == "Shop"
    assert domain.findtext("metadata/{urn:x}thing") == "kept"
    assert [mark.attrib for mark in domain.findall(f"metadata/{{{NAMESPACE}}}vm")] == [{"name": "web01", "epoch": "7"}]
    assert [(domain.findtext(tag), domain.find(tag).attrib) for tag in ("memory", "currentMemory")] == [
        ("256", {"unit": "MiB"})
    ] * 2
    assert (domain.findtext("vcpu"), domain.find("vcpu").attrib) == ("2", {"placement": "static", "cpuset": "0-1"})
    assert [domain.findtext(tag) for tag in ("on_poweroff", "on_reboot", "on_crash")] == [
        "destroy",
        "restart",
        "destroy",
    ]
    assert domain.find("cpu").attrib == {"mode": "maximum"}
    assert domain.find("devices/watchdog").get("model") == "i6300esb"
    assert domain.find("{http://libvirt.org/schemas/domain/qemu/1.0}commandline") is not None
    first, second = domain.findall("devices/serial")
    assert (first.get("type"), first.find("source").get("path")) == ("file", "/tmp/x")
    assert (second.get("type"), second.find("log").get("file"), second.find("source")) == ("pty", "/c/web01.log", None)
    assert second.find("target").get("type") == "isa-serial"
    targets = [(c.get("type"), c.find("target").get("type")) for c in domain.findall("devices/console")]
    assert targets == [("pty", "virtio"), ("pty", "serial")]


def test_a_security_label_that_libvirt_filled_in_on_another_node_is_left_out() -> None:
    own = """<domain><memory>1</memory><seclabel type='static' model='selinux'><label>mine</label></seclabel>
    <seclabel type='dynamic' model='apparmor' relabel='yes'><label>libvirt-1</label></seclabel></domain>"""
    labels = build(VmSpec(memory_mib=256, vcpus=1, xml=own)).findall("seclabel")
    assert [label.get("model") for label in labels] == ["selinux"]


def test_a_topology_that_fits_the_vcpus_stays_and_another_goes() -> None:
    def topology(cores: int) -> Element | None:
        xml = f"<domain><cpu mode='custom'><topology sockets='2' cores='{cores}' threads='1'/></cpu></domain>"
        return build(VmSpec(memory_mib=256, vcpus=4, xml=xml)).find("cpu/topology")

    assert topology(2) is not None
    assert topology(3) is None


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        ("not xml", "cannot be read"),
        ("<network/>", "<network>, not a <domain>"),
        ('<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/shadow">]><domain>&a;</domain>', "cannot be read"),
    ],
)
def test_a_definition_that_is_none_is_refused(xml: str, word: str) -> None:
    with pytest.raises(DriverError, match=word) as refusal:
        text_of(VmSpec(memory_mib=256, vcpus=1, xml=xml))
    assert refusal.value.code == "hypervisor.bad_definition"


def test_a_name_that_was_taken_is_replaced_in_libvirt_only() -> None:
    domain = build(PLAIN, name="web01-5f0c4b0e")
    assert domain.findtext("name") == "web01-5f0c4b0e"
    assert domain.find(f"metadata/{{{NAMESPACE}}}vm").get("name") == "web01"


@pytest.mark.parametrize(
    "mark",
    [
        MARK,
        Mark(name="a", epoch=0, started=True),
        Mark(name="a", epoch=3, started=True, settled=True, moved=True),
        Mark(name='"<&', epoch=2**40, started=True, settled=True, reset="01J<>&\"'"),
    ],
)
def test_a_mark_is_read_back_as_it_was_written(mark: Mark) -> None:
    assert read_mark(mark_xml(mark)) == mark
    in_domain = build(PLAIN, mark=mark).find(f"metadata/{{{NAMESPACE}}}vm")
    assert in_domain.attrib == fromstring(mark_xml(mark)).attrib


@pytest.mark.parametrize("text", ["", "<vm/>", "<vm epoch='x'/>", "<other epoch='1'/>", "<vm epoch='1'"])
def test_what_is_no_mark_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"no XML|not a mark"):
        read_mark(text)
