"""How a node's power is cut: the settings of its fence agent, as they stand in the log."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from pvc.events.types import END


class FenceSettings(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A fence agent and its options. No secret stands here: the password is in a file on the coordinators."""

    agent: Annotated[str, Meta(pattern=r"^fence_[a-z0-9_]+" + END, examples=["fence_ipmilan"])]
    options: dict[str, str] = {}
    password_file: str = ""
    timeout_s: int = 60
