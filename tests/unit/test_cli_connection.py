"""When `pvc connection add` warns that http is not encrypted."""

from __future__ import annotations

import pytest

from pvc.cli.connection import _is_loopback


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:7370", "http://127.9.9.9:1", "http://localhost:7370", "http://[::1]:7"]
)
def test_what_stays_on_this_machine_needs_no_warning(url: str) -> None:
    assert _is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://127.example.com:7370", "http://localhost.example.com:1", "http://10.0.0.5:7370"]
)
def test_a_name_that_only_begins_like_this_machine_is_another(url: str) -> None:
    assert not _is_loopback(url)
