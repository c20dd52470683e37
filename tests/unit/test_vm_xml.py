"""What a libvirt domain XML may say, and how each bad one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.commands.vm_xml import MAX_XML_BYTES, MAX_XML_DEPTH, parse_domain_xml
from pvc.drivers.domain_xml import Mark, build_domain_xml
from pvc.errors import InvalidInput

GOOD = "<domain type='kvm'><name>web01</name><memory unit='MiB'>512</memory><vcpu>2</vcpu></domain>"


def domain(inner: str) -> str:
    return f"<domain>{inner}</domain>"


def test_name_memory_and_vcpus_are_read_and_the_text_is_kept() -> None:
    name, spec = parse_domain_xml(GOOD)
    assert (name, spec.memory_mib, spec.vcpus, spec.xml) == ("web01", 512, 2, GOOD)


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='KiB'>1048576</memory>", 1024),
        ("<memory unit='k'>1048576</memory>", 1024),
        ("<memory unit='M'>512</memory>", 512),
        ("<memory unit='MB'>512</memory>", 488),
        ("<memory unit='GiB'>\n  2\n</memory>", 2048),
        ("<memory unit='bytes'>67108864</memory>", 64),
    ],
)
def test_memory_is_read_in_every_unit_of_libvirt(memory: str, mib: int) -> None:
    assert parse_domain_xml(domain(memory)).spec.memory_mib == mib


def test_without_a_vcpu_element_it_is_one() -> None:
    assert parse_domain_xml(domain("<memory unit='MiB'>64</memory>")).spec.vcpus == 1


BOMB = """<?xml version="1.0"?><!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<domain><name>&b;</name><memory>65536</memory></domain>"""
OUTSIDE = """<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>"""


@pytest.mark.parametrize(
    ("xml", "code", "said"),
    [
        ("", "vm.xml_invalid", "not well-formed at line 1"),
        ("hello", "vm.xml_invalid", "not well-formed"),
        ("<domain>\n<memory>\n</domain>", "vm.xml_invalid", "at line 3, column 3: mismatched tag"),
        (GOOD + "<more/>", "vm.xml_invalid", "not well-formed"),
        ("<domain>\x00</domain>", "vm.xml_invalid", "not well-formed"),
        ("<domain>\ud800</domain>", "vm.xml_invalid", "not accepted"),
        ("<network><name>x</name></network>", "vm.xml_invalid", "<network>"),
        (BOMB, "vm.xml_invalid", "EntitiesForbidden"),
        (OUTSIDE, "vm.xml_invalid", "EntitiesForbidden"),
        (domain(""), "vm.xml_invalid", "no <memory>"),
        (domain("<memory/>"), "vm.xml_invalid", "not a whole number"),
        (domain("<memory>lots</memory>"), "vm.xml_invalid", "'lots'"),
        (domain("<memory>-1</memory>"), "vm.xml_invalid", "'-1'"),
        (domain("<memory>1e9</memory>"), "vm.xml_invalid", "'1e9'"),
        (domain("<memory>٣</memory>"), "vm.xml_invalid", "not a whole number"),
        (domain("<memory unit='parsec'>1</memory>"), "vm.xml_invalid", "'parsec'"),
        (domain("<memory>1</memory>"), "vm.xml_invalid", "0 MiB, out of range: it may be 16 to 16,777,216"),
        (domain("<memory unit='MiB'>15</memory>"), "vm.xml_invalid", "15 MiB"),
        (domain(f"<memory unit='TiB'>{'9' * 18}</memory>"), "vm.xml_invalid", "out of range"),
        (domain(f"<memory unit='MiB'>{'9' * 5000}</memory>"), "vm.xml_invalid", "at most 18 digits"),
        (domain("<memory unit='MiB'>64</memory><vcpu>0</vcpu>"), "vm.xml_invalid", "<vcpu> is 0"),
        (domain("<memory unit='MiB'>64</memory><vcpu>1025</vcpu>"), "vm.xml_invalid", "<vcpu> is 1025"),
        (domain("<memory unit='MiB'>64</memory><vcpu>two</vcpu>"), "vm.xml_invalid", "'two'"),
        (domain("<a>" * 64 + "</a>" * 64 + "<memory unit='MiB'>64</memory>"), "vm.xml_invalid", "64 deep"),
        (domain(" " * MAX_XML_BYTES), "vm.xml_too_large", "65536 bytes"),
        (domain("ü" * (MAX_XML_BYTES // 2)), "vm.xml_too_large", "65536 bytes"),
    ],
)
def test_a_bad_xml_is_refused_with_its_place_and_a_remedy(xml: str, code: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_domain_xml(xml)
    assert refusal.value.code == code
    assert said in refusal.value.message
    assert refusal.value.hint
    assert refusal.value.field == "xml"
    assert len(refusal.value.message) < 300


def test_the_remedy_for_a_bad_memory_has_a_unit_and_a_sensible_size() -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_domain_xml(domain("<memory unit='GiB'>1.5</memory>"))
    assert "<memory unit='MiB'>1024</memory>" in refusal.value.hint


def test_an_xml_as_deep_as_is_allowed_can_be_written_again() -> None:
    nested = MAX_XML_DEPTH - 1
    xml = domain("<memory unit='MiB'>64</memory>" + "<a>" * nested + "</a>" * nested)
    spec = parse_domain_xml(xml).spec
    vm = "6f7a4a0e-3f0b-4d0f-9d52-0f0b7c1f6a01"
    built = build_domain_xml(
        vm, Mark(name="web01", epoch=1), spec, accelerator="tcg", console_log=Path("/var/log/web01.log")
    )
    assert built.count("<a>") == nested - 1
