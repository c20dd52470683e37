"""The server of presence in a simulated cluster: its timers are its own, whoever is served."""

from __future__ import annotations

from pvc.presence.memory_server import PresenceServer, Session
from pvc.sim.cluster_process import in_world


class WorldPresence(PresenceServer):
    """Stands still with nobody."""

    def _watch_over(self, session: Session, wait_s: float) -> None:
        in_world(super()._watch_over, session, wait_s)
