"""A lab for the tests, under a name and in a directory of its own, so that a developer's lab is left alone."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pvc.errors import DriverError
from pvc.lab.cluster import ask_gateway
from pvc.lab.lab import Lab, create_lab, destroy
from pvc.lab.shell import check_machine


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three nodes, all coordinators, up; whoever breaks it mends it."""
    yield from made_lab(nodes=3, coordinators=3)


def made_lab(*, nodes: int, coordinators: int, self_fencing: Iterable[str] = ()) -> Iterator[Lab]:
    """A lab that is up, and gone afterwards."""
    require_lab()
    # Not pytest's own directory: its path may be too long for a socket.
    home = Path(tempfile.mkdtemp(prefix="pvc-lab-", dir="/tmp"))
    name = new_name()
    try:
        made = create_lab(home, nodes=nodes, coordinators=coordinators, name=name, self_fencing=self_fencing)
        made.up()
        # What the tests do to the hosts is theirs alone: else the cluster would fence whom they cut off.
        ask_gateway(made.hosts[0], "POST", "/cluster/maintenance", {"maintenance": True, "reason": "tests"})
        yield made
    finally:
        destroy(home, name)


def new_name() -> str:
    """A name that no other lab has, most likely."""
    return f"t{secrets.token_hex(2)}"


def require_lab() -> None:
    """Skip where a lab is not possible, or fail where PVC_TEST_REQUIRE says that it must be."""
    try:
        check_machine()
    except DriverError as error:
        line = f"a lab is not possible here: {error}"
        if "lab" in os.environ.get("PVC_TEST_REQUIRE", "").split(","):
            pytest.fail(line, pytrace=False)
        pytest.skip(line)
