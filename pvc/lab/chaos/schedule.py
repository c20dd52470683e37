"""What is broken when: a list of faults drawn from a seed. Pure, so the same seed breaks the same things in that order.

Roles (`primary`, `leader`) are looked up when their turn comes; who has them depends on the run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

PRIMARY = "primary"
LEADER = "leader"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of fault, and how it is drawn."""

    name: str
    lasts_s: tuple[float, float]
    """Between its beginning and its healing."""
    on: str = "any"
    """On which host: `any`, a role, or `cluster`."""
    variants: tuple[str, ...] = ("",)
    weight: int = 1
    alone: bool = False
    """Never while another fault is in force, as what it shows would not be its own doing."""


KINDS = (
    Kind(name="kill-pvcd", lasts_s=(1, 4), weight=2),
    Kind(name="kill-libvirtd", lasts_s=(1, 4)),
    Kind(name="kill-qemu", lasts_s=(0.5, 2), on="cluster"),
    Kind(name="kill-zookeeper", lasts_s=(1, 5)),
    Kind(name="kill-zookeeper-leader", lasts_s=(1, 5), on=LEADER),
    Kind(name="power-cut", lasts_s=(2, 25), weight=2),
    Kind(name="power-cut-primary", lasts_s=(14, 25), on=PRIMARY),
    Kind(name="freeze-host", lasts_s=(3, 25), weight=2),
    Kind(name="freeze-pvcd", lasts_s=(3, 25)),
    Kind(name="partition", lasts_s=(4, 25), variants=("minority", "with-bmc", "link-down"), weight=2),
    Kind(name="partition-primary", lasts_s=(4, 25), on=PRIMARY, variants=("minority", "with-bmc")),
    Kind(name="one-way", lasts_s=(4, 25), variants=("from", "to")),
    Kind(name="bridge", lasts_s=(4, 25), on="cluster"),
    Kind(name="all-apart", lasts_s=(4, 15), on="cluster"),
    Kind(name="lost-replies", lasts_s=(3, 15)),
    Kind(name="packet-loss", lasts_s=(5, 20)),
    Kind(name="zookeeper-rolling", lasts_s=(0, 1), on="cluster"),
    Kind(name="zookeeper-majority", lasts_s=(12, 20), on="cluster", alone=True),
    Kind(name="disk-full", lasts_s=(5, 15)),
    Kind(name="clock-step", lasts_s=(5, 15), variants=("ahead", "back")),
    Kind(name="bmc-down", lasts_s=(75, 85), variants=("until-back", "until-confirmed"), alone=True),
    Kind(
        name="migration-cut",
        lasts_s=(2, 15),
        on="cluster",
        variants=(
            "pvcd-source",
            "pvcd-target",
            "qemu-source",
            "qemu-target",
            "power-source",
            "power-target",
            "primary",
            "network",
            "zookeeper",
        ),
        weight=3,
    ),
)
NAMES = tuple(kind.name for kind in KINDS)

_SECOND = 0.2
"""How often a second fault comes while the first is in force."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that is due."""

    kind: str
    variant: str = ""
    host: str = ""
    """A host's name or a role; empty: none in particular."""
    lasts_s: float
    calm_s: float = 3.0
    """After it has been healed and the cluster is well, until the next."""
    second: Planned | None = None
    """What comes in the middle of it."""


def draw(rng: random.Random, hosts: Sequence[str], *, only: Sequence[str] = (), overlaps: bool = True) -> list[Planned]:
    """One round: every kind as often as its weight says, in random order."""
    deck = [kind for kind in KINDS for _ in range(kind.weight) if not only or kind.name in only]
    rng.shuffle(deck)
    planned: list[Planned] = []
    waiting: Planned | None = None
    for kind in deck:
        made = _draw_one(rng, kind, hosts)
        if waiting is not None and not kind.alone:
            planned.append(msgspec.structs.replace(waiting, second=made))
            waiting = None
            continue
        if waiting is not None:
            planned.append(waiting)
            waiting = None
        if overlaps and not kind.alone and rng.random() < _SECOND:
            waiting = made
        else:
            planned.append(made)
    return [*planned, waiting] if waiting is not None else planned


def _draw_one(rng: random.Random, kind: Kind, hosts: Sequence[str]) -> Planned:
    host = rng.choice(list(hosts))
    if kind.on in (PRIMARY, LEADER):
        host = kind.on
    elif kind.on == "cluster":
        host = ""
    return Planned(
        kind=kind.name,
        variant=rng.choice(kind.variants),
        host=host,
        lasts_s=round(rng.uniform(*kind.lasts_s), 1),
        calm_s=round(rng.uniform(1, 6), 1),
    )
