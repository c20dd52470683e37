"""The names of what events are about: they carry a VM's id, a person knows its name."""

from __future__ import annotations

from collections.abc import Iterable

from pvc.client.api_types import RecordView, Reply
from pvc.client.client import Client
from pvc.client.errors import ApiError

FEW = 20
"""Up to so many unknown VMs are asked for one by one; for more, one list is cheaper."""

SHORT_ID = 8


def subject_names(client: Client, records: Iterable[RecordView | Reply]) -> dict[str, str]:
    """Names by subject (`vm/<id>`, `node/<name>`): from the events themselves, else from the gateway."""
    names: dict[str, str] = {}
    for record in records:
        for event in record["events"]:
            kind, _, ref = event["subject"].partition("/")
            if not ref or kind == "access":
                continue  # its id says nothing to a person; the event has the name
            name = event["data"].get("name") if kind in ("vm", "webhook") else ref
            if name or event["subject"] not in names:
                names[event["subject"]] = name or ""
    unknown = [subject for subject, name in names.items() if not name]
    if len(unknown) > FEW:
        known = {f"vm/{row['id']}": row["name"] for row in client.vms()}
        names |= {subject: known.get(subject, _short(subject)) for subject in unknown}
    else:
        names |= {subject: _ask(client, subject) for subject in unknown}
    return names


def _ask(client: Client, subject: str) -> str:
    kind, _, ref = subject.partition("/")
    try:
        return str(client.get(f"/webhooks/{ref}")["name"]) if kind == "webhook" else client.vm(ref)["name"]
    except ApiError as error:
        if error.status in (403, 404):  # gone, or not covered by the role any more
            return _short(subject)
        raise


def _short(subject: str) -> str:
    if subject.startswith("webhook/"):
        return f"webhook {subject.partition('/')[2][:SHORT_ID]}…"
    return f"VM {subject.partition('/')[2][:SHORT_ID]}…"
