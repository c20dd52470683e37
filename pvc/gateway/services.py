"""What the gateway is given: the running fold, the way into the log, and the ports it reads from."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pvc.archive.base import Archive
from pvc.clock import Clock, Rng
from pvc.commands.forecast import Foresee
from pvc.drivers.hypervisor import Hypervisor
from pvc.gateway.event_hub import EventHub
from pvc.gateway.glance import Glance
from pvc.gateway.listing import Names, Rows
from pvc.gateway.live import Live
from pvc.gateway.login_parts import LoginParts
from pvc.gateway.places import ConsolePlaces
from pvc.gateway.what_if_turns import WhatIfTurns
from pvc.log.base import Log
from pvc.log.history import HistoryIndex
from pvc.meters import Meters
from pvc.peers.secret import PeerSecret
from pvc.presence.base import Presence
from pvc.runtime.append_watch import AppendWatch
from pvc.runtime.appender import Appender
from pvc.runtime.log_care import LogCare
from pvc.runtime.operations import Operations
from pvc.runtime.past import PastStates
from pvc.runtime.past_files import PastFiles
from pvc.runtime.people import People
from pvc.runtime.snapshots import SnapshotFile
from pvc.runtime.telemetry import Telemetry
from pvc.runtime.world import World
from pvc.webhooks.sender import Sender
from pvc.webhooks.store import WebhookStore

PARCELS = 4
"""Large replies under way at once: each is held in memory, some MB, until its reader has it."""


@dataclass(frozen=True, kw_only=True)
class PeerParts:
    """What other nodes may fetch here."""

    secret: PeerSecret | None = None
    """None: there are no others."""
    archive: Archive | None = None
    snapshots: SnapshotFile | None = None
    incarnation: Callable[[], str] = str
    """Of the log, as known here."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARCELS))


@dataclass(frozen=True, kw_only=True)
class WebhookPorts:
    """What webhooks are administered with."""

    store: WebhookStore
    sender: Sender


@dataclass(frozen=True, kw_only=True)
class GatewayServices:
    """All ports of one gateway. Their background tasks (appender, follower, index) are the daemon's to run."""

    world: World
    appender: Appender
    log: Log
    history: HistoryIndex
    operations: Operations
    hypervisor: Hypervisor | None
    """None on a coordinator that runs no VMs: consoles are then on other nodes."""
    clock: Clock
    rng: Rng
    node: str
    """This node's name."""
    foresee: Foresee
    """What would come of commands and losses."""
    telemetry: Telemetry | None = None
    """What the nodes say of themselves."""
    presence: Presence | None = None
    """Which nodes are there."""
    people: People
    """Seals and opens the names of people."""
    log_care: LogCare | None = None
    """What can be asked and done about the log as a whole."""
    past_files: PastFiles | None = None
    """Where states of the past are kept; without, each is replayed from the beginning."""
    peers: PeerParts = field(default_factory=PeerParts)
    """For the cluster's other nodes."""
    watch: AppendWatch | None = None
    """Where the daemon's work is counted and traced; without, the gateway counts its own alone."""
    places: Mapping[str, Path] = field(default_factory=dict)
    """Where this node keeps its files: `data`, `archive`."""
    webhooks: WebhookPorts | None = None
    """Where cursors and secrets' key are, and the way to receivers."""
    login: LoginParts | None = None
    """How people log in at an issuer; None where none is configured."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set when the daemon is about to end: whoever waits or streams answers with what there is, and goes."""
    glances: dict[str, Glance[Any]] = field(default_factory=dict, init=False)
    """What the metrics have looked at lately."""
    names: Names = field(default_factory=Names, init=False)
    rows: Rows = field(default_factory=Rows, init=False)

    @functools.cached_property
    def meters(self) -> Meters:
        """What is counted."""
        return self.watch.meters if self.watch is not None else Meters()

    @functools.cached_property
    def live(self) -> Live:
        """What is known of the nodes just now."""
        return Live(self.telemetry, self.presence, self.clock)

    @functools.cached_property
    def events(self) -> EventHub:
        """Those who read the log as it grows."""
        return EventHub(self.history, self.people, self.clock, self.stopping)

    @functools.cached_property
    def console_places(self) -> ConsolePlaces:
        """For consoles, and for who follows what a guest writes."""
        return ConsolePlaces()

    @functools.cached_property
    def what_ifs(self) -> WhatIfTurns:
        """For what is played through on a fork of the state."""
        return WhatIfTurns()

    @functools.cached_property
    def past(self) -> PastStates:
        """The states of earlier positions."""
        return PastStates(self.history, self.past_files)
