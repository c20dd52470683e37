"""Reads a libvirt domain XML into a VmSpec: what PVC needs to know of it; the rest stays as it is in `spec.xml`.

Format: https://libvirt.org/formatdomain.html. Parsed with defusedxml, since the XML comes from outside.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from pvc.commands.base import invalid
from pvc.errors import InvalidInput
from pvc.events.vm import VmSpec

_TO_BYTES = {
    "b": 1,
    "bytes": 1,
    "kb": 1000,
    "k": 1024,
    "kib": 1024,
    "mb": 1000**2,
    "m": 1024**2,
    "mib": 1024**2,
    "gb": 1000**3,
    "g": 1024**3,
    "gib": 1024**3,
    "tb": 1000**4,
    "t": 1024**4,
    "tib": 1024**4,
}
MAX_XML_BYTES = 64 * 1024
"""A domain XML of ordinary size has 3 to 10 KiB; a quarter of a record leaves room for the rest."""


class ParsedXml(NamedTuple):
    """What a domain XML says: the VM's name ("" if it has none) and spec."""

    name: str
    spec: VmSpec


def parse_domain_xml(xml: str) -> ParsedXml:
    """The name and spec in a libvirt domain XML. Raises InvalidInput that says where it is wrong."""
    if len(xml.encode()) > MAX_XML_BYTES:
        raise _bad(f"the XML has more than {MAX_XML_BYTES} bytes", code="vm.xml_too_large")
    try:
        root: Element = ElementTree.fromstring(xml)
    except ParseError as error:
        line, column = error.position
        raise _bad(f"the XML is not well-formed at line {line}, column {column + 1}: {error}") from error
    except (DefusedXmlException, ValueError) as error:
        raise _bad(f"the XML is not accepted: {type(error).__name__}", "leave out the DTD and its entities") from error
    if root.tag != "domain":
        raise _bad(f"the XML's root element is <{root.tag}>, not <domain>", "`virsh dumpxml --inactive` shows one")
    name = (root.findtext("name") or "").strip()
    spec = VmSpec(memory_mib=_memory_mib(root), vcpus=_vcpus(root), xml=xml)
    return ParsedXml(name, spec)


def _memory_mib(root: Element) -> int:
    element = root.find("memory")
    if element is None:
        raise _bad("the XML has no <memory>", "add for example <memory unit='MiB'>1024</memory>")
    unit = element.get("unit", "KiB")
    factor = _TO_BYTES.get(unit.lower())
    if factor is None:
        raise _bad(f"the unit {unit!r} of <memory> is not known", "use KiB, MiB or GiB")
    mib = _number(element, "memory") * factor // 1024**2
    if mib < 1:
        raise _bad("<memory> is less than 1 MiB", "give it a unit: <memory unit='MiB'>1024</memory>")
    return mib


def _vcpus(root: Element) -> int:
    element = root.find("vcpu")
    return 1 if element is None else _number(element, "vcpu")


def _number(element: Element, what: str) -> int:
    text = (element.text or "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _bad(f"<{what}> is {text[:40]!r}, not a whole number", f"write for example <{what}>2</{what}>")
    return int(text)


def _bad(
    message: str, hint: str = "`virt-xml-validate FILE domain` checks it", code: str = "vm.xml_invalid"
) -> InvalidInput:
    return invalid("xml", message, hint, code)
