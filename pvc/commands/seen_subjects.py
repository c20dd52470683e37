"""Which subjects somebody may be shown, by what their role covers. Pure."""

from __future__ import annotations

from pvc.commands.access_rights import Rights
from pvc.projections.state import ClusterState


def sees_subject(state: ClusterState, rights: Rights, subject: str) -> bool:
    """Whether what is about this may be shown: to who is limited to some VMs, what is about those, as they are now.

    Events about nodes and the cluster may name any VM, and so are not for them; nor is what became of VMs that are
    gone.
    """
    if rights.everything:
        return True
    kind, _, vm_id = subject.partition("/")
    return kind == "vm" and rights.covers(state.vms.get(vm_id))
