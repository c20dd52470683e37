"""The list of generated files, each with its text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pvc.commands.registry import COMMANDS
from pvc.events.registry import EVENTS, Event, version_of
from pvc.gateway.app import all_endpoints
from pvc.gateway.cards import command_card
from pvc.gateway.openapi import json_schema, openapi_document
from pvc.schemas.access_page import access_page
from pvc.schemas.api_page import api_page
from pvc.schemas.cli_page import cli_page
from pvc.schemas.dashboard import dashboard_file
from pvc.schemas.monitoring_pages import health_page, metrics_page
from pvc.schemas.monitoring_rules import rules_file
from pvc.schemas.states_page import states_page

GENERATED_FOLDERS = ("schemas", "docs/reference")
"""Folders in which every file is generated, so that one of a removed command does not stay behind."""

NOT_GENERATED = "schemas/released"
"""Kept for ever as it was."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def generated_files() -> dict[str, str]:
    """Path from the top of the repository -> the text it must have."""
    files = {
        "pvc/client/commands.json": _json([command_card(spec) for spec in COMMANDS]),
        "schemas/openapi.json": _json(openapi_document(all_endpoints())),
        "docs/reference/api.md": api_page(all_endpoints()),
        "docs/reference/commands.md": cli_page(),
        "docs/vm-states.md": states_page(),
        "docs/access.md": access_page(all_endpoints()),
        "docs/reference/metrics.md": metrics_page(),
        "docs/reference/health.md": health_page(),
        "deploy/monitoring/pvc.rules.yml": rules_file(),
        "deploy/monitoring/grafana-dashboard.json": dashboard_file(),
    }
    for spec in COMMANDS:
        schema = json_schema(spec.struct, hidden=spec.internal)
        files[f"schemas/commands/{spec.name}.json"] = _json({"$schema": _DIALECT, "title": spec.name, **schema})
    for event in EVENTS:
        files[f"schemas/events/{event.TYPE}.json"] = _json(event_schema(event))
    return files


def generated_present(root: Path) -> set[str]:
    """Paths of the files there are that ought to be generated."""
    found = (path for folder in GENERATED_FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)) for path in found if not path.is_relative_to(root / NOT_GENERATED)}


def event_schema(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema of an event's data, with its type and version."""
    about = {"$schema": _DIALECT, "title": event.TYPE, "x-version": version_of(event)}
    return {**about, **json_schema(event)}


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n"
