"""Reads a libvirt domain XML into a VmSpec: what PVC needs to know of it; the rest stays as it is in `spec.xml`.

Format: https://libvirt.org/formatdomain.html. Parsed with defusedxml, since the XML comes from outside.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError
from xml.parsers.expat import ErrorString

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from pvc.commands.base import invalid
from pvc.errors import InvalidInput
from pvc.events.types import MemoryMib, Vcpus
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

MAX_XML_DEPTH = 64
"""libvirt's own format nests to about ten; what writes XML recurses, and must never run out of stack."""


class ParsedXml(NamedTuple):
    """What a domain XML says: the VM's name ("" if it has none) and spec."""

    name: str
    spec: VmSpec


def parse_domain_xml(xml: str) -> ParsedXml:
    """The name and spec in a libvirt domain XML. Raises InvalidInput that says where it is wrong."""
    if len(xml.encode(errors="replace")) > MAX_XML_BYTES:
        raise _bad(f"the XML has more than {MAX_XML_BYTES} bytes", "leave out what libvirt fills in itself", _TOO_LARGE)
    try:
        root: Element = ElementTree.fromstring(xml)
    except ParseError as error:
        line, column = error.position
        what = ErrorString(error.code) or "no XML"
        raise _bad(f"the XML is not well-formed at line {line}, column {column + 1}: {what}") from error
    except (DefusedXmlException, ValueError) as error:
        raise _bad(f"the XML is not accepted: {type(error).__name__}", "leave out the DTD and its entities") from error
    if root.tag != "domain":
        raise _bad(f"the XML's root element is <{root.tag[:40]}>, not <domain>", "`virsh dumpxml --inactive` shows one")
    if _deeper_than(root, MAX_XML_DEPTH):
        raise _bad(f"the XML is nested more than {MAX_XML_DEPTH} deep", "`virsh dumpxml --inactive` shows a sound one")
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
        raise _bad(f"the unit {unit[:40]!r} of <memory> is not known", "use KiB, MiB or GiB")
    mib = _number(element, "memory", _MEMORY_HINT) * factor // 1024**2
    return _fitting(mib, MemoryMib, f"<memory> is {mib} MiB", _MEMORY_HINT)


def _vcpus(root: Element) -> int:
    element = root.find("vcpu")
    if element is None:
        return 1
    count = _number(element, "vcpu", _VCPU_HINT)
    return _fitting(count, Vcpus, f"<vcpu> is {count}", _VCPU_HINT)


_MEMORY_HINT = "write for example <memory unit='MiB'>1024</memory>; without a unit it is KiB"
_VCPU_HINT = "write for example <vcpu>2</vcpu>"


def _fitting(number: int, wanted: Any, said: str, hint: str) -> int:
    """The number, if it is all that the event's type demands, since it goes into an event."""
    bounds = wanted.__metadata__[0]
    if not bounds.ge <= number <= bounds.le:
        raise _bad(f"{said}, out of range: it may be {bounds.ge:,} to {bounds.le:,}", hint)
    return number


def _number(element: Element, what: str, hint: str) -> int:
    text = (element.text or "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _bad(f"<{what}> is {text[:40]!r}, not a whole number of at most 18 digits", hint)
    return int(text)


def _deeper_than(root: Element, limit: int) -> bool:
    level = [root]
    for _ in range(limit):
        level = [child for element in level for child in element]
    return bool(level)


_TOO_LARGE = "vm.xml_too_large"


def _bad(
    message: str, hint: str = "`virt-xml-validate FILE domain` checks it", code: str = "vm.xml_invalid"
) -> InvalidInput:
    return invalid("xml", message, hint, code)
