"""The list of generated files, each with its text."""

from __future__ import annotations

from typing import Any

import msgspec

from pvc.commands.registry import COMMANDS
from pvc.gateway.cards import command_card

GENERATED_FOLDERS = ("schemas", "docs/reference")
"""Folders in which every file is generated, so that one of a removed command does not stay behind."""


def generated_files() -> dict[str, str]:
    """Path from the top of the repository -> the text it must have."""
    return {"pvc/client/commands.json": _json([command_card(spec) for spec in COMMANDS])}


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n"
