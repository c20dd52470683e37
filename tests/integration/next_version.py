"""Makes the next version of PVC out of this one: a copy of the package with what a new feature level brings.

- an event type of its own, `vm.blessed`, which the tag `blessed` leads to without a look at the cluster's level;
- a field `loud` in `vm.tag_added`, by which another tag is folded; written where the level allows it;
- a field `kernel` in `node.ready`, which is written at once, as nothing is folded of it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pvc.events.registry import FEATURE_LEVEL

PACKAGE = Path(__file__).parents[2] / "pvc"
VERSION = "99.0.0"
LEVEL = FEATURE_LEVEL + 1

_BLESSED = '''

class VmBlessed(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing comes of it."""

    TYPE: ClassVar[str] = "vm.blessed"
    vm: str
'''
_LEVELS = """

TYPE_LEVELS["vm.blessed"] = FEATURE_LEVEL
FIELD_LEVELS["vm.tag_added", "loud"] = FEATURE_LEVEL
"""

PATCHES: dict[str, list[tuple[str, str]]] = {
    "__init__.py": [(r'__version__ = "[^"]+"', f'__version__ = "{VERSION}"')],
    "events/registry.py": [
        (r"(?m)^FEATURE_LEVEL = \d+$", f"FEATURE_LEVEL = {LEVEL}"),
        (r"(?m)^    \| vm\.VmTagRemoved$", r"\g<0>\n    | vm.VmBlessed"),
        (r"\Z", _LEVELS),
    ],
    "events/vm.py": [
        (r"    tag: str\n    protected: bool = False\n", r"\g<0>    loud: bool = False\n"),
        (r"\Z", _BLESSED),
    ],
    "events/node.py": [(r"    level: int = 1\n", r'\g<0>    kernel: str = ""\n')],
    "commands/facts.py": [(r"        level=report\.level,\n", r'\g<0>        kernel="6.1",\n')],
    "commands/vm_settings.py": [
        (
            r"    return Decision\(events=\(e\.VmTagAdded\(.*\),\)\)\n",
            f"""\
    assert state.cluster is not None
    loud = command.tag.startswith("loud") and state.cluster.level >= {LEVEL}
    added = e.VmTagAdded(vm=vm.id, tag=command.tag, protected=command.protected, loud=loud)
    blessing = (e.VmBlessed(vm=vm.id),) if command.tag == "blessed" else ()
    return Decision(events=(added, *blessing))
""",
        )
    ],
    "projections/evolve_vm.py": [
        (
            r"\*\*vm\.tags, event\.tag: event\.protected",
            r"**vm.tags, event.tag.upper() if event.loud else event.tag: event.protected",
        ),
        (r"\Z", "\n\ndef blessed(state: ClusterState, event: e.VmBlessed, record: Record) -> None:\n    pass\n"),
    ],
    "projections/fold.py": [(r"    vm\.VmTagRemoved: .*\n", r"\g<0>    vm.VmBlessed: evolve_vm.blessed,\n")],
    "projections/story.py": [(r"    vm\.VmTagRemoved: .*\n", r'\g<0>    vm.VmBlessed: lambda e: "blessed",\n')],
}


def copy_package(target: Path) -> Path:
    """This version, where nobody changes it while the test runs. Returns what goes onto Python's path."""
    shutil.copytree(PACKAGE, target / "pvc", ignore=shutil.ignore_patterns("__pycache__"))
    return target


def make_next_version(target: Path) -> Path:
    """The next version. Fails where this one has no longer what is to be changed."""
    copy_package(target)
    for name, patches in PATCHES.items():
        file = target / "pvc" / name
        text = file.read_text()
        for old, new in patches:
            text, count = re.subn(old, new, text)
            assert count == 1, f"{name} has {old!r} {count} times"
        file.write_text(text)
    return target
