"""The keys that vouch for the log, fetched by the command line however many they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pvc.cli.log import fetch_trust
from pvc.cli.session import Session

PAGES: dict[str, dict[str, Any]] = {
    "": {"position": 9, "origin": "log", "keys": [{"id": "a"}, {"id": "b"}], "next": "1", "checkpoint": {"size": 8}},
    "1": {"position": 9, "origin": "log", "keys": [{"id": "c"}], "next": "2", "checkpoint": {"size": 8}},
    "2": {"position": 9, "origin": "log", "keys": [{"id": "d"}], "next": None, "checkpoint": {"size": 8}},
}


def test_keys_of_all_pages_are_told_as_one_list() -> None:
    asked: list[str] = []

    def get(path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        assert path == "/log/keys"
        asked.append((query or {}).get("after", ""))
        page = PAGES[asked[-1]]
        return {**page, "keys": list(page["keys"])}

    trust = fetch_trust(cast("Session", SimpleNamespace(client=SimpleNamespace(get=get))))
    assert [key["id"] for key in trust["keys"]] == ["a", "b", "c", "d"]
    assert trust.keys() == {"position", "origin", "keys", "checkpoint"}, "pages are not the reader's concern"
    assert asked == ["", "1", "2"]
